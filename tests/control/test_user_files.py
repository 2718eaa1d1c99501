"""Files of a user that change while dlmctl runs, as in a notebook whose author tries a control out."""

import os
import pickle
import sys

import pytest

import dlmctl
from controls import Pos, Predicate
from dlmctl.checkpoint.digests import file_digest
from dlmctl.control.registry import find_control
from dlmctl.control.training_command import training_command
from dlmctl.control.user_files import one_version
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation import run
from dlmctl.generation.identity import identity

JUDGE = "def judge(text: str):\n    return True, 'AAA'\n"
CONTROL = """
from __future__ import annotations
from dlmctl import Check, Control, ControlParams

Number = int

class Params(ControlParams):
    AAA: Number = 1

class Mine(Control[Params]):
    name = "mine"
    Params = Params

    def check(self, params, words):
        return Check(1.0, True, "AAA")
"""


@pytest.fixture(scope="module")
def model(model_folder):
    return dlmctl.load(model_folder)


@pytest.fixture
def write(tmp_path):
    """Write the file, in any version as long and as old as in the first."""

    def write(text, version="AAA"):
        path = tmp_path / "mine.py"
        path.write_text(text.replace("AAA", version))
        os.utime(path, (1_700_000_000, 1_700_000_000))
        return path

    return write


def recipe_of(name, **more):
    entry = {"check": f"{name}:judge"} if more.pop("judged", True) else {f"{name}:Mine": {}}
    return {"controls": [entry], "sampler": {"steps": 2}, "samples": 3, "until": {"max_rounds": 1}, **more}


def said(result):
    return {check.why for sample in result for check in sample.checks.values()}


def test_an_edited_file_is_used_in_the_next_run(model, write):
    path = write(JUDGE)
    control = Predicate(f"{path}:judge")
    assert said(dlmctl.run(recipe_of(path), model=model)) == {"AAA"}
    assert said(model.generate(control, samples=1, sampler={"steps": 2})) == {"AAA"}
    write(JUDGE, "BBB")
    assert said(dlmctl.run(recipe_of(path), model=model)) == {"BBB"}
    assert said(model.generate(control, samples=1, sampler={"steps": 2})) == {"BBB"}
    assert control(["a"]).why == "BBB"
    path.unlink()
    with pytest.raises(UserError, match=r"mine\.py: there is no such file"):
        control(["a"])


def test_a_control_class_is_the_same_until_its_file_changes(write):
    path = write(CONTROL)
    old = find_control(f"{path}:Mine")
    assert find_control(f"{path}:Mine") is old
    write(CONTROL, "BBB")
    new = find_control(f"{path}:Mine")
    assert (list(old.Params.model_fields), list(new.Params.model_fields)) == (["AAA"], ["BBB"])
    assert sys.modules[old.__module__].Mine is old  # where its types are looked up
    assert (old(AAA=2)(["a"]).why, new(BBB=2)(["a"]).why) == ("AAA", "BBB")
    assert not (path.parent / "__pycache__").exists()


def test_the_command_that_trains_a_control_names_its_file(write, monkeypatch):
    """Its name alone is that of no installed control."""
    path = write(CONTROL)
    kind = find_control(f"{path}:Mine")
    monkeypatch.chdir(path.parent)
    assert training_command(kind, "MODEL").startswith("dlmctl train control mine.py:Mine --model MODEL")
    monkeypatch.chdir(path.anchor)
    assert f"{path.relative_to(path.anchor)}:Mine --model" in training_command(kind, "MODEL")
    assert "train control pos --model" in training_command(Pos, "MODEL")


def test_parameters_of_an_older_version_are_refused_in_one_message(model, write):
    path = write(CONTROL)
    recipe = dlmctl.Recipe(samples=1, controls=[{f"{path}:Mine": {"AAA": 2}}], sampler={"steps": 2})
    assert said(dlmctl.run(recipe, model=model)) == {"AAA"}
    write(CONTROL, "BBB")
    with pytest.raises(RecipeError, match=r"mine\.py:Mine\.AAA: unknown key 'AAA'\. Known: BBB\."):
        dlmctl.run(recipe, model=model)


@pytest.mark.parametrize("judged", [True, False])
def test_a_run_stays_with_the_version_that_it_began_with(model, write, judged, monkeypatch):
    monkeypatch.setattr(run, "CHUNK", 2)  # rows that are drawn together
    text = JUDGE if judged else CONTROL
    path = write(text)
    recipe = recipe_of(path, judged=judged, targets=[{"row": at} for at in range(4)], samples=1)
    result = dlmctl.run(recipe, model=model, progress=lambda *_: write(text, "BBB"))
    assert len(result) == 4
    assert said(result) == {"AAA"}
    stream = model.stream(Predicate(f"{write(JUDGE)}:judge"), batch_size=2, sampler={"steps": 2})
    first = next(stream)
    write(JUDGE, "BBB")
    assert said([first, next(stream), next(stream)]) == {"AAA"}


def test_a_generator_stays_with_its_version_and_its_copies_read_the_file_anew(model_folder, write):
    generator = dlmctl.Generator(recipe_of(write(CONTROL), judged=False, model=str(model_folder)))
    write(CONTROL, "BBB")
    copy = pickle.loads(pickle.dumps(generator))
    assert [set(made({"row": [1]}, [0])["mine_why"]) for made in (generator, copy)] == [{"AAA"}, {"BBB"}]


def test_a_run_is_identified_by_the_version_that_it_uses(model, write):
    path = write(CONTROL)
    recipe = dlmctl.Recipe(controls=[{f"{path}:Mine": {}}])
    digest = file_digest(path)
    with one_version():
        find_control(f"{path}:Mine")
        write(CONTROL, "BBB")
        assert identity(recipe, model)["files"] == {f"{path}:Mine": digest}
    assert identity(recipe, model)["files"] == {f"{path}:Mine": file_digest(path)}


def test_a_file_that_fails_can_be_mended(write):
    path = write("def judge(text:\n")
    with pytest.raises(UserError, match="fails to import: SyntaxError"):
        Predicate(f"{path}:judge")(["a"])
    write(JUDGE)
    assert Predicate(f"{path}:judge")(["a"]).passed


def test_a_file_is_compiled_with_its_own_future_statements_only(write):
    path = write("def judge(text: str):\n    return judge.__annotations__ == {'text': str}\n")
    assert Predicate(f"{path}:judge")(["a"]).passed
