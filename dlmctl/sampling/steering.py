"""The estimate at each step of the walk: the model's logits, steered by the controls.

Order: predict, rule words out (``restrict``), add the evidence of controls that know it for every word, guide by the
gradient of the others' energies, and condition on exact constraints (``constrain``). All of this needs only word
logits, and so works for every family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
from torch import Tensor

from dlmctl.control.prepared import Part, Prepared, PreparedAll, lacks_energy
from dlmctl.control.state import ControlState
from dlmctl.diffusion.family import Family, Prediction, StepResult
from dlmctl.diffusion.layout import Layouts, banned_tokens
from dlmctl.models.numerics import at_least_float32, times_on
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.device import networks_in
from dlmctl.sampling.graphs import Outputs, Recorded
from dlmctl.sampling.guidance import Gradient, moved_logits, strength, updates_of
from dlmctl.sampling.trace import Recorder, StepView
from dlmctl.text.tokenizer import Tokenizer

StateOf = Callable[[Tensor], ControlState]

# In ``nan_times``: the energy has been a number so far.
NEVER = -1.0
# Replaces probability 0 where its logarithm would spoil a gradient.
MIN_PROBABILITY = 1e-20


def problems_of(names: Sequence[str], nan_times: Tensor) -> dict[int, str]:
    """The problem of each row of ``nan_times [parts, B]`` that has one, by row; a row's first problem counts."""
    problems: dict[int, str] = {}
    rows = zip(*nan_times.tolist(), strict=True) if len(names) else iter(())
    for row, times in enumerate(rows):
        if max(times) > NEVER:
            name, t = names[times.index(max(times))], max(times)
            problems[row] = f"the energy of {name} was not a number at t = {t:.2f}; unguided from there"
    return problems


def needs_gradient(part: Part) -> bool:
    """Whether a part steers by the gradient of its energy, either for lack of evidence or in addition to it."""
    return part.prepared.gradient_too or not (
        part.prepared.evidence is not None or part.prepared.weighs or lacks_energy(part.prepared)
    )


def weighted_sum(parts: Sequence[Part], tensor_of: Callable[[Prepared], Tensor | None]) -> Tensor | None:
    """The weighted sum of one tensor over several parts; None if no part has one."""
    pairs = [(part.weight, tensor_of(part.prepared)) for part in parts if part.weight]  # 0 * -inf is NaN
    terms = [weight * tensor for weight, tensor in pairs if tensor is not None]
    return sum(terms[1:], start=terms[0]) if terms else None


def evidence_of(parts: Sequence[Part]) -> Tensor | None:
    """The weighted evidence ``[B, L, V]`` of several parts; None if no part has any."""
    evidence = weighted_sum(parts, lambda prepared: prepared.evidence)
    # No double precision.
    return evidence.float() if evidence is not None and evidence.element_size() == 8 else evidence


class Steered:
    """The guided estimates for one batch.

    Args:
        family: the family, with the conditioning of this batch.
        embeddings: of the words, ``[V, D]``.
        control: prepared for this batch, or None for unguided text.
        layouts: of the rows.
        joint_until: at times up to this the likeliest text is taken as a whole; before that, words are written given
            others.
        recorded: record the computation of a step as a CUDA graph and replay it (``sampling.graphs``).
        draws_texts: whether the family draws texts as a whole, from the logits before exact constraints.

    Attributes:
        nan_times: ``[parts, B]``, for each part that guides by its gradient and each row: the time at which the energy
            stopped being a number, after which the row is unguided; -1 while it is one. On the device, so that nothing
            waits for it.
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
        joint_until: float = 0.0,
        recorded: bool = False,
        draws_texts: bool = False,
    ) -> None:
        self.family, self.embeddings, self.vocabulary, self.control = family, embeddings, vocabulary, control
        self.guidance, self.sampler, self.layouts, self.mask = guidance, sampler, layouts, layouts.mask
        self.banned = banned_tokens(layouts, vocabulary, len(embeddings))
        # At scale 0 nothing guides; exact constraints hold all the same.
        parts = control.guides if control is not None and guidance.scale else []
        # Exact constraints on word logits need no gradient, nor do parts that know their evidence for every word.
        self.guide_by([part for part in parts if not part.prepared.exact and needs_gradient(part)])
        self.weighing = [part for part in parts if part.prepared.weighs and part.weight]
        self.evidence = evidence_of(parts)
        self.guides_logits = bool(self.parts)
        with_evidence = all(part.prepared.gradient_too and part.prepared.one_update for part in self.parts)
        self.updates = updates_of(guidance, with_evidence=with_evidence)
        self.joint_until, self.draws_texts = joint_until, draws_texts
        all_parts = [] if control is None else control.parts
        self.inexact, self.exact = (
            PreparedAll([part for part in all_parts if bool(part.prepared.exact) == exact]) for exact in (False, True)
        )
        # The noise level of an x_0 estimate.
        self.zero_times = torch.zeros(len(layouts.words), device=embeddings.device)
        self.recorded_estimate = Recorded(recorded)
        # Is shown every step if the texts are traced or watched.
        self.recorder: Recorder | None = None
        # The numbers of the rows in the recorder's batch.
        self.row_numbers: Sequence[int] = range(len(layouts.words))

    def guide_by(self, parts: Sequence[Part]) -> None:
        """Guide by the gradients of these parts."""
        shape, device = (len(parts), len(self.layouts.words)), self.embeddings.device
        self.parts, self.nan_times = parts, torch.full(shape, NEVER, device=device)
        # The weight of each row's energy.
        self.weights = [torch.full(shape[1:], part.weight, device=device) for part in parts]

    @property
    def problems(self) -> dict[int, str]:
        """What happened to each row whose energy stopped being a number. Waits for the device."""
        return problems_of([part.name for part in self.parts], self.nan_times)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        t_value, t_device = float(t[0]), times_on(x_t.device, t)
        estimate = partial(self._estimate, t_value)
        outputs = self.recorded_estimate(self.graph_key(t_value), estimate, x_t, t_device)
        own, logits, unguided, unconstrained = outputs
        assert logits is not None
        guided = Prediction(lambda: self.family.soft(logits.softmax(-1)), logits, unguided, unconstrained=unconstrained)
        if own is not None:
            self.record(StepView(t_value, x_t, Prediction(lambda: self.family.soft(own.softmax(-1)), own), guided))
        return guided

    def graph_key(self, t: float) -> Hashable:
        """The values that decide which calls a step at time t makes."""
        phase = None if self.control is None else self.control.phase(t)
        return strength(self.guidance, t) if self.parts else 0.0, phase, self.recorder is None

    def _estimate(self, t_value: float, x_t: Tensor, t: Tensor) -> Outputs:
        """Logits ``[B, L, V]``: the model's own (for the recorder), the guided ones, the unguided ones (for the weights
        of particles), and those before exact constraints (to draw texts); all of ``t [B]`` equal ``t_value``."""
        predicted = self.family.predict(x_t, t, None, self.mask)
        assert predicted.logits is not None
        # The network's precision ends here: exact constraints are exact in float32 only.
        with torch.autocast(x_t.device.type, enabled=False):
            # Exact constraints hold at every step, or for the likeliest text of every step.
            own = at_least_float32(predicted.logits)
            constraint_t = torch.full((len(x_t),), float(t_value > self.joint_until), dtype=torch.float64)
            unconstrained = self.unconstrained(own, t_value, t, constraint_t)
            logits = self.exact.constrain(unconstrained, constraint_t)
            unguided = own.masked_fill(self.banned, -torch.inf) if self.sampler.particles > 1 else None
        own_if_shown = None if self.recorder is None else own
        return own_if_shown, logits, unguided, unconstrained if self.draws_texts else None

    def record(self, step: StepView) -> None:
        """Show a step to the recorder, if there is one."""
        if self.recorder is not None:
            self.recorder.record(self.row_numbers, self, step)

    def word_ids(self, estimate: Prediction) -> Tensor:
        """The likeliest word ids ``[B, L]`` of an estimate."""
        assert estimate.logits is not None
        return estimate.logits.argmax(-1)

    def own_words(self, own: Prediction, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The expected embeddings ``[R, L, D]`` and the log-probabilities of the words ``[R, L, V]`` for some rows of
        the model's own estimate."""
        assert own.logits is not None
        logits = at_least_float32(own.logits.index_select(0, rows))
        probabilities = logits.masked_fill(self.banned.index_select(0, rows), -torch.inf).softmax(-1)
        return at_least_float32(self.family.soft(probabilities)), probabilities.clamp(min=MIN_PROBABILITY).log()

    def guided(self, logits: Tensor, t_value: float, t: Tensor, constraint_t: Tensor) -> Tensor:
        """Steer the network's word logits ``[B, L, V]`` by the controls, at times ``t [B]`` that all equal ``t_value``.

        ``constraint_t [B]``, on the CPU, is the time passed to exact constraints.
        """
        return self.exact.constrain(self.unconstrained(logits, t_value, t, constraint_t), constraint_t)

    def unconstrained(self, logits: Tensor, t_value: float, t: Tensor, constraint_t: Tensor) -> Tensor:
        """As ``guided``, before exact constraints."""
        logits = self.restrict(logits)
        if self.evidence is not None:
            logits = logits + self.evidence
        if self.weighing:
            probabilities = logits.softmax(-1)
            logits = sum((part.evidence_given(probabilities) for part in self.weighing), start=logits)
        scale = strength(self.guidance, t_value) if self.guides_logits else 0.0
        if scale:
            logits = moved_logits(logits, self.gradient(self._state_of_words, t), scale, self.updates)
        return self.inexact.constrain(logits, constraint_t)

    def after(self, moved: StepResult, s: float) -> Tensor:
        """The draw, unchanged: guidance of logits does not move it."""
        return moved.x

    def take(self, rows: Tensor) -> None:
        """Continue with the texts ``rows``, which belong to the same samples as those they replace."""
        if self.recorder is not None:
            self.recorder.take(rows.tolist())
        self.nan_times.copy_(self.nan_times.index_select(1, rows))

    def expected(self, estimate: Prediction) -> Tensor:
        """The word probabilities ``[B, L, V]`` of an estimate."""
        assert estimate.logits is not None
        return estimate.logits.softmax(-1)

    @torch.no_grad()
    def reward(self, probabilities: Tensor) -> Tensor:
        """Minus the weighted energies ``[B]`` of the controls that are not exact, at word probabilities
        ``[B, L, V]``."""
        state = self._state_of_words(probabilities)
        parts = [] if self.control is None else self.control.guides
        rewards = [self._reward_of(part, state) for part in parts if not part.prepared.exact]
        return sum(rewards, start=probabilities.new_zeros(len(probabilities)))

    def _reward_of(self, part: Part, state: ControlState) -> Tensor:
        """Minus the weighted energy ``[B]``; for evidence without an energy, the log-likelihood that it gives the
        words."""
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
        """The sum of the parts' gradients, each clipped to ``guidance.clip``; 0 for rows with a NaN energy.

        For rows whose energy becomes NaN now, ``t [B]`` is noted.
        """
        nan_times = torch.maximum(self.nan_times, t.to(self.nan_times))

        def gradient(at: Tensor) -> Tensor:
            total: Tensor | None = None
            with torch.enable_grad(), networks_in(self.sampler.precision, at.device):
                leaf = at.detach().requires_grad_()
                # Autocast would keep the cast copy of the leaf itself until the whole batch is drawn.
                state = state_of(leaf.view_as(leaf))
                for number, part in enumerate(self.parts):
                    energy = part.energy(state)
                    # Parts may share the x_0 estimate, so the graph is kept for the next one.
                    weights = self.weights[number].to(energy.dtype)
                    (part_gradient,) = torch.autograd.grad(energy, leaf, weights, retain_graph=True)
                    clipped = self._clipped(number, energy.detach(), part_gradient, nan_times)
                    total = clipped if total is None else total + clipped
            assert total is not None
            last_nan = self.nan_times[0] if len(self.parts) == 1 else self.nan_times.amax(0)
            return total.masked_fill((last_nan > NEVER)[:, None, None], 0.0)

        return gradient

    def _clipped(self, part: int, energy: Tensor, gradient: Tensor, nan_times: Tensor) -> Tensor:
        """A part's gradient, clipped to ``guidance.clip``; if it is not finite, notes ``nan_times [parts, B]``."""
        # The norm is finite only if the gradient is; 0 times an energy that is infinite or NaN is NaN.
        norm = gradient.flatten(1).norm(dim=1).add(energy, alpha=0.0)
        torch.where(norm < math.inf, self.nan_times[part], nan_times[part], out=self.nan_times[part])
        return gradient / (norm / max(self.guidance.clip, 1e-30)).clamp(min=1.0).reshape(-1, 1, 1)

    def state(self, x0: Tensor, log_probs: Callable[[], Tensor]) -> ControlState:
        """A state whose latent is itself an x_0 estimate, and so at noise level 0."""
        return ControlState(
            x0,
            self.zero_times,
            vocabulary=self.vocabulary,
            embeddings=self.embeddings,
            x0=lambda: x0,
            word_log_probs=log_probs,
            mask=self.mask,
        )

    def _state_of_words(self, probabilities: Tensor) -> ControlState:
        return self.state(
            at_least_float32(self.family.soft(probabilities)), lambda: probabilities.clamp(min=MIN_PROBABILITY).log()
        )
