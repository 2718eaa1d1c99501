"""Rows that have settled leave: when, with what words, and without a trace in the others."""

import pytest
import torch

from controls.contains import Contains
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance
from dlmctl.sampling.early_exit import Settling, rung, settled_since
from dlmctl.sampling.walk import Step

WIDTH, LENGTH = 3, 4


class Scripted:
    """Stands for ``Steered``: of each row the word that it has at each step, and the one that it would end with."""

    def __init__(self, scripts, ends, rows, log):
        self.scripts, self.rows, self.log = [scripts[row] for row in rows], rows, log
        self.ends = [ends.get(row) for row in rows]
        self.model, self.layouts = self, self
        self.length, self.logits, self.problems, self.previous = LENGTH, None, {}, None

    def __call__(self, x_t, t):
        self.step = int(t[0])
        self.log.append(list(self.rows))
        ids = torch.tensor([script[self.step] for script in self.scripts])
        return ids[:, None, None].expand(-1, LENGTH, WIDTH).float()

    def words(self, x0, logits="asked for the end"):
        ids = x0[..., 0].long()
        if logits is not None:
            for row, end in enumerate(self.ends):
                ids[row] = ids[row] if end is None else end
        return ids

    def on_step(self, step):
        return step.x + 1


def walk(scripts, patience, ends=None, since=100.0):
    log = []
    made = []

    def steer(rows):
        made.append(Scripted(scripts, ends or {}, rows, log))
        return made[-1]

    settling = Settling(steer, len(scripts), patience, since)
    for step in range(len(scripts[0])):
        x0 = settling(torch.zeros(len(scripts), LENGTH, WIDTH), torch.full((len(scripts),), float(step)))
    return settling, x0, log, made


def test_a_row_leaves_after_so_many_steps_with_the_same_words():
    scripts = [[7, 7, 7, 7, 7, 9], [1, 2, 3, 4, 5, 6], [1, 2, 2, 2, 8, 8]]
    settling, x0, log, _ = walk(scripts, 2)
    assert log == [[0, 1, 2]] * 3 + [[1, 2]] + [[1]] * 2
    assert settling.words(x0)[:, 0].tolist() == [7, 6, 2]
    assert x0[:, 0, 0].tolist() == [7, 6, 2]


def test_nothing_is_computed_once_all_have_left():
    settling, x0, log, _ = walk([[5] * 6, [4] * 6], 1)
    assert log == [[0, 1]] * 2
    assert settling.on_step(Step(0, 1, 1.0, 0.5, x0, x0, x0, x0)) is None
    assert settling.words(x0)[:, 0].tolist() == [5, 4]


def test_what_has_settled_stands_even_while_the_batch_is_not_made_anew():
    scripts = [[7, 7, 3, 3], *[[1, 2, 1, 2]] * 9]  # one of ten is too few to make the batch anew
    settling, x0, log, _ = walk(scripts, 1)
    assert all(len(rows) == 10 for rows in log)
    assert settling.words(x0)[0, 0] == x0[0, 0, 0] == 7


def test_a_row_whose_end_would_have_other_words_stays():
    _, _, log, _ = walk([[7] * 5, [8] * 5], 1, ends={0: 6})
    assert log == [[0, 1]] * 2 + [[0]] * 3


def test_batches_come_in_few_sizes():
    sizes = {1: 1, 2: 2, 5: 5, 7: 7, 8: 8, 9: 10, 13: 14, 15: 16, 33: 40, 49: 56, 57: 64, 64: 64}
    assert {rows: rung(rows) for rows in sizes} == sizes


def test_a_batch_made_anew_is_filled_up_with_rows_that_have_settled():
    scripts = [[7] * 4, [8] * 4, *[[1, 2, 3, 4]] * 9]
    settling, x0, log, _ = walk(scripts, 1)
    assert [len(rows) for rows in log] == [11, 11, 10, 10]
    assert settling.words(x0)[:, 0].tolist() == [7, 8, *[4] * 9]


def test_steps_before_the_guidance_is_at_its_strongest_do_not_count():
    scripts = [[5] * 6]
    settling, *_ = walk(scripts, 2, since=-1.0)
    assert not settling.left


@pytest.mark.parametrize(
    ("guidance", "since"),
    [
        (Guidance(), 1.0),
        (Guidance(schedule="falling"), 1.0),
        (Guidance(schedule="rising"), 0.25),
        (Guidance(since=0.6), 0.5),
        (Guidance(scale=0), 1.0),
    ],
)
def test_guidance_is_at_its_strongest_from(guidance, since):
    assert settled_since(guidance, [1.0, 0.75, 0.5, 0.25]) == since


def test_guidance_that_broke_stays_off_in_the_batch_made_anew():
    log, made = [], []

    def steer(rows):
        made.append(Scripted([[7] * 4, [1, 2, 3, 4], [1, 2, 3, 4]], {}, rows, log))
        return made[-1]

    settling = Settling(steer, 3, 1, 100.0)
    made[0].problems[2] = "not a number"
    for step in range(4):
        settling(torch.zeros(3, LENGTH, WIDTH), torch.full((3,), float(step)))
    assert made[1].rows == [1, 2]
    assert made[1].problems == {1: "not a number"}
    assert settling.problems == {2: "not a number"}


def test_only_rows_in_the_batch_are_moved_after_a_step():
    settling, x0, _, _ = walk([[7] * 4, [1, 2, 3, 4]], 1)
    moved = settling.on_step(Step(0, 1, 1.0, 0.5, x0, x0, x0, torch.zeros(2, 1, 1)))
    assert (moved - x0)[:, 0, 0].tolist() == [0, 1]


@pytest.fixture(scope="module")
def e2e():
    return from_pretrained("e2e")


def test_texts_do_leave_and_hold_what_they_must(e2e, monkeypatch):
    rows = []
    part = Settling._part

    def noting(self):
        part(self)
        rows.append(len(self.rows))

    monkeypatch.setattr(Settling, "_part", noting)
    result = generate(Contains("family friendly"), model=e2e, samples=8, preset="fast")
    assert result.success == 1.0
    assert min(rows) < 8
