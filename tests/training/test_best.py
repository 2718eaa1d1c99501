"""The best validation of a run: its weights are kept, a run without a better one ends."""

import io
import itertools
import json
import re
import time

import pytest
import torch
from rich.console import Console
from torch import nn

from dlmctl.training.config import LoopConfig
from dlmctl.training.loop import fit
from dlmctl.training.progress import Grid, TrainingProgress, format_duration


class Scripted:
    """A network of one weight whose validations have the losses that the test says."""

    grid = None

    def __init__(self, losses):
        torch.manual_seed(0)
        self.model, self.losses, self.seen = nn.Linear(1, 1), iter(losses), []

    def batches(self, skip, rank, world):
        return itertools.repeat(torch.ones(4, 1))

    def loss(self, model, batch):
        return (model(batch) - 7).square().mean(), len(batch)

    def validate(self, model):
        self.seen.append(model.weight.item())
        return {"loss": next(self.losses)}

    def loss_of(self, figures):
        return figures["loss"]

    def samples(self, model):
        return []

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def config(**changes):
    return LoopConfig(**{"steps": 12, "lr": 0.1, "ema": 0.5, "validate_every": 2, "checkpoint_every": 4, **changes})


def test_the_weights_of_the_best_validation_are_kept(tmp_path, capfd):
    task = Scripted([3, 1, 2, float("nan"), 2, 2])
    model = fit(task, config(), tmp_path / "run")
    assert len(set(task.seen)) == 6
    assert model.weight.item() == task.seen[1]
    assert "kept the weights of step 4" in capfd.readouterr().err


def test_a_run_that_gets_no_better_ends_and_goes_on_when_told_to(tmp_path, capfd):
    task = Scripted([3, 1, 2, 2])
    model = fit(task, config(patience=2), tmp_path / "run")  # a fifth validation would fail
    assert model.weight.item() == task.seen[1]
    assert "stopped after step 8: 2 validations in a row were no better than that of step 4" in capfd.readouterr().err
    again = fit(Scripted([]), config(patience=2), tmp_path / "run", resume=True)
    assert again.weight.item() == task.seen[1]
    more = Scripted([2, 0.5])
    longer = fit(more, config(patience=4), tmp_path / "run", resume=True)
    assert longer.weight.item() == more.seen[-1]


def test_a_resumed_run_knows_its_best(tmp_path):
    whole, first = Scripted([3, 1, 2, 2, 2, 2]), Scripted([3, 1])
    kept = fit(whole, config(), tmp_path / "whole")
    with pytest.raises(StopIteration):  # in the third validation, after the checkpoint of step 4
        fit(first, config(), tmp_path / "cut")
    resumed = fit(Scripted([2, 2, 2, 2]), config(), tmp_path / "cut", resume=True)
    assert resumed.weight.item() == kept.weight.item() == whole.seen[1]


def test_the_time_that_a_run_takes_is_said_after_its_first_steps(tmp_path, capfd):
    fit(Scripted([1]), config(steps=40, validate_every=40), tmp_path / "run")
    said = capfd.readouterr().err
    assert re.search(r"^about \S+ s for the 33 steps left \(\S+ s a step, measured over 5", said, re.MULTILINE)
    assert said.index("about") < said.index("step 40/40")


def test_the_speed_is_that_of_steps_not_of_validations(tmp_path, monkeypatch):
    task = Scripted([1, 1])
    monkeypatch.setattr(task, "samples", lambda model: time.sleep(2) or [])
    fit(task, config(steps=4, log_every=1), tmp_path / "run")
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines())
    speeds = {line["step"]: line["positions_per_second"] for line in lines if "loss" in line}
    assert speeds[3] > 4 / 2  # four positions a step


@pytest.mark.parametrize(("seconds", "said"), [(12.4, "12 s"), (1500, "25 min"), (11_400, "3 h 10 min")])
def test_times_are_said_in_words(seconds, said):
    assert format_duration(seconds) == said


@pytest.mark.parametrize("terminal", [True, False])
def test_figures_by_noise_level_stand_in_a_table(tmp_path, terminal):
    grid = Grid("noise", ["0", "0.5"], {"latents": ["a_0", "a_5"], "estimates": ["b_0", "b_5"]})
    figures = {"loss": 0.25, "a_0": 1.0, "a_5": 0.5, "b_0": 0.75, "b_5": 0.125}
    with TrainingProgress(10, 0, tmp_path, quiet=False) as progress:
        progress.console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
        progress.log_validation(5, figures, grid)
    lines = progress.console.file.getvalue().splitlines()
    assert lines[0].endswith("step 5/10  valid_loss 0.25")
    rows = [[cell for cell in re.split(r"[\s│┃]+", re.sub(r"\x1b\[[\d;]*m", "", line)) if cell] for line in lines[1:]]
    assert [row for row in rows if len(row) == 3] == [
        ["noise", "0", "0.5"],
        ["latents", "1.000", "0.500"],
        ["estimates", "0.750", "0.125"],
    ]
    assert '"valid_a_5": 0.5' in (tmp_path / "metrics.jsonl").read_text("utf-8")
