"""The playground: started as by a user, tested over HTTP, and in a real browser if one is installed."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from dlmctl.cli import app
from dlmctl.cli.playground import forms
from dlmctl.cli.playground.runs import least_likely
from dlmctl.generation.results import Sample
from dlmctl.metrics.fluency import Fluency

REPO = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# A control of somebody else, which the page has never heard of.
MODULE = '''
from pydantic import Field
from dlmctl import Check, Control, ControlParams

class Params(ControlParams):
    letters: int = Field(ge=1, description="most letters of a word", examples=[9])
    tone: str | None = Field(None, description="no matter")

class ShortWords(Control[Params]):
    """Every word is short."""
    name = "short_words"
    Params = Params

    def check(self, params, words):
        long = [at for at, word in enumerate(words) if len(word) > params.letters]
        return Check(1 - len(long) / max(1, len(words)), not long, f"{len(long)} long words", tuple(long))
'''


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of `dlmctl play`, with a third-party control installed."""
    folder = tmp_path_factory.mktemp("third")
    (folder / "short_words.py").write_text(MODULE)
    info = folder / "short_words-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: short-words\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dlmctl.controls]\nshort_words = short_words:ShortWords\n")
    paths = os.pathsep.join([str(REPO), str(folder)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    code = "from dlmctl.cli import main; main()"
    command = [sys.executable, "-u", "-c", code, "play", "--port", "0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        line = server.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert url, line
        yield url[0]
        server.terminate()
        assert server.wait(30) is not None


def ask(address, path, form=None, headers=None):
    """The status and the text of a response; a form is sent as JSON."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    sent = {"Content-Type": "application/json", **(headers or {})}
    body = json.dumps(form) if isinstance(form, dict) else form
    connection.request("GET" if form is None else "POST", path, body, sent)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def tiny(model_folder, **changes):
    return {"model": str(model_folder), "samples": 2, "seed": 3, "steps": 3, **changes}


def test_the_page_offers_what_is_installed(address):
    status, page = ask(address, "/")
    assert status == 200
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)  # nothing from elsewhere
    offer = json.loads(ask(address, "/api/offer")[1])
    controls = {one["name"]: one for one in offer["controls"]}
    assert {"pos", "length", "short_words"} <= controls.keys()
    assert controls["short_words"]["origin"] == "short-words 1.0"
    assert controls["short_words"]["schema"]["properties"]["letters"]["minimum"] == 1
    assert offer["recipes"]["contains"]["controls"][0] == {"contains": {"words": ["garden"]}}
    assert "matched" not in offer["recipes"]
    assert {"everyday", "e2e"} <= offer["models"].keys()


def test_a_form_is_written_as_a_recipe_and_as_python(address, model_folder):
    length = {"name": "length", "params": {"words": 8}, "weight": 0.5}
    avoid = {"entry": "contains: {words: [cat]}", "unwanted": True}
    semantic = {"name": "semantic", "written": {"": "food: Italian"}}
    form = tiny(model_folder, controls=[length, avoid, semantic], rest="sampler: {temperature: 0.5}")
    status, text = ask(address, "/api/recipe", form)
    assert status == 200, text
    written = json.loads(text)
    assert yaml.safe_load(written["yaml"]) == {
        "model": str(model_folder),
        "samples": 2,
        "seed": 3,
        "sampler": {"temperature": 0.5, "steps": 3},
        "controls": [
            {"length": {"words": 8}, "weight": 0.5},
            {"not": {"contains": {"words": ["cat"]}}},
            {"semantic": {"food": "Italian"}},
        ],
    }
    assert "(0.5 * Length(words=8)) & ~Contains(words=['cat']) & Semantic(food='Italian')" in written["python"]


def test_what_is_installed_is_looked_up_once(monkeypatch):
    first = forms.page_data()

    def again(*_):
        raise AssertionError("this takes seconds")

    monkeypatch.setattr(forms, "installed", again)
    monkeypatch.setattr(forms, "load_recipe", again)
    assert forms.page_data() == first


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"controls": [{"name": "pos", "params": {"tags": ["NUON"]}}]}, "Did you mean 'NOUN'?"),
        ({"controls": [{"name": "length", "written": {"words": "[1"}}]}, "control 1, words:1: not valid YAML"),
        ({"controls": [{"name": "contains"}]}, "controls.0.contains.words: is required."),
        ({"samples": 10_000}, "samples: Input should be less than or equal to 200"),
        ({"rest": "seed: 1"}, "`seed` has its own field"),
        ({"other": 1}, "other: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_with_a_form_comes_back_as_a_message(address, model_folder, changes, expected):
    for path in ("/api/recipe", "/api/run"):
        status, text = ask(address, path, tiny(model_folder, **changes))
        if path == "/api/recipe" or status == 400:
            assert status == 400
            assert expected in json.loads(text)["error"]
        else:
            assert expected in json.loads(text.splitlines()[-1])["error"]


def test_a_run_is_told_step_by_step_with_checks_and_traces(address, model_folder):
    form = tiny(model_folder, controls=[{"name": "short_words", "params": {"letters": 1}}])
    status, text = ask(address, "/api/run", form)
    assert status == 200
    *steps, last = map(json.loads, text.splitlines())
    assert steps[-1]["progress"] == [3, 3]
    samples = last["result"]["samples"]
    assert len(samples) == 2
    for sample in samples:
        check = sample["checks"]["short_words"]
        assert check["why"].endswith("long words")
        assert check["where"] == [at for at, word in enumerate(sample["words"]) if len(word) > 1]
        assert sample["trace"]["words"][-1] == sample["words"]
        assert sample["html"].count('<b class="x"') == len(check["where"])


@pytest.mark.parametrize(("word", "expected"), [("tea", "“tea”"), ("END", "the end")])
def test_the_least_likely_word_is_said_as_in_a_report(word, expected):
    sample = Sample(0, ["tea"], "Tea", {}, np.zeros((1, 1)), fluency=Fluency(2.0, word, 7.0))
    assert least_likely(sample) == expected
    assert least_likely(replace(sample, fluency=None)) is None


def test_an_error_while_drawing_is_the_last_line(address, model_folder):
    unknown = {"name": "contains", "params": {"words": ["zebra"]}}
    _, text = ask(address, "/api/run", tiny(model_folder, controls=[unknown]))
    assert "zebra" in json.loads(text.splitlines()[-1])["error"]


def started(address, form):
    """The response to a form that starts a run, and the name of the run."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("POST", "/api/run", json.dumps(form), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer, answer.headers["Run"]


def test_a_run_is_stopped_when_its_own_page_says_so(address, model_folder):
    form = tiny(model_folder, samples=50, rest="sampler: {patience: 1}", steps=2000)
    first, name = started(address, form)
    assert "progress" in json.loads(first.readline())
    second, waiting = started(address, form)
    assert ask(address, "/api/stop", {"run": "another"})[0] == 200
    assert ask(address, "/api/stop", {"run": waiting})[0] == 200
    assert json.loads(second.read()) == {"error": "stopped."}  # before its turn came
    assert "progress" in json.loads(first.readline())
    assert ask(address, "/api/stop", {"run": name})[0] == 200
    *steps, last = map(json.loads, first.read().decode().splitlines())
    assert last == {"error": "stopped."}
    assert all(step["progress"][0] < 2000 for step in steps)


def test_pages_elsewhere_cannot_use_it(address, model_folder):
    form = tiny(model_folder)
    assert ask(address, "/api/offer", headers={"Host": "evil.example"})[0] == 400
    assert ask(address, "/api/run", form, {"Content-Type": "text/plain"})[0] == 415
    assert ask(address, "/api/stop", {"run": ""}, {"Content-Type": "text/plain"})[0] == 415
    assert ask(address, "/api/run", {**form, "rest": "x" * 1_000_001})[0] == 413
    endless = iter([json.dumps(form)[:-1].encode(), *[b" " * 100_000] * 11])
    assert ask(address, "/api/run", endless)[0] == 413  # in chunks, without a length


def test_a_port_that_is_taken_is_said(address):
    port = urlsplit(address).port
    run = CliRunner().invoke(app, ["play", "--no-open", "--port", str(port)])
    assert run.exit_code == 2
    assert f"127.0.0.1:{port}: cannot listen on this address" in run.output


@pytest.fixture(scope="module")
def browser():
    """A headless browser, if the machine has one."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser):
    """An empty browser page; errors in its scripts fail the test."""
    page, faults = browser.new_page(), []
    page.on("pageerror", lambda fault: faults.append(fault))
    yield page
    page.close()
    assert not faults


def expect(locator):
    from playwright.sync_api import expect as wait_for

    return wait_for(locator)


def opened(page, address):
    """The page, fully loaded."""
    page.goto(address)
    expect(page.locator("#run")).to_be_enabled(timeout=60_000)


def test_from_form_to_text_in_a_browser(address, model_folder, page):
    opened(page, address)
    page.wait_for_selector("#add option[value=short_words]", state="attached")
    page.fill("#model", str(model_folder))
    page.fill("#samples", "2")
    page.fill("#steps", "3")
    page.select_option("#add", "short_words")
    page.select_option("#add", "length")
    page.fill("[data-name=short_words] [name=letters]", "1")
    page.fill("[data-name=length] [name=words]", "0")
    page.click("#run")
    expect(page.locator("#error")).to_contain_text("greater than or equal to 1")
    page.fill("[data-name=length] [name=words]", "7")
    page.click("#run")
    page.wait_for_selector(".text", timeout=60_000)
    assert page.locator(".text").count() == 2
    assert page.locator("#error").is_hidden()
    assert page.locator(".text .t b.x").count() > 0  # the words at fault
    assert "length 100% · 7 words" in page.locator(".text .checks").first.inner_text()
    page.locator(".steps summary").first.click()
    at_the_end = page.locator(".steps .words").first.inner_text()
    assert len(at_the_end.split()) == 7
    page.locator(".steps input").first.press("Home")
    assert "step 0 of" in page.locator(".steps .bar").first.inner_text()
    expect(page.locator("#written")).to_contain_text("short_words:")
    page.click("[data-kind=python]")
    assert "from short_words import ShortWords" in page.locator("#written").inner_text()
    assert [one.inner_text() for one in page.locator(".text .number").all()] == ["0", "1"]  # as in a report


def test_the_page_stops_its_run(address, model_folder, page):
    opened(page, address)
    page.fill("#model", str(model_folder))
    page.fill("#samples", "50")
    page.fill("#steps", "2000")
    page.click("#run")
    expect(page.locator("#progress[value]")).to_be_visible(timeout=60_000)
    with page.expect_request("**/api/stop") as asked:
        page.click("#stop")
    assert re.fullmatch("[0-9a-f]{16}", asked.value.post_data_json["run"])
    assert asked.value.response().status == 200
    expect(page.locator("#error")).to_contain_text("stopped.")
    expect(page.locator("#run")).to_be_enabled()


def test_why_nothing_was_drawn_stays_on_the_page(address, page):
    opened(page, address)
    page.fill("#model", "nosuch")
    page.press("#model", "Enter")
    expect(page.locator("#run")).to_be_enabled()
    expect(page.locator("#written")).to_contain_text("nosuch")  # which is written behind the end of the run
    expect(page.locator("#error")).to_contain_text("there is no such model")


def test_an_empty_recipe_empties_the_settings_too(address, page):
    opened(page, address)
    page.select_option("#start", "e2e-unconditional")
    expect(page.locator("#written")).to_contain_text("rank_by: [worst_word]")
    page.fill("#steps", "9")
    page.select_option("#start", "")
    expect(page.locator("#written")).to_have_text("model: everyday\nsamples: 8\nseed: 0\n")
    assert page.locator("#about").is_hidden()


def test_what_is_typed_before_the_page_is_ready_stays(address, model_folder, page):
    waiting = []
    page.route("**/api/offer", lambda route: waiting.append(route))
    page.goto(address)
    page.fill("#model", str(model_folder))
    page.press("#model", "Enter")
    assert page.locator("#run").is_disabled()
    page.wait_for_timeout(100)  # in which the browser would have sent the form
    assert page.url == address
    assert len(waiting) == 1
    waiting[0].continue_()
    expect(page.locator("#run")).to_be_enabled(timeout=60_000)
    assert page.input_value("#model") == str(model_folder)
    expect(page.locator("#written")).to_contain_text(str(model_folder))


def test_what_a_scorer_says_stands_under_each_text(address, page):
    checks = {"length": {"score": 1.0, "passed": True, "why": "2 words", "where": []}}
    sample = {"text": "A b", "html": "A b", "words": ["a", "b"], "passed": True, "checks": checks, "rounds": 1}
    scored = {"lm_score": 2.5, "worst_word": "b", "worst_nats": 7.25, "least_likely": "“b”", "acceptability": 0.5}
    unscored = {**sample, "index": 1, "least_likely": None, "problem": None}
    rows = [{**sample, **scored, "index": 0, "problem": None}, unscored]
    line = json.dumps({"result": {"samples": rows, "seconds": 1.0, "success": 1.0}})
    page.route("**/api/run", lambda route: route.fulfill(body=line + "\n", content_type="application/x-ndjson"))
    opened(page, address)
    page.click("#run")
    under = page.locator(".text .checks")
    expect(under.nth(0)).to_contain_text("lm-score 2.50")
    figures = [figure.inner_text() for figure in under.nth(0).locator(".plain").all()]
    assert figures == ["lm-score 2.50", "least likely “b” 7.3", "acceptability 0.50"]
    assert under.nth(1).locator(".plain").count() == 0
    assert page.locator(".totals").inner_text().endswith("satisfy every control, lm-score 2.50, acceptability 0.50")
