"""Texts yielded one by one as their batches finish, while later ones are still to be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from itertools import count
from numbers import Integral
from typing import Any

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.control.user_files import Versions, one_version
from dlmctl.generation.arguments import (
    check_arguments,
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


def stream_samples(
    pretrained: Pretrained, control: Control[Any] | None, samples: int | None, options: Options
) -> Iterator[Sample]:
    """Yield the samples of a run in order, batch by batch; except for rounding, they are those of ``generate``.

    Args:
        samples: how many, None for an endless stream.
        options: the arguments of ``generate``.

    Raises:
        UserError: as ``generate``: a wrong argument is reported at once, what the model cannot do with the first text.
    """
    if samples is not None:
        check_traced(options.get("trace", False), range(whole("samples", samples)))
    _check_options(pretrained, control, options)
    return _draw_batches(pretrained, control, samples, options)


def _check_options(pretrained: Pretrained, control: Control[Any] | None, options: Options) -> None:
    """Raise the errors that ``generate`` would raise for its arguments, before anything is drawn."""
    call = signature(generate).bind(control, model=pretrained, **options)
    call.apply_defaults()
    arguments = call.arguments
    callbacks = {name: arguments[name] for name in ("on_step", "watch")}
    check_arguments(control, pretrained, arguments["preset"], **callbacks)
    round_arguments = ("seed", "until", "candidates", "rank_by", "second_scorer")
    rounds = read_rounds(1, *(arguments[name] for name in round_arguments))
    read_traced(arguments["trace"], ())
    quota, _ = read_extent(arguments["quota"], arguments["unique"])
    require_passing(quota, rounds.until)
    preset_settings = settings_of(arguments["preset"], pretrained.model.family)
    read_settings(
        preset_settings, arguments["sampler"], arguments["guidance"], deterministic=arguments["deterministic"]
    )
    whole("batch_size", arguments["batch_size"])


def _draw_batches(
    pretrained: Pretrained, control: Control[Any] | None, samples: int | None, options: Options
) -> Iterator[Sample]:
    size, trace = whole("batch_size", options.get("batch_size", 64)), options.get("trace", False)
    quota, unique = read_extent(options.get("quota", False), options.get("unique", False))
    distinct_texts = distinct_of(pretrained, quota, unique=unique)
    files: Versions = {}
    for start in count(0, size):
        if samples is not None and start >= samples:
            return
        stop = start + size if samples is None else min(start + size, samples)
        if isinstance(trace, Integral) and not isinstance(trace, bool):
            options["trace"] = range(start, min(stop, int(trace)))  # the first samples of the run, not of each batch
        with one_version(files):
            batch = generate(
                control,
                model=pretrained,
                samples=range(start, stop),
                groups=SampleGroups(distinct=distinct_texts),
                **options,
            )
        yield from batch
