import itertools
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import stanza

from dlmctl.annotators.tagging import TAGGER_FILE, UPOS_TAGS, best_path, features, load_tagger, shape, upos_tagger
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


def test_is_loaded_once_and_is_quick():
    begun = time.process_time()
    tagger = upos_tagger()
    loaded = time.process_time()
    tagger(SENTENCES * 50)
    assert loaded - begun < 1.0
    assert time.process_time() - loaded < 1.0
    assert upos_tagger() is tagger


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


def test_best_path_is_the_best_of_all_paths():
    rng = np.random.default_rng(0)
    emissions, transitions = rng.normal(size=(5, 3)), rng.normal(size=(3, 3))

    def score(path):
        steps = sum(transitions[a, b] for a, b in itertools.pairwise(path))
        return steps + sum(emissions[at, tag] for at, tag in enumerate(path))

    every = np.stack(np.meshgrid(*[range(3)] * 5, indexing="ij"), -1).reshape(-1, 5)
    assert tuple(best_path(emissions, transitions)) == tuple(max(every, key=score))


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
