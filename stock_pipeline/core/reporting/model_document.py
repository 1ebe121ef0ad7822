"""A short document of headings, paragraphs, lists, tables and figures, rendered as Markdown and as HTML.

What a model card says is in ``reporting.model_card``; this module only sets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

_CSS = """
:root{color-scheme:light dark}body{font:15px/1.55 system-ui,sans-serif;max-width:860px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #9ca3af66}
table{border-collapse:collapse;margin:.8rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;border-bottom:1px solid #9ca3af44;text-align:right}
th:first-child,td:first-child{text-align:left}.scroll{overflow-x:auto}svg{max-width:100%;height:auto}
"""


@dataclass
class Document:
    """A document under construction; each method appends a block."""

    title: str
    markdown_parts: list[str] = field(default_factory=list)
    html_parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Append a section heading."""
        self.markdown_parts.append(f"## {text}")
        self.html_parts.append(f"<h2>{escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Append a paragraph."""
        self.markdown_parts.append(text)
        self.html_parts.append(f"<p>{escape(text)}</p>")

    def items(self, texts: Sequence[str]) -> None:
        """Append a list."""
        self.markdown_parts.append("\n".join(f"- {t}" for t in texts))
        self.html_parts.append("<ul>" + "".join(f"<li>{escape(t)}</li>" for t in texts) + "</ul>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Append a table of ready-made texts."""
        cells = [[c.replace("|", "\\|") for c in row] for row in (header, *rows)]
        rule = [":--"] + ["--:"] * (len(header) - 1)
        self.markdown_parts.append("\n".join("| " + " | ".join(r) + " |" for r in [cells[0], rule, *cells[1:]]))
        head = "".join(f"<th>{escape(c)}</th>" for c in header)
        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        self.html_parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def figure(self, name: str, title: str, svg: str) -> None:
        """Append a figure: a reference to ``name.svg`` in Markdown, inline in HTML."""
        self.markdown_parts.append(f"![{title}]({name}.svg)")
        self.html_parts.append(f"<figure>{svg}</figure>")

    def markdown(self) -> str:
        """Return the whole document as Markdown."""
        return f"# {self.title}\n\n" + "\n\n".join(self.markdown_parts) + "\n"

    def html(self) -> str:
        """Return the whole document as one self-contained HTML page."""
        title = escape(self.title)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_CSS}</style></head>'
            f"<body><h1>{title}</h1>{''.join(self.html_parts)}</body></html>"
        )
