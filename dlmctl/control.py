"""What a control is, how controls combine, and where they are found.

A control gives an ``energy`` that guidance pushes down at every reverse step, may ``project`` the x_0 estimate
onto an exact constraint, and ``check``s the finished words by other means than the network that guided.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from dlmctl.errors import RecipeError, UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.diffusion import DiffusionLM
    from dlmctl.tokenizer import Tokenizer

ENTRY_POINTS = "dlmctl.controls"


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
    """What a control is told before sampling: the model, where its folder is, and the batch's shape."""

    model: DiffusionLM
    tokenizer: Tokenizer
    folder: Path
    batch: int
    length: int


class ControlState:
    """The latent that an energy judges, and what the model makes of it.

    Attributes:
        x: the latent, ``[B, L, D]``; gradients flow to it.
        t: its noise level, ``[B]`` in [0, 1]; 0 where ``x`` is itself an x_0 estimate.
        x0: the x_0 estimate ``[B, L, D]``, computed when first asked for.
        word_log_probs: log-probabilities of the words ``[B, L, V]``, computed when first asked for.
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
    ) -> None:
        self.x, self.t, self.tokenizer, self.embeddings = x, t, tokenizer, embeddings
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
    weight: float = 1.0

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
        """Fewest and most words that a text of this sample can have, or None for any number."""
        return None

    def prepare(self, setting: Setting) -> None:
        """Load weights and lay out targets for a batch. Called once before its first step.

        Raises:
            UserError: the weights are missing, or the parameters cannot be met by this model.
        """

    def energy(self, state: ControlState) -> Tensor:
        """How far each sample is from what is wanted: ``[B]``, in nats, lower is better, differentiable."""
        raise NotImplementedError

    def project(self, x0: Tensor, state: ControlState) -> Tensor:
        """Exact constraints written into the x_0 estimate ``[B, L, D]``."""
        return x0

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """The verdict on each finished text, given as words."""
        raise NotImplementedError

    # How controls combine.

    def __and__(self, other: Control[Any]) -> Control[Any]:
        from dlmctl.compose import All

        return All([self, other])

    def __or__(self, other: Control[Any]) -> Control[Any]:
        from dlmctl.compose import AnyOf

        return AnyOf([self, other])

    def __invert__(self) -> Control[Any]:
        from dlmctl.compose import Not

        return Not(self)

    def __rmul__(self, weight: float) -> Control[P]:
        """``0.5 * control``: the same control with its weight scaled."""
        scaled = copy.copy(self)
        scaled.weight = self.weight * weight
        return scaled

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.params[0].model_dump().items())})"


def registered() -> dict[str, EntryPoint]:
    """Every control that an installed package offers, by name, without importing any."""
    return {point.name: point for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)}


def find_control(name: str) -> type[Control[Any]]:
    """The control class registered as ``name``.

    Raises:
        RecipeError: no installed package registers it.
        UserError: its package fails to import; the message names package and reason.
    """
    known = registered()
    if name not in known:
        raise RecipeError(f"there is no control {name!r}.", remedy=nearest(name, list(known)))
    try:
        found = known[name].load()
    except Exception as error:
        dist = known[name].dist
        package = dist.name if dist else known[name].value
        raise UserError(f"control {name!r} of package {package} fails to import: {error!r}.") from error
    if not (isinstance(found, type) and issubclass(found, Control)):
        raise UserError(f"control {name!r} ({known[name].value}) is not a subclass of dlmctl.control.Control.")
    return found
