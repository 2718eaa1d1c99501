"""The notebook of the documentation runs from top to bottom, and notebooks show one bar.

Its cells are plain Python without magics, so they run here as a kernel runs them, one after the other in one namespace
and the last expression shown, without the kernel and its dependencies.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

import dlmctl
from controls import Length
from dlmctl.control.check import Check, Mark
from dlmctl.generation.model import Model
from dlmctl.generation.results import Sample

TOUR = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "tour.ipynb"


def show(cell: str, names: dict[str, object]) -> str:
    """Run a cell; what a notebook shows of its last line."""
    *body, last = ast.parse(cell).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if not isinstance(last, ast.Expr):
        exec(compile(ast.Module([last], []), "cell", "exec"), names)
        return ""
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


def test_the_tour_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    cells = [cell for cell in json.loads(TOUR.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    shown = ["".join(show("".join(cell["source"]), names)) for cell in cells]
    assert "<i>DET</i>" in shown[4]
    assert 'class="steps"' in shown[6]
    assert names["result"].success == 1
    assert "How it came about" in (tmp_path / "tour.html").read_text("utf-8")


def test_a_notebook_shows_one_bar_that_goes(kernel, pretrained):
    model = Model(pretrained.model, pretrained.tokenizer, pretrained.folder)
    model.generate(Length(4), samples=2, sampler={"steps": 4}, candidates=2, device="cpu")
    assert "<progress" in kernel[0]._repr_html_()
    assert repr(kernel[1]) == "1 of 4 steps"
    assert repr(kernel[0]) == "preparing"
    assert kernel[-1]._repr_html_() == repr(kernel[-1]) == ""
    before = len(kernel)
    model.generate(samples=1, sampler={"steps": 2}, device="cpu", progress=False)
    assert len(kernel) == before


def test_a_bar_goes_where_drawing_fails(kernel, pretrained):
    model = Model(pretrained.model, pretrained.tokenizer, pretrained.folder)
    with pytest.raises(ZeroDivisionError):
        model.generate(samples=1, sampler={"steps": 2}, device="cpu", on_step=lambda step: 1 // 0)
    assert repr(kernel[-1]) == ""


def test_a_recipe_as_a_dict_takes_the_function_of_a_cell(pretrained):
    model = Model(pretrained.model, pretrained.tokenizer, pretrained.folder)

    def is_odd(text: str) -> bool:
        return len(text) >= 0

    for check in (is_odd, {"function": is_odd}, [is_odd, is_odd]):
        recipe = {"samples": 2, "sampler": {"steps": 2}, "device": "cpu", "controls": [{"check": check}]}
        result = dlmctl.run(recipe, model=model)
        assert [sample.checks["check"].why for sample in result] == ["is_odd says yes"] * 2
        assert result.about["recipe_digest"]


def test_a_placeholder_without_a_table_names_the_argument_of_python():
    with pytest.raises(dlmctl.RecipeError, match=r"in Python targets=\.\.\."):
        dlmctl.run({"controls": [{"contains": "{word}"}]})


def test_the_text_of_a_notebook_s_table_keeps_its_width_and_its_direction():
    words = ["هذه", "جملة", "."]
    marks = (Mark(0, 0, "DET"), Mark(1, 1, "NOUN"))
    checks = {"pos": Check(1.0, True, "", marks=marks), "length": Check(1.0, True, "")}
    shown = Sample(0, words, " ".join(words), checks, np.zeros((1, 1)))._repr_html_()
    assert '<td class="t" dir="auto"' in shown
    assert "min-width" in shown
    # The names of controls are no part of the text, whose first letter decides the direction.
    assert shown.index('<span class="w h" dir="ltr">') < shown.index("هذه")
