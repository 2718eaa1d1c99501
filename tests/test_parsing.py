import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
import stanza
import torch

from dlmctl.annotators.parsing import (
    NONE,
    PARSER_FILE,
    ChartParser,
    ParserConfig,
    all_spans,
    best_spans,
    best_splits,
    by_sentence,
    constituency_parser,
    feature_ids,
    load_parser,
    split_sentences,
    stack_ids,
)
from dlmctl.annotators.tagging import TAGGER_FILE, load_tagger, upos_tagger
from dlmctl.annotators.trees import Span, Tree, labelled_spans
from dlmctl.errors import ModelError, UserError
from dlmctl.training.parser import save_parser

TEXTS = [
    "The Otter is a quiet tavern near Café Bruna .".split(),
    "It serves Greek food . The customer rating is low .".split(),
]


@pytest.fixture(autouse=True)
def _fresh_cache():
    constituency_parser.cache_clear()
    yield
    constituency_parser.cache_clear()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    vocabularies = [{"it": 3, "food": 4}, {}, {}, {}, {"x": 3}, {"NOUN": 3, "PRON": 4}]
    config = ParserConfig(
        hidden=8,
        span_hidden=8,
        widths=[4, 2, 2, 2, 2, 4],
        labels=[NONE, "NP", "S", "S::VP"],
        tags=["NN", "PRP"],
        vocabularies=vocabularies,
    )
    return ChartParser(config).eval()


def test_cky_finds_the_best_of_all_binary_trees():
    scores = np.random.default_rng(0).normal(size=(3, 6, 6)).astype(np.float32)
    splits = best_splits(scores)

    def best(row, start, end):  # every binary tree, without a chart
        inside = [best(row, start, k) + best(row, k + 1, end) for k in range(start, end)]
        return scores[row, start, end] + max(inside, default=0.0)

    def found(row, start, end):
        if start == end:
            return scores[row, start, end]
        middle = start + splits[row, start, end - start]
        return scores[row, start, end] + found(row, start, middle - 1) + found(row, middle, end)

    for row in range(3):
        assert found(row, 0, 5) == pytest.approx(best(row, 0, 5), abs=1e-4)
        assert found(row, 1, 4) == pytest.approx(best(row, 1, 4), abs=1e-4)


def test_best_spans_nest_leave_out_what_has_no_label_and_do_not_see_the_padding():
    scores = torch.zeros(2, 6, 3)  # spans of three words: 00 01 02 11 12 22
    scores[..., 1:] = -5.0
    scores[0, 2, 1] = 2.0  # 0-2
    scores[0, 1, 2] = 3.0  # 0-1, crosses 1-2
    scores[0, 4, 1] = 2.0  # 1-2
    scores[1, 1, 1] = 1.0  # 0-1, the whole of the shorter sentence
    scores[1, 4:, 2] = 9.0  # beyond it
    first, second = best_spans(scores, [3, 2], [NONE, "A", "B"])
    assert sorted(first) == [Span(0, 1, "B"), Span(0, 2, "A")]
    assert second == [Span(0, 1, "A")]


def test_scores_do_not_depend_on_the_company(tiny):
    rows = [feature_ids(tiny.config, text, upos_tagger()([text])[0]) for text in TEXTS]
    together, _ = tiny(*stack_ids(rows))
    alone, _ = tiny(*stack_ids(rows[:1]))
    most, least = len(TEXTS[1]), len(TEXTS[0])
    starts, ends = all_spans(most)
    assert torch.allclose(together[0][(ends < least)], alone[0], atol=1e-5)
    assert len(starts) == most * (most + 1) // 2


def test_a_saved_parser_is_found_by_its_folder_and_gives_trees_of_the_words(tiny, tmp_path):
    save_parser(tiny, tmp_path)
    parser = constituency_parser(str(tmp_path))
    odd = [[], ["?"], ["(", "日本", "a" * 300], *TEXTS]
    trees = parser(odd)
    assert [[leaf.word for leaf in tree.leaves()] for tree in trees[1:]] == odd[1:]
    assert trees[0] == Tree("ROOT")
    assert {leaf.label for tree in trees[1:] for leaf in tree.leaves()} <= {"NN", "PRP"}
    assert parser(odd) == [*parser(odd[:2]), *parser(odd[2:])]


def test_a_full_disk_leaves_the_parser_that_was_there(tiny, tmp_path, monkeypatch):
    (tmp_path / PARSER_FILE).write_text("an earlier parser")

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlmctl.training.parser.write_shards", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        save_parser(tiny, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier parser"]


def test_a_text_is_split_behind_its_full_stops():
    assert [" ".join(part) for part in split_sentences("It rained . ( Stay in ! ) Good".split())] == [
        "It rained .",
        "( Stay in ! ) Good",
    ]
    assert split_sentences([]) == [()]


def test_the_sentences_of_a_text_are_parsed_once_each_and_share_a_root():
    asked = []

    def parser(sentences):
        asked.extend(sentences)
        return [Tree("ROOT", (Tree("S", tuple(Tree("X", word=word) for word in words)),)) for words in sentences]

    trees = by_sentence(parser)(["a b . c .".split(), "c .".split()])
    assert asked == [("a", "b", "."), ("c", ".")]
    assert labelled_spans(trees[0]) == [Span(0, 2, "S"), Span(3, 4, "S")]
    assert labelled_spans(trees[1]) == [Span(0, 1, "S")]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_texts_of_one_word_are_parsed_however_many_there_are(count):
    words = ["pub", "cheap", "."][:count]
    assert [[leaf.word for leaf in tree.leaves()] for tree in constituency_parser()([[word] for word in words])] == [
        [word] for word in words
    ]


def test_a_missing_or_damaged_parser_is_said(tiny, tmp_path):
    with pytest.raises(ModelError, match=PARSER_FILE):
        load_parser(tmp_path)
    for text in ("{", "[]", json.dumps({"format": 1, "labels": ["-"], "tags": ["NN"], "vocabularies": []})):
        (tmp_path / PARSER_FILE).write_text(text)
        with pytest.raises(ModelError, match="damaged"):
            load_parser(tmp_path)
    (tmp_path / PARSER_FILE).write_text(json.dumps({"format": 99}))
    with pytest.raises(ModelError, match="99"):
        load_parser(tmp_path)
    (tmp_path / PARSER_FILE).unlink()
    for name, load in ((PARSER_FILE, load_parser), (TAGGER_FILE, load_tagger)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ModelError, match="it is a pipe"):
            load(tmp_path)


def test_stanza_without_its_models_is_said(monkeypatch):
    def offline(*_args, **_kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(stanza, "Pipeline", offline)
    with pytest.raises(UserError, match=r"'fr' models.*no network"):
        constituency_parser("stanza:fr")


def test_stanza_is_given_words_as_they_are_and_its_trees_are_ours(monkeypatch):
    asked = {}

    def node(label, *children):
        return SimpleNamespace(label=label, children=children)

    class Pipeline:
        def __init__(self, language, **settings):
            asked.update(settings, language=language)

        def __call__(self, sentences):
            trees = [node("ROOT", node("NP", *(node("NN", node(word)) for word in words))) for words in sentences]
            return SimpleNamespace(sentences=[SimpleNamespace(constituency=tree) for tree in trees])

    monkeypatch.setattr(stanza, "Pipeline", Pipeline)
    trees = constituency_parser("stanza")([["warm", "soup"], [], ["bread"]])
    assert [str(tree) for tree in trees[::2]] == ["(ROOT (NP (NN warm) (NN soup)))", "(ROOT (NP (NN bread)))"]
    assert trees[1] == Tree("ROOT")
    assert asked["language"] == "en"
    assert asked["tokenize_pretokenized"] is True


def test_the_bundled_parser_knows_the_phrases_of_the_domain():
    trees = constituency_parser()(TEXTS)
    assert {Span(0, 9, "S"), Span(0, 1, "NP"), Span(2, 8, "VP"), Span(6, 8, "PP"), Span(7, 8, "NP")} <= set(
        labelled_spans(trees[0])
    )
    assert {Span(0, 4, "S"), Span(1, 3, "VP"), Span(2, 3, "NP"), Span(5, 10, "S"), Span(5, 7, "NP")} <= set(
        labelled_spans(trees[1])
    )


def test_the_bundled_parser_loads_once_and_is_quick():
    begun = time.process_time()
    parser = constituency_parser()
    assert time.process_time() - begun < 1.0
    begun = time.process_time()
    parser([[*text, str(number)] for number in range(50) for text in TEXTS])
    assert time.process_time() - begun < 3.0
    assert constituency_parser() is parser
