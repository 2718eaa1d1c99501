"""Counting evidence by the command's own function, and drawing under it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from controls import Classifier, Length, Pos, SyntaxTree
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.control.base import Control
from dlmctl.control.evidence.bag import load_bag
from dlmctl.control.evidence.beside import fingerprint_of
from dlmctl.control.evidence.table import count_table, load_table, save_table
from dlmctl.control.labels import is_guide_half
from dlmctl.datasets.dataset import load_split
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import DataError, ModelError, RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.carried_controls import carry_controls
from dlmctl.training.counting import count_control
from tests.tokens.tokenizers_of_all_kinds import model_of

TEXTS = {
    "warm": [
        "the warm bread is good .",
        "a warm day is good .",
        "Anna likes the warm river .",
        "the cats like warm bread .",
    ],
    "cold": [
        "the cold river is good .",
        "a cold day is good .",
        "Anna likes the cold bridge .",
        "the cats like cold bread .",
    ],
}
TREE = "(S (NP (DT the) (JJ warm) (NN bread)) (VP (VBZ is) (ADJP (JJ good))) (. .))"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    words = WordTokenizer.from_corpus([text.split() for texts in TEXTS.values() for text in texts], 1, "penn")
    sizes = {"hidden": 32, "layers": 1, "heads": 2, "inner": 48, "max_length": 32}
    folder = tmp_path_factory.mktemp("counted")
    config = MaskedConfig(length=24, denoiser=sizes, vocab_size=len(words), sentence_lengths=[0] * 6 + [1])
    save_pretrained(MaskedLM(config), words, folder)
    return from_pretrained(folder)


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    """Each text many times over, so that both halves of the texts and the held-out rows have each label."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"text": f"{text[:-2]} {also}".replace(" .", "") + " .", "mood": mood}
        for mood, texts in TEXTS.items()
        for text in texts
        for also in ("", "the day .", "a river .", "the cats .", "bread .", "Anna .")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    prepare(folder / "rows.jsonl", None, folder / "set", tokenizer=model.tokenizer, length=24, valid_share=0.1)
    return folder / "set"


def drawn(model, control, **options):
    return generate(
        control, model=model, samples=8, sampler={"steps": None, "temperature": 0.5}, device="cpu", **options
    )


@pytest.mark.parametrize("kind", [Pos, SyntaxTree])
def test_counted_evidence_steers(model, data, kind: type[Control]) -> None:
    folder = count_control(kind, model, data, sentences=1000)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert card["counted"]["texts"] > 20
    assert len(card["digests"]) >= 1
    words = "the warm bread is good .".split()
    control = kind.each([kind.from_target({"words": words})])
    scores = [check.score for sample in drawn(model, control) for check in sample.checks.values()]
    free = [control(sample.words).score for sample in drawn(model, None)]
    assert sum(scores) > sum(free)


def test_texts_have_the_label_asked_for_by_the_weights_that_guide(model, data) -> None:
    folder = count_control(Classifier, model, data, sentences=1000, label="mood", name="mood")
    for label, other in (("warm", "cold"), ("cold", "warm")):
        control = Classifier(label=label, name="mood")
        assert chances(model, folder, label, drawn(model, control)) > 7 / 8
        text = f"the {other} bread is {other} .".split()
        control.attach(model)
        check = control(text)
        assert not check.passed
        assert set(check.where) & {1, 4}  # the words that say the other label


def test_a_source_may_be_the_label(model, tmp_path) -> None:
    """A source that tells no label from another leaves no label without weights."""
    rows = [
        {"text": f"{text[:-2]} {also} .", "source": mood}
        for mood, texts in TEXTS.items()
        for text in texts
        for also in ("Anna", "bread", "the day", "a river")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    prepare(tmp_path / "rows.jsonl", None, tmp_path / "set", tokenizer=model.tokenizer, length=24, valid_share=0.1)
    folder = count_control(Classifier, model, tmp_path / "set", label="source", name="source")
    words = model.tokenizer.vocabulary
    bag = load_bag(folder / "bag.safetensors")
    warm, cold = (bag.weights[words[word], bag.labels.index("warm")].item() for word in ("warm", "cold"))
    assert warm > 0.1 > -0.1 > cold
    assert "cells" not in json.loads((folder / "card.json").read_text("utf-8"))["counted"]


def test_the_card_counts_the_texts_that_guide(model, tmp_path) -> None:
    texts = [f"{text[:-2]} {also} ." for of in TEXTS.values() for text in of for also in ("Anna", "bread", "river")]
    rows = [{"text": text, **({"mood": "wc"[at % 2]} if at % 3 else {})} for at, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    prepare(tmp_path / "rows.jsonl", None, tmp_path / "set", tokenizer=model.tokenizer, length=24, valid_share=0.1)
    folder = count_control(Classifier, model, tmp_path / "set", label="mood", name="few")
    train = load_split(tmp_path / "set", "train")
    words = [model.tokenizer.words(train.row(at).tolist()) for at in range(len(train))]
    learned = sum(
        is_guide_half(text) and "mood" in fields for text, fields in zip(words, train.iter_fields(), strict=True)
    )
    said = (folder / "card.json").read_text("utf-8")
    assert 0 < learned == json.loads(said)["counted"]["texts"] < len(train)
    assert "NaN" not in said


def chances(model, folder, label, result) -> float:
    """The mean probability of a label of the texts."""
    bag = load_bag(folder / "bag.safetensors")
    rows = [bag.weights[model.tokenizer.encode(sample.words)[1:-1]].sum(0) + bag.bias for sample in result]
    return torch.stack(rows).softmax(1)[:, bag.labels.index(label)].mean().item()


def test_spans_are_met_more_often_with_evidence(model, data) -> None:
    count_control(SyntaxTree, model, data, sentences=1000)
    spans = [{"label": "NP", "start": 0, "end": 2}]
    control = SyntaxTree(spans=spans)
    met = sum(check.score for sample in drawn(model, control) for check in sample.checks.values())
    assert met > sum(control(sample.words).score for sample in drawn(model, None) if len(sample.words) > 2)
    assert SyntaxTree(tree=TREE).dealt(0).words == 6
    with pytest.raises(RecipeError, match="label 'NPP' is not among"):
        drawn(model, SyntaxTree(spans=[{**spans[0], "label": "NPP"}]))


def test_counts_are_added_to_those_that_are_there(model, data, tmp_path) -> None:
    own = shutil.copytree(model.folder, tmp_path / "own", ignore=shutil.ignore_patterns("controls"))
    copy = from_pretrained(own)
    with pytest.raises(UserError, match="--add: the model has no counts of this control"):
        count_control(Pos, copy, data, add=True)
    once = load_table(count_control(Pos, copy, data, sentences=10) / "tags.safetensors")
    folder = count_control(Pos, copy, data, add=True)
    more = load_table(count_control(Pos, model, data) / "tags.safetensors")
    added = load_table(folder / "tags.safetensors")
    assert added.word_totals.tolist() == (once.word_totals + more.word_totals).tolist()
    assert added.marginal(1).tolist() == (once.marginal(1) + more.marginal(1)).tolist()
    counted = json.loads((folder / "card.json").read_text())["counted"]
    assert (
        counted["texts"] == 10 + json.loads((model.folder / "controls/pos/card.json").read_text())["counted"]["texts"]
    )
    with pytest.raises(UserError, match="--add: what this control learns is more than counts"):
        count_control(SyntaxTree, copy, data, sentences=10, add=True)


def test_counts_of_another_version_are_not_added_to(model, data, tmp_path) -> None:
    copy = from_pretrained(shutil.copytree(model.folder, tmp_path / "own"))
    folder = count_control(Pos, copy, data, sentences=10)
    table = load_table(folder / "tags.safetensors")
    fewer = count_table(table.axes[:2], table.word_ids, table.combinations[table.classes, :2], table.words)
    save_table(replace(fewer, vocabulary=table.vocabulary), folder / "tags.safetensors")
    with pytest.raises(ModelError, match=r"tags.safetensors: these counts were made by another version"):
        count_control(Pos, copy, data, sentences=10, add=True)


def test_added_counts_may_have_values_of_their_own() -> None:
    one = count_table([["x", "y"]], np.array([0, 1, 1]), np.array([[0], [1], [1]]), 3, "words")
    other = count_table([["z", "y"]], np.array([1, 2]), np.array([[1], [0]]), 3, "words")
    both = one.plus(other)
    assert (both.axes, both.vocabulary) == ((("x", "y", "z"),), "words")
    assert both.marginal(0).tolist() == [[1, 0, 0], [0, 3, 0], [0, 0, 1]]


def test_damaged_evidence_is_found(model, data) -> None:
    folder = count_control(SyntaxTree, model, data, sentences=1000)
    path = folder / "leaves.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="SHA-256"):
        drawn(from_pretrained(model.folder), SyntaxTree(tree=TREE))


def test_what_cannot_be_counted_is_refused(model, data, tmp_path) -> None:
    with pytest.raises(DataError, match="which field"):
        count_control(Classifier, model, data, sentences=10)
    with pytest.raises(UserError, match="no classifier"):
        count_control(Length, model, data, sentences=10)
    (tmp_path / "rows.txt").write_text("the bread is good .\nthe day is warm .\n" * 20, "utf-8")
    prepare(tmp_path / "rows.txt", None, tmp_path / "set", min_count=1)
    with pytest.raises(DataError, match="a vocabulary other than"):
        count_control(Pos, model, tmp_path / "set", sentences=10)


def test_evidence_about_tokens_is_carried_to_a_model_with_the_same_ones(tmp_path) -> None:
    made = [model_of("bytes"), model_of("bytes"), model_of("word pieces")]
    for number, each in enumerate(made):
        save_pretrained(each.model, each.tokenizer, tmp_path / str(number))
    source, same, other = (from_pretrained(tmp_path / str(number)) for number in range(3))
    rows = [{"text": f"{sign} {text}", "of": sign} for sign in "ab" for text in ("red", "blue", "old", "new")] * 3
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    prepare(tmp_path / "rows.jsonl", None, tmp_path / "set", tokenizer=source.tokenizer, length=24, valid_share=0.1)
    counted = count_control(Classifier, source, tmp_path / "set", label="of") / "bag.safetensors"
    assert carry_controls(source, same).copied == ["classifier"]
    kept = load_bag(same.folder / "controls" / "classifier" / "bag.safetensors", fingerprint_of(same.tokenizer))
    assert torch.equal(kept.weights, load_bag(counted).weights)
    assert carry_controls(source, other).left_out == ["classifier"]
