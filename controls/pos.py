"""A part-of-speech sequence: each word of the text has the tag, or one of the tags, asked for at its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from dlmctl.annotate import UPOS_TAGS, upos_tagger
from dlmctl.control import Check, Control, ControlParams, ControlState, Setting
from dlmctl.diffusion import ModelConfig
from dlmctl.errors import nearest
from dlmctl.models.transformer import LatentEncoder, TransformerConfig
from dlmctl.precision import widened
from dlmctl.tokenizer import END, PAD, START, UNK, Tokenizer
from dlmctl.training.control import load_classifier

ANY = "*"
CLASSES = [START, END, UNK, PAD, *UPOS_TAGS]


class PosParams(ControlParams):
    """What a recipe says of a POS sequence."""

    tags: list[str] = Field(
        min_length=1,
        description="a UPOS tag for every word, in order; alternatives as ADJ|NOUN, * for any tag",
        examples=[["DET", "PROPN", "AUX", "DET", "NOUN", "PUNCT"]],
    )
    pass_at: float = Field(1.0, ge=0, le=1, description="share of words that must have their tag for a text to pass")

    @field_validator("tags")
    @classmethod
    def _known(cls, tags: list[str]) -> list[str]:
        for tag in tags:
            for choice in tag.split("|"):
                if choice != ANY and choice not in UPOS_TAGS:
                    raise ValueError(f"there is no UPOS tag {choice!r}. {nearest(choice, list(UPOS_TAGS))}")
        return tags


class TagClassifier(nn.Module):
    """A tag for each position of a latent: ``[B, L, D]`` at times ``[B]`` in [0, 1] to logits ``[B, L, 21]``."""

    def __init__(self, embed_dim: int, length: int) -> None:
        super().__init__()
        sizes = TransformerConfig(hidden=192, layers=2, heads=4, dropout=0.1, max_length=length, time_channels=64)
        self.encoder = LatentEncoder(sizes, embed_dim)
        self.head = nn.Linear(sizes.hidden, len(CLASSES))

    def forward(self, x: Tensor, t: Tensor, inside: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x, 1000 * t.float(), inside=inside))


class Pos(Control[PosParams]):
    """Steers by a noise-aware tag classifier (Li et al. 2022, section 5), checks by an outside tagger."""

    name = "pos"
    ragged = True
    Params = PosParams

    def word_count(self, sample: int) -> tuple[int, int]:
        count = len(self.of(sample).tags)
        return count, count

    def prepare(self, setting: Setting) -> None:
        device = setting.model.embeddings.device
        self._classifier = load_classifier(type(self), setting).to(device)
        wanted = torch.zeros(setting.batch, setting.length, len(CLASSES), dtype=torch.bool)
        for sample in range(setting.batch):
            for place, tag in enumerate(self.of(sample).tags, start=1):
                choices = UPOS_TAGS if ANY in tag.split("|") else tag.split("|")
                wanted[sample, place, [CLASSES.index(choice) for choice in choices]] = True
        self._wanted = wanted.to(device)
        self._words = self._wanted.any(-1)

    def energy(self, state: ControlState) -> Tensor:
        """-log p(tags given the latent), summed over the words."""
        log_probs = widened(self._classifier(state.x, state.t, state.inside)).log_softmax(-1)
        # A place without wanted tags would be log 0; it is masked out of the sum.
        open_places = self._wanted | ~self._words[..., None]
        found = log_probs.masked_fill(~open_places, -torch.inf).logsumexp(-1)
        return -(found * self._words).sum(-1)

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """Share of tags met at their place by the outside tagger, the text cut or padded to the target's length."""
        checks = []
        for sample, found in enumerate(upos_tagger()([list(text) for text in words])):
            params = self.of(sample)
            padded = [*found, *[PAD] * len(params.tags)]
            misses = [
                f"word {place + 1} is {tag}, not {wanted}"
                for place, (wanted, tag) in enumerate(zip(params.tags, padded, strict=False))
                if not (ANY in wanted.split("|") and tag != PAD) and tag not in wanted.split("|")
            ]
            score = 1 - len(misses) / len(params.tags)
            checks.append(Check(score, score >= params.pass_at, misses[0] if misses else "all tags met"))
        return checks

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[PosParams]:
        """For each sentence the parameters that it satisfies itself, by the outside tagger."""
        return [PosParams(tags=tags) for tags in upos_tagger()([list(words) for words in sentences])]

    # Training (see dlmctl.training.control).

    @classmethod
    def build_classifier(cls, config: ModelConfig, tokenizer: Tokenizer) -> nn.Module:
        return TagClassifier(config.embed_dim, config.length)

    @classmethod
    def labels(cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> list[list[int]]:
        """Tag classes of every position of each sentence, START and END included, by the outside tagger."""
        tagged = upos_tagger()(sentences)
        return [[CLASSES.index(tag) for tag in (START, *tags, END)] for tags in tagged]

    @classmethod
    def classifier_loss(
        cls, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy over all positions and accuracy over those of the sentence, both ``[B]``."""
        target = torch.full(x.shape[:2], CLASSES.index(PAD), device=x.device)
        for row, classes in enumerate(labels):
            target[row, : len(classes)] = torch.tensor(classes[: x.shape[1]])
        logits = classifier(x, t).float()
        loss = F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(1)
        inside = target != CLASSES.index(PAD)
        return loss, ((logits.argmax(-1) == target) & inside).sum(1) / inside.sum(1)
