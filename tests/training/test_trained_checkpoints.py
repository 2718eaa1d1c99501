"""Checkpoints of diffusion models trained on: what is learned, and that the result is read as the original was."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import dlmctl
from controls import Contains, Length
from dlmctl.datasets.existing_tokenizer import find_tokenizer
from dlmctl.datasets.prepare import prepare
from dlmctl.errors import ModelError
from dlmctl.training.checkpoint import CheckpointTask, CheckpointTrainingConfig
from dlmctl.training.lm import train_lm
from tests.checkpoint.tiny_blocks import write_llada_moe, write_sdar
from tests.checkpoint.tiny_diffu import write_diffugpt
from tests.checkpoint.tiny_uniform import write_duo
from tests.checkpoint.tiny_vendors import write_a2d, write_llada, write_mdlm, write_sedd

SENTENCES = [f"the {color} boat {verb} near {place}." for color in ("red", "a") for verb in ("sinks", "boat")
             for place in ("a river", "the river", "the boat")]  # fmt: skip
# DiffuGPT has one token for START, END and PAD; A2D ties its embeddings; the names of LLaDA and MDLM are not ours.
WRITERS = {
    "DiffuGPT": write_diffugpt,
    "A2D": write_a2d,
    "LLaDA": write_llada,
    "MDLM": write_mdlm,
    "SEDD": write_sedd,
}


def prepared(folder):
    (folder / "texts.txt").write_text("\n".join(SENTENCES) + "\n")
    tokenizer = find_tokenizer(str(folder / "m"), None)
    prepare(folder / "texts.txt", None, folder / "set", tokenizer=tokenizer, length=64, valid_share=0.2)
    return folder / "set"


def config(folder, **loop):
    steps = {"steps": 30, "batch_positions": 256, "lr": 3e-3, "warmup": 5, "ema": 0.8, "bucket": 1}
    model = {"family": "checkpoint", "length": 64}
    return CheckpointTrainingConfig(init=str(folder / "m"), model=model, loop={**steps, "validate_every": 30, **loop})


@pytest.mark.parametrize("name", WRITERS)
def test_the_bound_falls_and_the_result_is_read_as_the_original_was(name, tmp_path):
    WRITERS[name](tmp_path / "m")
    data = prepared(tmp_path)
    before = CheckpointTask(config(tmp_path), data).validate(dlmctl.load(tmp_path / "m").model)["nats"]
    trained = train_lm(config(tmp_path), data, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert next(line["valid_nats"] for line in lines if "valid_nats" in line) < 0.9 * before
    original, weights = (load_file(folder / "model.safetensors") for folder in (tmp_path / "m", trained))
    floats = {key: tensor.shape for key, tensor in original.items() if tensor.is_floating_point()}
    assert {key: tensor.shape for key, tensor in weights.items()}.items() <= floats.items()
    assert any(not torch.equal(original[key], tensor) for key, tensor in weights.items())
    kept = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
    for file in [tmp_path / "m" / kind for kind in kept if (tmp_path / "m" / kind).is_file()]:
        assert (trained / file.name).read_bytes() == file.read_bytes()
    model = dlmctl.load(trained)
    assert model.model.config.kind == dlmctl.load(tmp_path / "m").model.config.kind
    learned = {len(model.tokenizer.encode_text(text)) - 2 for text in SENTENCES}
    seen, tokenizer = [], model.tokenizer
    model.generate(samples=6, device="cpu", on_step=lambda step: seen.append(step.x))
    special = torch.tensor([tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id])
    assert set((~torch.isin(seen[-1], special)).sum(1).tolist()) <= learned
    held = model.generate(Contains(["river"]) & Length(5), samples=3, device="cpu")
    assert held.success == 1.0, held.texts


def test_tied_weights_may_be_stored_under_either_name(tmp_path):
    write_a2d(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    state = load_file(path)
    state["lm_head.weight"] = state.pop("model.embed_tokens.weight")
    save_file(state, path, {"format": "pt"})
    task = CheckpointTask(config(tmp_path), prepared(tmp_path))
    assert not task.model.config.ends  # as after loading what it saves
    task.save(task.model, tmp_path / "saved")
    assert load_file(tmp_path / "saved" / "model.safetensors").keys() == load_file(path).keys()
    models = [dlmctl.load(tmp_path / name).model for name in ("m", "saved")]
    ids = torch.randint(0, 250, (1, 9))
    assert torch.allclose(*(model.network.head(model.network.hidden(ids)) for model in models))


@pytest.mark.parametrize(
    ("write_one", "message"),
    [
        (write_sdar, "SDAR attends by blocks"),
        (write_duo, "Duo replaces tokens by random ones"),
        (write_llada_moe, "mixtures of experts are not trained"),
    ],
)
def test_what_cannot_be_trained_on(write_one, message, tmp_path):
    write_one(tmp_path / "m")
    with pytest.raises(ModelError, match=message):
        CheckpointTask(config(tmp_path), prepared(tmp_path))
