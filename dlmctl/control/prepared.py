"""A control laid out for one batch: what the sampler asks at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dlmctl.control.nan_checks import Noted, is_tensor, may_be_spoiled, narrowed, spoiled
from dlmctl.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.control.state import ControlState

T = TypeVar("T")

# -log p of a control that is all but satisfied; below it the negation goes on as a straight line, because -log(1 - p)
# grows without bound.
SMALLEST_ENERGY = 1e-5
# Nats of a word or span asked for beyond the positions of its text, which can only be so under `any` and `not`.
NO_ROOM = 10.0


class Lacking(NotImplementedError):
    """An author's class has not written a member; what is raised inside a written one is another error."""


def asked(member: str, call: Callable[[], T], fault: Callable[[str], UserError], lacking: str) -> T:
    """What a ``member`` of an author's class gives. Faults of its code become one message.

    Raises:
        UserError: by ``fault``, of the message; ``lacking`` where the class has no such member.
    """
    try:
        return call()
    except UserError:
        raise
    except Lacking:
        raise fault(lacking) from None
    except (Exception, SystemExit) as error:  # whatever an author's code may do
        raise fault(f"{member} failed: {first_line(error)}.") from error


class Prepared:
    """Base of prepared controls. Each method is optional, but one of them must steer; with none of them, as this class
    is, a control only checks.

    Attributes:
        exact: whether ``restrict`` and ``constrain`` alone hold the words to the control. Its energy then serves only
            where there are no word logits, and under ``any`` and ``not``.
        evidence: ``[B, L, V]``, for each word how much likelier it makes what is wanted, in nats, where that is known
            for every word at once. It is added to the word logits at every step, in place of a gradient of the energy.
        gradient_too: whether the energy's gradient guides beside ``evidence``, because it sees more than single words.
        one_update: whether beside ``evidence``, because that is about every word, one update by the gradient is enough.
        weighs: whether ``evidence_given`` says the same anew at every step, because it depends on the other words.
        looks: whether it looks at numbers in tensors, as by ``.tolist()``, so that it has to be called at every step.
        tags: of each text the label of each of its words, empty for none; models that read labels are told them.
        hints: what a masked network is told of each place, added to the input of each of its blocks
            ``[layers, B, L, H]``, see ``control.hints``.
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
        """The module of its author, for messages."""
        return type(self).__module__

    def energy(self, state: ControlState) -> Tensor:
        """How far each text is from what is wanted: ``[B]``, in nats, lower is better, differentiable."""
        raise Lacking

    def evidence_given(self, probabilities: Tensor) -> Tensor:
        """``evidence [B, L, V]`` of each word given the ``probabilities [B, L, V]`` of the others, if it ``weighs``."""
        raise Lacking

    def restrict(self, logits: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` with -inf where a word is out of the question. Asked at every step."""
        return logits

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` given that the constraint holds, where that can be said exactly.

        For constraints that no single position decides. Asked at every step, after ``restrict`` of every control and
        after guidance; with t = 0 for the finished text, whose words are the likeliest ones. The times ``t [B]`` are
        on the CPU, where the logits may not be, so that a look at them waits for nothing.
        """
        return logits

    def phase(self, t: float) -> Hashable:
        """What the time decides: at times of the same phase the methods here make the same calls. By default any two
        differ if it ``looks`` or if there is a ``constrain``.

        Steps whose phase is the same may be recorded once and replayed on a GPU, without a call of any method here.
        """
        return t if self.looks or has_own(self, "constrain") else None

    def verify(self, logits: Tensor) -> None:
        """Asked before the first step, with -inf in ``logits [B, L, V]`` for what all controls together exclude.

        Raises:
            RecipeError: nothing that is left can satisfy this control.
        """

    def of_rows(self, rows: Tensor, length: int) -> Prepared | None:
        """The same for some texts ``rows [R]`` of the batch on their first ``length`` places, as all others are done.

        None where that has to be prepared anew, which takes as long as a step or more.
        """
        return self if type(self) is Prepared else None

    def negated(self) -> Prepared | None:
        """What holds the words to the contrary, where that can be done exactly."""
        return None


def has_own(prepared: Prepared, *members: str) -> bool:
    """Whether a prepared control has a method of its own in place of one of those that do nothing."""
    return any(getattr(type(prepared), member) is not getattr(Prepared, member) for member in members)


def lacks_energy(prepared: Prepared) -> bool:
    """Whether there is no energy, and need be none: nothing steers at all, or something else does."""
    if has_own(prepared, "energy"):
        return False
    others = prepared.evidence is not None or prepared.weighs or has_own(prepared, "restrict", "constrain")
    return others or type(prepared) is Prepared


class Energy(Prepared):
    """Guidance by an energy, given as a function of the state; see ``Prepared.energy``.

    Args:
        exact, looks: as of ``Prepared``.
        asked: what the texts are asked, tensors of a row for each text, which the function is given behind the state.
            With these the energy of some of the texts needs no preparing.

    Raises:
        TypeError: it is no function.
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
        some = [one.index_select(0, rows) for one in self.asked]
        return Energy(self.function, exact=self.exact, looks=self.looks, asked=some)


# Where the toolkit's own code is.
OWN_PACKAGES = ("dlmctl", "controls")


class Part(NamedTuple):
    """One of several controls that are to hold: its name, its share of the guidance, and itself.

    Faults of its author's code become one message that names it, a ``UserError``.

    Attributes:
        noted: where it is noted that logits of authors' code are no numbers; if not given, all are looked at, and a GPU
            is waited for.
    """

    name: str
    weight: float
    prepared: Prepared
    noted: Noted | None = None

    def energy(self, state: ControlState) -> Tensor:
        """Its energy ``[B]``, not weighted.

        Raises:
            UserError: the control gives none, or something else.
        """
        energy = self._asked("energy", lambda: self.prepared.energy(state))
        if not is_tensor(energy) or tuple(energy.shape) != (len(state.x),):
            what = list(energy.shape) if is_tensor(energy) else type(energy).__name__
            raise self._fault(f"its energy must have the shape [{len(state.x)}], one number a text, not {what}.")
        if not energy.is_floating_point():
            raise self._fault(f"its energy must be real numbers, not {energy.dtype}.")
        if state.x.requires_grad and not energy.requires_grad:
            raise self._fault("its energy has no gradient: compute it from the state by torch, without detach.")
        return narrowed(energy, state.x)

    def evidence_given(self, probabilities: Tensor) -> Tensor:
        """Its evidence ``[B, L, V]`` given the other words, weighted.

        Raises:
            UserError: the control gives none, or something else.
        """
        return self.weight * self._logits(
            "evidence_given", "numbers", probabilities, lambda: self.prepared.evidence_given(probabilities)
        )

    def restrict(self, logits: Tensor) -> Tensor:
        return self._logits("restrict", "word logits", logits, lambda: self.prepared.restrict(logits))

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        return self._logits("constrain", "word logits", logits, lambda: self.prepared.constrain(logits, t))

    def _logits(self, member: str, wanted: str, given: Tensor, call: Callable[[], Tensor]) -> Tensor:
        """What a ``member`` makes of what it is ``given [B, L, V]``, of the same shape and precision."""
        found = self._asked(member, call)
        if found is given and not has_own(self.prepared, member):
            return given
        if not is_tensor(found) or found.shape != given.shape or not found.is_floating_point():
            shown: object = type(found).__name__
            if is_tensor(found):
                shown = list(found.shape) if found.shape != given.shape else found.dtype
            raise self._fault(f"{member} must give {wanted} of the shape {list(given.shape)}, not {shown}.")
        found = found.to(given.dtype)
        fault = self._fault(f"{member} must give numbers, or -inf for some of the words, and gave NaN or infinity.")
        # What was spoiled before is the fault of who did it; what is changed in its place cannot be told from before.
        before = [] if found is given else [given]
        if self.noted is not None:
            # What comes with the toolkit is tested, and each look would be some calls of every step.
            if self.prepared.home.partition(".")[0] not in OWN_PACKAGES:
                self.noted.note(fault, spoiled(found, *before))
        elif may_be_spoiled(found) and spoiled(found, *before):
            raise fault
        return found

    def phase(self, t: float) -> Hashable:
        return self._asked("phase", lambda: self.prepared.phase(t))

    def verify(self, logits: Tensor) -> None:
        self._asked("verify", lambda: self.prepared.verify(logits))

    def _fault(self, what: str) -> UserError:
        return UserError(what, where=f"control {self.name!r} ({self.prepared.home})")

    def _asked(self, member: str, call: Callable[[], T]) -> T:
        lacking = f"what its prepare returns has no {member}, and nothing else that steers."
        return asked(member, call, self._fault, lacking)


class PreparedAll(Prepared):
    """Every part: the weighted sum of the energies, all exact constraints in turn."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    @property
    def guides(self) -> list[Part]:
        """The parts that do more than check."""
        return [part for part in self.parts if type(part.prepared) is not Prepared]

    def noting(self, noted: Noted) -> PreparedAll:
        """The same, whose faults are ``noted`` and nothing waits for the device."""
        return PreparedAll([part._replace(noted=noted) for part in self.parts])

    def energy(self, state: ControlState) -> Tensor:
        first, *others = (part.weight * part.energy(state) for part in self.parts)
        return sum(others, start=first)

    def restrict(self, logits: Tensor) -> Tensor:
        for part in self.parts:
            logits = part.restrict(logits)
        return logits

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        # What holds exactly comes last, so that nothing undoes it.
        for part in sorted(self.parts, key=lambda part: part.prepared.exact):
            logits = part.constrain(logits, t)
        return logits

    def phase(self, t: float) -> Hashable:
        return tuple(part.phase(t) for part in self.parts)

    def of_rows(self, rows: Tensor, length: int) -> PreparedAll | None:
        found = [(part, part.prepared.of_rows(rows, length)) for part in self.parts]
        some = [part._replace(prepared=prepared) for part, prepared in found if prepared is not None]
        return PreparedAll(some) if len(some) == len(found) else None

    def verify(self, logits: Tensor) -> None:
        for part in self.parts:
            part.verify(logits)


class PreparedNot(Prepared):
    """The contrary of one control: for an energy -log p, -log(1 - p), and its tangent where p is all but 1; all of it
    by the weight of the control.

    The tangent keeps a gradient where it is needed most: on a text that is certain to have what is unwanted, and where
    an energy falls below 0 by rounding or because it is no -log p.
    """

    def __init__(self, part: Part) -> None:
        self.part = part

    def phase(self, t: float) -> Hashable:
        return self.part.phase(t)

    def energy(self, state: ControlState) -> Tensor:
        energy = self.part.energy(state)
        curve = -(-(-energy.clamp(min=SMALLEST_ENERGY)).expm1()).log()
        tangent = (SMALLEST_ENERGY - energy).clamp(min=0) / math.expm1(SMALLEST_ENERGY)
        return self.part.weight * (curve + tangent)
