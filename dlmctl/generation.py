"""From a recipe to checked texts: lay out canvases, sample batches under control, check the words."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlmctl.canvas import choose_canvas
from dlmctl.checkpoint import Pretrained, from_pretrained
from dlmctl.compose import All, AnyOf, Not
from dlmctl.control import Check, Control, Setting, find_control
from dlmctl.errors import UserError
from dlmctl.noise import SampleNoise
from dlmctl.recipe import ControlSpec, Recipe
from dlmctl.samplers import SAMPLERS, OnStep, Step
from dlmctl.settings import Guidance, SamplerSettings
from dlmctl.steer import Steered

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One text and how well it does what was asked.

    Attributes:
        index: number of the sample in the run.
        words: as the model made them; text: the same in natural spelling.
        checks: the verdict of each control, by its label.
        latent: the final latent of the words, ``[L, D]``.
    """

    index: int
    words: list[str]
    text: str
    checks: dict[str, Check]
    latent: np.ndarray = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether every control is satisfied; true where none was asked for."""
        return all(check.passed for check in self.checks.values())


@dataclass(frozen=True)
class Generation:
    """The samples of a run, in order, and the seconds that sampling and checking took."""

    samples: list[Sample]
    seconds: float

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def success(self) -> float:
        """Share of samples that satisfy every control."""
        return sum(sample.passed for sample in self.samples) / max(1, len(self.samples))


Progress = Callable[[int, int], None]
"""Receives reverse steps done and reverse steps in all."""


def build_control(specs: Sequence[ControlSpec]) -> Control[Any] | None:
    """The control that a recipe's entries describe, or None if there are none."""
    controls = [_build(spec) for spec in specs]
    if not controls:
        return None
    return controls[0] if len(controls) == 1 else All(controls)


def _build(spec: ControlSpec) -> Control[Any]:
    parts = [_build(part) for part in spec.parts]
    if spec.name == "all":
        made: Control[Any] = All(parts)
    elif spec.name == "any":
        made = AnyOf(parts)
    elif spec.name == "not":
        made = Not(parts[0])
    else:
        kind = find_control(spec.name)
        made = kind.each([kind.Params.model_validate(params) for params in spec.params])
    made.weight = spec.weight
    return made


def run_recipe(recipe: Recipe, *, progress: Progress | None = None, on_step: OnStep | None = None) -> Generation:
    """Generate what a recipe asks for. See ``generate``."""
    return generate(
        build_control(recipe.control_specs()),
        model=recipe.model,
        samples=recipe.samples,
        seed=recipe.seed,
        sampler=recipe.sampler,
        guidance=recipe.guidance,
        batch_size=recipe.batch_size,
        device=recipe.device,
        progress=progress,
        on_step=on_step,
    )


def generate(
    control: Control[Any] | None = None,
    *,
    model: str | Pretrained = "e2e",
    samples: int = 8,
    seed: int = 0,
    sampler: SamplerSettings | None = None,
    guidance: Guidance | None = None,
    batch_size: int = 64,
    device: str = "auto",
    progress: Progress | None = None,
    on_step: OnStep | None = None,
) -> Generation:
    """Texts of a diffusion LM, under a control or freely.

    Args:
        control: what the texts must satisfy, e.g. ``Pos(tags=[...])``; controls combine with ``&``, ``|``, ``~``.
        model: a bundled name, a folder, a hub name, or a model already loaded.
        samples: how many texts; a control's sets of parameters are dealt out to them in turn.
        seed: each sample follows from the seed and its own number alone.
        device: ``auto`` takes a GPU if there is one.
        on_step: sees every reverse step of every batch.

    Raises:
        UserError: a missing model or weights, a control that the model cannot satisfy, an unknown device.
    """
    started = time.perf_counter()
    sampler, guidance = sampler or SamplerSettings(), guidance or Guidance()
    place = choose_device(device)
    pretrained = model if isinstance(model, Pretrained) else from_pretrained(model)
    pretrained.model.to(place)
    batches = _batches(pretrained, control, seed, samples, batch_size)
    done: list[Sample] = []
    for number, (rows, canvas) in enumerate(batches):

        def watch(step: Step, number: int = number) -> None:
            if progress is not None:
                progress(number * step.steps + step.number + 1, len(batches) * step.steps)

        part = control.only(rows) if control is not None else None
        ids, latent = _sample(pretrained, part, rows, canvas, seed, sampler, guidance, [watch, on_step])
        words = [pretrained.tokenizer.words(row) for row in ids.tolist()]
        checks = check_all(part, words)
        for at, row in enumerate(rows):
            text = pretrained.tokenizer.text(words[at])
            done.append(Sample(row, words[at], text, checks[at], latent[at].cpu().numpy()))
    done.sort(key=lambda sample: sample.index)
    return Generation(done, time.perf_counter() - started)


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU if there is one.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"device {name!r} cannot be used: {reason}.", remedy="Use auto or cpu.") from None
    return device


def check_all(control: Control[Any] | None, words: Sequence[Sequence[str]]) -> list[dict[str, Check]]:
    """The verdicts on each text by control label; a composition of all reports each of its parts."""
    if control is None:
        return [{} for _ in words]
    parts = control.parts if isinstance(control, All) else [control]
    verdicts: dict[str, list[Check]] = {}
    for part in parts:
        label = part.name
        while label in verdicts:  # two controls of one kind
            label += "'"
        verdicts[label] = part.check(words)
    return [{label: checks[at] for label, checks in verdicts.items()} for at in range(len(words))]


def _batches(
    pretrained: Pretrained, control: Control[Any] | None, seed: int, samples: int, batch_size: int
) -> list[tuple[list[int], int]]:
    """Sample numbers and canvas of each batch: samples of like length share one."""
    by_canvas: dict[int, list[int]] = defaultdict(list)
    for sample in range(samples):
        by_canvas[choose_canvas(pretrained.model.config, control, seed, sample)].append(sample)
    return [
        (rows[at : at + batch_size], canvas)
        for canvas, rows in sorted(by_canvas.items())
        for at in range(0, len(rows), batch_size)
    ]


def _sample(
    pretrained: Pretrained,
    control: Control[Any] | None,
    rows: list[int],
    canvas: int,
    seed: int,
    sampler: SamplerSettings,
    guidance: Guidance,
    watchers: Sequence[OnStep | None],
) -> tuple[Tensor, Tensor]:
    """Word ids ``[B, L]`` and final latents ``[B, L, D]`` of one batch."""
    model = pretrained.model
    table = model.embeddings
    if control is not None:
        control.prepare(Setting(model, pretrained.tokenizer, pretrained.folder, len(rows), canvas))
    steered = Steered(
        model, pretrained.tokenizer, control, guidance, clamp=sampler.clamp, temperature=sampler.temperature
    )
    noise = SampleNoise(seed, rows, sampler.top_p)

    def on_step(step: Step) -> Tensor | None:
        moved = steered.on_step(step)
        for watcher in watchers:
            if watcher is not None:
                seen = step if moved is None else step._replace(x=moved)
                replaced = watcher(seen)
                moved = moved if replaced is None else replaced
        return moved

    with torch.no_grad():
        x = noise(torch.empty(len(rows), canvas, model.config.embed_dim, device=table.device))
        times = model.schedule.times(sampler.steps, last=sampler.last)
        eta = 0.0 if sampler.name == "dpmpp_2m" else sampler.eta
        x = SAMPLERS[sampler.name](steered, x, times, model.schedule, noise, eta=eta, on_step=on_step)
        ids = steered.words(x, sampler.rounding)
        return ids, model.embed(ids)
