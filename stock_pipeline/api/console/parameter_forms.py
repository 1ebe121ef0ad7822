"""Forms for parameters, made from their JSON schema: a field for each with limits and description, and the way back.

Fields carry the prefix ``p-``, so that no parameter can take the name of another field of the form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from stock_pipeline.api.console.formatting import title

PREFIX = "p-"


@dataclass(frozen=True)
class Input:
    """One field, as the template draws it.

    Attributes
    ----------
    name, label
        Of the field; the label is what people read.
    kind
        ``number``, ``text``, ``choice`` or ``check``.
    value
        What it holds.
    hint, fault
        What stands below it: what it means, and why it was not accepted.
    options
        Of a choice.
    minimum, maximum, step
        Of a number.
    required
        Whether it must not be empty.
    whole
        Whether only whole numbers are taken.
    structure
        Whether it is written as JSON.
    """

    name: str
    label: str
    kind: str
    value: Any
    hint: str = ""
    fault: str = ""
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: str = ""
    required: bool = False
    whole: bool = False
    structure: bool = False
    placeholder: str = field(default="")


def inputs(schema: Mapping[str, Any], values: Mapping[str, Any]) -> list[Input]:
    """Fields of a schema.

    Parameters
    ----------
    schema
        JSON schema of an object, as pydantic writes it.
    values
        What the fields hold where it is not the default.
    """
    definitions = schema.get("$defs", {})
    return [
        _input(name, _resolved(part, definitions), values.get(name, part.get("default")))
        for name, part in schema.get("properties", {}).items()
    ]


def read(fields: list[Input], form: Mapping[str, Any]) -> tuple[dict[str, Any], list[Input]]:
    """Read what was typed.

    Parameters
    ----------
    fields
        From `inputs`.
    form
        The form's fields by name.

    Returns
    -------
    values : dict
        By parameter; what was left empty is left out.
    fields : list of Input
        The same fields, with what was typed and what is wrong with it.
    """
    values: dict[str, Any] = {}
    after = []
    for one in fields:
        raw = form.get(one.name)
        typed = raw.strip() if isinstance(raw, str) else ""
        if one.kind == "check":
            values[one.name.removeprefix(PREFIX)] = typed == "true"
            after.append(replace(one, value=typed == "true"))
            continue
        fault = ""
        if not typed:
            fault = "a value is needed" if one.required else ""
        else:
            try:
                values[one.name.removeprefix(PREFIX)] = _value(one, typed)
            except ValueError:
                fault = "a whole number" if one.whole else "JSON" if one.structure else "a number"
        after.append(replace(one, value=typed, fault=fault))
    return values, after


def _value(one: Input, typed: str) -> Any:
    if one.structure:
        return orjson.loads(typed)
    if one.kind == "number":
        number = float(typed.replace(",", "."))
        if one.whole:
            if number != int(number):
                raise ValueError("not whole")
            return int(number)
        return number
    return typed


def _resolved(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A part with its references followed and ``null`` taken out of its alternatives."""
    found = dict(part)
    if "$ref" in found:
        found = {**definitions.get(str(found.pop("$ref")).rsplit("/", 1)[-1], {}), **found}
    alternatives = [dict(one) for one in found.pop("anyOf", [])]
    kinds = [one for one in alternatives if one.get("type") != "null"]
    if len(kinds) == 1:
        found = {**_resolved(kinds[0], definitions), **found, "optional": len(kinds) < len(alternatives)}
    return found


def _input(name: str, part: Mapping[str, Any], value: Any) -> Input:
    kind, hint = part.get("type"), [part.get("description", "")]
    shared: dict[str, Any] = {"name": PREFIX + name, "label": title(name)}
    if kind == "boolean":
        return Input(**shared, kind="check", value=bool(value), hint=hint[0])
    options = part.get("enum") or ([part["const"]] if "const" in part else None)
    if options and all(isinstance(option, str) for option in options):
        return Input(**shared, kind="choice", value=value, hint=hint[0], options=tuple(options))
    optional = bool(part.get("optional"))
    if kind in ("integer", "number"):
        hint.append(_limits(part))
        return Input(
            **shared,
            kind="number",
            value=_typed(value),
            hint=" ".join(word for word in hint if word),
            minimum=part.get("minimum", part.get("exclusiveMinimum")),
            maximum=part.get("maximum", part.get("exclusiveMaximum")),
            step="1" if kind == "integer" else "any",
            required=not optional,
            whole=kind == "integer",
            placeholder="default" if optional else "",
        )
    structure = kind != "string"
    shown = ("" if value is None else orjson.dumps(value).decode()) if structure else _typed(value)
    if structure:
        hint.append("Written as JSON.")
    return Input(**shared, kind="text", value=shown, hint=" ".join(word for word in hint if word), structure=structure)


def _typed(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _limits(part: Mapping[str, Any]) -> str:
    low = part.get("minimum")
    above = part.get("exclusiveMinimum")
    high = part.get("maximum")
    below = part.get("exclusiveMaximum")
    said = []
    if low is not None:
        said.append(f"at least {low:g}")
    if above is not None:
        said.append(f"above {above:g}")
    if high is not None:
        said.append(f"at most {high:g}")
    if below is not None:
        said.append(f"below {below:g}")
    return f"({', '.join(said)})" if said else ""
