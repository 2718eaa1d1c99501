"""The training loop: language models, control classifiers and scorers all train in this one.

What differs between them is the ``Task``: batches, a loss, a validation and, if it likes, sample texts.
"""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dlmctl.datasets.staging import check_writable
from dlmctl.errors import UserError
from dlmctl.models.llama import FusedLinear
from dlmctl.processes import Terminated, check_launch, held
from dlmctl.training.averages import Averages
from dlmctl.training.best import Best
from dlmctl.training.config import LoopConfig
from dlmctl.training.finite import not_finite
from dlmctl.training.interrupts import Interrupts
from dlmctl.training.muon import Muon
from dlmctl.training.progress import Grid, TrainingProgress
from dlmctl.training.run_folder import check_run_folder
from dlmctl.training.state import STATE_FILE, Parts, restore_state, save_state
from dlmctl.training.throughput import flops_per_position, peak_flops

# A run that is lost in its first hour has cost little less than one that is lost at its end.
FIRST_CHECKPOINT_SECONDS = 60.0
# Losses that are on the device before it is waited for, however seldom figures are logged.
MOST_UNREAD = 200
# What models call the list of their blocks.
IN_BLOCKS = re.compile(r"\.(blocks|layers)\.\d")


class Task(Protocol):
    """What the loop trains."""

    @property
    def grid(self) -> Grid | None:
        """How figures of the validation stand in a table, if they do."""

    @property
    def model(self) -> nn.Module:
        """The network, untrained."""

    def batches(self, skip: int, rank: int, world: int) -> Iterator[Any]:
        """An endless stream of batches, starting after ``skip`` of them."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """The mean loss of a batch, and how many positions it has."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures of the averaged weights on held-out data."""

    def loss_of(self, figures: dict[str, float]) -> float:
        """What the best weights have least of, among the figures of a validation."""

    def samples(self, model: nn.Module) -> list[str]:
        """A few texts, to see what the figures do not show; may be empty."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


class StatelessTask:
    """Base of tasks that keep nothing from step to step, and show no table and no texts unless they say otherwise."""

    grid: Grid | None = None

    def samples(self, model: nn.Module) -> list[str]:
        return []

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


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
    if config.decay == "constant":
        return 1.0
    start = max(config.warmup, round(config.steps * (1 - config.decay_share)))
    done = max(0, step - start) / max(1, config.steps - start)
    if config.decay == "linear":
        return 1.0 - done
    return float(0.5 + 0.5 * torch.cos(torch.tensor(done * torch.pi)))


def optimizers(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW; with ``muon``, Muon (Jordan 2024) for the matrices inside blocks and AdamW for all the rest."""
    fused_parts = {id(module.weight): module.parts for module in model.modules() if isinstance(module, FusedLinear)}
    matrices: list[tuple[nn.Parameter, tuple[int, ...]]] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if config.optimizer == "muon" and parameter.ndim == 2 and IN_BLOCKS.search(name):
            matrices.append((parameter, fused_parts.get(id(parameter), (len(parameter),))))
        else:
            others.append(parameter)
    decay = config.weight_decay
    fused = next(model.parameters()).is_cuda or next(model.parameters()).device.type == "cpu"
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=config.lr, weight_decay=decay, betas=(0.9, 0.98), fused=fused)
    ]
    if matrices:
        found.append(Muon(matrices, lr=config.lr, weight_decay=decay))
    return found


def fit(
    task: Task,
    config: LoopConfig,
    out: Path,
    *,
    identity: dict[str, Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> nn.Module:
    """Train ``task.model`` and return it with the averaged weights of its best validation.

    Writes ``metrics.jsonl``, TensorBoard events where that package is installed, and ``state.pt`` (replaced
    in one move, so an interruption at any moment leaves a whole one). On one CPU a resumed run
    continues bit for bit.

    Args:
        identity: what the result follows from (settings, digests of data), as JSON values. A run is continued with
            the same only.

    Raises:
        UserError: ``out`` holds an earlier run or its result and ``resume`` is off, or no checkpoint and it is on;
            another process trains there; a checkpoint cannot be written or read, or is of another run; the loss or a
            weight is no longer a number.
        Stopped: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    check_run_folder(out, resume=resume)
    check_launch()
    # Unless told that there is only a CPU, accelerate takes several processes on it for as many runs of one.
    precision = "no" if config.precision == "fp32" else config.precision
    accelerator = Accelerator(mixed_precision=precision, cpu=not torch.accelerator.is_available())
    with held(out / ".lock", "run", out) if accelerator.is_main_process else nullcontext():
        return _Run(task, config, out, accelerator, identity or {"loop": config.model_dump()}, resume, quiet).train()


class Stopped(KeyboardInterrupt):
    """A run was told to stop, and has written what it had."""


class _Terminated(Stopped, Terminated):
    """``Stopped`` by SIGTERM."""


class _Run:
    """The parts of one run, from its first step to its last."""

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        out: Path,
        accelerator: Accelerator,
        identity: dict[str, Any],
        resume: bool,
        quiet: bool,
    ) -> None:
        check_writable(out)
        self.task, self.config, self.out, self.accelerator, self.identity = task, config, out, accelerator, identity
        torch.manual_seed(config.seed + accelerator.process_index)
        self.raw = task.model.to(accelerator.device)
        self.ema, self.weights = Averages(self.raw, config.ema), list(self.raw.parameters())
        if config.compile:
            self.raw.compile(dynamic=True)
        self.model = accelerator.prepare(TaskLoss(task))
        self.steppers = [accelerator.prepare(optimizer) for optimizer in optimizers(self.raw, config)]
        self.best = Best()
        self.unread: list[Tensor] = []
        self.parts = Parts(self.raw, self.ema, self.steppers, task, self.best)
        self._intervals = config.log_every, config.validate_every, config.checkpoint_every
        self.start = 0
        if resume:
            self.start = restore_state(out / STATE_FILE, self.parts, accelerator.process_index, identity)
        # What nobody records is not measured.
        world = accelerator.num_processes
        flops = None
        if not quiet:
            flops = flops_per_position(self.raw), peak_flops(accelerator.device, config.precision) * world
        hidden = quiet or not accelerator.is_main_process
        self.progress = TrainingProgress(config.steps, self.start, out, quiet=hidden, flops=flops)

    def train(self) -> nn.Module:
        """Take the steps that are left, or as many of them as patience lasts for."""
        config, rank, world = self.config, self.accelerator.process_index, self.accelerator.num_processes
        batches = self.task.batches(self.start * config.accumulate, rank, world)
        self.due = time.monotonic() + FIRST_CHECKPOINT_SECONDS
        self.done = self.start
        with self.progress, Interrupts(self.accelerator) as interrupts:
            for step in range(self.start, config.steps):
                if self._is_spent(step):
                    break
                self._step(step, batches)
                self.done = step + 1
                self._record(self.done)
                if interrupts.wanted():
                    self._stop(self.done, _Terminated if interrupts.noted == signal.SIGTERM else Stopped)
        self.best.give(self.ema.module)
        if 0 < self.best.step < self.done:
            self.progress.say(f"the weights kept are those of step {self.best.step}, whose validation was the best.")
        return self.ema.module.eval()

    def _is_spent(self, done: int) -> bool:
        """Whether to end before all steps are taken; only the first process validates, so it tells the others."""
        patience = self.config.patience
        if not patience or (done % self.config.validate_every and done != self.start):
            return False
        spent = torch.tensor(float(self.best.spent(patience)), device=self.accelerator.device)
        if not self.accelerator.reduce(spent, "sum").item():
            return False
        if self.accelerator.is_main_process:
            self._save(done)
        self.progress.say(
            f"stopped after step {done}: {patience} validations in a row were no better than that of step "
            f"{self.best.step}. --resume with a greater patience goes on."
        )
        return True

    def _step(self, step: int, batches: Iterator[Any]) -> None:
        """One update of the weights."""
        config, accelerator = self.config, self.accelerator
        self.lr = config.lr * learning_rate(config, step)
        for group in (group for stepper in self.steppers for group in stepper.param_groups):
            group["lr"] = self.lr
        positions, waited = 0, 0.0
        total: Tensor | float = 0.0
        if not self.raw.training:
            self.raw.train()
        for _ in range(config.accumulate):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            with accelerator.autocast():
                loss, count = self.model(batch)
            accelerator.backward(loss / config.accumulate)
            positions += count * accelerator.num_processes
            total = total + loss.detach() / config.accumulate
        self.unread.append(torch.as_tensor(total))
        self.norm = accelerator.clip_grad_norm_(self.weights, config.clip) if config.clip else None
        for stepper in self.steppers:
            stepper.step()
            stepper.zero_grad()
        self.ema.update()
        if self.progress.clocked or len(self.unread) >= MOST_UNREAD:
            self._read(step + 1)
        self.progress.advance(positions, waited)

    def _read(self, done: int) -> None:
        """Wait for the device, and take in the losses of the steps since it was last waited for.

        Raises:
            UserError: one is no number.
        """
        losses = torch.stack(self.unread).tolist() if self.unread else []
        self.unread.clear()
        for step, loss in enumerate(losses, done + 1 - len(losses)):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} at step {step}.")
        self.progress.took(losses)

    def _require_numbers(self, done: int) -> None:
        """Refuse weights that are no numbers, before they are validated or saved.

        The loss of a step is measured before its update, so that of the last one says nothing of the weights now.

        Raises:
            UserError: one is none.
        """
        weights = [*self.raw.named_parameters(), *self.ema.module.named_parameters()]
        if (name := not_finite(weights)) is not None:
            raise self._diverged(f"{name} is not finite (NaN or infinity) after step {done}.")

    def _diverged(self, what: str) -> UserError:
        remedy = "Start again with a smaller lr or a longer warmup"
        if (self.out / STATE_FILE).exists():
            remedy = f"The last checkpoint is from before; --resume with a smaller lr. Where that is no help: {remedy}"
        return UserError(what, where=str(self.out), remedy=f"{remedy}.")

    def _record(self, done: int) -> None:
        """Figures, samples and checkpoints that are due after ``done`` steps."""
        config, last = self.config, done == self.config.steps
        late = time.monotonic() >= self.due
        # Whatever is timed apart from the steps starts once the device is through with them.
        if last or late or not all(done % every for every in self._intervals):
            self._read(done)
        if done % config.log_every == 0:
            norm = {} if self.norm is None else {"grad_norm": float(self.norm)}
            self.progress.log(done, {"loss": self.progress.loss, "lr": self.lr, **norm})
        if not self.accelerator.is_main_process:
            return
        with self.progress.paused():
            if done % config.validate_every == 0 or last:
                self._validate(done)
            # Weights are alike in all processes, so that the first need not wait for the others to write them.
            if done % config.checkpoint_every == 0 or last or late:
                self._save(done)

    def _validate(self, done: int) -> None:
        self._require_numbers(done)
        self.ema.module.eval()
        figures = self.task.validate(self.ema.module)
        self.best.take(done, self.task.loss_of(figures), self.ema.module)
        self.progress.validated(done, figures, self.task.grid)
        self.progress.show(self.task.samples(self.ema.module))

    def _save(self, done: int) -> None:
        self._read(done)  # what is no number is not saved
        self._require_numbers(done)
        save_state(self.out / STATE_FILE, self.parts, done, self.identity)
        self.due = time.monotonic() + 60 * self.config.checkpoint_minutes

    def _stop(self, done: int, kind: type[Stopped]) -> None:
        if self.accelerator.is_main_process:
            self._save(done)
        raise kind(
            f"stopped after step {done} of {self.config.steps}; the checkpoint is in {self.out}. "
            "Give the same command with --resume to go on."
        )
