"""The page in a real browser: its steps play, its texts are filtered, and its console shows no errors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from dlmctl.generation.page.report import report_html
from dlmctl.generation.page.source import Results
from tests.page.test_report import record, steps

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Added before the page's own script: records errors, and acts as its user.
USER = """<script>
const report = {errors: []};
addEventListener("error", (event) => report.errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => report.errors.push(event.violatedDirective));
addEventListener("load", () => {
  const shown = () => [...document.querySelectorAll(".texts > li")].filter((one) => one.getClientRects().length).length;
  const stage = document.querySelector(".stage"), slider = document.querySelector(".play input");
  const fold = document.querySelector("details.d"), bar = document.querySelector(".bar");
  const pale = () => stage.querySelectorAll("u").length;
  report.folded = !fold.open;
  report.finished = stage.textContent.trim();
  slider.value = 0;
  slider.dispatchEvent(new Event("input"));
  report.first = [stage.textContent.trim(), pale(), document.querySelector("output").textContent];
  slider.value = 12;
  slider.dispatchEvent(new Event("input"));
  report.later = [pale(), Number(document.querySelector(".now").getAttribute("x1"))];
  report.all = shown();
  bar.elements.which.value = "failed";
  bar.dispatchEvent(new Event("input"));
  report.failed = shown();
  bar.elements.word.value = "OAK";
  bar.dispatchEvent(new Event("input"));
  report.found = shown();
  bar.elements.word.value = "no such words";
  bar.dispatchEvent(new Event("input"));
  report.none = [shown(), document.querySelector(".none").hidden];
  dispatchEvent(new Event("beforeprint"));
  report.printed = fold.open;
  document.title = JSON.stringify(report);
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no browser on this machine")
@pytest.mark.parametrize("texts", [8, 1000])
def test_the_page_in_a_browser(tmp_path: Path, texts: int):
    rows = [record(at, passed=at % 4 > 0, **({"trace": steps()} if at < 3 else {})) for at in range(texts)]
    page, _ = report_html(Results("run.jsonl", lambda: rows))
    (tmp_path / "page.html").write_text(page.replace("<body", f"{USER}<body", 1), "utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(CHROMIUM), *options, "--virtual-time-budget=2000", "--dump-dom", f"file://{tmp_path / 'page.html'}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", run.stdout, re.DOTALL)
    assert title, run.stderr
    report = json.loads(unescape(title[1]))
    assert report.pop("errors") == []
    assert report == {
        "folded": True,
        "finished": "the tree",
        "first": ["a tree", 2, "step 1 of 20, t = 1.00"],
        "later": [0, 150 * 12 / 20],
        "all": texts,
        "failed": texts // 4,
        "found": texts // 4,  # every fourth text fails and has the word
        "none": [0, False],
        "printed": True,
    }
