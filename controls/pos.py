"""A part-of-speech sequence: each word of the text has the tag, or one of the tags, asked for at its place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, StrictFloat, field_validator
from torch import Tensor, nn

from dlmctl import BatchContext, Check, ControlParams, ControlState, Energy, Labels, Mark, Prepared, load_classifier
from dlmctl.annotators.gold import by_judges, tags_of
from dlmctl.annotators.tagging import UPOS_TAGS, upos_tagger
from dlmctl.control.evidence.table import CountTable, fingerprint
from dlmctl.control.evidence.tags import (
    TAGS_FILE,
    WEIGHT_NEIGHBOURS,
    WEIGHT_TAG,
    TagEvidence,
    count_tags,
    in_order,
    tag_table,
)
from dlmctl.control.prepared import NO_ROOM
from dlmctl.control.word_latents import word_latents
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.model import ModelConfig
from dlmctl.errors import nearest
from dlmctl.models.numerics import widened
from dlmctl.models.transformer import LatentEncoder, TransformerConfig
from dlmctl.text.tokenizer import END, PAD, START, UNK, Tokenizer

from .phrases import WordControl

ANY = "*"
# Weights of a word's tag and of its neighbours' for models that are told the tags: chosen on validation text.
WITH_TAGS = (1.0, 0.5)
CLASSES = [START, END, UNK, PAD, *UPOS_TAGS]


class PosParams(ControlParams):
    """What a recipe says of a POS sequence."""

    tags: list[str] = Field(
        min_length=1,
        max_length=1000,
        description="a UPOS tag for every word, in order; alternatives as ADJ|NOUN, * for any tag",
        examples=[["DET", "PROPN", "AUX", "DET", "NOUN", "PUNCT"]],
    )
    pass_at: StrictFloat = Field(
        1.0, ge=0, le=1, description="share of words that must have their tag for a text to pass"
    )
    judge: str | None = Field(
        None,
        max_length=1000,
        description="what checks, in place of the bundled tagger: the folder of one made by `dlmctl train tagger`, "
        "stanza:LANGUAGE or spacy:MODEL",
    )

    @field_validator("tags", mode="before")
    @classmethod
    def _separated(cls, tags: Any) -> Any:
        """Tags in one text, with spaces between them, as the tags."""
        listed = [tags] if isinstance(tags, str) else tags
        if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
            return tags
        return [part for tag in listed for part in tag.split() or [tag]]

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

    def forward(self, x: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x, 1000 * t.float(), mask=mask))


@dataclass(frozen=True)
class TagLabels(Labels):
    """The tag of every position, START and END included: the data's own (its field ``upos``), else a tagger's."""

    judge: str | None = None

    @classmethod
    def judged(
        cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None, label: str | None, judge: str
    ) -> TagLabels:
        cls.from_data(sentences, fields, label)
        upos_tagger(judge)
        return cls(judge)

    def build_classifier(self, config: ModelConfig, vocabulary: Tokenizer) -> nn.Module:
        return TagClassifier(config.embed_dim, config.length)

    def labels(self, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> list[list[int]]:
        return [[CLASSES.index(tag) for tag in (START, *tags, END)] for tags in tags_of(sentences, fields, self.judge)]

    def evidence(
        self, sentences: list[list[str]], fields: list[dict[str, Any]] | None, vocabulary: Tokenizer
    ) -> tuple[str, CountTable]:
        """Counts of (left tag, tag, right tag) for each word; UNK is a neighbour only."""
        numbers = {tag: number for number, tag in enumerate(UPOS_TAGS)}
        tags = [[numbers[tag] for tag in row] for row in tags_of(sentences, fields, self.judge)]
        ids = ([-1 if word == vocabulary.unk_id else word for word in row] for row in map(vocabulary.encode, sentences))
        inside = zip((row[1:-1] for row in ids), tags, strict=True)
        return TAGS_FILE.name, count_tags(inside, UPOS_TAGS, len(vocabulary), fingerprint(in_order(vocabulary)))

    def classifier_loss(
        self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy over all positions and accuracy over those of the sentence, both ``[B]``."""
        target = torch.full(x.shape[:2], CLASSES.index(PAD), device=x.device)
        for row, classes in enumerate(labels):
            target[row, : len(classes)] = torch.tensor(classes[: x.shape[1]])
        logits = classifier(x, t).float()
        loss = F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(1)
        in_text = target != CLASSES.index(PAD)
        return loss, ((logits.argmax(-1) == target) & in_text).sum(1) / in_text.sum(1)


@cache
def _classes(tag: str) -> list[int]:
    """The classes that a tag, or alternatives as ADJ|NOUN, allow."""
    choices = UPOS_TAGS if ANY in tag.split("|") else tag.split("|")
    return [CLASSES.index(choice) for choice in choices]


def by_classifier(classifier: nn.Module, batch: BatchContext[PosParams]) -> Energy:
    """Guidance by a noise-aware tag classifier."""
    places = [
        (row, place, number)
        for row, params in enumerate(batch.params)
        for place, tag in enumerate(params.tags[: batch.layouts[row].positions - SPECIAL], start=1)
        for number in _classes(tag)
    ]
    wanted = torch.zeros(len(batch), batch.length, len(CLASSES), dtype=torch.bool)
    if places:
        wanted[torch.tensor(places).unbind(1)] = True
    wanted, beyond = wanted.to(batch.device), _beyond(batch)
    words = wanted.any(-1)

    def energy(state: ControlState) -> Tensor:
        """-log p(tags given the latent), summed over the words; ``NO_ROOM`` for each tag beyond the text."""
        log_probs = widened(classifier(word_latents(state), state.t, state.mask)).log_softmax(-1)
        # A place without wanted tags would be log 0; it is masked out of the sum.
        found = log_probs.masked_fill(~wanted & words[..., None], -torch.inf).logsumexp(-1)
        return beyond - (found * words).sum(-1)

    return Energy(energy)


def by_table(table: CountTable, batch: BatchContext[PosParams]) -> Energy:
    """Guidance by a table of how often each word was seen with each tag between the tags of its neighbours, and by the
    model itself where it reads tags."""
    reads_tags = bool(getattr(batch.model.config, "tags", ()))
    texts = [params.tags for params in batch.params]
    weights = WITH_TAGS if reads_tags else (WEIGHT_TAG, WEIGHT_NEIGHBOURS)
    found = TagEvidence(table, *weights).evidence(texts, batch.length)
    for row, layout in enumerate(batch.layouts):
        found.index[row, layout.positions - SPECIAL + 1 :] = 0
    evidence, words, beyond = found.at().to(batch.device), (found.index > 0).to(batch.device), _beyond(batch)

    def energy(state: ControlState) -> Tensor:
        """-log of the expected evidence, summed over the words; ``NO_ROOM`` for each tag beyond the text."""
        return beyond - ((state.word_log_probs + evidence).logsumexp(-1) * words).sum(-1)

    tags = [[tag if tag in UPOS_TAGS else "" for tag in wanted] for wanted in texts]
    return Energy(energy, evidence=evidence, tags=tags)


def _beyond(batch: BatchContext[PosParams]) -> Tensor:
    """Nats ``[B]`` of the tags that the texts have no positions for."""
    pairs = zip(batch.params, batch.layouts, strict=True)
    missed = [max(0, len(params.tags) - (layout.positions - SPECIAL)) for params, layout in pairs]
    return NO_ROOM * torch.tensor(missed, device=batch.device)


class Pos(WordControl[PosParams]):
    """Steers by word evidence or a noise-aware tag classifier (Li et al. 2022), checks by an outside tagger.

    Evidence is a table beside the model's weights; where there is none, the classifier steers.
    """

    name = "pos"
    Params = PosParams
    Labels = TagLabels

    def word_range(self, params: PosParams) -> tuple[int, int]:
        return len(params.tags), len(params.tags)

    def prepare(self, batch: BatchContext[PosParams]) -> Prepared:
        table = tag_table(batch)
        return by_classifier(load_classifier(type(self), batch), batch) if table is None else by_table(table, batch)

    def check_many(self, params: Sequence[PosParams], texts: Sequence[Sequence[str]]) -> list[Check]:
        """Share of tags met at their place by the outside tagger; a word too many or too few misses its tag."""
        found = by_judges(texts, [one.judge for one in params], upos_tagger)
        return [_compare(one.tags, tags, one.pass_at) for one, tags in zip(params, found, strict=True)]

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[PosParams]:
        """For each sentence the parameters that it satisfies itself, by the outside tagger."""
        return [PosParams(tags=tags) for tags in upos_tagger()([list(words) for words in sentences])]

    @classmethod
    def from_target(cls, record: Any) -> PosParams:
        """Of an object with ``words``, tagged by the object's ``judge`` if it names one, or of parameters."""
        judge = record.get("judge") if isinstance(record, dict) else None
        if judge is None or "tags" in record or not isinstance(record.get("words"), list):
            return super().from_target(record)
        return PosParams(tags=upos_tagger(judge)([record["words"]])[0], judge=judge)


def _compare(wanted: Sequence[str], found: Sequence[str], pass_at: float) -> Check:
    misses = {
        place: f"word {place + 1} is {tag}, not {choice}"
        for place, (choice, tag) in enumerate(zip(wanted, found, strict=False))
        if ANY not in choice.split("|") and tag not in choice.split("|")
    }
    many = f"there are {len(found)} words, not {len(wanted)}"
    misses |= dict.fromkeys(range(len(wanted), len(found)), many)
    misses |= {place: f"word {place + 1} is missing" for place in range(len(found), len(wanted))}
    score = 1 - len(misses) / max(len(wanted), len(found))
    why = misses[min(misses)] if misses else "all tags met"
    where = tuple(place for place in sorted(misses) if place < len(found))
    return Check(score, score >= pass_at, why, where, tuple(_marks(wanted, found, misses)))


def _marks(wanted: Sequence[str], found: Sequence[str], misses: Collection[int]) -> Iterator[Mark]:
    """The tag of each word, and those that the text has no words for."""
    for place, tag in enumerate(found):
        missed = place in misses
        yield Mark(place, place, tag, not missed, wanted[place] if missed and place < len(wanted) else "")
    for tag in wanted[len(found) :]:
        yield Mark(None, None, met=False, wanted=tag)
