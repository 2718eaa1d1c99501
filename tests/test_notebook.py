"""The notebook of the documentation runs from top to bottom, and notebooks show one bar.

Its cells are plain Python without magics, so they run here as a kernel runs them, one after the other in one namespace
and the last expression shown, without the kernel and its dependencies.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from controls import Length
from dlmctl.generation.model import Model

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
