"""Make the pages of Great Expectations usable without a network.

Its templates ask content delivery networks for Bootstrap, jQuery, icons and charts, and its front page is filled by
those scripts alone. Here every such request is taken out, one local style is put in, and the front page is written
anew as a plain list of links. What does not belong here: expectations (``data_docs``).
"""

from __future__ import annotations

import re
from html import escape
from importlib.resources import files
from pathlib import Path

_REMOTE = (
    re.compile(r"<link\b[^>]*\bhref\s*=\s*[\"']https?://[^>]*>", re.IGNORECASE),
    re.compile(r"<script\b[^>]*\bsrc\s*=\s*[\"']https?://[^>]*>\s*</script>", re.IGNORECASE),
    re.compile(r"<img\b[^>]*\bsrc\s*=\s*[\"']https?://[^>]*>", re.IGNORECASE),
)
_REMOTE_STYLE = re.compile(r"url\(\s*[\"']?https?://[^)]*\)", re.IGNORECASE)
_NEWSLETTER = re.compile(r"<p>[^<]*newsletter.*?</p>", re.IGNORECASE | re.DOTALL)
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'\">"
)
"""Values of the data may stand on the pages: no script runs on them, and nothing is fetched."""
_SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>", re.IGNORECASE | re.DOTALL)


def make_offline(site: Path, *, title: str, success: bool) -> None:
    """Rewrite all pages of a site in place.

    Parameters
    ----------
    site
        Folder of the site.
    title
        Heading of the front page.
    success
        Whether the newest validation passed, shown on the front page.
    """
    style = files("stock_pipeline.storage").joinpath("data_docs.css").read_text("utf-8")
    for page in sorted(site.rglob("*.html")):
        text = page.read_text("utf-8")
        for pattern in (*_REMOTE, _SCRIPT, _NEWSLETTER):
            text = pattern.sub("", text)
        text = _REMOTE_STYLE.sub("none", text)
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = text.replace("<head>", f"<head>{_POLICY}", 1).replace("</head>", f"<style>{style}</style></head>", 1)
        back = f'<p class="container"><a href="{up}index.html">{escape(title)}</a></p>'
        page.write_text(_after_body(text, back), "utf-8")
    (site / "index.html").write_text(_front_page(site, title, success, style), "utf-8")


def _after_body(text: str, block: str) -> str:
    return re.sub(r"<body\b[^>]*>", lambda body: body.group() + block, text, count=1)


def _front_page(site: Path, title: str, success: bool, style: str) -> str:
    pages = [page.relative_to(site) for page in sorted(site.rglob("*.html")) if page.name != "index.html"]
    results = [page for page in pages if page.parts[0] == "validations"]
    suites = [page for page in pages if page.parts[0] == "expectations"]
    verdict = "passed" if success else "failed"
    colour = "text-success" if success else "text-danger"

    def links(pages: list[Path], words: str) -> str:
        items = (
            f'<li><a href="{escape(page.as_posix())}">{escape(words)} ({escape(page.stem)})</a></li>' for page in pages
        )
        return f"<ul>{''.join(items)}</ul>"

    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{_POLICY}<title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f'<style>{style}</style></head><body><div class="container"><h1>{escape(title)}</h1>'
        f'<div class="ge-section"><h5>Newest validation: <span class="{colour}">{verdict}</span></h5>'
        f"{links(results, 'What was checked, and the result')}</div>"
        f'<div class="ge-section"><h5>Expectations</h5>{links(suites, "All expectations of the table")}</div>'
        "</div></body></html>"
    )
