import json

import pytest
from typer.testing import CliRunner

from controls import Length, Pos
from controls.length import LengthParams
from controls.pos import PosParams
from dlmctl.annotators.tagging import upos_tagger
from dlmctl.cli import app
from dlmctl.errors import DataError, RecipeError, UserError
from dlmctl.evaluation.control_success import evaluate_control, read_targets
from dlmctl.recipe.load import read_recipe

WORDS = "The old baker sells warm bread .".split()


@pytest.fixture
def targets(tmp_path):
    def write(*records):
        path = tmp_path / "targets.jsonl"
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
        return path

    return write


def test_a_target_is_a_sentence_or_parameters(targets):
    control, count = read_targets("pos", targets({"words": WORDS, "source": "mine"}, {"tags": ["NOUN"]}))
    assert count == 2
    assert control.sets == (PosParams(tags=upos_tagger()([WORDS])[0]), PosParams(tags=["NOUN"]))


def test_parameters_can_be_laid_over_every_target(targets):
    control, _ = read_targets("pos", targets({"words": WORDS}, {"tags": ["NOUN"]}), params={"pass_at": 0.5})
    assert [params.pass_at for params in control.sets] == [0.5, 0.5]
    with pytest.raises(DataError, match=r"targets\.jsonl:1: is not a target of pos: pass_it"):
        read_targets("pos", targets({"words": WORDS}), params={"pass_it": 0.5})


def test_a_target_without_a_parameter_is_told_which(targets):
    with pytest.raises(DataError, match=r"targets\.jsonl:1: is not a target of classifier: label is required\.$"):
        read_targets("classifier", targets({"text": "So it is."}))


def test_files_of_diffusion_lm_have_targets_without_the_tokens_around_their_words(targets):
    words = ["START", *WORDS, "\n", "END"]
    spans = [[0, 8, "S"], [1, 3, "NP"], [0, 3, "X"], [4, 8, "Y"], [4, 6, "VP"]]
    (params,) = read_targets("syntax_tree", targets({"words_": words, "spans": spans}))[0].sets
    assert params.wanted == [(0, 2, "NP"), (3, 5, "VP")]
    records = {"words_": words}, {"words": WORDS}
    with_ends, plain = (read_targets("pos", targets(record))[0].sets for record in records)
    assert with_ends == plain


def test_limit(targets):
    assert read_targets("pos", targets({"tags": ["NOUN"]}, "nonsense"), 1)[1] == 1


def test_a_control_that_cannot_read_sentences_says_so(targets):
    assert read_targets("classifier", targets({"label": "good"}))[0].sets[0].label == "good"
    with pytest.raises(UserError, match="'classifier' cannot take its targets from sentences"):
        read_targets("classifier", targets({"words": WORDS}))


def test_files_that_hold_no_targets(targets, tmp_path):
    with pytest.raises(DataError, match="holds no targets"):
        read_targets("pos", targets())
    with pytest.raises(DataError, match="no such file"):
        read_targets("pos", tmp_path / "missing.jsonl")
    (tmp_path / "plain.txt").write_text("A dog barks.\n")
    with pytest.raises(DataError, match=r"plain.txt:1: is not JSON .* Targets are JSON lines: sentences"):
        read_targets("pos", tmp_path / "plain.txt")


@pytest.mark.parametrize("record", [None, [1], "text", {"words": [1]}, {"words": "a b"}, {"words": ["a"] * 1001}])
@pytest.mark.parametrize("name", ["pos", "syntax_tree"])
def test_what_is_no_target_is_named_by_its_line(targets, name, record):
    with pytest.raises(DataError, match=rf"targets\.jsonl:1: is not a target of {name}"):
        read_targets(name, targets(record))


QUICK = read_recipe("sampler: {steps: 3}", "test", [])[0]


def test_a_composition_reports_its_parts(pretrained, scorer):
    control = Pos.each([PosParams(tags=["NOUN"] * 4), PosParams(tags=["VERB"] * 6)]) & Length(4, tolerance=2)
    figures = evaluate_control(control, pretrained, 2, settings=QUICK, scorer=scorer)
    assert figures["targets"] == 2
    assert figures["impossible"] == 0
    assert figures["success_length"] == 1
    assert figures["success"] == pytest.approx((figures["success_pos"] + figures["success_length"]) / 2)


def test_targets_that_recur_are_reported_each(pretrained):
    """Texts of 500 words are impossible, which are failures of that target alone."""
    control = Length.each([4, 500]) & Pos(tags=["NOUN"] * 4)  # of which each has the same
    figures = evaluate_control(control, pretrained, 5, settings=QUICK)
    given = [{name: row[name] for name in list(row)[:5]} for row in figures["by_target"]]
    assert given == [
        {"control": "length", "target": {"words": 4}, "targets": 3, "success": 1, "passed": 1},
        {"control": "length", "target": {"words": 500}, "targets": 2, "success": 0, "passed": 0},
    ]
    for figure in ("success", "passed"):
        shares = [row["targets"] / 5 * row[f"unguided_{figure}"] for row in figures["by_target"]]
        alone = evaluate_control(Length.each([4, 500]), pretrained, 5, settings=QUICK)
        assert sum(shares) == pytest.approx(alone[f"unguided_{figure}"])
    assert "by_target" not in evaluate_control(control, pretrained, 3, settings=QUICK)  # most of them once


def test_the_command_prints_each_target(targets, model_folder):
    command = ["evaluate", "control", "length", "--model", str(model_folder), "--set", "sampler.steps=3"]
    command += ["--targets", str(targets(*[{"words": words} for words in (4, 6) * 2]))]
    lines = [line.split("\t") for line in CliRunner().invoke(app, command).stdout.splitlines()]
    assert lines[-3] == ["control", "target", "targets", "success", "passed", "unguided success", "unguided passed"]
    assert [line[:5] for line in lines[-2:]] == [
        ["length", f"words: {words}", "2", "1.0000", "1.0000"] for words in (4, 6)
    ]
    figures = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [row["target"] for row in figures["by_target"]] == [{"words": 4}, {"words": 6}]


def test_a_model_without_a_scorer_is_measured_without_one(pretrained, scorer):
    figures = evaluate_control(Length(6), pretrained, 1, settings=QUICK)
    assert figures["success"] == 1
    assert not any("lm_score" in name or "success_" in name for name in figures)
    assert "unguided_lm_score" in evaluate_control(Length(6), pretrained, 1, settings=QUICK, scorer=scorer)


def test_a_target_that_cannot_be_asked_for_counts_as_a_failure(pretrained, scorer):
    control = Length.each([LengthParams(words=4), LengthParams(words=500)])
    figures = evaluate_control(control, pretrained, 2, settings=QUICK, scorer=scorer)
    assert (figures["impossible"], figures["success"], figures["passed"]) == (1, 0.5, 0.5)
    with pytest.raises(RecipeError, match="500 words"):
        evaluate_control(Length(500), pretrained, 2, settings=QUICK, scorer=scorer)
