"""Types of the arguments that models, recipes and target rows pass on to ``generate`` unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from pydantic import BaseModel

from dlmctl.errors import ArgumentNameError, did_you_mean
from dlmctl.generation.prompts import Label, PromptLike
from dlmctl.recipe.presets import Preset
from dlmctl.recipe.settings import Criterion, Guidance, Quota, SamplerSettings, Until
from dlmctl.sampling.draw import Progress
from dlmctl.sampling.trace import OnFrames
from dlmctl.sampling.walk import OnStep
from dlmctl.text.fields import Source

F = TypeVar("F", bound=Callable[..., Any])
# The options that hold settings.
_SETTINGS: dict[str, type[BaseModel]] = {
    "sampler": SamplerSettings,
    "guidance": Guidance,
    "until": Until,
    "quota": Quota,
}


class TraceOptions(TypedDict, total=False):
    """Options for observing the steps of a run; see ``dlmctl.generation.generate.generate``."""

    on_step: OnStep | None
    trace: bool | int | Sequence[int]
    watch: OnFrames | None


class ObserverOptions(TraceOptions, total=False):
    """The same, with the progress callback."""

    progress: Progress | None


class Options(TraceOptions, total=False):
    """The options of ``dlmctl.generation.generate.generate``, which documents each with its default."""

    label: Label | Sequence[Label] | None
    source: Source | Sequence[Source] | None
    prompt: PromptLike | Sequence[PromptLike] | None
    seed: int
    preset: Preset
    sampler: SamplerSettings | Mapping[str, Any] | None
    guidance: Guidance | Mapping[str, Any] | None
    until: Until | Mapping[str, Any] | None
    quota: Quota | Mapping[str, Any] | bool
    unique: bool
    candidates: int
    rank_by: Criterion | Sequence[Criterion]
    scorer: str | Path | None
    second_scorer: str | Path | None
    batch_size: int
    deterministic: bool
    device: str


def spelled_out(full: Callable[..., Any]) -> Callable[[F], F]:
    """Decorator of a function with ``**options``: its signature has each option by name, with the default of ``full``.

    This is what ``?`` shows in a notebook, and what an editor completes.
    """
    defaults = signature(full).parameters

    def spell_out(function: F) -> F:
        own = signature(function)
        kept = [parameter for parameter in own.parameters.values() if parameter.kind != Parameter.VAR_KEYWORD]
        options = [defaults[name] for name in Options.__annotations__]
        function.__signature__ = own.replace(parameters=[*kept, *options])  # type: ignore[attr-defined]
        return function

    return spell_out


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse an argument that is no option.

    Raises:
        ArgumentNameError: the message says where a setting of that name belongs, or which option has a similar name.
    """
    known = list(Options.__annotations__)
    for name in options:
        if name not in known:
            place = next((place for place, kind in _SETTINGS.items() if name in kind.model_fields), None)
            belongs = f'It is a setting: {place}={{"{name}": ...}}.'
            remedy = did_you_mean(name, ["samples", *known]) if place is None else belongs
            raise ArgumentNameError(f"there is no argument {name!r}.", remedy=remedy)
