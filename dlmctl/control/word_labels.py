"""One learned label for every word of a text, such as its part of speech, and guidance towards it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.control.evidence.beside import EvidenceFiles, count_table_of, fingerprint_of, ids_or_negative
from dlmctl.control.evidence.prepared import PreparedEvidence, no_room_nats
from dlmctl.control.evidence.tags import (
    ANY,
    TAGS_FILE,
    WEIGHT_NEIGHBOURS,
    WEIGHT_TAG,
    count_tags,
    tag_evidence,
)
from dlmctl.control.labels import LabelledText, Labels
from dlmctl.control.prepared import Energy, Prepared
from dlmctl.control.state import BatchContext, ControlState
from dlmctl.control.word_latents import reads_words, word_latents
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.model import ModelConfig
from dlmctl.errors import UserError, did_you_mean
from dlmctl.models.numerics import at_least_float32
from dlmctl.models.positions import PositionClassifier
from dlmctl.text.tokenizer import END, PAD, START, UNK, Tokenizer

# Weights of a word's label and of its neighbours' labels for models that read the labels; chosen on validation text.
WITH_TAGS = (1.0, 0.5)
# The same next to a classifier, which sees whole texts.
BESIDE_CLASSIFIER = (1.0, 1.0)


class WordLabels(Labels):
    """One of ``names`` for each word.

    The target of a text is a list with the label of each word: alternatives as ``ADJ|NOUN``, ``*`` for any. A model
    with latents is guided by a classifier of every position; both it and a masked model are guided by counts of each
    word with its label between those of its neighbours.
    """

    counts, counts_too = TAGS_FILE, True
    names: ClassVar[Sequence[str]]

    @abstractmethod
    def of_words(self, data: LabelledText) -> list[list[str]]:
        """The label of each word of each sentence."""

    @classmethod
    def classes(cls) -> list[str]:
        """The classes of the classifier: the special tokens, then ``names``."""
        return [START, END, UNK, PAD, *cls.names]

    def labels(self, data: LabelledText) -> list[list[int]]:
        """The class of every position, START and END included."""
        class_ids = {name: at for at, name in enumerate(self.classes())}
        return [[class_ids[name] for name in (START, *names, END)] for names in self.of_words(data)]

    def build_classifier(self, config: ModelConfig, vocabulary: Tokenizer) -> nn.Module:
        return PositionClassifier(config.embed_dim, config.length, len(self.classes()))

    def classifier_loss(
        self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy over all positions and accuracy over those of the sentence, both ``[B]``."""
        pad = self.classes().index(PAD)
        target = torch.full(x.shape[:2], pad, device=x.device)
        for row, classes in enumerate(labels):
            target[row, : len(classes)] = torch.tensor(classes[: x.shape[1]])
        logits = classifier(x, t).float()
        loss = F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(1)
        in_text = target != pad
        return loss, ((logits.argmax(-1) == target) & in_text).sum(1) / in_text.sum(1)

    def by_classifier(
        self, classifier: nn.Module, batch: BatchContext[Any], wanted: Sequence[Sequence[str]]
    ) -> Prepared:
        """Guidance by -log p(labels given the latent), summed over the words."""
        _require_known(self.names, wanted)
        allowed = torch.zeros(len(batch), batch.length, len(self.classes()), dtype=torch.bool)
        indices = [
            (row, position, class_id)
            for row, (names, layout) in enumerate(zip(wanted, batch.layouts, strict=True))
            for position, name in enumerate(names[: layout.positions - SPECIAL], start=1)
            for class_id in _class_ids(type(self), name)
        ]
        if indices:
            allowed[torch.tensor(indices).unbind(1)] = True
        allowed, no_room = allowed.to(batch.device), no_room_nats(list(map(len, wanted)), batch)
        has_target = allowed.any(-1)
        # A position without a wanted label would give log 0; it is masked out of the sum.
        excluded = ~allowed & has_target[..., None]

        def energy(state: ControlState, excluded: Tensor, has_target: Tensor, no_room: Tensor) -> Tensor:
            log_probs = at_least_float32(classifier(word_latents(state), state.t, state.mask)).log_softmax(-1)
            length = log_probs.shape[1]
            wanted_log_probs = log_probs.masked_fill(excluded[:, :length], -torch.inf).logsumexp(-1)
            return no_room - (wanted_log_probs * has_target[:, :length]).sum(-1)

        return Energy(energy, looks=reads_words(batch.vocabulary), asked=(excluded, has_target, no_room))

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: Tokenizer) -> tuple[Self, EvidenceFiles]:
        """Counts of (left label, label, right label) for each word; UNK is a neighbour only."""
        labels = cls.from_data(data)
        tag_ids = {name: at for at, name in enumerate(cls.names)}
        token_ids = (ids_or_negative(words, vocabulary) for words in data.sentences)
        rows = zip(token_ids, ([tag_ids[name] for name in names] for names in labels.of_words(data)), strict=True)
        return labels, {TAGS_FILE: count_tags(rows, cls.names, len(vocabulary), fingerprint_of(vocabulary))}

    @classmethod
    def by_counts(cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[Sequence[str]]) -> Prepared:
        """Guidance by how often each word was seen with each label between those of its neighbours, and by the model
        itself if it reads the labels.

        Raises:
            UserError: a wanted label is not one of ``names``.
            ModelError: the file is damaged, or of another vocabulary.
        """
        weights = WITH_TAGS if set(batch.reads) & set(cls.names) else (WEIGHT_TAG, WEIGHT_NEIGHBOURS)
        return cls._weighted_evidence(weights, folder, batch, wanted)

    @classmethod
    def beside(
        cls, folder: Path, batch: BatchContext[Any], wanted: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Sequence[float]]:
        return cls._weighted_evidence(BESIDE_CLASSIFIER, folder, batch, wanted).evidence, [1.0] * len(wanted)

    @classmethod
    def _weighted_evidence(
        cls, weights: tuple[float, float], folder: Path, batch: BatchContext[Any], wanted: Sequence[Sequence[str]]
    ) -> PreparedEvidence:
        _require_known(cls.names, wanted)
        table = count_table_of(folder / TAGS_FILE, fingerprint_of(batch.vocabulary))
        tags = [[name if name in cls.names else "" for name in names] for names in wanted]
        evidence = tag_evidence(table, *weights).evidence(wanted, batch.length)
        return PreparedEvidence(evidence, list(map(len, wanted)), batch, tags)


def _require_known(names: Sequence[str], wanted: Sequence[Sequence[str]]) -> None:
    """Raise UserError if a wanted label, or one of its alternatives, is not one of ``names``."""
    choices = {choice for labels in wanted for label in labels for choice in label.split("|")}
    for choice in sorted(choices - {ANY, *names}):
        raise UserError(f"there is no label {choice!r}.", remedy=did_you_mean(choice, list(names)))


@cache
def _class_ids(kind: type[WordLabels], wanted: str) -> list[int]:
    """The classes that a label, or alternatives such as ADJ|NOUN, allow."""
    choices = kind.names if ANY in wanted.split("|") else wanted.split("|")
    return [kind.classes().index(choice) for choice in choices]
