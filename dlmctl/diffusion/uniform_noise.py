"""What uniform noise does to texts (UDLM; Schiff et al. 2024): it replaces words by random words.

With probability t a word is replaced by one drawn uniformly from all N words. Any word may change until the last step,
so a walk can correct itself. The network receives the time, since there are no masks to imply it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from dlmctl.diffusion.masked_base import MaskedFamily, MaskedModel, NetworkInputs

# Times are kept this far from 0 and 1, where the weights of the bound diverge.
MARGIN = 1e-4


class UniformModel(MaskedModel):
    """A network that predicts the words of a text from a canvas on which some are replaced by random ones.

    No canvas contains ``mask_id``; where one is filled later, it stands for open positions.
    """

    family: ClassVar[MaskedFamily] = "uniform"

    @property
    def special(self) -> Sequence[int]:
        """The ids that noise never writes, ascending."""
        raise NotImplementedError

    def logits_at(self, canvas: Tensor, t: Tensor, **read: Unpack[NetworkInputs]) -> Tensor:
        """Scores ``[B, L, V]`` of the clean text's words, for a canvas at times ``t [B]``, at least float32.

        They are the prediction for a position from the other words of the canvas. The word at the position itself
        enters through the posterior (``seen``): counted twice, it would be taken as certain.
        """
        raise NotImplementedError

    def seen(self, logits: Tensor, canvas: Tensor, t: Tensor, sign: int = 1) -> Tensor:
        """Condition ``logits [B, L, V]`` on the words of a canvas at times ``t [B]``; sign -1 undoes this.

        The likelihood q(z | x) is 1 - t + t / N for the word x = z and t / N for all others.
        """
        t = t.to(canvas.device, torch.float32).clamp(MARGIN, 1)[:, None, None]
        log_likelihood_ratio = sign * (self.words * (1 - t) / t).log1p().expand(*canvas.shape, 1)
        return logits.scatter_add(-1, canvas[..., None], log_likelihood_ratio.to(logits))

    def is_word(self) -> Tensor:
        """Whether each id ``[V]`` is a word, not a special token."""
        ids = torch.arange(self.config.vocab_size, device=self.embeddings.device)
        is_word = torch.ones_like(ids, dtype=torch.bool)
        for special in self.special:  # one by one: copying them to a GPU would synchronise
            is_word &= ids != special
        return is_word

    @property
    def words(self) -> int:
        """The number of words N."""
        return self.config.vocab_size - len(self.special)

    def random_words(self, uniform: Tensor) -> Tensor:
        """Words drawn uniformly, from ``uniform`` numbers in [0, 1) of any shape."""
        ids = (uniform * self.words).long().clamp(max=self.words - 1)
        for special in self.special:
            ids = ids + (ids >= special)
        return ids

    def noised(self, ids: Tensor, places: Tensor, t: Tensor, order: Tensor) -> Tensor:
        """``ids [B, L]`` with random words at those ``places`` where ``order [B, L]``, uniform, is below ``t [B, 1]``.

        An ``order`` below t is uniform in [0, t), so it also selects the word.
        """
        return torch.where(places & (order < t), self.random_words(order / t.clamp(min=MARGIN)), ids)

    def bound_nats(
        self, ids: Tensor, places: Tensor, share: Tensor, order: Tensor, **read: Unpack[NetworkInputs]
    ) -> Tensor:
        """As in ``MaskedModel``; ``share`` holds the times, and ``order`` also selects the random words.

        The continuous-time bound (Schiff et al. 2024, eq. 18) with alpha = 1 - t. With q = alpha x + (1 - alpha) / N,
        q_theta the same for the estimate of x, z the noisy word and r = q(z) / q_theta(z), each position adds
        (r - 1 - log r + KL(q || q_theta)) / (alpha N q(z)), at a uniform time. Both r - 1 - log r and the KL are >= 0.
        """
        t = share.clamp(MARGIN, 1 - MARGIN)[:, None]
        z = self.noised(ids, places, t, order)
        logits = self.logits_at(z, t[:, 0], **read)
        count, alpha = self.words, (1 - t).to(logits)
        q_other = (1 - alpha) / count
        q_clean = alpha + q_other
        # At special tokens there may be no finite logit; they are excluded from the sum at the end.
        log_q_theta = (alpha[..., None] * logits.softmax(-1) + q_other[..., None]).log()
        log_q_theta_clean, log_q_theta_z = (log_q_theta.gather(-1, words[..., None])[..., 0] for words in (ids, z))
        log_q_z = torch.where(z == ids, q_clean, q_other).log()
        negative_entropy = q_clean * q_clean.log() + (count - 1) * q_other * q_other.log()
        kl = negative_entropy - alpha * log_q_theta_clean - q_other * (log_q_theta * self.is_word()).sum(-1)
        log_r = log_q_z - log_q_theta_z
        nats = (log_r.exp() - 1 - log_r + kl) / (alpha * count * log_q_z.exp())
        return torch.where(places, nats, 0.0).sum(1)
