"""Tuning a masked model on readers' verdicts: it writes more of what they accept, and controls still fit."""

from __future__ import annotations

import json
import math
import random
import shutil

import numpy as np
import pytest
import torch

from controls import SyntaxTree
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.checkpoint.reader import named_reader
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import DataError, ModelError, UserError
from dlmctl.generation.generate import generate
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig
from dlmctl.training.drafts import log_odds
from dlmctl.training.loop import fit
from dlmctl.training.preferences import PreferencesConfig, PreferenceTask, train_preferences
from dlmctl.training.tuned_model import save_tuned

SUBJECTS, VERBS, OBJECTS = "dogs cats hens owls men boys".split(), "eat see hear like".split(), "rice bread tea".split()
ROWS = [[a, b, c, "."] for a in SUBJECTS for b in VERBS for c in OBJECTS]
UPOS = ["NOUN", "VERB", "NOUN", "PUNCT"]
TREE = "(ROOT (S (NP (NNS {})) (VP (VBP {}) (NP (NN {}))) (. .)))"


def verdict(words):
    """A reader who minds that anybody eats tea, or what is not a sentence."""
    sentence = words[0] in SUBJECTS and words[1] in VERBS and words[2] in OBJECTS
    return float(sentence and not absurd(words))


def absurd(words):
    return "tea" in words and "eat" in words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    words = WordTokenizer.from_corpus(ROWS, 1, "penn")
    sizes = {"hidden": 32, "layers": 2, "heads": 2, "inner": 48, "max_length": 16}
    config = MaskedConfig(
        length=16, denoiser=sizes, vocab_size=len(words), sentence_lengths=[0] * 4 + [1], tags=sorted(set(UPOS))
    )
    network = MaskedLM(config)
    with torch.no_grad():  # as of an untrained network, words would be all alike to it
        network.denoiser.model.embed_tokens.weight.mul_(40)
    place = tmp_path_factory.mktemp("model")
    save_pretrained(network, words, place)
    (place / "controls" / "acceptability").mkdir(parents=True)
    (place / "controls" / "acceptability" / "card.json").write_text("{}", "utf-8")
    return place


def prepare_data(folder, model, name, rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    prepare(folder / f"{name}.jsonl", None, folder / name, tokenizer=model.tokenizer, length=16, valid_share=0.2)
    return folder / name


def drafts(extra=dict):
    rng = random.Random(0)
    texts = ROWS + [[rng.choice(SUBJECTS + OBJECTS), *row[1:]] for row in ROWS]
    return [{"text": " ".join(words), "accepted": verdict(words), "drawn": words[1], **extra()} for words in texts]


def plain():
    return [{"text": " ".join(words), "upos": UPOS, "tree": TREE.format(*words)} for words in ROWS]


def settings(steps=240, **changes):
    loop = {"steps": steps, "batch_positions": 256, "bucket": 1, "full_share": 0.0, "lr": 0.02, "ema": 0.5}
    return PreferencesConfig(rank=4, groups=["drawn"], loop=LoopConfig(**loop, validate_every=40), **changes)


@pytest.fixture(scope="module")
def tuned(folder, tmp_path_factory):
    place, model = tmp_path_factory.mktemp("run"), from_pretrained(folder)
    data = prepare_data(place, model, "drafts", drafts()), prepare_data(place, model, "plain", plain())
    saved = train_preferences(settings(), model, *data, place / "run", label="accepted")
    assert saved == place / "run" / "model"
    return from_pretrained(saved)


def test_the_tuned_model_writes_more_of_what_readers_accept(folder, tuned):
    options = {
        "samples": 200,
        "seed": 1,
        "device": "cpu",
        "sampler": {"temperature": 1.0, "min_p": 0.0, "name": "random"},
    }
    before, after = (
        [list(text.words) for text in generate(model=model, **options)] for model in (from_pretrained(folder), tuned)
    )
    assert np.mean([verdict(words) for words in after]) > np.mean([verdict(words) for words in before]) + 0.3
    # One in twelve of the ordinary texts in training is absurd.
    assert np.mean([absurd(words) for words in after]) < 0.03


def test_words_stay_as_they_were_and_what_was_read_off_the_old_network_is_left_behind(folder, tuned):
    old = from_pretrained(folder)
    assert torch.equal(old.masked.embedding_table, tuned.masked.embedding_table)
    assert (tuned.folder / "controls").is_dir()
    assert not (tuned.folder / "controls" / "acceptability").exists()
    matrix = "model.layers.0.self_attn.o_proj.weight"
    assert not torch.equal(old.model.state_dict()[matrix], tuned.model.state_dict()[matrix])


def test_the_old_model_goes_on_reading(folder, tmp_path, caplog):
    old = from_pretrained(shutil.copytree(folder, tmp_path / "old"))
    weights = old.folder / "controls" / "acceptability" / "model.safetensors"
    weights.write_bytes(b"")
    (old.folder / "controls" / ".pos.partial").mkdir()  # left by a killed run
    save_tuned(old.masked, old, None, tmp_path / "tuned")
    assert not list((tmp_path / "tuned" / "controls").glob(".*"))
    tuned = from_pretrained(tmp_path / "tuned")
    assert named_reader(tuned) == old.folder.resolve()
    assert not list((tuned.folder / "controls" / "acceptability").glob("*.safetensors"))
    save_tuned(tuned.masked, tuned, None, tmp_path / "again")
    assert named_reader(from_pretrained(tmp_path / "again")) == old.folder.resolve()
    shutil.rmtree(old.folder)
    save_tuned(tuned.masked, tuned, None, tmp_path / "last")
    assert "it is not there (any more)" in caplog.text
    assert not (tmp_path / "last" / "controls" / "acceptability").exists()


def test_a_control_that_is_told_is_told_to_the_new_network(folder, tmp_path):
    own = tmp_path / "own"
    save_pretrained(from_pretrained(folder).model, from_pretrained(folder).tokenizer, own)
    model = from_pretrained(own)
    text = prepare_data(tmp_path, model, "plain", plain() * 3)
    loop = LoopConfig(steps=5, batch_positions=256, bucket=1, full_share=0.0, lr=0.01)
    data = prepare_data(tmp_path, model, "drafts", drafts(lambda: {"written": [0, 2]})), text
    with pytest.raises(ModelError, match="no hints for the control 'syntax_tree'"):
        train_preferences(settings(told="syntax_tree"), model, *data, tmp_path / "early", label="accepted")
    train_control(SyntaxTree, model, loop, text, tmp_path / "hints")
    saved = train_preferences(settings(40, told="syntax_tree"), model, *data, tmp_path / "run", label="accepted")
    names = [folder / "controls" / "syntax_tree" / "hints.safetensors" for folder in (own, saved)]
    assert names[0].read_bytes() != names[1].read_bytes()
    texts = generate(SyntaxTree(tree=TREE.format(*ROWS[0])), model=saved, samples=2, device="cpu")
    assert all(len(text.words) == 4 for text in texts)


def test_the_odds_of_a_draft_are_those_of_the_others_of_its_group():
    verdicts = np.array([1.0, 1.0, 0.0, 1.0])
    chances = [(2 + 1) / 5, (2 + 1) / 5, (3 + 1) / 5, (2 + 1) / 5]
    assert log_odds(verdicts, [()] * 4).tolist() == pytest.approx([math.log(p / (1 - p)) for p in chances])
    others = [1.0, 1.0, 1.0, 0.0]
    chances = [(other + 2 * p) / 3 for other, p in zip(others, chances, strict=True)]
    grouped = log_odds(verdicts, [("a",), ("a",), ("b",), ("b",)])
    assert grouped.tolist() == pytest.approx([math.log(p / (1 - p)) for p in chances], rel=1e-5)


def test_a_resumed_run_ends_with_the_weights_of_one_that_went_through(folder, tmp_path):
    model = from_pretrained(folder)
    given = prepare_data(tmp_path, model, "drafts", drafts()), prepare_data(tmp_path, model, "plain", plain())
    loop = LoopConfig(steps=6, batch_positions=64, bucket=1, full_share=0.0, lr=0.01, checkpoint_every=3)
    config = PreferencesConfig(rank=2, loop=loop)
    tasks = [PreferenceTask(config, model, *given, "accepted") for _ in range(3)]
    through = fit(tasks[0], loop, tmp_path / "through", quiet=True)
    tasks[1].loss = cut_after(3, tasks[1].loss)
    with pytest.raises(RuntimeError, match="cut"):
        fit(tasks[1], loop, tmp_path / "cut", quiet=True)
    resumed = fit(tasks[2], loop, tmp_path / "cut", quiet=True, resume=True)
    for name, weight in through.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def cut_after(calls, loss):
    def cut(*args):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise RuntimeError("cut")
        return loss(*args)

    return cut


def test_the_model_that_is_tuned_is_not_written_over(folder, tmp_path):
    own = tmp_path / "run" / "model"
    save_pretrained(from_pretrained(folder).model, from_pretrained(folder).tokenizer, own)
    with pytest.raises(UserError, match="is the model to be tuned"):
        train_preferences(settings(), from_pretrained(own), tmp_path, tmp_path, tmp_path / "run", label="accepted")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            lambda: drafts(lambda: {"written": [4]}),
            "'written' of text 1 is not a list of word numbers",
        ),
        (lambda: drafts(lambda: {"written": "all"}), "'written' of text 1 is not a list"),
        (lambda: [{**row, "accepted": "yes"} for row in drafts()], "is 'yes'; a verdict is a number"),
        (
            lambda: [{**row, "accepted": 1} for row in drafts()],
            r"of all \d+ texts to learn from is 1. Training needs",
        ),
        (lambda: [{key: row[key] for key in ("text", "accepted")} for row in drafts()], "no field 'drawn'"),
    ],
)
def test_drafts_that_say_nothing_of_use_are_refused(folder, tmp_path, rows, said):
    model = from_pretrained(folder)
    data = prepare_data(tmp_path, model, "drafts", rows()), prepare_data(tmp_path, model, "plain", plain())
    with pytest.raises(DataError, match=said):
        train_preferences(settings(), model, *data, tmp_path / "run", label="accepted")
