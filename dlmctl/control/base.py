"""What a control is, how controls combine, and where they are found.

A control gives an ``energy`` that guidance pushes down at every reverse step, may ``project`` the x_0 estimate
onto an exact constraint, and ``check``s the finished words by other means than the network that guided.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from dlmctl.errors import RecipeError, UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.checkpoint.pretrained import Pretrained
    from dlmctl.diffusion.layout import Layout
    from dlmctl.diffusion.model import DiffusionLM
    from dlmctl.diffusion.noise import Draw
    from dlmctl.text.tokenizer import Tokenizer

ENTRY_POINTS = "dlmctl.controls"
# What stands where a control's name stands in a recipe, and so cannot be one.
RESERVED = ("all", "any", "not", "weight")

log = logging.getLogger("dlmctl")


class Check(NamedTuple):
    """The verdict on one text: ``score`` in [0, 1], whether it ``passed``, and ``why`` in a few words."""

    score: float
    passed: bool
    why: str


class ControlParams(BaseModel):
    """Base of every control's parameters: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Setting:
    """What a control is told before a batch is sampled.

    Attributes:
        model, tokenizer, folder: the model, its words, and where its weights and those of its controls lie.
        draws: which sample, and which attempt at it, each row is.
        layouts: of each row its canvas, and the settled number of words or None where the model chooses.
    """

    model: DiffusionLM
    tokenizer: Tokenizer
    folder: Path
    draws: Sequence[Draw]
    layouts: Sequence[Layout]

    @property
    def batch(self) -> int:
        """Rows of the batch."""
        return len(self.draws)

    @property
    def length(self) -> int:
        """Positions of the batch: its longest canvas."""
        return max(layout.canvas for layout in self.layouts)


class ControlState:
    """The latent that an energy judges, and what the model makes of it.

    Attributes:
        x: the latent, ``[B, L, D]``; gradients flow to it.
        t: its noise level, ``[B]`` in [0, 1]; 0 where ``x`` is itself an x_0 estimate.
        x0: the x_0 estimate ``[B, L, D]``, computed when first asked for.
        word_log_probs: log-probabilities of the words ``[B, L, V]``, computed when first asked for.
        inside: ``[B, L]``, true on each row's canvas; None where all rows are as long as the batch. Elsewhere ``x`` and
            ``x0`` have no meaning, and ``word_log_probs`` is PAD for certain.
        embeddings: of the words, ``[V, D]``.
        tokenizer: words and ids.
    """

    def __init__(
        self,
        x: Tensor,
        t: Tensor,
        *,
        tokenizer: Tokenizer,
        embeddings: Tensor,
        x0: Callable[[], Tensor],
        word_log_probs: Callable[[], Tensor],
        inside: Tensor | None = None,
    ) -> None:
        self.x, self.t, self.tokenizer, self.embeddings, self.inside = x, t, tokenizer, embeddings, inside
        self._x0, self._word_log_probs = x0, word_log_probs

    @cached_property
    def x0(self) -> Tensor:
        return self._x0()

    @cached_property
    def word_log_probs(self) -> Tensor:
        return self._word_log_probs()


P = TypeVar("P", bound=BaseModel)


class Control(Generic[P]):
    """Base class of controls.

    A subclass sets ``name`` and ``Params`` and gives ``energy`` and ``check``; the rest is optional. In Python
    it is made from its parameters (``Pos(tags=["DET", "NOUN"])``), or with ``each`` from one set of parameters
    per sample.
    """

    name: ClassVar[str]
    Params: ClassVar[type[BaseModel]]
    # A share of the guidance; a class may bring its own, which a recipe's `weight` then multiplies.
    weight: float = 1.0
    # Whether `restrict`, `condition` and `project` alone satisfy it: then its energy need not guide word logits.
    exact: ClassVar[bool] = False
    # Whether its energy leaves out what is not `inside`, so that texts of different canvases may share a batch.
    ragged: bool = False

    def __init__(self, **params: Any) -> None:
        self.params: list[P] = [self.Params.model_validate(params)]  # type: ignore[list-item]

    @classmethod
    def each(cls, params: Sequence[P]) -> Control[P]:
        """One control whose sample i has ``params[i]``."""
        made = cls.__new__(cls)
        made.params = list(params)
        return made

    def of(self, sample: int) -> P:
        """The parameters of a sample: the sets are dealt out to the samples in turn."""
        return self.params[sample % len(self.params)]

    def only(self, samples: Sequence[int]) -> Control[P]:
        """The same control for some samples only, in that order."""
        chosen = copy.copy(self)
        chosen.params = [self.of(sample) for sample in samples]
        return chosen

    # What subclasses give.

    def word_count(self, sample: int) -> tuple[int, int] | None:
        """Fewest and most words that a text of this sample can have, or None for any number.

        Asked with this, the number is settled before the first step and START, END and PAD are pinned accordingly.
        """
        return None

    def attach(self, pretrained: Pretrained) -> None:
        """Load what the check needs from beside the model. Called once, before anything is drawn.

        Raises:
            UserError: it is missing, or the parameters do not fit it.
        """

    def prepare(self, setting: Setting) -> None:
        """Load weights and lay out targets for a batch.

        Called before its first step and, on a fresh copy, again for the rows that are left when others are done.

        Raises:
            UserError: the weights are missing, or the parameters cannot be met by this model.
        """

    def energy(self, state: ControlState) -> Tensor:
        """How far each sample is from what is wanted: ``[B]``, in nats, lower is better, differentiable."""
        raise NotImplementedError

    def restrict(self, logits: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` with -inf where a word is out of the question. Asked at every step."""
        return logits

    def condition(self, logits: Tensor, t: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` given that the constraint holds, where that can be said exactly.

        For constraints that no single position decides. Asked at every step, times ``t [B]``, after ``restrict`` of
        every control and after guidance; with t = 0 for the finished text, whose words are the likeliest ones.
        """
        return logits

    def verify(self, logits: Tensor) -> None:
        """Asked before the first step, with -inf in ``logits [B, L, V]`` for what all controls together exclude.

        Raises:
            RecipeError: nothing that is left can satisfy this control.
        """

    def project(self, x0: Tensor, state: ControlState) -> Tensor:
        """Exact constraints written into the x_0 estimate ``[B, L, D]``."""
        return x0

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """The verdict on each finished text, given as words."""
        raise NotImplementedError

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[P]:
        """For each sentence the parameters that it satisfies itself.

        Raises:
            UserError: this control has no such thing.
        """
        raise UserError(f"the control {cls.name!r} cannot take its targets from sentences.")

    @classmethod
    def from_target(cls, record: Any) -> P:
        """The parameters that one JSON value of a file of targets asks for (``dlmctl evaluate control``).

        By default what the list ``words`` of an object satisfies, else the parameters that the object holds.

        Raises:
            ValueError, KeyError, TypeError: the value is no target of this control.
        """
        words = record.get("words") if isinstance(record, dict) else None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return cls.from_words([words])[0]
        return cast("P", cls.Params.model_validate(record))

    # How controls combine.

    def __and__(self, other: Control[Any]) -> Control[Any]:
        from dlmctl.control.compose import All

        return All([self, other])

    def __or__(self, other: Control[Any]) -> Control[Any]:
        from dlmctl.control.compose import AnyOf

        return AnyOf([self, other])

    def __invert__(self) -> Control[Any]:
        from dlmctl.control.compose import Not

        return Not(self)

    def __rmul__(self, weight: float) -> Control[P]:
        """``0.5 * control``: the same control with its weight scaled."""
        scaled = copy.copy(self)
        scaled.weight = self.weight * weight
        return scaled

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.params[0].model_dump().items())})"


def offers() -> dict[str, list[EntryPoint]]:
    """Every control that an installed package offers, by name, without importing any.

    Where packages offer controls of one name the first of the list is taken: dlmctl's own, else the first by
    package name, so that what a recipe means does not hang on the order of installation.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, _rank(point), point.value)):
        found.setdefault(point.name, []).append(point)
    return found


def _rank(point: EntryPoint) -> tuple[bool, str]:
    package = point.dist.name if point.dist else ""
    return package != "dlmctl", package


def origin(point: EntryPoint) -> str:
    """Package and version that a control comes from."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def find_control(name: str) -> type[Control[Any]]:
    """The control class registered as ``name``. Warns, once, where several packages offer one.

    Raises:
        RecipeError: no installed package registers it.
        UserError: it fails to import or is no control; ``where`` is the control and its package, ``what`` the reason.
    """
    known = offers()
    if name not in known:
        raise RecipeError(f"there is no control {name!r}.", remedy=nearest(name, list(known)))
    taken, *ignored = known[name]
    if ignored:
        _warn_of_rivals(name, origin(taken), ", ".join(map(origin, ignored)))
    where = f"control {name!r} of {origin(taken)}"
    try:
        found = taken.load()
    except (Exception, SystemExit) as error:  # whatever the code of others may do
        raise UserError(f"fails to import: {first_line(error)}.", where=where) from error
    if fault := _fault(name, found):
        raise UserError(f"cannot be used: {taken.value} {fault}.", where=where)
    return cast("type[Control[Any]]", found)


def first_line(error: BaseException) -> str:
    """An error in one line, without its full stop."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0].rstrip(".: ")


def _fault(name: str, found: Any) -> str | None:
    """What keeps a registered object from being the control ``name``."""
    if not (isinstance(found, type) and issubclass(found, Control)):
        return "is not a subclass of dlmctl.control.base.Control"
    if name in RESERVED:
        return f"has a name that recipes use themselves ({', '.join(RESERVED)})"
    # Weights and verdicts are filed under the class's own name.
    if getattr(found, "name", None) != name:
        return f"has name = {getattr(found, 'name', None)!r}, and is registered as {name!r}"
    params = getattr(found, "Params", None)
    return None if isinstance(params, type) and issubclass(params, BaseModel) else "has no Params, a pydantic model"


@cache
def _warn_of_rivals(name: str, taken: str, ignored: str) -> None:
    log.warning("dlmctl: several packages offer a control %r: that of %s is taken, not %s.", name, taken, ignored)
