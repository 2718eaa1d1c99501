"""A control prepared for one batch: what the sampler calls at every step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dlmctl.control.nan_checks import FaultLog, is_tensor, may_be_spoiled, narrowed, spoiled
from dlmctl.errors import UserError, typed_message

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.control.state import ControlState

T = TypeVar("T")

# Energy, in nats, of a word or span wanted beyond the positions of its text, which happens only under `any` and `not`.
NO_ROOM = 10.0


class MissingMember(NotImplementedError):
    """A member that an author's class does not define, as opposed to an error raised inside one that it does."""


def call_author_code(member: str, call: Callable[[], T], fault: Callable[[str], UserError], missing: str) -> T:
    """What a ``member`` of an author's class returns. Errors in its code become one message.

    Raises:
        UserError: made by ``fault`` from the message; the message is ``missing`` if the class has no such member.
    """
    try:
        return call()
    except UserError:
        raise
    except MissingMember:
        raise fault(missing) from None
    except (Exception, SystemExit) as error:  # an author's code may raise anything
        raise fault(f"{member} failed: {typed_message(error)}.") from error


class Prepared:
    """Base of prepared controls. Each method is optional, but at least one must steer; with none of them, as in this
    class itself, a control only checks.

    Attributes:
        exact: whether ``restrict`` and ``constrain`` alone hold the words to the control. Its energy is then used only
            where there are no word logits, and under ``any`` and ``not``.
        evidence: ``[B, L, V]``, for each word how much likelier it makes the wanted property, in nats, if that is known
            for all words at once. It is added to the word logits at every step, in place of a gradient of the energy.
        gradient_too: whether the energy's gradient guides in addition to ``evidence``, because it sees more than single
            words.
        one_update: whether one update by the gradient is enough next to ``evidence``, which covers every word.
        weighs: whether ``evidence_given`` computes the evidence anew at every step, because it depends on the other
            words.
        looks: whether it reads numbers out of tensors, for instance by ``.tolist()``, so that it must be called at
            every step.
        tags: for each text the labels of its words, empty for none; passed to models that read labels.
        hints: what a masked network is told about each position, added to the input of each of its blocks
            ``[layers, B, L, H]``; see ``control.hints``.
    """

    exact = False
    evidence: Tensor | None = None
    gradient_too = False
    one_update = False
    weighs = False
    looks = False
    tags: Sequence[Sequence[str]] | None = None
    hints: Tensor | None = None

    @property
    def home(self) -> str:
        """The module of the author's code, for messages."""
        return type(self).__module__

    def energy(self, state: ControlState) -> Tensor:
        """How far each text is from what is wanted: ``[B]``, in nats, lower is better, differentiable."""
        raise MissingMember

    def evidence_given(self, probabilities: Tensor) -> Tensor:
        """``evidence [B, L, V]`` of each word given the ``probabilities [B, L, V]`` of the others, if it ``weighs``."""
        raise MissingMember

    def restrict(self, logits: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` with -inf for excluded words. Called at every step."""
        return logits

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` conditioned on the constraint, if that can be computed exactly.

        For constraints that no single position decides. Called at every step, after ``restrict`` of every control and
        after guidance; with t = 0 for the finished text, whose words are the likeliest ones. The times ``t [B]`` are
        on the CPU, even if the logits are not, so that reading them causes no wait.
        """
        return logits

    def draw(self, logits: Tensor, likely: Tensor, uniform: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` of which any choice satisfies the constraint: those along a text drawn with its
        probability. By default those along the likeliest one.

        Called instead of ``constrain`` with t = 0 by walks that write several words in a step.

        Args:
            logits: at the temperature of the walk.
            likely: with -inf for words that are only needed where no text is left without them.
            uniform: numbers in [0, 1) to draw with, ``[B, L]``.
        """
        return self.constrain(logits, uniform.new_zeros(len(uniform), device="cpu"))

    def phase(self, t: float) -> Hashable:
        """A key for the time: at times with the same phase the methods of this object make the same calls. By default
        any two times differ if it ``looks`` or defines ``constrain``.

        Steps with the same phase may be recorded once and replayed on a GPU, without calling any of these methods.
        """
        return t if self.looks or overrides(self, "constrain") else None

    def beside(self, left: Tensor, evidence_given: Callable[[Tensor], Tensor]) -> Prepared:
        """The same beside other controls, which leave the words ``left [B, L, V]``; called once, before ``verify``.

        For a control that draws a part of its condition, and can do so anew within what is left, and where the others
        want other words: ``evidence_given`` is their evidence, as in the method of this name, the weighted sum.
        """
        return self

    def verify(self, logits: Tensor) -> None:
        """Called before the first step, with -inf in ``logits [B, L, V]`` for what all controls together exclude.

        Raises:
            RecipeError: nothing that is left can satisfy this control.
        """

    def of_rows(self, rows: Tensor, length: int) -> Prepared | None:
        """The same for the texts ``rows [R]`` of the batch on their first ``length`` positions, once the others are
        done.

        None if it must be prepared anew, which takes as long as a step or more.
        """
        return self if type(self) is Prepared else None

    def negated(self) -> Prepared | None:
        """What holds the words to the negation of the control, if that can be done exactly; else None."""
        return None


def overrides(prepared: Prepared, *members: str) -> bool:
    """Whether the class of a prepared control overrides one of these methods."""
    return any(getattr(type(prepared), member) is not getattr(Prepared, member) for member in members)


def lacks_energy(prepared: Prepared) -> bool:
    """Whether there is no energy and none is needed: nothing steers at all, or something else does."""
    if overrides(prepared, "energy"):
        return False
    steers_otherwise = prepared.evidence is not None or prepared.weighs or overrides(prepared, "restrict", "constrain")
    return steers_otherwise or type(prepared) is Prepared


class Energy(Prepared):
    """Guidance by an energy, given as a function of the state; see ``Prepared.energy``.

    Args:
        exact, looks: as in ``Prepared``.
        asked: tensors with a row for each text, passed to the function after the state: the targets of the texts. With
            these the energy of a part of the texts needs no new preparation.

    Raises:
        TypeError: ``function`` is not callable.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        exact: bool = False,
        looks: bool = False,
        asked: Sequence[Tensor] = (),
    ) -> None:
        if not callable(function):
            raise TypeError(f"Energy takes a function of the state, not {type(function).__name__}")
        self.function, self.exact, self.looks, self.asked = function, exact, looks, asked

    @property
    def home(self) -> str:
        return self.function.__module__

    def energy(self, state: ControlState) -> Tensor:
        return self.function(state, *self.asked)

    def of_rows(self, rows: Tensor, length: int) -> Prepared | None:
        if not self.asked:
            return None
        selected = [target.index_select(0, rows) for target in self.asked]
        return Energy(self.function, exact=self.exact, looks=self.looks, asked=selected)


# The packages of the toolkit's own code.
OWN_PACKAGES = ("dlmctl", "controls")


class Part(NamedTuple):
    """One of several controls that must hold: its name, its share of the guidance, and the prepared control.

    Errors in its author's code become one message that names it, a ``UserError``.

    Attributes:
        fault_log: records NaN or infinity in the logits of authors' code; if None, all logits are checked at once,
            which waits for a GPU.
    """

    name: str
    weight: float
    prepared: Prepared
    fault_log: FaultLog | None = None

    def energy(self, state: ControlState) -> Tensor:
        """Its energy ``[B]``, not weighted.

        Raises:
            UserError: the control has no energy, or returns anything else.
        """
        energy = self._call("energy", lambda: self.prepared.energy(state))
        if not is_tensor(energy) or tuple(energy.shape) != (len(state.x),):
            shown = list(energy.shape) if is_tensor(energy) else type(energy).__name__
            raise self._fault(f"its energy must have the shape [{len(state.x)}], one number per text, not {shown}.")
        if not energy.is_floating_point():
            raise self._fault(f"its energy must be real numbers, not {energy.dtype}.")
        if state.x.requires_grad and not energy.requires_grad:
            raise self._fault("its energy has no gradient: compute it from the state with torch, without detach.")
        return narrowed(energy, state.x)

    def evidence_given(self, probabilities: Tensor) -> Tensor:
        """Its evidence ``[B, L, V]`` given the other words, weighted.

        Raises:
            UserError: the control has no such evidence, or returns anything else.
        """
        return self.weight * self._logits(
            "evidence_given", "numbers", probabilities, lambda: self.prepared.evidence_given(probabilities)
        )

    def restrict(self, logits: Tensor) -> Tensor:
        return self._logits("restrict", "word logits", logits, lambda: self.prepared.restrict(logits))

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        return self._logits("constrain", "word logits", logits, lambda: self.prepared.constrain(logits, t))

    def draw(self, logits: Tensor, likely: Tensor, uniform: Tensor) -> Tensor:
        return self._logits("draw", "word logits", logits, lambda: self.prepared.draw(logits, likely, uniform))

    def _logits(self, member: str, wanted: str, given: Tensor, call: Callable[[], Tensor]) -> Tensor:
        """What a ``member`` returns for a tensor ``given [B, L, V]``, checked for the same shape and cast to its
        precision."""
        logits = self._call(member, call)
        if logits is given and not overrides(self.prepared, member):
            return given
        if not is_tensor(logits) or logits.shape != given.shape or not logits.is_floating_point():
            shown: object = type(logits).__name__
            if is_tensor(logits):
                shown = list(logits.shape) if logits.shape != given.shape else logits.dtype
            raise self._fault(f"{member} must return {wanted} of the shape {list(given.shape)}, not {shown}.")
        logits = logits.to(given.dtype)
        fault = self._fault(f"{member} must return numbers, or -inf for some words, but returned NaN or infinity.")
        # NaN that was there before is the fault of an earlier control. After a change in place the two look the same.
        before = [] if logits is given else [given]
        if self.fault_log is not None:
            # The toolkit's own controls are tested, and each look would add some calls to every step.
            if self.prepared.home.partition(".")[0] not in OWN_PACKAGES:
                self.fault_log.note(fault, spoiled(logits, *before))
        elif may_be_spoiled(logits) and spoiled(logits, *before):
            raise fault
        return logits

    def phase(self, t: float) -> Hashable:
        return self._call("phase", lambda: self.prepared.phase(t))

    def beside(self, left: Tensor, evidence_given: Callable[[Tensor], Tensor]) -> Part:
        prepared = self._call("beside", lambda: self.prepared.beside(left, evidence_given))
        if not isinstance(prepared, Prepared):
            raise self._fault(f"beside must return a Prepared, not {type(prepared).__name__}.")
        return self._replace(prepared=prepared)

    def verify(self, logits: Tensor) -> None:
        self._call("verify", lambda: self.prepared.verify(logits))

    def _fault(self, what: str) -> UserError:
        return UserError(what, where=f"control {self.name!r} ({self.prepared.home})")

    def _call(self, member: str, call: Callable[[], T]) -> T:
        missing = f"what its prepare returns has no {member}, and nothing else that steers."
        return call_author_code(member, call, self._fault, missing)


class PreparedAll(Prepared):
    """All parts: the weighted sum of the energies, and all exact constraints in turn."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    @property
    def guides(self) -> list[Part]:
        """The parts that steer, rather than only check."""
        return [part for part in self.parts if type(part.prepared) is not Prepared]

    def with_fault_log(self, fault_log: FaultLog) -> PreparedAll:
        """The same, with faults recorded in ``fault_log``, so that nothing waits for the device."""
        return PreparedAll([part._replace(fault_log=fault_log) for part in self.parts])

    def energy(self, state: ControlState) -> Tensor:
        first, *others = (part.weight * part.energy(state) for part in self.parts)
        return sum(others, start=first)

    def restrict(self, logits: Tensor) -> Tensor:
        for part in self.parts:
            logits = part.restrict(logits)
        return logits

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        # Exact constraints come last, so that nothing undoes them.
        for part in sorted(self.parts, key=lambda part: part.prepared.exact):
            logits = part.constrain(logits, t)
        return logits

    def draw(self, logits: Tensor, likely: Tensor, uniform: Tensor) -> Tensor:
        for part in self.parts:
            if overrides(part.prepared, "constrain"):
                logits = likely = part.draw(logits, likely, uniform)
        return logits

    def phase(self, t: float) -> Hashable:
        return tuple(part.phase(t) for part in self.parts)

    def of_rows(self, rows: Tensor, length: int) -> PreparedAll | None:
        pairs = [(part, part.prepared.of_rows(rows, length)) for part in self.parts]
        parts = [part._replace(prepared=prepared) for part, prepared in pairs if prepared is not None]
        return PreparedAll(parts) if len(parts) == len(pairs) else None

    def verify(self, logits: Tensor) -> None:
        for part in self.parts:
            part.verify(logits)
