import json

import pytest

from controls.pos import PosParams
from dlmctl.annotate import upos_tagger
from dlmctl.errors import DataError, UserError
from dlmctl.evaluation.control_success import read_targets

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
    assert control.params == [PosParams(tags=upos_tagger()([WORDS])[0]), PosParams(tags=["NOUN"])]


def test_parameters_can_be_laid_over_every_target(targets):
    control, _ = read_targets("pos", targets({"words": WORDS}, {"tags": ["NOUN"]}), params={"pass_at": 0.5})
    assert [params.pass_at for params in control.params] == [0.5, 0.5]
    with pytest.raises(DataError, match=r"targets\.jsonl:1: is no target of pos: pass_it"):
        read_targets("pos", targets({"words": WORDS}), params={"pass_it": 0.5})


def test_limit(targets):
    assert read_targets("pos", targets({"tags": ["NOUN"]}, "nonsense"), 1)[1] == 1


def test_a_control_that_cannot_read_sentences_says_so(targets):
    assert read_targets("classifier", targets({"label": "good"}))[0].params[0].label == "good"
    with pytest.raises(UserError, match="'classifier' cannot take its targets from sentences"):
        read_targets("classifier", targets({"words": WORDS}))


def test_files_that_hold_no_targets(targets, tmp_path):
    with pytest.raises(DataError, match="holds no targets"):
        read_targets("pos", targets())
    with pytest.raises(DataError, match="cannot be read"):
        read_targets("pos", tmp_path / "missing.jsonl")
