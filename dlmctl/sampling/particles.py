"""Particles: several walks of each text, resampled by their rewards (sequential Monte Carlo).

Feynman-Kac steering (Singhal et al. 2025) with its difference potential, and the importance weights of guided draws as
in twisted diffusion sampling (Wu et al. 2023): the weight of a walk since its last resampling is exp(growth of its
reward), times p/q for each draw of a guided walk q if the family knows it. With minus the energy as the reward, the
texts of a masked model then follow p(text) exp(-energy) as the number of particles grows, whatever guides the draws. A
reward that uses no control chooses among guided texts instead: p/q would undo the guidance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dlmctl.annotators.reader import required_scorer
from dlmctl.control.check import mean_score
from dlmctl.control.combined import check_all
from dlmctl.control.prepared import PreparedAll
from dlmctl.diffusion.family import Prediction
from dlmctl.diffusion.noise import RESAMPLING
from dlmctl.errors import RecipeError
from dlmctl.metrics.fluency import fluency_of
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.plan import Finished, Plan
from dlmctl.sampling.steering import Steered

Reward = Callable[[Tensor], Tensor]
"""Word probabilities ``[B, L, V]`` to rewards ``[B]``, higher is better."""

# The reward of a text that the scorer cannot read to its end.
UNREADABLE = -100.0
# The default scale of each reward: nats count unchanged; the full score of a check counts as 20 nats.
SCALES = {"energy": 1.0, "score": 20.0, "lm_score": 4.0}


def expanded(batch: Batch, particles: int) -> Batch:
    """The batch with each row repeated once per particle, next to each other, differing only in their noise."""
    return [(draw._replace(particle=at), layout) for draw, layout in batch for at in range(particles)]


class Particles:
    """Resamples one expanded batch. Nothing in it waits for the device, except rewards that judge words.

    Each text keeps its number of particles. They are resampled systematically (Kitagawa 1996) once their effective
    number falls below half, until they are finished: longer texts beside them, which take more steps, change nothing.

    Args:
        batch: expanded; the random numbers that resample a text come from a stream of its draw.
        steered: the steering of the batch; it is passed the rows that continue.
        reward: of the word probabilities that a walk expects; at the end, of the words it wrote.
        every: steps between two evaluations of the reward.
        ratios: whether p/q of the draws counts.
    """

    def __init__(
        self, batch: Batch, particles: int, steered: Steered, reward: Reward, scale: float, every: int, *, ratios: bool
    ) -> None:
        self.count, self.steered, self.reward, self.scale, self.every = particles, steered, reward, scale, every
        self.ratios = ratios
        self.device = device = steered.embeddings.device
        self.streams = [draw.generator(RESAMPLING) for draw, _ in batch[::particles]]
        texts = len(self.streams)
        # For every particle: its log weight since its last resampling, and the reward included in it.
        self.weights = torch.zeros(texts, particles, device=device)
        self.rewards = torch.zeros(texts, particles, device=device)
        self.first = torch.arange(texts, device=device)[:, None] * particles
        # Chooses the particle of each text at the end; drawn first, as texts differ in how often they are resampled.
        self.point = self._uniform()[:, None]

    def rows(self, number: int, estimate: Prediction, finished: Tensor | None) -> Tensor | None:
        if number % self.every or number == 0:  # at t = 1 particles do not differ
            return None
        self._reward(self.steered.expected(estimate))
        shares = self.weights.softmax(-1)
        resampled = (shares.square().sum(-1).reciprocal() < self.count / 2)[:, None]
        if finished is not None:
            resampled &= ~finished.view_as(self.weights).all(1, keepdim=True)
        offset = self._uniform()[:, None]
        points = (offset + torch.arange(self.count, device=self.device)) / self.count
        ancestors = _inverse_cdf(shares, points)
        chosen = torch.where(resampled, ancestors, torch.arange(self.count, device=self.device))
        self.weights = torch.where(resampled, 0.0, self.weights)
        self.rewards = self.rewards.gather(1, chosen)
        rows = (self.first + chosen).flatten()
        self.steered.take(rows)
        return rows

    def moved(self, log_ratio: Tensor | None) -> None:
        if self.ratios and log_ratio is not None:
            self.weights = self.weights + log_ratio.view_as(self.weights)

    def finish(self, finished: Finished, vocab_size: int) -> Finished:
        """One particle of each text, drawn by the weights."""
        self._reward(F.one_hot(finished.ids, vocab_size).to(self.weights))
        chosen = _inverse_cdf(self.weights.softmax(-1), self.point)
        rows = (self.first + chosen).flatten()
        row_numbers = rows.tolist()
        problems = {at: finished.problems[row] for at, row in enumerate(row_numbers) if row in finished.problems}
        return Finished(finished.ids.index_select(0, rows), problems, [finished.nats[row] for row in row_numbers])

    def _reward(self, probabilities: Tensor) -> None:
        rewards = self.scale * self.reward(probabilities).view_as(self.rewards)
        # NaN, such as that of a NaN energy, counts as the worst reward.
        rewards = torch.nan_to_num(rewards, nan=-1e4).clamp(-1e4, 1e4)
        self.weights, self.rewards = self.weights + rewards - self.rewards, rewards

    def _uniform(self) -> Tensor:
        samples = [torch.rand((), generator=stream, dtype=torch.float64) for stream in self.streams]
        return torch.stack(samples).to(self.weights)


def _inverse_cdf(shares: Tensor, points: Tensor) -> Tensor:
    """Indices ``[G, K]``: the inverse of the cumulative ``shares [G, N]`` at ``points [G, K]`` in [0, 1)."""
    sums = shares.cumsum(-1)
    return torch.searchsorted(sums, points * sums[:, -1:], right=True).clamp(max=shares.shape[1] - 1)


def particles_for(plan: Plan, batch: Batch, steered: Steered) -> Particles | None:
    """The particles of an expanded batch; None if each text has only one."""
    sampler = plan.sampler
    if sampler.particles == 1:
        return None
    scale = SCALES[sampler.reward] if sampler.reward_scale is None else sampler.reward_scale
    reward, ratios = reward_of(plan, batch, steered), sampler.reward != "lm_score"
    return Particles(batch, sampler.particles, steered, reward, scale, sampler.resample_every, ratios=ratios)


def require_noise(sampler: SamplerSettings) -> None:
    """Check that copies of a walk can diverge.

    Raises:
        RecipeError: several particles with a latent sampler that draws no noise.
    """
    if sampler.particles > 1 and (sampler.name == "dpmpp_2m" or sampler.eta == 0):
        what = "copies of a text need fresh noise to become different, and this sampler draws none."
        raise RecipeError(what, where="sampler.particles", remedy="Take ddim or ancestral with eta above 0.")


def require_reward(sampler: SamplerSettings, *, controlled: bool) -> None:
    """Check that there is a reward for resampling particles.

    Args:
        controlled: whether there is a control.

    Raises:
        RecipeError: the reward comes from controls, and there are none.
    """
    if sampler.particles > 1 and sampler.reward != "lm_score" and not controlled:
        what = f"the reward {sampler.reward!r} comes from controls, and there are none."
        raise RecipeError(what, where="sampler.reward", remedy="Take lm_score, add a control, or leave particles out.")


def require_guidance(plan: Plan, control: PreparedAll) -> None:
    """Check that there are controls that guide if particles are rewarded by energies.

    Raises:
        RecipeError: the controls only check.
    """
    by_energy = plan.sampler.particles > 1 and plan.sampler.reward == "energy"
    if by_energy and plan.branch is None and not control.guides:  # a single branch may have none
        what = "the reward 'energy' comes from controls that guide, and these only check."
        remedy = "Take score or lm_score, add a control that guides, or leave particles out."
        raise RecipeError(what, where="sampler.reward", remedy=remedy)


def reward_of(plan: Plan, batch: Batch, steered: Steered) -> Reward:
    """The reward that the recipe names.

    Raises:
        ModelError: it needs a scorer, and the model has none.
    """
    name, control = plan.sampler.reward, plan.control
    if name == "lm_score":
        reader = required_scorer(plan.pretrained)

        def minus_nats(probabilities: Tensor) -> Tensor:
            fluencies = fluency_of(reader, *_likeliest_texts(plan, probabilities))
            return _as_tensor([-each.lm_score if each else UNREADABLE for each in fluencies], probabilities)

        return minus_nats
    assert control is not None  # by ``require_reward``
    if name == "energy":
        return steered.reward
    samples = [draw.sample for draw, _ in batch]

    def score(probabilities: Tensor) -> Tensor:
        checks = check_all(control, samples, *_likeliest_texts(plan, probabilities))
        return _as_tensor([mean_score(row_checks) for row_checks in checks], probabilities)

    return score


def _likeliest_texts(plan: Plan, probabilities: Tensor) -> tuple[list[list[str]], list[str]]:
    """The likeliest texts so far: the words of each, and its natural text."""
    tokenizer, rows = plan.pretrained.tokenizer, probabilities.argmax(-1).tolist()
    return [tokenizer.words(row) for row in rows], [tokenizer.decode(row) for row in rows]


def _as_tensor(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=torch.float32)
