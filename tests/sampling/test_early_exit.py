"""Rows whose words no longer change leave: when, with which words, and without effect on the others."""

from types import SimpleNamespace

import pytest
import torch

from controls.contains import Contains
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.diffusion.family import Prediction, StepResult
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance
from dlmctl.sampling.batches import batch_size_for
from dlmctl.sampling.early_exit import EarlyExit, exit_from
from dlmctl.sampling.steering import NEVER

WIDTH, LENGTH = 3, 4


class Scripted:
    """A fake ``Steered``: for each row the word at each step, and the word that it would end with."""

    def __init__(self, scripts, ends, rows, log):
        self.scripts, self.rows, self.log = [scripts[row] for row in rows], rows, log
        self.ends = [ends.get(row) for row in rows]
        self.model, self.layouts = self, self
        self.length, self.logits, self.previous = LENGTH, None, None
        self.parts, self.nan_times = [SimpleNamespace(name="wish")], torch.full((1, len(rows)), NEVER)

    def __call__(self, x_t, t):
        self.step = int(t[0])
        self.log.append(list(self.rows))
        ids = torch.tensor([script[self.step] for script in self.scripts])
        x0 = ids[:, None, None].expand(-1, LENGTH, WIDTH).float()
        return Prediction(lambda: x0)

    def token_ids(self, x0, logits="asked for the end"):
        ids = x0[..., 0].long()
        if logits is not None:
            for row, end in enumerate(self.ends):
                ids[row] = ids[row] if end is None else end
        return ids

    def after(self, moved, s):
        return moved.x + 1


def walk(scripts, patience, ends=None, since=100.0, read_every=1):
    log = []
    made = []

    def make_steered(rows):
        made.append(Scripted(scripts, ends or {}, rows, log))
        return made[-1]

    early_exit = EarlyExit(make_steered, len(scripts), patience, since, read_every, steps=len(scripts[0]))
    for step in range(len(scripts[0])):
        estimate = early_exit(torch.zeros(len(scripts), LENGTH, WIDTH), torch.full((len(scripts),), float(step)))
    return early_exit, estimate.x0, log, made


def moved(x):
    return StepResult(x, x, torch.zeros(len(x), 1, 1))


def test_a_row_leaves_after_patience_steps_with_the_same_words():
    scripts = [[7, 7, 7, 7, 7, 9], [1, 2, 3, 4, 5, 6], [1, 2, 2, 2, 8, 8]]
    early_exit, x0, log, _ = walk(scripts, 2)
    assert log == [[0, 1, 2]] * 3 + [[1, 2]] + [[1]] * 2
    assert early_exit.token_ids(x0)[:, 0].tolist() == [7, 6, 2]
    assert x0[:, 0, 0].tolist() == [7, 6, 2]


@pytest.mark.parametrize("read_every", [2, 3, 4])
def test_how_often_the_device_is_read_changes_no_text(read_every):
    scripts = [[7, 7, 7, 9, 9, 9, 9, 9], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 2, 2, 8, 8, 8, 8], [4, 4, 4, 4, 4, 4, 4, 5]]
    (often, x0, log, _), (rarely, other_x0, other_log, _) = (walk(scripts, 2, read_every=k) for k in (1, read_every))
    assert torch.equal(x0, other_x0)
    assert torch.equal(often.token_ids(x0), rarely.token_ids(x0))
    assert sum(map(len, log)) < sum(map(len, other_log))  # or rows would leave at the same time


def test_nothing_is_computed_once_all_have_left():
    early_exit, x0, log, _ = walk([[5] * 6, [4] * 6], 1)
    assert log == [[0, 1]] * 2
    assert early_exit.after(moved(x0), 0.5) is x0
    assert early_exit.token_ids(x0)[:, 0].tolist() == [5, 4]


def test_a_row_that_has_left_is_fixed_even_if_the_batch_is_not_rebuilt():
    scripts = [[7, 7, 3, 3], *[[1, 2, 1, 2]] * 9]  # one of ten is too few to rebuild the batch
    early_exit, x0, log, _ = walk(scripts, 1)
    assert all(len(rows) == 10 for rows in log)
    assert early_exit.token_ids(x0)[0, 0] == x0[0, 0, 0] == 7


def test_a_row_that_would_end_with_other_words_stays():
    _, _, log, _ = walk([[7] * 5, [8] * 5], 1, ends={0: 6})
    assert log == [[0, 1]] * 2 + [[0]] * 3


def test_batches_come_in_few_sizes():
    sizes = {1: 1, 2: 2, 5: 5, 7: 7, 8: 8, 9: 10, 13: 14, 15: 16, 33: 40, 49: 56, 57: 64, 64: 64}
    assert {rows: batch_size_for(rows) for rows in sizes} == sizes


def test_a_rebuilt_batch_is_padded_with_rows_that_have_left():
    scripts = [[7] * 4, [8] * 4, *[[1, 2, 3, 4]] * 9]
    early_exit, x0, log, _ = walk(scripts, 1)
    assert [len(rows) for rows in log] == [11, 11, 10, 10]
    assert early_exit.token_ids(x0)[:, 0].tolist() == [7, 8, *[4] * 9]


def test_steps_before_the_guidance_is_at_its_strongest_do_not_count():
    scripts = [[5] * 6]
    early_exit, *_ = walk(scripts, 2, since=-1.0)
    assert not early_exit.left


@pytest.mark.parametrize(
    ("guidance", "since"),
    [
        (Guidance(), 1.0),
        (Guidance(since=0.6), 0.5),
        (Guidance(scale=0), 1.0),
    ],
)
def test_guidance_is_at_its_strongest_from(guidance, since):
    assert exit_from(guidance, [1.0, 0.75, 0.5, 0.25]) == since


def test_guidance_with_a_nan_energy_stays_off_in_the_rebuilt_batch():
    log, made = [], []

    def make_steered(rows):
        made.append(Scripted([[7] * 4, [1, 2, 3, 4], [1, 2, 3, 4]], {}, rows, log))
        return made[-1]

    early_exit = EarlyExit(make_steered, 3, 1, 100.0, steps=4)
    made[0].nan_times[0, 2] = 0.25
    for step in range(4):
        early_exit(torch.zeros(3, LENGTH, WIDTH), torch.full((3,), float(step)))
    assert made[1].rows == [1, 2]
    assert made[1].nan_times.tolist() == [[NEVER, 0.25]]
    made[1].nan_times[0, 0] = 0.125
    problem = "the energy of wish was not a number at t = {}; unguided from there"
    assert early_exit.problems == {1: problem.format("0.12"), 2: problem.format("0.25")}


def test_only_rows_in_the_batch_are_moved_after_a_step():
    early_exit, x0, _, _ = walk([[7] * 4, [1, 2, 3, 4]], 1)
    assert (early_exit.after(moved(x0), 0.5) - x0)[:, 0, 0].tolist() == [0, 1]


@pytest.fixture(scope="module")
def e2e():
    return from_pretrained("e2e")


def test_texts_do_leave_and_hold_what_they_must(e2e, monkeypatch):
    rows = []
    shrink = EarlyExit._shrink

    def shrink_and_count(self):
        shrink(self)
        rows.append(len(self.rows))

    monkeypatch.setattr(EarlyExit, "_shrink", shrink_and_count)
    result = generate(Contains("family friendly"), model=e2e, samples=8, preset="fast")
    assert result.success == 1.0
    assert min(rows) < 8
