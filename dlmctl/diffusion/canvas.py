"""DiffusionGemma: a canvas of random tokens; each step accepts the most certain ones and redraws the rest.

The noise is uniform, not a mask: any token may still change, and the text is the network's likeliest one at the end.
The prompt is encoded once; the network also receives its previous prediction (self-conditioning).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.diffusion.family import Prediction, StepResult
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.masked_base import MaskedFamily, MaskedModel
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.tokens import TokenConfig
from dlmctl.diffusion.walks import drawn

if TYPE_CHECKING:
    from transformers import DiffusionGemmaForBlockDiffusion


class CanvasSettings(NamedTuple):
    """How a canvas is refined; the defaults are the authors'.

    Attributes:
        positions: number of positions of a canvas.
        steps: most steps.
        coldest, warmest: temperatures of the last and the first step.
        entropy_bound: positions are accepted in order of increasing entropy, while the entropies of those before them
            sum to at most this, in nats (Ben-Hamu et al. 2025).
        confidence: a text is done when a step leaves its likeliest tokens unchanged and its mean entropy, in nats, is
            below this.
    """

    positions: int = 256
    steps: int = 48
    coldest: float = 0.4
    warmest: float = 0.8
    entropy_bound: float = 0.1
    confidence: float = 0.005


class CanvasLM(MaskedModel):
    """A DiffusionGemma checkpoint. It has no MASK: ``mask_id`` is not the id of any token."""

    family: ClassVar[MaskedFamily] = "canvas"
    config: TokenConfig

    def __init__(self, config: TokenConfig, network: DiffusionGemmaForBlockDiffusion, canvas: CanvasSettings) -> None:
        super().__init__()
        self.config, self.network, self.canvas = config, network, canvas

    @property
    def mask_id(self) -> int:
        """An id outside the vocabulary."""
        return self.config.mask_id

    @property
    def embeddings(self) -> Tensor:
        """The unscaled embeddings ``[V, H]`` of all tokens."""
        table: Tensor = self.network.model.decoder.embed_tokens.weight
        return table[: self.config.vocab_size]

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings ``[..., H]`` of ids of any shape."""
        return self.embeddings[ids]

    def read(self, prompt: Tensor) -> Any:
        """Encode ``prompt [B, P]`` into the key-value cache that the canvas attends to."""
        from transformers import DynamicCache

        network = self.network
        cache = DynamicCache(config=network.config.get_text_config(decoder=True))
        positions = torch.arange(prompt.shape[1], device=prompt.device)[None]
        masks = network.model.encoder.create_masks_for_generate(
            config=network.config,
            inputs_embeds=torch.empty((*prompt.shape, 0), dtype=network.dtype, device=prompt.device),
            attention_mask=torch.ones_like(prompt, dtype=torch.bool),
            cache=cache,
            position_ids=positions,
        )
        return network.model.encoder(input_ids=prompt, attention_mask=masks, cache=cache, position_ids=positions).cache

    def refined(self, canvas: Tensor, cache: Any, last: Tensor | None, before: int) -> Tensor:
        """Logits ``[B, C, V]`` for ``canvas [B, C]``, float32.

        Args:
            cache: of the prompt, from ``read``.
            last: the tempered logits of the step before, for self-conditioning.
            before: number of positions of the prompt.
        """
        positions = torch.arange(before, before + canvas.shape[1], device=canvas.device)[None]
        logits: Tensor = self.network(
            decoder_input_ids=canvas, cache=cache, self_conditioning_logits=last, decoder_position_ids=positions
        ).logits
        return logits[..., : self.config.vocab_size]


class Uniform:
    """A ``Family`` whose states are token ids ``[B, 1 + C]``, with the prompt's last token at position 0.

    Args:
        prompt: ids ``[B, P]``.
        steps: total number of steps.
    """

    def __init__(self, model: CanvasLM, prompt: Tensor, start_id: int, steps: int) -> None:
        self.model, self.prompt, self.start_id, self.steps, self.left = model, prompt, start_id, steps, steps
        self.cache: Any = None
        self.last: Tensor | None = None
        self.likeliest: Tensor | None = None
        self.done: Tensor | None = None
        self.estimate: Prediction | None = None

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        self.cache = self.model.read(self.prompt)
        x = torch.full((len(self.prompt), layouts.length), self.start_id, device=self.prompt.device)
        self.done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return self._noised(x, noise.uniform(1, x)[0])

    def _noised(self, x: Tensor, uniform: Tensor) -> Tensor:
        """``x`` with a uniformly random token at every position after the first."""
        random = (uniform * self.model.config.vocab_size).long().clamp(max=self.model.config.vocab_size - 1)
        return torch.cat([x[:, :1], random[:, 1:]], 1)

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        assert self.done is not None
        if self.estimate is None or not bool(self.done.all()):
            logits = F.pad(self.model.refined(x[:, 1:], self.cache, self.last, self.prompt.shape[1]), (0, 0, 1, 0))
            logits[:, 0] = -torch.inf
            logits[:, 0, self.start_id] = 0.0
            self.estimate = Prediction(lambda: self.soft(logits.softmax(-1)), logits)
        return self.estimate

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> StepResult:
        assert estimate.logits is not None
        assert self.done is not None
        settings, done = self.model.canvas, self.done[:, None]
        uniform = noise.uniform(2, x)
        share = self.left / self.steps
        logits = estimate.logits[:, 1:] / (settings.coldest + (settings.warmest - settings.coldest) * share)
        log_probs = logits.log_softmax(-1)
        probs = log_probs.exp()
        entropy = -(probs * log_probs.clamp(min=-1e4)).sum(-1)
        accepted = torch.where(_most_certain(entropy, settings.entropy_bound), drawn(probs, uniform[0][:, 1:]), -1)
        likeliest = logits.argmax(-1)
        new = self._noised(x, uniform[1])
        new = torch.cat([x[:, :1], torch.where(accepted >= 0, accepted, new[:, 1:])], 1)
        if self.likeliest is not None and self.last is not None:  # finished texts stay unchanged
            likeliest = torch.where(done, self.likeliest, likeliest)
            new = torch.where(done, x, new)
            logits = torch.where(done[..., None], self.last.to(logits), logits)
        stable = self.likeliest is not None and (likeliest == self.likeliest).all(1)
        self.done = self.done | (stable & (entropy.mean(1) < settings.confidence))
        self.likeliest, self.last = likeliest, logits.to(self.model.embeddings.dtype)
        self.left -= 1
        if not self.left:
            new = torch.cat([x[:, :1], likeliest], 1)
        return StepResult(new, new, torch.zeros(len(x)))

    def skips(self, x: Tensor, noise: SampleNoise) -> bool:
        return False

    def finished(self, x: Tensor) -> None:
        """The last step may change all texts."""

    def take(self, rows: Tensor) -> None:
        raise NotImplementedError("a canvas has no particles")

    def soft(self, probabilities: Tensor) -> Tensor:
        return self.model.soft(probabilities)


def _most_certain(entropy: Tensor, bound: float) -> Tensor:
    """Select positions ``[B, C]`` by increasing ``entropy [B, C]``, while those before sum to at most ``bound``."""
    ranked, places = entropy.sort(dim=-1, stable=True)
    is_certain = ranked.cumsum(-1) - ranked <= bound
    return torch.zeros_like(is_certain).scatter(-1, places, is_certain)
