"""Checks in parallel with drawing: the same verdicts in the same order, and errors and Ctrl-C end both."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from controls import Contains, Length, Pos, Predicate
from dlmctl import UserError
from dlmctl.diffusion.noise import Draw
from dlmctl.generation.checking import checked, checks_aside
from dlmctl.sampling.draw import Drawn

TEXTS = [f"the {noun} sells {thing} .".split() for noun in ("bakery", "garden", "river") for thing in ("bread", "cats")]
TAGS = "DET NOUN VERB NOUN PUNCT".split()


def batches(size=2):
    drawn = [Drawn(Draw(0, at), words, " ".join(words), np.zeros((1, 1)), None, None) for at, words in enumerate(TEXTS)]
    for at in range(len(drawn) - size, -1, -size):  # not in the order of their draws
        yield drawn[at : at + size]


def test_checks_aside_equal_checks_at_once():
    control = Pos(tags=TAGS) & Contains("bread")
    results = checked(control, batches(), aside=True)
    assert [drawn.draw.sample for drawn, _ in results] == list(range(6))
    assert results == checked(control, batches(), aside=False)
    assert [checks["contains"].passed for _, checks in results] == [True, False] * 3
    assert all(checks["pos"].passed for _, checks in results)


def test_a_batch_is_drawn_while_the_last_one_is_checked():
    drawing, checking = threading.Event(), threading.Event()

    class Meets(Contains):
        def check_many(self, params, texts):
            if "sells bread" in " ".join(texts[0]) and not drawing.is_set():
                checking.set()
                assert drawing.wait(20)  # the next batch starts before these checks are done
            return super().check_many(params, texts)

    def drawn():
        for number, batch in enumerate(batches()):
            if number == 1:
                assert checking.wait(20)
                drawing.set()
            yield batch

    assert len(checked(Meets("bread"), drawn(), aside=True)) == 6


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt()])
def test_an_error_of_drawing_or_checking_ends_both(error):
    def fails():
        yield next(batches())
        raise error

    with pytest.raises(type(error)):
        checked(Length(5), fails(), aside=True)

    class Broken(Contains):
        def check_many(self, params, texts):
            raise error

    with pytest.raises(type(error)):
        checked(Broken("bread"), batches(), aside=True)
    assert not [one for one in threading.enumerate() if one.name.startswith("checks")]


def test_checks_run_aside_on_a_gpu_where_every_part_may():
    assert checks_aside(Pos(tags=TAGS) & Length(5), "cuda")
    assert not checks_aside(Pos(tags=TAGS) & Length(5), "cpu")
    assert not checks_aside(Length(5) & Predicate(function=str.isupper), "cuda")
    assert not checks_aside(Pos(tags=TAGS, judge="stanza"), "cuda")
    assert not checks_aside(None, "cuda")
