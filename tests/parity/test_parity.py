"""Agreement with the original Diffusion-LM: its checkpoints, imported and saved here, give its numbers within 1e-4.

The checkpoints lie in the folder of DLMCTL_PARITY, or in shared/parity beside the checkout.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.cli import app
from dlmctl.diffusion.gaussian import Gaussian
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import Draw, SampleNoise
from dlmctl.diffusion.objectives import paper_loss
from dlmctl.diffusion.process import posterior, q_sample
from dlmctl.diffusion.samplers import ancestral
from dlmctl.diffusion.schedule import ScheduleName, betas
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.walk import Step
from tests.diffusion.unsteered import Unsteered

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "parity"
TOLERANCE = 1e-4
INPUTS = {"input_ids", "x_t", "noise", "noise_x0", "t"}
SCHEDULES = [f"betas_{name}" for name in get_args(ScheduleName)]
PROCESS = ["alphas_cumprod", "q_sample", "posterior_mean", "posterior_var"]
NETWORK = ["model_timesteps_scaled", "model_output", "embeds", "logits"]
REVERSE = [f"p_{what}_{how}" for what in ("mean", "logvar", "x0") for how in ("plain", "clamp")]
DDIM = ["ddim20_timesteps", "ddim20_sample_plain", "ddim20_sample_clamp", "ddim20_tokens_clamp"]
LOSS = ["loss", "loss_mse"]


class Case(NamedTuple):
    expected: dict[str, np.ndarray]
    ours: dict[str, np.ndarray]


class Given(NamedTuple):
    """The inputs of ``expected.npz``, with the original's integer k as our time (k + 1) / T."""

    model: DiffusionLM
    ids: Tensor
    x_t: Tensor
    noise: Tensor
    noise_x0: Tensor
    k: Tensor
    t: Tensor


@pytest.fixture(scope="session", params=["original_sqrt_d16", "original_sqrt_d32_l2logits"])
def original(request: pytest.FixtureRequest) -> Path:
    """One checkpoint folder of the original with its ``expected.npz``."""
    folder = Path(os.environ.get("DLMCTL_PARITY", BESIDE)) / str(request.param)
    if not (folder / "expected.npz").is_file():
        pytest.skip(f"the original's numbers are not here: {folder} (set DLMCTL_PARITY to their folder)")
    return folder


@pytest.fixture(scope="session")
def imported(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as a model of ours, saved."""
    folder = tmp_path_factory.mktemp("imported") / original.name
    result = CliRunner().invoke(app, ["import", "original", str(original), "--to", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def case(original: Path, imported: Path) -> Case:
    pretrained = from_pretrained(imported)
    model = pretrained.latent
    with np.load(original / "expected.npz") as file:
        expected = {name: file[name] for name in file.files}
    ids, x_t, noise, noise_x0, k = (
        torch.from_numpy(expected[name]) for name in ("input_ids", "x_t", "noise", "noise_x0", "t")
    )
    steps = model.config.schedule_steps
    assert steps is not None
    given = Given(model, ids, x_t, noise, noise_x0, k, (k.double() + 1) / steps)
    with torch.no_grad():
        ours = {**_schedules(steps), **_process(given), **_network(given), **_reverse(given)}
        ours |= {**_ddim20(given, pretrained), **_losses(given)}
    return Case(expected, {name: np.asarray(value) for name, value in ours.items()})


def _schedules(steps: int) -> dict[str, np.ndarray]:
    return {f"betas_{name}": betas(name, steps) for name in get_args(ScheduleName)}


def _process(given: Given) -> dict[str, Tensor]:
    schedule, x0 = given.model.schedule, given.model.embed(given.ids)
    steps = given.model.config.schedule_steps
    assert steps is not None
    grid = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    mean, variance = posterior(schedule, x0, given.x_t, given.t, given.t - 1 / steps)
    return {
        "alphas_cumprod": schedule.alphabar(grid),
        "q_sample": q_sample(schedule, x0, given.t, given.noise),
        "posterior_mean": mean,
        "posterior_var": variance.expand_as(mean),
    }


def _network(given: Given) -> dict[str, Tensor]:
    return {
        "model_timesteps_scaled": given.model.schedule.network_time(given.t),
        "model_output": given.model.predict(given.x_t, given.t).x0,
        "embeds": given.model.embed(given.ids),
        "logits": given.model.rounding_logits(given.x_t),
    }


def _reverse(given: Given) -> dict[str, Tensor]:
    """One ancestral step of each row, through the family itself."""
    steps = given.model.config.schedule_steps
    assert steps is not None
    found: dict[str, Tensor] = {}
    for how in ("plain", "clamp"):
        family = Unsteered(given.model, ancestral(given.model.schedule), given.x_t, clamp=how == "clamp")
        estimate = family(given.x_t, given.t)
        noise = SampleNoise([Draw(0, row) for row in range(len(given.t))])
        moved = family.step(given.x_t, estimate, given.t, given.t - 1 / steps, noise)
        found[f"p_mean_{how}"] = moved.mean
        found[f"p_x0_{how}"] = estimate.x0
        found[f"p_logvar_{how}"] = moved.variance.log().expand_as(given.x_t)
    return found


def _ddim20(given: Given, imported: Pretrained) -> dict[str, Tensor]:
    """Twenty steps of DDIM, through ``generate`` with the preset ``paper``."""
    model, steps = given.model, given.model.config.schedule_steps
    assert steps is not None
    seen: dict[bool, list[Step]] = {True: [], False: []}
    with pytest.MonkeyPatch.context() as patch:
        # In place of noise drawn from a seed, on as many positions.
        patch.setattr(Gaussian, "start", lambda *_: given.x_t)
        patch.setattr("dlmctl.sampling.batch_layout.lay_out", lambda *_: Layout(given.x_t.shape[1], None))
        for clamp in (True, False):
            settings = {"steps": 20, "eta": 0.0, "clamp": clamp, "canvas": "fitted"}
            asked = {"samples": len(given.x_t), "preset": "paper", "sampler": settings, "device": "cpu"}
            generate(model=imported, **asked, on_step=seen[clamp].append)
    sample = seen[True][-1].x
    return {
        "ddim20_timesteps": (torch.tensor([step.t for step in seen[True]]) * steps - 1).round().long().flip(0),
        "ddim20_sample_plain": seen[False][-1].x,
        "ddim20_sample_clamp": sample,
        "ddim20_tokens_clamp": model.token_ids(sample),
    }


def _losses(given: Given) -> dict[str, Tensor]:
    found = paper_loss(given.model, given.ids, given.t, given.noise, given.noise_x0)
    return {"loss": found["loss"], "loss_mse": found["mse"]}


def test_the_imported_model_generates_and_goes_back_exactly(original: Path, imported: Path, tmp_path: Path) -> None:
    words = from_pretrained(imported).tokenizer
    for text in generate(model=str(imported), samples=2, sampler=SamplerSettings(steps=4)):
        assert text.words
        assert len(words.encode(text.words)) == len(text.words) + 2
    result = CliRunner().invoke(app, ["export", "original", str(imported), "--to", str(tmp_path / "back")])
    assert result.exit_code == 0, result.output
    weights, back = (
        torch.load(next(folder.glob("ema_*.pt")), weights_only=True) for folder in (original, tmp_path / "back")
    )
    assert weights.keys() == back.keys()
    assert all(torch.equal(weights[name], back[name]) for name in weights)
    for name in ("vocab.json", "training_args.json"):
        theirs, ours = (json.loads((folder / name).read_text("utf-8")) for folder in (original, tmp_path / "back"))
        run_only = {"ema_rate", "lr", "lr_anneal_steps", "seed", "num_heads", "num_res_blocks"}  # the model has none
        assert {key: ours[key] for key in theirs if key not in run_only} == {
            key: value for key, value in theirs.items() if key not in run_only
        }


def test_every_number_of_the_original_is_compared(case: Case) -> None:
    named = {*SCHEDULES, *PROCESS, *NETWORK, *REVERSE, *DDIM, *LOSS}
    assert set(case.expected) == named | INPUTS
    assert set(case.ours) == named


@pytest.mark.parametrize("name", [*SCHEDULES, *PROCESS, *NETWORK, *REVERSE, *DDIM, *LOSS])
def test_agrees_with_the_original(case: Case, name: str) -> None:
    ours, expected = case.ours[name], case.expected[name]
    assert ours.shape == expected.shape
    if expected.dtype.kind == "i":
        np.testing.assert_array_equal(ours, expected)
    elif name.startswith(("betas", "alphas")):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-15)
    else:
        np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)
