"""Encoders trained on as diffusion models: what is learned, saved for both libraries, resumed and refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from typer.testing import CliRunner

import dlmctl
from controls import Contains, Length, Pos
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.vendors.trained_folder import TEXTS
from dlmctl.checkpoint.weights import load_weights
from dlmctl.cli import app
from dlmctl.datasets.existing_tokenizer import find_tokenizer
from dlmctl.datasets.prepare import prepare
from dlmctl.errors import DataError, ModelError
from dlmctl.text.tokenizer import same_encoding
from dlmctl.training import control_inputs
from dlmctl.training.checkpoint import CheckpointSettings, CheckpointTask, CheckpointTrainingConfig
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig
from dlmctl.training.control_inputs import inputs_of
from dlmctl.training.lm import train_lm
from tests.checkpoint.tiny_encoders import KINDS, write_encoder

TEXTS_LEARNED = [
    f"The {color} boat {verb} near {place}." for color in ("red", "boy") for verb in ("sinks", "sing", "singing")
    for place in ("a river", "the river", "the boy")
]  # fmt: skip
# Of different tokenizers and names of tensors.
LEARNERS = ("bert", "roberta", "modernbert")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("learners")
    (root / "texts.txt").write_text("\n".join(TEXTS_LEARNED) + "\n")
    for kind in LEARNERS:
        write_encoder(root / kind, kind, std=0.05)
        tokenizer = find_tokenizer(str(root / kind), None)
        prepare(root / "texts.txt", None, root / f"{kind}-set", tokenizer=tokenizer, length=32, valid_share=0.2)
    return root


def config(made, kind, **loop):
    steps = {"steps": 60, "batch_positions": 128, "lr": 3e-3, "warmup": 5, "ema": 0.8, "bucket": 1}
    intervals = {"log_every": 5, "validate_every": 60, "checkpoint_every": 60}
    model = {"family": "checkpoint", "length": 32}
    return CheckpointTrainingConfig(init=str(made / kind), model=model, loop={**steps, **intervals, **loop})


def metrics(out, name):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.fixture(scope="module")
def trained(made):
    return {kind: train_lm(config(made, kind), made / f"{kind}-set", made / f"{kind}-run") for kind in LEARNERS}


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_bound_falls_and_both_libraries_read_the_result(made, trained, kind):
    task = CheckpointTask(config(made, kind), made / f"{kind}-set")
    before = task.validate(task.model.eval())["nats"]
    assert metrics(made / f"{kind}-run", "valid_nats")[-1] < 0.95 * before
    model = dlmctl.load(trained[kind])
    assert same_encoding(model.tokenizer, dlmctl.load(made / kind).tokenizer)
    network = getattr(transformers, f"{KINDS[kind]}ForMaskedLM").from_pretrained(trained[kind]).eval()
    ids = torch.tensor([model.tokenizer.encode_text("the red boat sinks")])
    size, never = len(model.tokenizer), model.model.never
    with torch.no_grad():
        wanted = network(ids).logits[..., :size].index_fill(-1, never, -torch.inf)
    assert torch.allclose(model.model.logits(ids), wanted, atol=1e-4)


def test_texts_are_as_long_as_those_it_learned_from(made, trained):
    model = dlmctl.load(trained["bert"])
    learned = {length for length, count in enumerate(model.model.config.sentence_lengths) if count}
    assert learned == {len(model.tokenizer.encode_text(text)) - 2 for text in TEXTS_LEARNED}
    drawn = model.generate(samples=12)
    assert {len(model.tokenizer.encode_text(sample.text)) - 2 for sample in drawn} <= learned
    assert len({len(sample.words) for sample in drawn}) > 1
    known = sum(sample.text.capitalize() in TEXTS_LEARNED for sample in drawn)
    assert known < len(drawn)  # the capitals of the texts are no tokens of an uncased encoder
    held = model.generate(Contains(["river"]) & Length(8), samples=4)
    assert all(sample.passed for sample in held)


def test_a_run_cut_off_resumes_bit_for_bit(made, tmp_path, monkeypatch):
    settings, data = config(made, "bert", steps=12, checkpoint_every=5, validate_every=6), made / "bert-set"
    whole = train_lm(settings, data, tmp_path / "whole")
    loss, seen = CheckpointTask.loss, []

    def cut_off(self, model, batch):
        seen.append(1)
        if len(seen) == 8:
            raise RuntimeError("the power fails")
        return loss(self, model, batch)

    monkeypatch.setattr(CheckpointTask, "loss", cut_off)
    with pytest.raises(RuntimeError, match="power"):
        train_lm(settings, data, tmp_path / "cut")
    monkeypatch.undo()
    cut = train_lm(settings, data, tmp_path / "cut", resume=True)
    weights = [load_weights(folder) for folder in (whole, cut)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_cannot_be_trained_on(made, tmp_path):
    with pytest.raises(DataError, match=r"another tokenizer.*--vocabulary"):
        train_lm(config(made, "bert"), made / "roberta-set", tmp_path / "run")
    long = config(made, "bert").model_copy(update={"model": CheckpointSettings(length=65)})
    with pytest.raises(ModelError, match=r"model\.length: length is 65, but the checkpoint has 64 positions"):
        train_lm(long, made / "bert-set", tmp_path / "run")
    everyday = config(made, "bert").model_copy(update={"init": "everyday"})
    with pytest.raises(ModelError, match=r"everyday: is not a checkpoint"):
        train_lm(everyday, made / "bert-set", tmp_path / "run")


def test_lengths_that_are_none(made, tmp_path):
    folder = write_encoder(tmp_path / "bert", "bert")
    settings = json.loads((folder / "config.json").read_text())
    for damaged in ({"sentence_lengths": [1, -1]}, {"sentence_lengths": [10**400]}, {"sentence_lengths": "many"}, [1]):
        (folder / "config.json").write_text(json.dumps({**settings, TEXTS: damaged}))
        with pytest.raises(ModelError, match=r"config\.json: dlmctl_texts[.:]"):
            dlmctl.load(folder)


def test_commands(made, tmp_path):
    prepared = CliRunner().invoke(
        app,
        [
            "data",
            "prepare",
            str(made / "texts.txt"),
            "--vocabulary",
            str(made / "bert"),
            "--out",
            str(tmp_path / "set"),
        ],
    )
    assert prepared.exit_code == 0, prepared.output
    settings = [
        f"init={made / 'bert'}",
        "model.length=32",
        "loop.steps=2",
        "loop.validate_every=2",
        "loop.precision=fp32",
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    paths = ["--data", str(tmp_path / "set"), "--out", str(tmp_path / "run")]
    trained = CliRunner().invoke(app, ["train", "lm", "--config", "checkpoint", *paths, *options])
    assert trained.exit_code == 0, trained.output
    assert "shards" not in trained.output
    drawn = CliRunner().invoke(app, ["generate", "--model", str(tmp_path / "run" / "model"), "-n", "2", "--json"])
    assert drawn.exit_code == 0, drawn.output


def test_controls_are_trained_for_an_encoder_and_guide_it(made, trained, tmp_path):
    folder = shutil.copytree(trained["bert"], tmp_path / "model")
    settings = LoopConfig(steps=3, batch_positions=128, log_every=3, validate_every=3, checkpoint_every=3)
    weights = train_control(Pos, from_pretrained(folder), settings, made / "bert-set", tmp_path / "run")
    assert weights == folder / "controls" / "pos"
    model = dlmctl.load(folder)
    target = Pos("DET NOUN VERB ADP DET NOUN PUNCT")
    guided, free = (model.generate(target, samples=4, guidance={"scale": scale}) for scale in (4.0, 0.0))
    assert all(len(sample.words) == 7 for sample in (*guided, *free))
    assert [sample.text for sample in guided] != [sample.text for sample in free]


def test_estimates_are_made_a_few_rows_at_a_time(made, trained, monkeypatch):
    inputs = inputs_of(from_pretrained(trained["bert"]))
    ids = torch.tensor([[3, 6, 7, 8, 9, 4]] * 5)
    whole = inputs.at(0.5, ids)["x0"].x
    monkeypatch.setattr(control_inputs, "MOST_SCORES", 1)
    torch.testing.assert_close(inputs.at(0.5, ids)["x0"].x, whole)
