import pytest
import torch

from dlmctl.annotators.parsing import UNSEEN, constituency_parser
from dlmctl.annotators.tagging import upos_tagger
from dlmctl.annotators.trees import labelled_spans
from dlmctl.errors import DataError, UserError
from dlmctl.training import parser as training
from dlmctl.training.config import LoopConfig
from dlmctl.training.parser import (
    ParserSizes,
    ParserTask,
    ParserTrainingConfig,
    jackknifed,
    read_treebank,
    train_parser,
    words_of,
)
from dlmctl.training.tagger import read_conllu

TREES = """
(ROOT (S (NP-SBJ (DT The) (NN cook)) (VP (VBZ tastes) (NP (DT the) (NN soup))) (. .)))
(ROOT (S (NP (PRP It)) (VP (VBZ wants) (S (VP (TO to) (VP (VB rain))))) (. .)))
(ROOT (NP (NP (DT A) (NN bowl)) (PP (IN of) (NP (NN soup)))))
"""
CONLLU = "".join(
    "".join(f"{at}\t{word}\t_\t{tag}\t_\n" for at, (word, tag) in enumerate(sentence, start=1)) + "\n"
    for sentence in (
        [("The", "DET"), ("cook", "NOUN"), ("tastes", "VERB"), ("the", "DET"), ("soup", "NOUN"), (".", "PUNCT")],
        [("A", "DET"), ("bowl", "NOUN"), ("of", "ADP"), ("soup", "NOUN")],
    )
)


@pytest.fixture
def treebank(tmp_path):
    path = tmp_path / "trees.ptb"
    path.write_text(TREES, "utf-8")
    return path


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(training, "MIN_LABEL", 1)
    monkeypatch.setattr(training, "MIN_FEATURE", 1)
    loop = LoopConfig(
        steps=90, batch_positions=40, lr=0.02, ema=0.5, validate_every=30, checkpoint_every=90, log_every=90
    )
    return ParserTrainingConfig(model=ParserSizes(hidden=16, layers=1, span_hidden=16, dropout=0.0), loop=loop)


def task(config, trees, out):
    tags = upos_tagger()(list(map(words_of, trees)))
    return ParserTask(config, trees, trees, (tags, tags))


def test_a_parser_learns_its_trees_and_its_best_is_kept(treebank, tmp_path, config):
    conllu = tmp_path / "tags.conllu"
    conllu.write_text(CONLLU, "utf-8")
    out = tmp_path / "run"
    assert train_parser(config, treebank, treebank, conllu, out) == 1.0
    trees = read_treebank(treebank)
    assert constituency_parser(str(out / "parser"))(list(map(words_of, trees))) == trees


def test_a_parser_also_learns_trees_of_another_parser(treebank, tmp_path, config):
    conllu, gold, silver = tmp_path / "tags.conllu", tmp_path / "gold.ptb", tmp_path / "silver.ptb"
    conllu.write_text(CONLLU, "utf-8")
    lines = TREES.strip().splitlines()
    gold.write_text(lines[0], "utf-8")
    silver.write_text("\n".join(lines[1:]), "utf-8")
    config.gold_passes = 2
    assert train_parser(config, gold, treebank, conllu, tmp_path / "run", silver=silver) == 1.0
    with pytest.raises(UserError, match="belongs to another run: silver"):
        train_parser(config, gold, treebank, conllu, tmp_path / "run", resume=True)


def test_only_the_most_frequent_values_have_embeddings(treebank, tmp_path, config):
    config.values = [3, 2, 100, 100, 100, 100]
    known = task(config, read_treebank(treebank), tmp_path).model.config.vocabularies
    assert list(known[0]) == [".", "soup", "the"]
    assert len(known[1]) == 2
    assert list(known[0].values()) == [UNSEEN + 1, UNSEEN + 2, UNSEEN + 3]


def test_function_tags_are_taken_off(treebank):
    assert {span.label for span in labelled_spans(read_treebank(treebank)[0])} == {"S", "NP", "VP"}


def test_each_sentence_is_tagged_by_a_tagger_that_has_not_seen_it(tmp_path, monkeypatch):
    path = tmp_path / "tags.conllu"
    path.write_text(CONLLU, "utf-8")
    sentences = read_conllu(path)
    seen = []
    fit = training.fit_crf
    monkeypatch.setattr(training, "FOLDS", 2)
    monkeypatch.setattr(training, "fit_crf", lambda rest: seen.append([s.words for s in rest]) or fit(rest))
    found = jackknifed(sentences)
    assert set(found) == {tuple(sentence.words) for sentence in sentences}
    assert seen == [[sentences[1].words], [sentences[0].words]]


def test_rare_words_are_hidden_more_often_than_frequent_ones(treebank, tmp_path, config):
    made = task(config, read_treebank(treebank), tmp_path)
    rows = made.model.config.vocabularies[0]
    hidden = made.word_dropout
    assert hidden[rows["cook"]] == pytest.approx(0.8 / 1.8)
    assert hidden[rows["the"]] < hidden[rows["cook"]]
    assert not hidden[: UNSEEN + 1].any()


def test_the_loss_of_a_perfect_parser_is_nothing(treebank, tmp_path, config, monkeypatch):
    made = task(config, read_treebank(treebank), tmp_path)
    monkeypatch.setattr(training, "LOWERCASE", 0.0)
    labels, tags = made.model.config.labels, made.model.config.tags
    spans = {(span.start, span.end): span.label for span in labelled_spans(made.dev[1])}

    def oracle(ids, counts):
        starts, ends = training.all_spans(int(counts.max()))
        wanted = [labels.index(spans.get(cell, "-")) for cell in zip(starts.tolist(), ends.tolist(), strict=True)]
        tagged = [tags.index(leaf.label) for leaf in made.dev[1].leaves()]
        return [
            100.0 * torch.nn.functional.one_hot(torch.tensor([rows]), n)
            for rows, n in ((wanted, len(labels)), (tagged, len(tags)))
        ]

    class Oracle(torch.nn.Linear):
        def forward(self, ids, counts):
            return oracle(ids, counts)

    loss, words = made.loss(Oracle(1, 1), [1])
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert words == 5
    assert made.loss(made.model, [1])[0] > 1


def test_what_is_no_treebank_is_said(tmp_path):
    path = tmp_path / "bad.ptb"
    for text, message in (("(S (NP", "not closed"), ("(S NP VP)", "no word"), ("", "no trees")):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_treebank(path)
    with pytest.raises(DataError, match="is missing"):
        read_treebank(tmp_path / "none.ptb")
