"""Particles: several walks of each text, resampled by how well they do (sequential Monte Carlo).

Feynman-Kac steering (Singhal et al. 2025) with its difference potential, and the importance weights of guided draws as
in twisted diffusion sampling (Wu et al. 2023): since it was last resampled, a walk has the weight exp(growth of its
reward), times p/q for each draw of a guided walk q where the family knows it. With minus the energy as the reward the
texts of a masked model then follow p(text) exp(-energy) as the number of particles grows, whatever guides the draws.
A reward that asks no control chooses among guided texts instead: p/q would take the guidance back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dlmctl.control.check import mean_score
from dlmctl.control.combined import check_all
from dlmctl.control.prepared import PreparedAll
from dlmctl.diffusion.family import Prediction
from dlmctl.diffusion.noise import RESAMPLING
from dlmctl.errors import RecipeError
from dlmctl.metrics.lm_score import lm_score, load_scorer
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.plan import Finished, Plan
from dlmctl.sampling.steering import Steered

Reward = Callable[[Tensor], Tensor]
"""Word probabilities ``[B, L, V]`` to rewards ``[B]``, higher is better."""

# What a reward counts where a recipe does not say: nats as they are; a check's whole score as much as 20 nats.
SCALES = {"energy": 1.0, "score": 20.0, "lm_score": 4.0}


def expanded(batch: Batch, particles: int) -> Batch:
    """Each row of a batch as often as there are particles, side by side, alike in all but their noise."""
    return [(draw._replace(particle=at), layout) for draw, layout in batch for at in range(particles)]


class Particles:
    """What resamples one expanded batch. Nothing in it waits for the device, but for rewards that judge words.

    Each text keeps as many particles as it began with. They are resampled, systematically (Kitagawa 1996), where the
    effective number of them has sunk below half.

    Args:
        batch: expanded; the numbers that resample a text come from a stream of its draw.
        steered: what steers the batch; it is told who goes on.
        reward: of the word probabilities that a walk expects; in the end of the words it wrote.
        every: steps from one look at the reward to the next.
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
        # Of every particle: log weight since it was last resampled, and the reward that this includes.
        self.weights = torch.zeros(texts, particles, device=device)
        self.rewards = torch.zeros(texts, particles, device=device)
        self.first = torch.arange(texts, device=device)[:, None] * particles

    def rows(self, number: int, estimate: Prediction) -> Tensor | None:
        if number % self.every or number == 0:  # at t = 1 nothing sets them apart
            return None
        self._reward(self.steered.expected(estimate))
        shares = self.weights.softmax(-1)
        low = (shares.square().sum(-1).reciprocal() < self.count / 2)[:, None]
        start = self._uniform()[:, None]
        at = (start + torch.arange(self.count, device=self.device)) / self.count
        drawn = _drawn(shares, at)
        chosen = torch.where(low, drawn, torch.arange(self.count, device=self.device))
        self.weights = torch.where(low, 0.0, self.weights)
        self.rewards = self.rewards.gather(1, chosen)
        rows = (self.first + chosen).flatten()
        self.steered.take(rows)
        return rows

    def moved(self, log_ratio: Tensor | None) -> None:
        if self.ratios and log_ratio is not None:
            self.weights = self.weights + log_ratio.view_as(self.weights)

    def finish(self, found: Finished, words: int) -> Finished:
        """Of each text one particle, drawn by the weights. ``words`` is the size of the vocabulary."""
        self._reward(F.one_hot(found.ids, words).to(self.weights))
        chosen = _drawn(self.weights.softmax(-1), self._uniform()[:, None])
        rows = (self.first + chosen).flatten()
        numbers = rows.tolist()
        problems = {at: found.problems[row] for at, row in enumerate(numbers) if row in found.problems}
        return Finished(found.ids.index_select(0, rows), problems, [found.nats[row] for row in numbers])

    def _reward(self, probabilities: Tensor) -> None:
        now = self.scale * self.reward(probabilities).view_as(self.rewards)
        # A reward that is no number, as of an energy that broke, is the worst there is.
        now = torch.nan_to_num(now, nan=-1e4).clamp(-1e4, 1e4)
        self.weights, self.rewards = self.weights + now - self.rewards, now

    def _uniform(self) -> Tensor:
        numbers = [torch.rand((), generator=stream, dtype=torch.float64) for stream in self.streams]
        return torch.stack(numbers).to(self.weights)


def _drawn(shares: Tensor, at: Tensor) -> Tensor:
    """Indices ``[G, K]`` by the inverse of the summed ``shares [G, N]`` at ``at [G, K]`` in [0, 1)."""
    sums = shares.cumsum(-1)
    return torch.searchsorted(sums, at * sums[:, -1:], right=True).clamp(max=shares.shape[1] - 1)


def particles_for(plan: Plan, batch: Batch, steered: Steered) -> Particles | None:
    """What resamples an expanded batch, None where a text has one particle alone."""
    sampler = plan.sampler
    if sampler.particles == 1:
        return None
    scale = SCALES[sampler.reward] if sampler.reward_scale is None else sampler.reward_scale
    reward, ratios = reward_of(plan, batch, steered), sampler.reward != "lm_score"
    return Particles(batch, sampler.particles, steered, reward, scale, sampler.resample_every, ratios=ratios)


def require_noise(sampler: SamplerSettings) -> None:
    """Check that copies of a walk go apart.

    Raises:
        RecipeError: several particles of a latent sampler that draws no noise.
    """
    if sampler.particles > 1 and (sampler.name == "dpmpp_2m" or sampler.eta == 0):
        what = "copies of a text need fresh noise to become different ones, and this sampler draws none."
        raise RecipeError(what, where="sampler.particles", remedy="Take ddim or ancestral with eta above 0.")


def require_reward(sampler: SamplerSettings, *, controlled: bool) -> None:
    """Check that there is what particles are resampled by.

    Args:
        controlled: whether there is a control.

    Raises:
        RecipeError: the reward comes from controls, and there are none.
    """
    if sampler.particles > 1 and sampler.reward != "lm_score" and not controlled:
        what = f"the reward {sampler.reward!r} comes from controls, and there are none."
        raise RecipeError(what, where="sampler.reward", remedy="Take lm_score, add a control, or leave particles out.")


def require_guidance(plan: Plan, control: PreparedAll) -> None:
    """Check that particles which go by energies have some to go by.

    Raises:
        RecipeError: the controls only check.
    """
    by_energy = plan.sampler.particles > 1 and plan.sampler.reward == "energy"
    if by_energy and plan.way is None and not control.guides:  # a way by itself may have none
        what = "the reward 'energy' comes from controls that guide, and these only check."
        remedy = "Take score or lm_score, add a control that guides, or leave particles out."
        raise RecipeError(what, where="sampler.reward", remedy=remedy)


def reward_of(plan: Plan, batch: Batch, steered: Steered) -> Reward:
    """The reward that a recipe names.

    Raises:
        RecipeError: as ``require_reward``.
        ModelError: it needs a scorer, and the model has none.
    """
    name, control = plan.sampler.reward, plan.control
    if name == "lm_score":
        scorer, tokenizer = load_scorer(plan.pretrained.folder / "scorer")
        return lambda found: _each([-nats for nats in lm_score(scorer, tokenizer, _texts(plan, found)[0])], found)
    require_reward(plan.sampler, controlled=control is not None)
    assert control is not None
    if name == "energy":
        return steered.reward
    samples = [draw.sample for draw, _ in batch]

    def score(found: Tensor) -> Tensor:
        checks = check_all(control, samples, *_texts(plan, found))
        return _each([mean_score(row) for row in checks], found)

    return score


def _texts(plan: Plan, probabilities: Tensor) -> tuple[list[list[str]], list[str]]:
    """The likeliest texts so far: the words of each, and it as it would be written."""
    tokenizer, rows = plan.pretrained.tokenizer, probabilities.argmax(-1).tolist()
    return [tokenizer.words(row) for row in rows], [tokenizer.decode(row) for row in rows]


def _each(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=torch.float32)
