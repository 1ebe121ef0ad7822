"""Every page can be read by everybody: contrast in light and dark, names of fields and tables, order of headings."""

from __future__ import annotations

import pytest

from stock_pipeline_tests.browser.test_console_market import PAGES
from stock_pipeline_tests.browser.visits import Visits

pytestmark = [pytest.mark.slow, pytest.mark.requirement("A1", "A4", "A6")]

FAINT = """() => {
  const paper = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const layers = (colours) => {  // the uppermost first
    paper.clearRect(0, 0, 1, 1);
    for (const colour of colours.reverse()) { paper.fillStyle = colour; paper.fillRect(0, 0, 1, 1); }
    return [...paper.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (colour) => {
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const shown = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!shown || !texts.currentNode.data.trim()) continue;
    if (element.closest(".unseen, .skip, script, option, [disabled]")) continue;
    const style = getComputedStyle(element), grounds = [];
    for (let part = element; part; part = part.parentElement) grounds.push(getComputedStyle(part).backgroundColor);
    const [a, b] = [light(layers([style.color, ...grounds])), light(layers(grounds))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const words = texts.currentNode.data.trim().slice(0, 40);
    if (ratio < (large ? 3 : 4.5)) found.add(`${words}: ${ratio.toFixed(2)}`);
  }
  return [...found];
}"""
"""Texts whose contrast with what lies under them is below that of WCAG 2.2, level AA."""

DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Waits until the page is drawn in the colours of a scheme that was just chosen."""

FAULTS = """() => {
  const found = [];
  const say = (what, element) => found.push(`${what}: ${element.outerHTML.slice(0, 100)}`);
  const words = (element) => (element.getAttribute("aria-label") || element.textContent || element.title || "").trim();
  if (!document.documentElement.lang) found.push("no language");
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  let level = 1;
  for (const heading of document.querySelectorAll("main :is(h1, h2, h3, h4)")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) say("a level of headings is left out", heading);
    level = next;
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of ids.filter((id, place) => ids.indexOf(id) !== place)) found.push(`the id ${id} is given twice`);
  for (const name of ["aria-labelledby", "aria-describedby", "aria-controls"]) {
    for (const named of document.querySelectorAll(`[${name}]`)) {
      for (const id of named.getAttribute(name).split(" ")) {
        if (!document.getElementById(id)) say(`nothing is called ${id}`, named);
      }
    }
  }
  for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!field.labels.length && !field.hidden) say("no label", field);
  }
  for (const table of document.querySelectorAll("table:not(.u-legend)")) {
    if (!table.caption?.textContent.trim()) say("no caption", table);
    for (const head of table.querySelectorAll("th")) if (!head.scope) say("no scope", head);
  }
  for (const one of document.querySelectorAll("a[href], button, summary")) if (!words(one)) say("no words", one);
  for (const picture of document.querySelectorAll("img:not([alt])")) say("no words", picture);
  const places = [...document.querySelectorAll("section, nav, [role=region]")].map((part) => {
    const by = document.getElementById(part.getAttribute("aria-labelledby"));
    return part.getAttribute("aria-label") ?? by?.textContent.trim();
  }).filter(Boolean);
  const twice = places.filter((name, place) => places.indexOf(name) !== place);
  for (const name of twice) found.push(`two parts are called ${name}`);
  return found;
}"""
"""What somebody who does not see the page, or has no mouse, would miss."""


def test_every_page_can_be_read_by_everybody(visits: Visits) -> None:
    page = visits.page("ada", None)
    titles: dict[str, str] = {}
    for path in PAGES:
        page.goto(visits.address + path.lstrip("/"))
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            page.evaluate(DRAWN)
            assert page.evaluate(FAINT) == [], (path, scheme)
        assert page.evaluate(FAULTS) == [], path
        titles.setdefault(page.title(), path)
        assert titles[page.title()].partition("?")[0] == path.partition("?")[0], "titles tell pages apart"


def test_what_has_the_focus_can_be_seen_and_nothing_moves_for_those_who_want_that(visits: Visits) -> None:
    page = visits.page("ada", "/tasks")
    page.emulate_media(reduced_motion="reduce")
    unseen = page.evaluate(
        """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
          .filter((one) => one.checkVisibility()).filter((one) => {
            one.focus({ focusVisible: true });
            const { outlineStyle, outlineWidth } = getComputedStyle(one);
            return document.activeElement === one && (outlineStyle === "none" || parseFloat(outlineWidth) < 2);
          }).map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert unseen == []
    moving = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((one) => {
            const style = getComputedStyle(one);
            return [style.transitionDuration, style.animationDuration].some((time) => parseFloat(time) > 0.01);
          }).length"""
    )
    assert moving == 0
