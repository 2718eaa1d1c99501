"""Texts one after another, as their batches finish: the first are there while the last are still to be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from itertools import count
from numbers import Integral
from typing import Any

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.generation.arguments import (
    check_given,
    check_traced,
    read_extent,
    read_rounds,
    read_settings,
    read_traced,
    whole,
)
from dlmctl.generation.generate import generate
from dlmctl.generation.options import Options
from dlmctl.generation.results import Sample
from dlmctl.generation.sample_groups import SampleGroups, distinct_of, require_passing
from dlmctl.recipe.presets import settings_of


def stream_of(
    pretrained: Pretrained, control: Control[Any] | None, samples: int | None, given: Options
) -> Iterator[Sample]:
    """The samples of a run by their numbers, a batch at a time; those of ``generate`` but for rounding.

    Args:
        samples: how many, None for no end.
        given: the arguments of ``generate``.

    Raises:
        UserError: as ``generate``: of an argument at once, of what the model cannot do with the first text.
    """
    if samples is not None:
        check_traced(given.get("trace", False), range(whole("samples", samples)))
    _check(pretrained, control, given)
    return _drawn(pretrained, control, samples, given)


def _check(pretrained: Pretrained, control: Control[Any] | None, given: Options) -> None:
    """Raise what ``generate`` would raise of its arguments, before there is anything to draw."""
    found = signature(generate).bind(control, model=pretrained, **given)
    found.apply_defaults()
    asked = found.arguments
    check_given(control, pretrained, asked["preset"])
    names = ("seed", "until", "candidates", "rank_by", "second_scorer")
    rounds = read_rounds(1, *(asked[name] for name in names))
    read_traced(asked["trace"], ())
    quota, _ = read_extent(asked["quota"], asked["unique"])
    require_passing(quota, rounds.until)
    chosen = settings_of(asked["preset"], pretrained.model.family)
    read_settings(chosen, asked["sampler"], asked["guidance"], deterministic=asked["deterministic"])
    whole("batch_size", asked["batch_size"])


def _drawn(
    pretrained: Pretrained, control: Control[Any] | None, samples: int | None, given: Options
) -> Iterator[Sample]:
    size, trace = whole("batch_size", given.get("batch_size", 64)), given.get("trace", False)
    quota, unique = read_extent(given.get("quota", False), given.get("unique", False))
    distinct = distinct_of(pretrained, quota, unique=unique)
    for start in count(0, size):
        if samples is not None and start >= samples:
            return
        stop = start + size if samples is None else min(start + size, samples)
        if isinstance(trace, Integral) and not isinstance(trace, bool):
            given["trace"] = range(start, min(stop, int(trace)))  # the first so many of the run, not of each batch
        yield from generate(
            control, model=pretrained, samples=range(start, stop), company=SampleGroups(distinct=distinct), **given
        )
