"""The training loop: language models, control classifiers and scorers all train in this one.

What differs between them is the ``Task``: batches, a loss, a validation and, if it likes, sample texts.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dlmctl.errors import UserError
from dlmctl.training.config import LoopConfig
from dlmctl.training.progress import TrainingProgress
from dlmctl.training.throughput import flops_per_position, peak_flops


class Task(Protocol):
    """What the loop trains."""

    @property
    def model(self) -> nn.Module:
        """The network, untrained."""

    def batches(self, skip: int, rank: int, world: int) -> Iterator[Any]:
        """An endless stream of batches, starting after ``skip`` of them."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """The mean loss of a batch, and how many positions it has."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures of the averaged weights on held-out data."""

    def samples(self, model: nn.Module) -> list[str]:
        """A few texts, to see what the figures do not show; may be empty."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


class TaskLoss(nn.Module):
    """A task's loss as one forward pass, so that whatever wraps it (DDP, autocast) sees all that the model does."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self.task_loss = task.loss

    def forward(self, batch: Any) -> tuple[Tensor, int]:
        return self.task_loss(self.model, batch)


def learning_rate(config: LoopConfig, step: int) -> float:
    """Share of the peak learning rate at ``step``: linear warm-up, then the decay to zero."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    if config.decay == "constant":
        return 1.0
    if config.decay == "linear":
        return 1.0 - done
    return float(0.5 + 0.5 * torch.cos(torch.tensor(done * torch.pi)))


def optimizers(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW; with ``muon``, Muon (Jordan 2024) for the matrices inside blocks and AdamW for all the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and ".blocks." in name
            (matrices if hidden and config.optimizer == "muon" else others).append(parameter)
    decay = config.weight_decay
    fused = next(model.parameters()).is_cuda or next(model.parameters()).device.type == "cpu"
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=config.lr, weight_decay=decay, betas=(0.9, 0.98), fused=fused)
    ]
    if matrices:
        # match_rms_adamw scales the update so that one learning rate serves both optimisers.
        found.append(torch.optim.Muon(matrices, lr=config.lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return found


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, its decay warmed up so that early weights are forgotten."""

    def update(averages: Any, weights: Any, count: Tensor | int) -> None:
        now = float(count)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + now) / (10 + now)))

    return AveragedModel(model, multi_avg_fn=update)


def fit(task: Task, config: LoopConfig, out: Path, *, resume: bool = False, quiet: bool = False) -> nn.Module:
    """Train ``task.model`` and return it with its averaged weights.

    Writes ``metrics.jsonl``, TensorBoard events where that package is installed, and ``state.pt`` (replaced
    in one move, so an interruption at any moment leaves a whole one). On one CPU a resumed run
    continues bit for bit.

    Raises:
        UserError: ``out`` holds an earlier run and ``resume`` is off, or holds none and it is on; a checkpoint cannot
            be written or read; the loss is no longer a number.
    """
    state_file = out / "state.pt"
    if state_file.exists() != resume:
        what = "nothing to resume here." if resume else "holds an earlier run."
        raise UserError(
            what, where=str(out), remedy="" if resume else "Give --resume to continue it, or another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    # Unless told that there is only a CPU, accelerate takes several processes on it for as many runs of one.
    precision = "no" if config.precision == "fp32" else config.precision
    accelerator = Accelerator(mixed_precision=precision, cpu=not torch.accelerator.is_available())
    rank, world = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(config.seed + rank)

    raw = task.model.to(accelerator.device)
    ema = averaged(raw, config.ema)
    if config.compile:
        raw.compile(dynamic=True)
    model = accelerator.prepare(TaskLoss(task))
    steppers = [accelerator.prepare(optimizer) for optimizer in optimizers(raw, config)]
    start = 0
    if resume:
        start = _restore(state_file, raw, ema, steppers, task, rank)
    batches = task.batches(start * config.accumulate, rank, world)

    # What nobody records is not measured.
    flops = None if quiet else (flops_per_position(raw), peak_flops(accelerator.device, config.precision) * world)
    hidden = quiet or not accelerator.is_main_process
    with TrainingProgress(config.steps, start, out, quiet=hidden, flops=flops) as progress:
        for step in range(start, config.steps):
            share = learning_rate(config, step)
            for stepper in steppers:
                for group in stepper.param_groups:
                    group["lr"] = config.lr * share
            positions, total, waited = 0, 0.0, 0.0
            raw.train()
            for _ in range(config.accumulate):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                with accelerator.autocast():
                    loss, count = model(batch)
                accelerator.backward(loss / config.accumulate)
                positions, total = positions + count * world, total + loss.detach().item() / config.accumulate
            if not math.isfinite(total):
                raise UserError(
                    f"the loss is {total} at step {step + 1}.",
                    where=str(out),
                    remedy="The last checkpoint is from before; give --resume with a smaller lr or a longer warmup.",
                )
            norm = accelerator.clip_grad_norm_(raw.parameters(), config.clip) if config.clip else torch.zeros(())
            for stepper in steppers:
                stepper.step()
                stepper.zero_grad()
            ema.update_parameters(raw)
            progress.advance(total, positions, waited)

            done = step + 1
            if done % config.log_every == 0:
                progress.log(done, {"loss": progress.loss, "lr": config.lr * share, "grad_norm": float(norm)})
            if accelerator.is_main_process and (done % config.validate_every == 0 or done == config.steps):
                ema.module.eval()
                progress.log(done, {f"valid_{name}": value for name, value in task.validate(ema.module).items()})
                progress.show(task.samples(ema.module))
            if done % config.checkpoint_every == 0 or done == config.steps:
                accelerator.wait_for_everyone()
                if accelerator.is_main_process:
                    _save(state_file, raw, ema, steppers, task, done)
    return ema.module.eval()


def _save(path: Path, model: nn.Module, ema: nn.Module, steppers: list[Any], task: Task, step: int) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "optimizers": [stepper.state_dict() for stepper in steppers],
        "task": task.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    partial = path.with_suffix(".partial")
    try:
        torch.save(state, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the checkpoint could not be written: {error}.",
            where=str(path),
            remedy="The checkpoint before it is untouched; make room and give --resume.",
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _restore(path: Path, model: nn.Module, ema: nn.Module, steppers: list[Any], task: Task, rank: int) -> int:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        for stepper, saved in zip(steppers, state["optimizers"], strict=True):
            stepper.load_state_dict(saved)
        task.load_state_dict(state["task"])
        step = int(state["step"])
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the checkpoint does not fit these settings or is damaged: {first}",
            where=str(path),
            remedy="Resume with the configuration that the run was started with.",
        ) from None
    if rank == 0:
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
    else:  # a run of several processes is not bit-exact, but ranks must not repeat rank 0's noise
        torch.manual_seed(hash((step, rank)) % 2**31)
    return step
