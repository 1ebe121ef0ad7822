"""A self-contained HTML page of tiles, tables and Plotly figures, for reports that work offline.

Every text is escaped here. What a report says is in the report's own module; how figures look is in ``_figures``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from html import escape
from typing import Any

_CSS = """
:root{--ink:#1b2330;--soft:#5b6675;--line:#e3e7ee;--ground:#f6f7fa;--paper:#fff;--accent:#2456d6}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.55 "Inter","Segoe UI",system-ui,sans-serif}
header{background:var(--paper);border-bottom:1px solid var(--line);padding:2.2rem 1.5rem 1.6rem}
header>div,main{max-width:1120px;margin:0 auto}
main{padding:1.5rem}
h1{font-size:1.75rem;line-height:1.2;letter-spacing:-.02em;margin:0}
h2{font-size:1.15rem;letter-spacing:-.01em;margin:0 0 .2rem}
.lead{color:var(--soft);margin:.35rem 0 0;max-width:46rem}
section{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:1.2rem 1.4rem;margin:0 0 1.2rem}
section>p{color:var(--soft);margin:.1rem 0 .9rem;max-width:52rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:.8rem;margin:0 0 1.2rem}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:.85rem 1rem}
.tile b{display:block;font-size:1.45rem;line-height:1.25;font-variant-numeric:tabular-nums;letter-spacing:-.02em}
.tile span{color:var(--soft);font-size:.82rem}
.scroll{overflow:auto;max-height:34rem}
table{border-collapse:collapse;width:100%;font-size:.87rem;font-variant-numeric:tabular-nums}
th{position:sticky;top:0;background:var(--paper);text-align:left;font-weight:600;color:var(--soft);white-space:nowrap}
th,td{padding:.42rem .7rem;border-bottom:1px solid var(--line);vertical-align:top}
td:first-child{white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}
tbody tr:hover{background:#f3f6fd}
footer{color:var(--soft);font-size:.8rem;padding:0 1.5rem 2rem;max-width:1120px;margin:0 auto}
@media print{body{background:#fff}.scroll{max-height:none}section{break-inside:avoid}}
"""


@dataclass
class Page:
    """A page under construction; each method appends a block.

    Parameters
    ----------
    title, lead
        Heading, and the sentence below it.
    """

    title: str
    lead: str = ""
    parts: list[str] = field(default_factory=list)
    _figures: int = 0

    def tiles(self, values: Iterable[tuple[str, str]]) -> None:
        """Append a row of (caption, value) tiles."""
        made = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(c)}</span></div>' for c, v in values)
        self.parts.append(f'<div class="tiles">{made}</div>')

    def section(self, heading: str, text: str, *blocks: str) -> None:
        """Append a section: heading, an explaining sentence, and blocks made by `table` and `figure`."""
        paragraph = f"<p>{escape(text)}</p>" if text else ""
        self.parts.append(f"<section><h2>{escape(heading)}</h2>{paragraph}{''.join(blocks)}</section>")

    def figure(self, figure: Any) -> str:
        """Turn a Plotly figure into a block; the script itself is put into the page once."""
        self._figures += 1
        return str(
            figure.to_html(
                full_html=False,
                include_plotlyjs=False,
                div_id=f"figure-{self._figures}",
                default_height=f"{figure.layout.height or 340}px",
                config={"displaylogo": False, "responsive": True},
            )
        )

    def html(self) -> str:
        """Return the whole page; with figures, about 5 MB of Plotly's script are inside."""
        script = ""
        if self._figures:
            from plotly.offline import get_plotlyjs

            script = f"<script>{get_plotlyjs()}</script>"
        lead = f'<p class="lead">{escape(self.lead)}</p>' if self.lead else ""
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
            f"<style>{_CSS}</style>{script}</head><body><header><div><h1>{escape(self.title)}</h1>{lead}</div></header>"
            f"<main>{''.join(self.parts)}</main></body></html>"
        )


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Set a table; numbers stand to the right, ``None`` is shown as a dash.

    Parameters
    ----------
    header
        Titles of the columns.
    rows
        Cells as Python values; `text_of` sets them.
    """
    body = list(rows)
    if not body:
        return "<p>None.</p>"
    numeric = [any(isinstance(row[i], int | float) for row in body) for i in range(len(header))]
    classes = [' class="n"' if n else "" for n in numeric]
    head = "".join(f"<th{c}>{escape(h)}</th>" for h, c in zip(header, classes, strict=True))
    lines = (
        "<tr>" + "".join(f"<td{c}>{escape(text_of(v))}</td>" for v, c in zip(row, classes, strict=True)) + "</tr>"
        for row in body
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def text_of(value: Any) -> str:
    """Write a value for people: thousands separated, six significant digits, dates in ISO form."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}" if math.isfinite(value) and abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    return value.isoformat() if isinstance(value, date) else str(value)
