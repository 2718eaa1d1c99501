"""Every text on the pages has a contrast of at least 4.5 to 1 to what lies behind it, in the light and dark theme."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dlmctl.cli.playground import server
from dlmctl.control.check import Check, Mark
from dlmctl.generation.page.notebook import samples_html, trace_html
from dlmctl.generation.page.report import report_html
from dlmctl.generation.page.source import Results
from dlmctl.generation.results import Sample
from dlmctl.sampling.trace import Frame
from tests.page.test_report import record, steps

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The colours of Jupyter's pages, where rows of tables alternate.
JUPYTER = """<style>
body { background: #fff; color: rgba(0, 0, 0, .87); } tr:nth-child(odd) { background: #f5f5f5; }
@media (prefers-color-scheme: dark) {
  body { background: #111; color: rgba(255, 255, 255, .87); } tr:nth-child(odd) { background: #212121; }
}
</style>"""
# The texts, values and placeholders with too little contrast, each with its contrast, and the number of all.
MEASURE = """() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, alpha] = pen.getImageData(0, 0, 1, 1).data;
    return [[r, g, b], alpha / 255];
  };
  const over = ([top, alpha], below) => below.map((value, at) => alpha * top[at] + (1 - alpha) * value);
  const ancestors = (element) => (element ? [element, ...ancestors(element.parentElement)] : []);
  const behind = (element) => ancestors(element).reverse().reduce(
    (below, one) => over(rgba(getComputedStyle(one).backgroundColor), below), [255, 255, 255]);
  const light = (colour) => colour.map((value) => value / 255)
    .map((value) => (value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4))
    .reduce((sum, value, at) => sum + value * [.2126, .7152, .0722][at], .05);
  const contrast = (element, style) => {
    const [colour, alpha] = rgba(element instanceof SVGElement ? style.fill : style.color);
    const opacity = ancestors(element).reduce((all, one) => all * getComputedStyle(one).opacity, 1);
    const below = behind(element);
    const [low, high] = [light(over([colour, alpha * opacity], below)), light(below)].sort((a, b) => a - b);
    return high / low;
  };
  const all = [];
  const measure = (element, text, pseudo) => all.push(
    [contrast(element, getComputedStyle(element, pseudo)), element.tagName + "." + element.className, text.trim()]);
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, isText = !["SCRIPT", "STYLE", "OPTION"].includes(element.tagName);
    if (isText && walker.currentNode.data.trim() && !element.disabled) measure(element, walker.currentNode.data);
  }
  document.querySelectorAll("input:not([type=range]), textarea, select").forEach((one) => measure(one, one.value));
  document.querySelectorAll("[placeholder]").forEach((one) => measure(one, one.placeholder, "::placeholder"));
  return {all: all.length, pale: all.filter(([ratio]) => ratio < 4.5)};
}"""


def report() -> str:
    some = [record(0, lm_score=2.5, worst_word="END", worst_nats=7.0), record(1, passed=False, trace=steps())]
    return report_html(Results("some.jsonl", lambda: some))[0]


def notebook() -> str:
    words = "the old tree grows".split()
    marks = (Mark(0, 1, "NP"), Mark(2, 2, "NOUN", False, "VERB"), Mark(None, None, "", False, "PP"))
    checks = {"tree": Check(0.5, False, "no PP", (), marks), "contains": Check(1.0, True, "", (), (Mark(1, 1),))}
    table = samples_html([Sample(at, words, " ".join(words), checks, np.zeros((1, 1))) for at in (0, 1)], "2 texts")
    frames = [Frame(1.0 - at / 2, ("a", "tree"), (at > 0, at > 1), {"tree": 3.0 - at}) for at in range(3)]
    return JUPYTER + table + trace_html(frames, {"tree": [3.0, 2.0, 1.0]})


def playground() -> str:
    """The playground without its server, with a form, a result and a message."""
    here, texts = Path(server.HERE), server.TEXTS_CSS.read_text("utf-8")
    properties = {"words": {"type": "integer", "description": "number of words", "default": 7}}
    control = {"name": "length", "origin": "dlmctl", "summary": "Counts.", "schema": {"properties": properties}}
    offer = {"models": {}, "recipes": {}, "controls": [control], "broken": [], "default": "everyday"}
    words = "the old tree grows".split()
    html = '<span class="w h"><i>tree</i></span><span class=w>tree<i>NOUN</i><i class="x">no NP</i></span>'
    trace = {"words": [words, words], "settled": [[False] * 4, [False] * 4], "energies": {"length": [3.0, 1.0]}}
    checks = {"length": {"passed": True, "score": 1, "why": "4"}, "tree": {"passed": False, "score": 0, "why": "no NP"}}
    sample = {"index": 0, "html": html, "words": words, "checks": checks, "acceptability": 0.5, "trace": trace}
    result = {"samples": [sample], "seconds": 1.0, "success": 0.0}
    act = f"offer = {json.dumps(offer)}; addControl('length', {{}}); show({json.dumps(result)});"
    script = f'<script>window.fetch = () => Promise.reject("no server"); {(here / "page.js").read_text("utf-8")}\n{act}'
    style = f"<style>{texts}{(here / 'page.css').read_text('utf-8')}</style>"
    page = (here / "page.html").read_text("utf-8").replace('<script src="page.js" defer></script>', style)
    return page.replace("</body>", f"{script}</script></body>")


@pytest.mark.skipif(CHROMIUM is None, reason="no browser on this machine")
def test_every_text_stands_out_in_both_themes():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            for page in (report, notebook, playground):
                tab = browser.new_page(color_scheme=theme)
                tab.set_content(page())
                found = tab.evaluate(MEASURE)
                tab.close()
                assert found["pale"] == [], (page.__name__, theme)
                assert found["all"] > 20
