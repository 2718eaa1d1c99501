"""What the walk asks at every step: the model's logits, steered by the controls.

Order: predict, rule words out (``restrict``), add the evidence of controls that know it for every word, guide by the
gradient of the others' energies, and condition on what holds exactly (``constrain``). All of it needs word logits only,
and so serves every family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
from torch import Tensor

from dlmctl.control.prepared import Part, Prepared, PreparedAll, lacks_energy
from dlmctl.control.state import ControlState
from dlmctl.diffusion.family import Family, Moved, Prediction
from dlmctl.diffusion.layout import Layouts, banned_tokens
from dlmctl.models.numerics import widened
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.device import networks_in
from dlmctl.sampling.graphs import Outputs, Recorded
from dlmctl.sampling.guidance import Gradient, moved_logits, strength, updates_of
from dlmctl.sampling.trace import Look, Recorder
from dlmctl.text.tokenizer import Tokenizer

StateOf = Callable[[Tensor], ControlState]

# The time at which an energy stopped being a number, as long as it is one.
WHOLE = -1.0
# Stands for probability 0 where its logarithm would spoil a gradient.
LEAST = 1e-20


def problems_of(names: Sequence[str], broke: Tensor) -> dict[int, str]:
    """What happened to each row of ``broke [parts, B]``, by row; each row's first problem counts."""
    found: dict[int, str] = {}
    rows = zip(*broke.tolist(), strict=True) if len(names) else iter(())
    for row, times in enumerate(rows):
        if max(times) > WHOLE:
            name, t = names[times.index(max(times))], max(times)
            found[row] = f"the energy of {name} was not a number at t = {t:.2f}; unguided from there"
    return found


def by_gradient(part: Part) -> bool:
    """Whether a part steers by the gradient of its energy, for want of evidence or beside it."""
    return part.prepared.gradient_too or not (
        part.prepared.evidence is not None or part.prepared.weighs or lacks_energy(part.prepared)
    )


def weighted_sum(parts: Sequence[Part], of: Callable[[Prepared], Tensor | None]) -> Tensor | None:
    """The sum of what several parts have, each by its weight; None where none has any."""
    pairs = [(part.weight, of(part.prepared)) for part in parts if part.weight]  # 0 times -inf is no number
    found = [weight * one for weight, one in pairs if one is not None]
    return sum(found[1:], start=found[0]) if found else None


def evidence_of(parts: Sequence[Part]) -> Tensor | None:
    """The weighted evidence of several parts ``[B, L, V]``, None where none has any."""
    found = weighted_sum(parts, lambda prepared: prepared.evidence)
    return found.float() if found is not None and found.element_size() == 8 else found  # no double precision


class Steered:
    """The guided estimates for one batch.

    Args:
        family: with what the texts of the batch are about.
        embeddings: of the words, ``[V, D]``.
        control: prepared for this batch, or None for unguided text.
        layouts: of the rows.
        whole_until: the likeliest text is taken whole at times up to this; before, words are written given others.
        recorded: record what is asked at every step, and replay it (``sampling.graphs``).

    Attributes:
        broke: of each part that guides by its gradient and each row, ``[parts, B]``, the time at which the energy
            stopped being a number, from when on the row goes on unguided; -1 while it is one. On the device, so that
            nothing waits for it.
    """

    def __init__(
        self,
        family: Family,
        embeddings: Tensor,
        vocabulary: Tokenizer,
        control: PreparedAll | None,
        guidance: Guidance,
        sampler: SamplerSettings,
        layouts: Layouts,
        *,
        whole_until: float = 0.0,
        recorded: bool = False,
    ) -> None:
        self.family, self.embeddings, self.vocabulary, self.control = family, embeddings, vocabulary, control
        self.guidance, self.sampler, self.layouts, self.mask = guidance, sampler, layouts, layouts.mask
        self.banned = banned_tokens(layouts, vocabulary, len(embeddings))
        # At scale 0 nothing leads the words; what they are held to holds all the same.
        parts = control.guides if control is not None and guidance.scale else []
        # What word logits are held to exactly needs no gradient, nor does what knows its evidence for every word.
        self.guide_by([part for part in parts if not part.prepared.exact and by_gradient(part)])
        self.weighing = [part for part in parts if part.prepared.weighs and part.weight]
        self.evidence = evidence_of(parts)
        self.guides_logits = bool(self.parts)
        beside = all(part.prepared.gradient_too and part.prepared.one_update for part in self.parts)
        self.updates = updates_of(guidance, beside_evidence=beside)
        self.whole_until = whole_until
        # The noise level of an x_0 estimate.
        self.clean = torch.zeros(len(layouts.words), device=embeddings.device)
        self.estimated = Recorded(recorded)
        # Is shown every step, where somebody wants to see how the texts come about; and the rows' numbers there.
        self.recorder: Recorder | None = None
        self.numbers: Sequence[int] = range(len(layouts.words))

    def guide_by(self, parts: Sequence[Part]) -> None:
        """Take these parts to guide by their gradients."""
        shape, device = (len(parts), len(self.layouts.words)), self.embeddings.device
        self.parts, self.broke = parts, torch.full(shape, WHOLE, device=device)
        # What each row's energy counts.
        self.weights = [torch.full(shape[1:], part.weight, device=device) for part in parts]

    @property
    def problems(self) -> dict[int, str]:
        """Of each row whose energy stopped being a number, what happened. Waits for the device."""
        return problems_of([part.name for part in self.parts], self.broke)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        value, at = float(t[0]), t.to(x_t.device, non_blocking=True)
        found = self.estimated(self.kind(value), partial(self._estimate, value), x_t, at)
        own, logits, unguided = found
        assert logits is not None
        guided = Prediction(lambda: self.family.soft(logits.softmax(-1)), logits, unguided)
        if own is not None:
            self.note(Look(value, x_t, Prediction(lambda: self.family.soft(own.softmax(-1)), own), guided))
        return guided

    def kind(self, t: float) -> Hashable:
        """What decides which calls a step at time t makes."""
        phase = None if self.control is None else self.control.phase(t)
        return strength(self.guidance, t) if self.parts else 0.0, phase, self.recorder is None

    def _estimate(self, value: float, x_t: Tensor, t: Tensor) -> Outputs:
        """Logits ``[B, L, V]``: the model's own, for who wants to see them, the guided ones, and the unguided, for who
        weighs them against these; ``value`` is that of all ``t [B]``."""
        predicted = self.family.predict(x_t, t, None, self.mask)
        assert predicted.logits is not None
        # The network's precision ends here: exact constraints are exact in float32 only.
        with torch.autocast(x_t.device.type, enabled=False):
            # What is exact is so at every step, or for the likeliest text of every step.
            plain = widened(predicted.logits)
            settled = torch.full((len(x_t),), float(value > self.whole_until), dtype=torch.float64)
            logits = self.guided(plain, value, t, settled)
            unguided = plain.masked_fill(self.banned, -torch.inf) if self.sampler.particles > 1 else None
        return None if self.recorder is None else plain, logits, unguided

    def note(self, look: Look) -> None:
        """Show a step to the recorder, where there is one."""
        if self.recorder is not None:
            self.recorder.see(self.numbers, self, look)

    def word_ids(self, estimate: Prediction) -> Tensor:
        """The likeliest word ids ``[B, L]`` of an estimate."""
        assert estimate.logits is not None
        return estimate.logits.argmax(-1)

    def own_words(self, own: Prediction, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of some rows of the model's own estimate the expected embeddings ``[R, L, D]`` and the log-probabilities of
        the words ``[R, L, V]``."""
        assert own.logits is not None
        logits = widened(own.logits.index_select(0, rows))
        probabilities = logits.masked_fill(self.banned.index_select(0, rows), -torch.inf).softmax(-1)
        return widened(self.family.soft(probabilities)), probabilities.clamp(min=LEAST).log()

    def guided(self, logits: Tensor, value: float, t: Tensor, settled: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` of the network as the controls want them at times ``t [B]``, all of this value.

        ``settled [B]``, on the CPU, is the time that exact constraints are told.
        """
        logits = self.restrict(logits)
        if self.evidence is not None:
            logits = logits + self.evidence
        if self.weighing:
            probabilities = logits.softmax(-1)
            logits = sum((part.evidence_given(probabilities) for part in self.weighing), start=logits)
        scale = strength(self.guidance, value) if self.guides_logits else 0.0
        if scale:
            logits = moved_logits(logits, self.gradient(self._state_of_words, t), scale, self.updates)
        return logits if self.control is None else self.control.constrain(logits, settled)

    def after(self, moved: Moved, s: float) -> Tensor:
        """Guidance of logits leaves the draw as it is."""
        return moved.x

    def take(self, rows: Tensor) -> None:
        """Go on with the texts ``rows``, which stand for the same samples as those in whose place they come."""
        if self.recorder is not None:
            self.recorder.take(rows.tolist())
        self.broke.copy_(self.broke.index_select(1, rows))

    def expected(self, estimate: Prediction) -> Tensor:
        """The word probabilities ``[B, L, V]`` of an estimate."""
        assert estimate.logits is not None
        return estimate.logits.softmax(-1)

    @torch.no_grad()
    def reward(self, probabilities: Tensor) -> Tensor:
        """Minus the weighted energies ``[B]`` at word probabilities ``[B, L, V]``, of what does not hold exactly."""
        state = self._state_of_words(probabilities)
        parts = [] if self.control is None else self.control.guides
        rewards = [self._reward_of(part, state) for part in parts if not part.prepared.exact]
        return sum(rewards, start=probabilities.new_zeros(len(probabilities)))

    def _reward_of(self, part: Part, state: ControlState) -> Tensor:
        """Minus the weighted energy ``[B]``; of evidence without one the logarithm of how likely it makes the words."""
        if not lacks_energy(part.prepared):
            return -part.weight * part.energy(state)
        if part.prepared.evidence is not None:
            evidence = part.weight * part.prepared.evidence
        elif part.prepared.weighs:
            evidence = part.evidence_given(state.word_log_probs.exp())
        else:
            return state.x.new_zeros(len(state.x))
        return (state.word_log_probs + evidence).logsumexp(-1).sum(-1)

    def restrict(self, logits: Tensor) -> Tensor:
        """``logits [B, L, V]`` with -inf for words that cannot stand where they are."""
        logits = logits.masked_fill(self.banned, -torch.inf)
        return logits if self.control is None else self.control.restrict(logits)

    def gradient(self, state_of: StateOf, t: Tensor) -> Gradient:
        """The sum of the parts' gradients, each kept within ``guidance.clip``; rows that broke get none.

        ``t [B]`` is noted down of those that break now.
        """
        later = torch.maximum(self.broke, t.to(self.broke))

        def gradient(at: Tensor) -> Tensor:
            total: Tensor | None = None
            with torch.enable_grad(), networks_in(self.sampler.precision, at.device):
                leaf = at.detach().requires_grad_()
                # Of a leaf itself autocast would keep the cast copy until the whole batch is drawn.
                state = state_of(leaf.view_as(leaf))
                for number, part in enumerate(self.parts):
                    energy = part.energy(state)
                    # Parts may share the x_0 estimate, so the graph is kept for the next one.
                    weights = self.weights[number].to(energy.dtype)
                    (found,) = torch.autograd.grad(energy, leaf, weights, retain_graph=True)
                    clipped = self._clipped(number, energy.detach(), found, later)
                    total = clipped if total is None else total + clipped
            assert total is not None
            broke = self.broke[0] if len(self.parts) == 1 else self.broke.amax(0)
            return total.masked_fill((broke > WHOLE)[:, None, None], 0.0)

        return gradient

    def _clipped(self, part: int, energy: Tensor, gradient: Tensor, later: Tensor) -> Tensor:
        """A part's gradient within ``guidance.clip``; what ``later [parts, B]`` says is noted down where it is none."""
        # A norm is a finite number if all that it is made of are, and 0 times what is none is none.
        norm = gradient.flatten(1).norm(dim=1).add(energy, alpha=0.0)
        torch.where(norm < math.inf, self.broke[part], later[part], out=self.broke[part])
        return gradient / (norm / max(self.guidance.clip, 1e-30)).clamp(min=1.0).reshape(-1, 1, 1)

    def state(self, x0: Tensor, log_probs: Callable[[], Tensor]) -> ControlState:
        """A state whose latent is itself an x_0 estimate, and so at noise level 0."""
        return ControlState(
            x0,
            self.clean,
            vocabulary=self.vocabulary,
            embeddings=self.embeddings,
            x0=lambda: x0,
            word_log_probs=log_probs,
            mask=self.mask,
        )

    def _state_of_words(self, probabilities: Tensor) -> ControlState:
        return self.state(widened(self.family.soft(probabilities)), lambda: probabilities.clamp(min=LEAST).log())
