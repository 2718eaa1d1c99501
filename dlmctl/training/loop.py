"""The training loop, shared by language models, control classifiers and scorers.

What differs between them is the ``Task``: batches, a loss, a validation and, optionally, sample texts.
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
from dlmctl.processes import Terminated, check_launch, run_lock
from dlmctl.training.averages import Averages
from dlmctl.training.best import BestWeights
from dlmctl.training.config import LoopConfig
from dlmctl.training.devices import accelerator_for
from dlmctl.training.finite import not_finite
from dlmctl.training.interrupts import Interrupts
from dlmctl.training.muon import Muon
from dlmctl.training.progress import Grid, TrainingProgress
from dlmctl.training.run_folder import check_run_folder
from dlmctl.training.state import STATE_FILE, TrainingState, restore_state, save_state
from dlmctl.training.throughput import flops_per_position, peak_flops

# The first checkpoint comes early, so that a run which dies soon after its start loses little.
FIRST_CHECKPOINT_SECONDS = 60.0
# Losses left on the device before the loop waits for it, however seldom metrics are logged.
MAX_UNREAD_LOSSES = 200
# Names under which models keep the list of their blocks.
IN_BLOCKS = re.compile(r"\.(blocks|layers)\.\d")


class Task(Protocol):
    """What the loop trains."""

    @property
    def grid(self) -> Grid | None:
        """How validation figures are laid out as a table; None for no table."""

    @property
    def model(self) -> nn.Module:
        """The untrained network."""

    def batches(self, skip: int, rank: int, world: int) -> Iterator[Any]:
        """An endless stream of batches, without the first ``skip``."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """The mean loss of a batch, and its number of positions."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Metrics of the averaged weights on held-out data."""

    def loss_of(self, figures: dict[str, float]) -> float:
        """The validation figure to minimise: the best weights are those with the smallest."""

    def samples(self, model: nn.Module) -> list[str]:
        """A few texts that show what the figures do not; may be empty."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


class StatelessTask:
    """Base of tasks without state between steps; by default they show no table and no sample texts."""

    grid: Grid | None = None

    def samples(self, model: nn.Module) -> list[str]:
        return []

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


class TaskLoss(nn.Module):
    """A task's loss as one forward pass, so that wrappers (DDP, autocast) see everything the model computes."""

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


def build_optimizers(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW; with ``muon``, Muon (Jordan 2024) for the matrices inside blocks and AdamW for the rest."""
    part_rows = {id(module.weight): module.parts for module in model.modules() if isinstance(module, FusedLinear)}
    matrices: list[tuple[nn.Parameter, tuple[int, ...]]] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if config.optimizer == "muon" and parameter.ndim == 2 and IN_BLOCKS.search(name):
            matrices.append((parameter, part_rows.get(id(parameter), (len(parameter),))))
        else:
            others.append(parameter)
    decay = config.weight_decay
    fused = next(model.parameters()).is_cuda or next(model.parameters()).device.type == "cpu"
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=config.lr, weight_decay=decay, betas=(0.9, 0.98), fused=fused)
    ]
    if matrices:
        optimizers.append(Muon(matrices, lr=config.lr, weight_decay=decay))
    return optimizers


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

    Writes ``metrics.jsonl``, TensorBoard events if that package is installed, and ``state.pt`` (replaced atomically,
    so that an interruption at any moment leaves a complete file). On one CPU a resumed run continues bit for bit.

    Args:
        identity: everything that determines the result (settings, digests of data), as JSON values. A run can only
            be resumed with the same values.

    Raises:
        UserError: ``out`` holds an earlier run or its result and ``resume`` is off, or no checkpoint and it is on;
            another process is training there; a checkpoint cannot be written or read, or belongs to another run; the
            loss or a weight is no longer finite.
        Stopped: Ctrl-C or SIGTERM was received; a checkpoint has been written.
    """
    check_run_folder(out, resume=resume)
    check_launch()
    accelerator = accelerator_for(config.precision)
    with run_lock(out / ".lock", "run", out) if accelerator.is_main_process else nullcontext():
        return _TrainingRun(
            task, config, out, accelerator, identity or {"loop": config.model_dump()}, resume, quiet
        ).train()


class Stopped(KeyboardInterrupt):
    """The run was interrupted, after it wrote a checkpoint."""


class _Terminated(Stopped, Terminated):
    """``Stopped`` by SIGTERM."""


class _TrainingRun:
    """One training run: model, optimisers, averages, progress and checkpoints."""

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
        self.network = task.model.to(accelerator.device)
        self.ema, self.weights = Averages(self.network, config.ema), list(self.network.parameters())
        if config.compile:
            self.network.compile(dynamic=True)
        self.model = accelerator.prepare(TaskLoss(task))
        self.optimizers = [accelerator.prepare(optimizer) for optimizer in build_optimizers(self.network, config)]
        self.best = BestWeights()
        self.unread_losses: list[Tensor] = []
        self.state = TrainingState(self.network, self.ema, self.optimizers, task, self.best)
        self._intervals = config.log_every, config.validate_every, config.checkpoint_every
        self.start = 0
        if resume:
            self.start = restore_state(out / STATE_FILE, self.state, accelerator.process_index, identity)
        # Measuring the device takes time, so skip it if nothing is recorded.
        world = accelerator.num_processes
        flops = None
        if not quiet:
            flops = flops_per_position(self.network), peak_flops(accelerator.device, config.precision) * world
        hidden = quiet or not accelerator.is_main_process
        self.progress = TrainingProgress(config.steps, self.start, out, quiet=hidden, flops=flops)

    def train(self) -> nn.Module:
        """Take the remaining steps, or fewer if patience runs out."""
        config, rank, world = self.config, self.accelerator.process_index, self.accelerator.num_processes
        batches = self.task.batches(self.start * config.accumulate, rank, world)
        self.checkpoint_due_at = time.monotonic() + FIRST_CHECKPOINT_SECONDS
        self.done = self.start
        with self.progress, Interrupts(self.accelerator) as interrupts:
            for step in range(self.start, config.steps):
                if self._is_out_of_patience(step):
                    break
                self._step(step, batches)
                self.done = step + 1
                self._record(self.done)
                if interrupts.is_requested():
                    self._stop(self.done, _Terminated if interrupts.signal_number == signal.SIGTERM else Stopped)
        self.best.load_into(self.ema.module)
        if 0 < self.best.step < self.done:
            self.progress.say(f"kept the weights of step {self.best.step}, which had the best validation.")
        return self.ema.module.eval()

    def _is_out_of_patience(self, done: int) -> bool:
        """Whether patience has run out; only the main process validates, so it shares the answer with the others."""
        patience = self.config.patience
        if not patience or (done % self.config.validate_every and done != self.start):
            return False
        spent = torch.tensor(float(self.best.is_out_of_patience(patience)), device=self.accelerator.device)
        if not self.accelerator.reduce(spent, "sum").item():
            return False
        if self.accelerator.is_main_process:
            self._save(done)
        self.progress.say(
            f"stopped after step {done}: {patience} validations in a row were no better than that of step "
            f"{self.best.step}. To continue, give --resume and a greater patience."
        )
        return True

    def _step(self, step: int, batches: Iterator[Any]) -> None:
        """One update of the weights."""
        config, accelerator = self.config, self.accelerator
        self.lr = config.lr * learning_rate(config, step)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self.lr
        positions, data_seconds = 0, 0.0
        total: Tensor | float = 0.0
        if not self.network.training:
            self.network.train()
        for _ in range(config.accumulate):
            fetch_started = time.perf_counter()
            batch = next(batches)
            data_seconds += time.perf_counter() - fetch_started
            with accelerator.autocast():
                loss, count = self.model(batch)
            accelerator.backward(loss / config.accumulate)
            positions += count * accelerator.num_processes
            total = total + loss.detach() / config.accumulate
        self.unread_losses.append(torch.as_tensor(total))
        self.gradient_norm = accelerator.clip_grad_norm_(self.weights, config.clip) if config.clip else None
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.ema.update()
        if self.progress.is_timed_step or len(self.unread_losses) >= MAX_UNREAD_LOSSES:
            self._read_losses(step + 1)
        self.progress.advance(positions, data_seconds)

    def _read_losses(self, done: int) -> None:
        """Wait for the device, and read the losses of the steps since the last read.

        Raises:
            UserError: a loss is not finite.
        """
        losses = torch.stack(self.unread_losses).tolist() if self.unread_losses else []
        self.unread_losses.clear()
        for step, loss in enumerate(losses, done + 1 - len(losses)):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} at step {step}.")
        self.progress.add_losses(losses)

    def _require_finite_weights(self, done: int) -> None:
        """Refuse weights that are not finite, before they are validated or saved. A step's loss is computed before
        its update, so the last loss says nothing about the current weights.

        Raises:
            UserError: a weight or an averaged weight is not finite.
        """
        weights = [*self.network.named_parameters(), *self.ema.module.named_parameters()]
        if (name := not_finite(weights)) is not None:
            raise self._diverged(f"{name} is not finite (NaN or infinity) after step {done}.")

    def _diverged(self, message: str) -> UserError:
        remedy = "Start again with a smaller lr or a longer warmup"
        if (self.out / STATE_FILE).exists():
            remedy = f"The last checkpoint is from before; --resume with a smaller lr. If that does not help: {remedy}"
        return UserError(message, where=str(self.out), remedy=f"{remedy}.")

    def _record(self, done: int) -> None:
        """Log, validate and save whatever is due after ``done`` steps."""
        config, is_last = self.config, done == self.config.steps
        is_checkpoint_due = time.monotonic() >= self.checkpoint_due_at
        # Validations and checkpoints are timed apart from the steps, so the device has to finish these first.
        if is_last or is_checkpoint_due or not all(done % every for every in self._intervals):
            self._read_losses(done)
        if done % config.log_every == 0:
            norm = {} if self.gradient_norm is None else {"grad_norm": float(self.gradient_norm)}
            self.progress.log(done, {"loss": self.progress.loss, "lr": self.lr, **norm})
        if not self.accelerator.is_main_process:
            return
        with self.progress.paused():
            if done % config.validate_every == 0 or is_last:
                self._validate(done)
            # All processes have the same weights, so the main one can save them without waiting for the others.
            if done % config.checkpoint_every == 0 or is_last or is_checkpoint_due:
                self._save(done)

    def _validate(self, done: int) -> None:
        self._require_finite_weights(done)
        self.ema.module.eval()
        figures = self.task.validate(self.ema.module)
        self.best.update(done, self.task.loss_of(figures), self.ema.module)
        self.progress.log_validation(done, figures, self.task.grid)
        self.progress.show(self.task.samples(self.ema.module))

    def _save(self, done: int) -> None:
        self._read_losses(done)  # refuses a loss that is not finite
        self._require_finite_weights(done)
        save_state(self.out / STATE_FILE, self.state, done, self.identity)
        self.checkpoint_due_at = time.monotonic() + 60 * self.config.checkpoint_minutes

    def _stop(self, done: int, kind: type[Stopped]) -> None:
        if self.accelerator.is_main_process:
            self._save(done)
        raise kind(
            f"stopped after step {done} of {self.config.steps}; the checkpoint is in {self.out}. "
            "Run the same command with --resume to continue."
        )
