import json
import sys

import pytest

from dlmctl.annotators.field import features
from dlmctl.annotators.tagging import TAGGER_FILE, load_tagger, upos_tagger
from dlmctl.datasets.conllu import TaggedSentence
from dlmctl.errors import DataError, UserError
from dlmctl.training import tagger as training
from dlmctl.training.tagger import accuracy, fit_crf, read_conllu, train_tagger

CONLLU = """# text = He can't swim
1\tHe\the\tPRON\tPRP\t_\t3\tnsubj\t_\t_
2-3\tcan't\t_\t_\t_\t_\t_\t_\t_\t_
2\tca\tcan\tAUX\tMD\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tswim\tswim\tVERB\tVB\t_\t0\troot\t_\t_
4.1\tfar\tfar\tADV\tRB\t_\t_\t_\t_\t_

1\tStop\tstop\tVERB\tVB\t_\t0\troot\t_\t_
2\t!\t!\tPUNCT\t.\t_\t1\tpunct\t_\t_
"""


@pytest.fixture
def treebank(tmp_path):
    path = tmp_path / "train.conllu"
    path.write_text(CONLLU, "utf-8")
    return path


def test_multiword_ranges_and_empty_nodes_are_skipped(treebank):
    assert read_conllu(treebank) == [
        TaggedSentence(["He", "ca", "n't", "swim"], ["PRON", "AUX", "PART", "VERB"], 7),
        TaggedSentence(["Stop", "!"], ["VERB", "PUNCT"], 10),
    ]


def test_what_is_not_conllu_is_said_with_its_line(tmp_path):
    path = tmp_path / "bad.conllu"
    path.write_text("1\tHe\the\tPRON\n2\truns\trun\tVBZ\n")
    with pytest.raises(DataError, match=r"bad\.conllu:2"):
        read_conllu(path)
    path.write_text("# nothing\n")
    with pytest.raises(DataError, match="no sentences"):
        read_conllu(path)
    with pytest.raises(DataError, match="no such file"):
        read_conllu(tmp_path / "none.conllu")


def test_a_tagger_is_trained_saved_and_found_by_its_folder(treebank, tmp_path):
    out = tmp_path / "tagger"
    assert train_tagger(treebank, treebank, out) == 1.0
    assert json.loads((out / TAGGER_FILE).read_text("utf-8"))["format"] == 1
    assert upos_tagger(str(out))([["He", "swim"]]) == [["PRON", "VERB"]]


def test_a_full_disk_leaves_the_tagger_that_was_there(treebank, tmp_path, monkeypatch):
    (tmp_path / TAGGER_FILE).write_text("an earlier tagger")

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlmctl.checkpoint.weights.flush_to_disk", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        train_tagger(treebank, treebank, tmp_path)
    assert (tmp_path / TAGGER_FILE).read_text() == "an earlier tagger"


def test_sentences_of_another_tagger_are_learned_from_beside_the_treebank(treebank, tmp_path):
    silver = tmp_path / "silver.conllu"
    # Says otherwise than the treebank about a word, and knows another.
    silver.write_text("1\tStop\t_\tNOUN\n2\tthieves\t_\tNOUN\n\n" * 3, "utf-8")
    words = [["Stop"], ["thieves"]]

    train_tagger(treebank, treebank, tmp_path / "once", silver=silver, l1=0.01)
    assert upos_tagger(str(tmp_path / "once"))(words) == [["NOUN"], ["NOUN"]]

    assert train_tagger(treebank, treebank, tmp_path / "often", silver=silver, gold_passes=30, l1=0.01) == 1.0
    assert upos_tagger(str(tmp_path / "often"))(words) == [["VERB"], ["NOUN"]]


def test_a_larger_penalty_keeps_fewer_weights(treebank, tmp_path):
    def features_with(name, **penalties):
        train_tagger(treebank, treebank, tmp_path / name, **penalties)
        return len(json.loads((tmp_path / name / TAGGER_FILE).read_text("utf-8"))["features"])

    assert 0 < features_with("sparse", l1=0.5) < features_with("dense", l1=0.01)


@pytest.mark.parametrize("penalty", [-1.0, float("nan"), float("inf")])
def test_penalties_are_numbers_from_zero_on(treebank, tmp_path, penalty):
    with pytest.raises(UserError, match="l1"):
        train_tagger(treebank, treebank, tmp_path / "run", l1=penalty)
    assert not (tmp_path / "run").exists()


def test_decoding_here_agrees_with_crfsuite(treebank, tmp_path, monkeypatch):
    import pycrfsuite

    sentences = read_conllu(treebank)
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params(
        {
            "c1": training.L1,
            "c2": training.L2,
            "max_iterations": training.ITERATIONS,
            "feature.possible_transitions": True,
        }
    )
    for sentence in sentences:
        trainer.append(features(sentence.words), sentence.tags)
    trainer.train(str(tmp_path / "crf"))
    reference = pycrfsuite.Tagger()
    reference.open(str(tmp_path / "crf"))
    (tmp_path / TAGGER_FILE).write_text(json.dumps(fit_crf(sentences)))
    ours = load_tagger(tmp_path)
    for words in (["He", "n't", "Stop", "swim"], ["!", "He"], ["unseen", "words", "swim", "!"], ["ca"]):
        assert ours([words]) == [reference.tag(features(words))]


def test_accuracy_is_by_words():
    gold = [TaggedSentence(["a", "b", "c"], ["DET", "NOUN", "VERB"]), TaggedSentence(["d"], ["X"])]
    assert accuracy(lambda sentences: [["DET"] * len(words) for words in sentences], gold) == 0.25


def test_without_crfsuite_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycrfsuite", None)
    with pytest.raises(UserError, match=r"dlmctl\[train\]"):
        fit_crf([])
