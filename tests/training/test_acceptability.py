"""Which texts readers accept: learned from verdicts beside a frozen masked model, and what chooses by it."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dlmctl.checkpoint.control_weights import acceptability_folder, control_folders
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.checkpoint.reader import write_reader
from dlmctl.checkpoint.scorer import save_scorer, scorer_digest
from dlmctl.checkpoint.weights import load_weights, save_weights
from dlmctl.datasets.dataset import load_split
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import DataError, ModelError, UserError
from dlmctl.generation.generate import generate
from dlmctl.generation.identity import identity
from dlmctl.generation.scoring import load_scoring
from dlmctl.metrics.acceptability import load_acceptability
from dlmctl.metrics.fluency import REPEATED, WORST_SHARE
from dlmctl.models.acceptability import STRIDE
from dlmctl.recipe.recipe import Recipe
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.acceptability import (
    AcceptabilityConfig,
    AcceptabilityTask,
    auc,
    train_acceptability,
    verdicts_of,
)
from dlmctl.training.carried_controls import carry_controls
from dlmctl.training.config import LoopConfig
from dlmctl.training.scorer import ScorerConfig, ScorerSizes, build_scorer, train_scorer

SUBJECTS, VERBS, OBJECTS = "dogs cats hens owls men boys".split(), "eat see hear like".split(), "rice bread tea".split()


SCORER_SIZES = ScorerSizes(length=32, hidden=16, layers=1, heads=2)


def verdict(words):
    """A reader who minds that anybody eats tea."""
    return 0.0 if "tea" in words and "eat" in words else 1.0


@pytest.fixture(scope="module")
def rows():
    texts = [[a, b, c, "."] for a in SUBJECTS for b in VERBS for c in OBJECTS]
    texts += [["old", *words] for words in texts]
    random.Random(0).shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    torch.manual_seed(0)
    words = WordTokenizer.from_corpus(rows, 1, "penn")
    sizes = {"hidden": 32, "layers": 2, "heads": 2, "inner": 48, "max_length": 16}
    config = MaskedConfig(length=16, denoiser=sizes, vocab_size=len(words), sentence_lengths=[0] * 4 + [1, 1])
    network = MaskedLM(config)
    with torch.no_grad():  # as of an untrained network, words would be all alike to it
        network.denoiser.model.embed_tokens.weight.mul_(40)
    place = tmp_path_factory.mktemp("model")
    save_pretrained(network, words, place)
    save_scorer(build_scorer(SCORER_SIZES, words), words, place / "scorer")
    return place


def prepared(tmp_path, model, rows, field="accepted", of=verdict):
    lines = [json.dumps({"text": " ".join(words), field: of(words)}) for words in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    prepare(tmp_path / "rows.jsonl", None, tmp_path / "set", tokenizer=model.tokenizer, length=16, valid_share=0.25)
    return tmp_path / "set"


def settings(**loop):
    given = {"steps": 150, "batch_positions": 256, "bucket": 1, "full_share": 0.0, "lr": 0.02, "ema": 0.5}
    return AcceptabilityConfig(rank=4, loop=LoopConfig(**{**given, "validate_every": 50, **loop}))


@pytest.fixture(scope="module")
def learned(folder, rows, tmp_path_factory):
    model, place = from_pretrained(folder), tmp_path_factory.mktemp("run")
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    saved = train_acceptability(settings(), model, prepared(place, model, rows), place / "run", label="accepted")
    assert all(torch.equal(before[name], weight) for name, weight in model.model.state_dict().items())
    assert saved == folder / "controls" / "acceptability"
    return from_pretrained(folder)


def test_what_readers_refuse_is_learned_where_the_scorer_knows_nothing(learned):
    card = json.loads((learned.folder / "controls" / "acceptability" / "card.json").read_text("utf-8"))
    assert card["validation"]["auc"] > 0.95 > 0.8 > card["validation"]["auc of flaws"]


def test_the_probability_is_that_of_all_places_and_does_not_depend_on_company(learned, rows):
    scoring = load_scoring(learned, reads=True)
    texts = [rows[0], ["old", *rows[1]][:4], rows[2]]
    together, alone = (scoring.of(texts, alone=alone) for alone in (False, True))
    for one, other in zip(together, alone, strict=True):
        assert one.acceptability == pytest.approx(other.acceptability, abs=1e-5)
    assert scoring.of([["dogs"] * 15])[0].acceptability is None  # longer than the network reads
    reader = scoring.reader
    ids = torch.tensor([learned.tokenizer.encode(rows[0])])
    states = reader.network(ids)
    assert reader.network.model.embed_tokens.weight is learned.masked.denoiser.model.embed_tokens.weight
    places = torch.sigmoid(reader.judge.head(states)[0, :, 0]).prod().item()
    mean, worst = together[0].lm_score, together[0].worst_nats
    bias, share = reader.judge.bias.item(), reader.judge.share * STRIDE
    beyond = torch.tensor([mean, worst, 0.0, len(rows[0]) + 2.0]) - reader.judge.typical
    odds = math.log(places / (1 - places)) + bias - (beyond @ share).item()
    assert together[0].acceptability == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-4)


def test_training_goes_on_from_what_was_learned(learned, rows, tmp_path):
    copied = from_pretrained(shutil.copytree(learned.folder, tmp_path / "copied"))
    data = prepared(tmp_path, copied, rows)
    barely = settings(steps=1, lr=1e-6).model_copy(update={"init": "model"})
    place = train_acceptability(barely, copied, data, tmp_path / "run", label="accepted")
    card = json.loads((place / "card.json").read_text("utf-8"))
    assert card["validation"]["auc"] > 0.95
    assert card["training"]["init"] == "model"
    before, after = load_weights(learned.folder / "controls" / "acceptability"), load_weights(place)
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in before)
    wider = barely.model_copy(update={"rank": 8})
    with pytest.raises(ModelError, match="rank 4, not 8"):
        train_acceptability(wider, copied, data, tmp_path / "wider", label="accepted")
    bare = from_pretrained(
        shutil.copytree(learned.folder, tmp_path / "bare", ignore=shutil.ignore_patterns("controls"))
    )
    with pytest.raises(ModelError, match=r"has not learned which texts.*Leave out `init`"):
        train_acceptability(barely, bare, data, tmp_path / "bare-run", label="accepted")


def test_how_much_the_scorers_figures_count_is_learned(folder, rows, tmp_path):
    model = from_pretrained(shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("controls")))
    long = prepared(tmp_path, model, rows, of=lambda words: float(len(words) < 5))
    place = train_acceptability(settings(), model, long, tmp_path / "run", label="accepted")
    assert load_weights(place)["share"][-1] * STRIDE > 0.5  # nats a word


def test_training_begins_with_what_fluency_weighs(learned, rows, tmp_path):
    data = prepared(tmp_path, learned, rows)
    task = AcceptabilityTask(settings(), learned, data, "accepted")
    assert (task.model.share * STRIDE).tolist() == pytest.approx([1.0, WORST_SHARE, REPEATED, 0.0])
    assert task.model.typical[-1] == pytest.approx(task.train.split.lengths.mean())
    assert task.model.typical[:-1].tolist() == pytest.approx(task.train.figures.mean(0).tolist())


def test_of_several_drafts_the_one_is_kept_that_readers_accept(learned):
    warm = {"temperature": 40.0, "min_p": 0.0}  # else the untrained network writes one text again and again
    asked = {"model": learned, "samples": 12, "seed": 1, "device": "cpu", "sampler": warm}
    chosen = {by: generate(**asked, candidates=6, rank_by=[by]) for by in ("satisfaction", "acceptability")}
    means = {by: np.mean([text.fluency.acceptability for text in found]) for by, found in chosen.items()}
    assert means["acceptability"] > means["satisfaction"]
    row = chosen["acceptability"][0].to_dict()
    assert row["acceptability"] == round(chosen["acceptability"][0].fluency.acceptability, 4)
    bound = float(np.mean([text.fluency.acceptability for text in generate(**asked)]))  # not all of the first meet it
    bounded = generate(**asked, until={"acceptability": bound, "max_rounds": 12})
    assert all(text.fluency.acceptability >= bound for text in bounded if text.rounds < 12)
    assert any(text.rounds > 1 for text in bounded)


@pytest.mark.parametrize(
    ("field", "of", "said"),
    [
        ("graded", verdict, r"no field 'accepted'"),
        ("accepted", lambda words: "yes", r"is 'yes'; a verdict is a number from 0 to 1"),
        ("accepted", lambda words: 2, r"is 2; a verdict"),
        (
            "accepted",
            lambda words: 1.0,
            r"of all \d+ texts to learn from is 1. Training needs texts that readers accept",
        ),
    ],
)
def test_verdicts_that_are_none_are_refused(folder, rows, tmp_path, field, of, said):
    model = from_pretrained(folder)
    with pytest.raises(DataError, match=said):
        train_acceptability(settings(), model, prepared(tmp_path, model, rows, field, of), tmp_path, label="accepted")


def test_a_text_without_a_verdict_is_named(folder, rows, tmp_path):
    model = from_pretrained(folder)
    data = prepared(tmp_path, model, rows)
    kept = data / "train.fields.jsonl"
    assert kept.exists(), [one.name for one in data.iterdir()]
    lines = kept.read_text("utf-8").splitlines()
    kept.write_text("\n".join(["{}", *lines[1:]]) + "\n", "utf-8")
    with pytest.raises(DataError, match=r"jsonl: text 1 has no field 'accepted'. Give every text a verdict"):
        verdicts_of(load_split(data, "train"), "accepted")


def test_a_model_that_has_learned_none_says_so(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("controls"))
    for asked in ({"candidates": 2, "rank_by": ["acceptability"]}, {"until": {"acceptability": 0.5}}):
        with pytest.raises(ModelError, match="dlmctl train acceptability"):
            generate(model=bare, samples=1, **asked)
    (text,) = generate(model=bare, samples=1, rank_by=["acceptability"])  # of one draft nothing is chosen
    assert text.fluency.acceptability is None
    assert "acceptability" not in text.to_dict()


def test_what_the_user_has_trained_comes_before_what_came_with_the_model(learned, tmp_path, monkeypatch):
    monkeypatch.setattr("dlmctl.checkpoint.control_weights.user_controls_folder", lambda: tmp_path)
    _, own = control_folders(learned.folder, learned.model, "acceptability")
    assert acceptability_folder(learned.folder, learned.model) == learned.folder / "controls" / "acceptability"
    shutil.copytree(learned.folder / "controls" / "acceptability", own)
    assert acceptability_folder(learned.folder, learned.model) == own


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: {name: one for name, one in state.items() if name != "up.0"}, "holds no adapters"),
        (lambda state: {**state, "up.0": state["up.0"][:5].clone()}, "up.0"),
        (lambda state: {name: one for name, one in state.items() if name != "typical"}, "of an earlier version"),
        (lambda state: {**state, "head.weight": state["head.weight"][:, :3].clone()}, "head.weight"),
        (lambda state: {**state, "up.0": state["up.0"].float() + 3e38}, "gives no number"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(learned, tmp_path, change, said):
    broken = shutil.copytree(learned.folder, tmp_path / "broken")
    place = broken / "controls" / "acceptability"
    save_weights(change(load_weights(place)), place)
    (place / "card.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match=said):
        generate(model=broken, samples=1, candidates=2, rank_by=["acceptability"])
    if said != "gives no number":  # where nobody asks for it, it is left out
        assert generate(model=broken, samples=1, candidates=2, rank_by=["fluency"])[0].fluency.acceptability is None


def test_ties_count_half():
    assert auc(np.array([1.0, 2.0, 1.0]), np.array([False, True, True])) == 0.75
    assert auc(np.array([1.0]), np.array([True])) == 0.5


def test_what_was_learned_beside_another_network_is_refused(learned, tmp_path):
    other = shutil.copytree(learned.folder, tmp_path / "other")
    model = from_pretrained(other)
    with torch.no_grad():
        model.masked.denoiser.model.layers[-1].mlp.down_proj.weight.mul_(1.1)
    save_pretrained(model.model, model.tokenizer, other)
    with pytest.raises(ModelError, match="learned beside another network"):
        generate(model=other, samples=1, candidates=2, rank_by=["acceptability"])


def test_what_was_learned_with_another_scorer_is_refused(learned, rows, tmp_path):
    other = shutil.copytree(learned.folder, tmp_path / "other")
    model, place = from_pretrained(other), other / "controls" / "acceptability" / "card.json"
    card = json.loads(place.read_text("utf-8"))
    shutil.rmtree(other / "scorer")
    sizes = ScorerSizes(length=32, hidden=8, layers=1, heads=2)
    save_scorer(build_scorer(sizes, model.tokenizer), model.tokenizer, other / "scorer")
    asked = {"samples": 1, "candidates": 2, "rank_by": ["acceptability"]}
    with pytest.raises(ModelError, match=r"learned with another scorer than the model has now. Put that one back"):
        generate(model=other, **asked)
    place.write_text(json.dumps({key: value for key, value in card.items() if key != "scorer"}), "utf-8")
    generate(model=other, **asked)  # an earlier version said nothing of it
    place.write_text(json.dumps(card), "utf-8")
    barely = settings(steps=1, lr=1e-6).model_copy(update={"init": "model"})
    train_acceptability(barely, model, prepared(tmp_path, model, rows), tmp_path / "run", label="accepted")
    generate(model=other, **asked)  # training has gone on with it


def test_a_run_is_kept_out_of_the_model(folder, rows, tmp_path):
    model = from_pretrained(folder)
    with pytest.raises(UserError, match="is the model's folder"):
        train_acceptability(settings(), model, prepared(tmp_path, model, rows), folder, label="accepted")


def test_the_bundled_model_knows_its_scorer():
    bundled = from_pretrained("everyday")
    card = json.loads((bundled.folder / "controls" / "acceptability" / "card.json").read_text("utf-8"))
    assert card["scorer"] == scorer_digest(bundled.folder / "scorer")


def test_a_model_trained_on_from_it_has_its_texts_read_by_it(folder, learned, rows, tmp_path):
    words = learned.tokenizer.extended([["lutes"]], 1)
    network = MaskedLM(learned.masked.config.model_copy(update={"vocab_size": len(words)}))
    target = Pretrained(network, words, tmp_path / "tuned")
    save_pretrained(network, words, target.folder)
    assert carry_controls(learned, target) == (["scorer", "acceptability"], [], [])
    tuned = from_pretrained(target.folder)
    scores = [[one.acceptability for one in load_scoring(model, reads=True).of(rows[:8])] for model in (tuned, learned)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert "lutes" in load_acceptability(tuned).tokenizer
    assert "lutes" not in learned.tokenizer
    # A model trained on from that one names the same reader.
    other = Pretrained(network, words, tmp_path / "again")
    save_pretrained(network, words, other.folder)
    carry_controls(tuned, other)
    name = Path("controls", "acceptability", "reader.json")
    assert (other.folder / name).read_bytes() == (tuned.folder / name).read_bytes()
    # Its own verdicts come first.
    shutil.copytree(
        folder / "controls" / "acceptability", other.folder / "controls" / "acceptability", dirs_exist_ok=True
    )
    with pytest.raises(ModelError, match="were trained on word embeddings other than the model's"):
        load_scoring(from_pretrained(other.folder), reads=True)


def test_a_scorer_that_was_trained_on_from_it_may_take_its_place(learned, rows, tmp_path):
    other = from_pretrained(shutil.copytree(learned.folder, tmp_path / "other"))
    config = ScorerConfig(model=SCORER_SIZES, loop=settings(steps=1, lr=1e-3).loop, init=str(learned.folder))
    train_scorer(config, prepared(tmp_path, other, rows), tmp_path / "run", quiet=True)
    shutil.copytree(tmp_path / "run" / "scorer", other.folder / "scorer", dirs_exist_ok=True)
    assert scorer_digest(other.folder / "scorer") != scorer_digest(learned.folder / "scorer")
    assert load_scoring(other, reads=True).of(rows[:1])[0].acceptability is not None
    target = Pretrained(other.model, other.tokenizer, tmp_path / "target")
    save_pretrained(target.model, target.tokenizer, target.folder)
    assert carry_controls(other, target).copied == ["scorer", "acceptability"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("nobody", "reader.json: reader must be a bundled model"), ("e2e", "e2e: is not a masked model that reads texts")],
)
def test_a_reader_that_is_none_is_said(folder, tmp_path, name, said):
    own = shutil.copytree(folder, tmp_path / "own", ignore=shutil.ignore_patterns("controls"))
    write_reader(own, name)
    with pytest.raises(ModelError, match=said):
        load_scoring(from_pretrained(own), reads=True)
    assert generate(model=own, samples=1)[0].fluency.acceptability is None


def test_the_weights_of_the_reader_are_part_of_the_identity_of_a_run(learned, tmp_path):
    reader = shutil.copytree(learned.folder, tmp_path / "reader")
    own = shutil.copytree(learned.folder, tmp_path / "own", ignore=shutil.ignore_patterns("controls"))
    write_reader(own, str(reader))
    recipe = Recipe(model=str(own), candidates=2, rank_by=["acceptability"])
    before = identity(recipe, from_pretrained(own))["scorer"]
    assert before == identity(recipe, from_pretrained(reader))["scorer"]
    place = reader / "controls" / "acceptability"
    state = load_weights(place)
    save_weights({**state, "bias": state["bias"] + 1}, place)
    (place / "card.json").write_text("{}")
    assert identity(recipe, from_pretrained(own))["scorer"] != before
