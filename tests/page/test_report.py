"""The page of results: its contents, its sources, and what is refused."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dlmctl.control.check import Check, Mark
from dlmctl.errors import UserError
from dlmctl.generation.page.figures import Distribution, curve
from dlmctl.generation.page.report import MAX_TEXTS, check_page, report, report_html, write_report
from dlmctl.generation.page.source import Results, read_results
from dlmctl.generation.results import Sample
from dlmctl.generation.shards import open_run
from dlmctl.generation.trace import Trace
from dlmctl.recipe.recipe import Recipe
from dlmctl.sampling.trace import Frame

NAMES = ["oak", "elm", "ash", "fir"]


def record(index: int, *, passed: bool = True, **more: object) -> dict[str, object]:
    words = f"the {NAMES[index % 4]} tree grows slowly near the old stone wall .".split()
    marks = tuple(Mark(at, at, "NOUN", passed or at != 2, "" if passed or at != 2 else "VERB") for at in range(11))
    checks = {
        "pos": Check(
            1.0 if passed else 10 / 11, passed, "all met" if passed else "word 3 is NOUN, not VERB", (), marks
        ),
        "length": Check(1.0, True, "11 words"),
    }
    text = " ".join(words[:-1]) + "."
    verdicts = {name: check.to_dict() for name, check in checks.items()}
    result = {"index": index, "text": text, "words": words, "passed": passed, "checks": verdicts}
    return {**result, "rounds": 1, "problem": None, **more}


def steps() -> dict[str, object]:
    frames = [Frame(1 - at / 20, ("a", "tree"), (at > 5, at > 10), {"pos": 8.0 - at / 4}) for at in range(20)]
    return Trace((*frames, Frame(0.0, ("the", "tree"), (True, True), {}))).to_dict()


def results(records: list[dict[str, object]], **more: object) -> Results:
    return Results("some.jsonl", lambda: records, **more)


def test_the_page_holds_recipe_totals_texts_reasons_and_steps():
    recipe = Recipe(model="everyday", seed=7, controls=[{"length": {"words": 11}}]).model_dump()
    some = [record(0, lm_score=2.5, worst_word="END", worst_nats=7.0), record(1, passed=False, trace=steps())]
    page, rows = report_html(results(some, recipe=recipe, seconds=4.0))
    assert rows == 2
    assert "<h1>1 of 2 texts satisfies every control</h1>" in page
    assert "words: 11" in page
    assert "word 3 is NOUN, not VERB" in page
    assert "NOUN ≠ VERB" in page
    assert "lm-score <b>2.50</b>" in page
    assert "least likely the end <b>7.0</b>" in page
    assert "1 of 2 pass, mean 95%" in page
    assert "in 20 steps" in page
    assert page.count('<li class="x"') == 1
    assert "acceptability:" not in page
    (saved,) = re.findall(r'id="traces">(.*?)</script>', page)
    assert json.loads(saved) == {"1": steps()}


def test_rows_that_could_not_be_drawn_are_counted_but_not_as_empty_texts():
    unmet = {"text": "", "words": [], "passed": False, "checks": {}, "problem": "t.csv:3: no such word", "row": 2}
    page, rows = report_html(results([record(0, row=1, lm_score=2.0, acceptability=0.9), record(1) | unmet]))
    assert rows == 2
    assert "mean 11" in page
    assert "could not be drawn <b>1</b>" in page
    assert "row <b>1</b>" in page
    assert "row <b>2</b>" in page
    assert "t.csv:3: no such word" in page
    footer = " ".join(page[page.index("How to read this page") :].split())
    assert "lm-score: nats per token" in footer
    assert "finds least likely. acceptability: the probability" in footer


def test_cells_of_the_table_are_on_the_page_long_ones_shortened():
    page, _ = report_html(results([record(0, columns={"topic": "pub", "note": "x" * 61, "brief": "y" * 60, "no": ""})]))
    details = re.findall(r"<li>(\w+)(?: <b>(.*?)</b>)?</li>", page)
    assert [pair for pair in details if pair[0] in ("topic", "note", "brief", "no")] == [
        ("topic", "pub"),
        ("note", "x" * 57 + "..."),
        ("brief", "y" * 60),
    ]
    assert "<li>row" not in page


def test_the_recipe_on_the_page_has_only_the_settings_that_are_set():
    recipe = Recipe.model_validate({"controls": [{"length": {"words": 4}}], "until": {"max_rounds": 3}})
    page, _ = report_html(results([record(0)], recipe=recipe.model_dump()))
    shown = page[page.index("model: ") : page.index("</pre>")]
    assert "seed: 0" in shown
    assert "max_rounds: 3" in shown
    assert "null" not in shown
    assert "false" not in shown


def test_the_page_needs_no_network_and_runs_no_code_from_texts():
    bad = '</script><script>alert("x")</script><img src=http://a.b/c.png>'
    one = record(0, problem=bad, trace={**steps(), "words": [[bad, "tree"]] * 21})
    one["text"], one["columns"], one["row"] = bad, {bad: bad}, 1
    page, _ = report_html(results([one], recipe={"description": bad, "model": bad}))
    found: list[tuple[str, set[str]]] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attributes: found.append((tag, {name for name, _ in attributes}))
    reader.feed(page)
    assert [tag for tag, _ in found].count("script") == 2
    assert not {"img", "link", "iframe"} & {tag for tag, _ in found}
    assert not {"src", "href", "onload", "onerror"} & set().union(*(names for _, names in found))
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import", page)


def test_a_thousand_texts_take_less_than_three_megabytes_and_more_are_cut():
    many = [
        record(at, passed=at % 9 > 0, lm_score=2 + at % 7 / 3, worst_word="oak", worst_nats=6.0) for at in range(1010)
    ]
    page, rows = report_html(results(many))
    assert len(page.encode()) < 3_000_000
    assert page.count('<span class="n">') == MAX_TEXTS
    assert "the first 1,000 of 1,010" in page
    assert f"{sum(at % 9 > 0 for at in range(1010))} of 1,010 texts" in page
    assert rows == 1010


def test_results_are_read_from_json_lines_json_and_folders(tmp_path):
    rows = [record(at) for at in range(5)]
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"model": "e2e"}, "samples": rows, "seconds": 1.5}))
    run = open_run(tmp_path / "run", Recipe(seed=3).model_dump(mode="json"), 5, shard_rows=2, about={"model": "e2e"})
    for shard in run.shards[:2]:  # the last one is still to be drawn
        run.write(shard, rows[shard.start : shard.stop])
    found = [read_results(tmp_path / name) for name in ("run.jsonl", "run.json", "run")]
    assert [len(list(one.rows())) for one in found] == [5, 5, 4]
    assert [one.recipe and one.recipe["model"] for one in found] == [None, "e2e", "e2e"]
    for one in found:
        write_report(one, tmp_path / "page.html")
    assert "seed <b>3</b>" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "none.jsonl: is missing."),
        ("a.csv", "text\n", "a.csv: the ending '.csv' is not that of results."),
        ("a.jsonl", "[\n", "a.jsonl:1: is no line of results"),
        ("a.jsonl", '{"index": 0}\n', "a.jsonl:1: is no text of results: text: Field required."),
        ("a.jsonl", "\n", "a.jsonl: holds no text."),
        ("a.jsonl", "[" * 100_000, "a.jsonl"),
        ("a.json", '{"figures": 3}', "a.json: has no list of samples."),
        ("a.json", "{", "a.json: cannot be read"),
        ("folder", "", "is no manifest of a run"),
    ],
)
def test_files_without_results_are_refused_with_one_message(tmp_path, name, content, message):
    if name == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        write_report(read_results(tmp_path / name), tmp_path / "page.html")
    assert message in str(caught.value)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "damage",
    [{"t": [1.0]}, {"words": 3}, {"settled": None}, {"energies": {"pos": ["far"] * 21}}, {"energies": {"pos": []}}],
    ids=str,
)
def test_a_damaged_trace_is_refused_with_one_message(damage):
    with pytest.raises(UserError, match=r"some.jsonl:1: the trace of text 4 is damaged"):
        report_html(results([record(4, trace={**steps(), **damage})]))


def test_a_page_that_cannot_be_written_is_detected_before_drawing(tmp_path: Path):
    (tmp_path / "there.html").touch()
    for name, message in [("a.pdf", "ending"), ("no/a.html", "does not exist"), ("there.html", "already exists")]:
        with pytest.raises(UserError, match=message):
            check_page(tmp_path / name)
    check_page(tmp_path / "there.html", force=True)


def test_histograms_cover_all_values_with_few_bars():
    for values in ([3], [1, 100_000], [0.333, 2.5, 17.25], list(range(300)), [0, 24], [0, 47], [-2.0, -1.5]):
        one = Distribution("x")
        for value in values:
            one.add(value)
        bars = one.bars()
        assert sum(bar.texts for bar in bars) == len(values)
        assert len(bars) <= 24
        assert bars[0].low <= min(values)
        assert max(values) <= bars[-1].high + 0.01
    share = Distribution("share", share=True)
    for value in (0.0, 0.5, 1.0):
        share.add(value)
    assert (share.formatted(0.9991), share.formatted(1.0), share.formatted(0.5)) == ("99.9%", "100%", "50%")
    assert (share.bars()[0].texts, share.bars()[-1].texts, share.bars()[-1].high) == (1, 1, pytest.approx(1.0))


def test_a_curve_stays_in_its_frame_whatever_the_energies():
    for values in ([1.0, 1.0, None], [-3.0, 5e9, 0.0], [0.0, 0.0]):
        (points,) = re.findall(r'points="([^"]+)"', curve("<x>", values))
        assert all(0 <= float(pair.split(",")[1]) <= 36 for pair in points.split())
    assert curve("x", [None, 2.0]) == ""


def test_samples_of_several_runs_make_one_page_each_with_its_own_steps(tmp_path):
    def sample(word):
        trace = Trace((Frame(1.0, (f"{word}s",), (False,), {}), Frame(0.0, (word,), (True,), {})))
        return Sample(0, [word], word, {}, np.zeros((1, 1)), trace=trace)

    path = tmp_path / "page.html"
    report([sample("tea"), sample("dog")], path, {"samples": 7})
    page = path.read_text("utf-8")
    assert "teas" in page
    assert "dogs" in page
    assert "samples: 7" in page
    for wrong, recipe, message in [
        (["tea"], None, "result: 'list' is not a result. Give what `generate` or `run` returned"),
        (5, None, "result: 'int' is not a result."),
        ([sample("tea")], "pos", "recipe: 'str' is not a recipe."),
    ]:
        with pytest.raises(UserError) as caught:
            report(wrong, path, recipe)
        assert str(caught.value).startswith(message)
