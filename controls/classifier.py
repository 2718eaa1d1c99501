"""Any label that one has text for: a classifier of one's own, or a Hugging Face one with the model's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dlmctl import (
    BatchContext,
    Check,
    Control,
    ControlParams,
    ControlState,
    DataError,
    Energy,
    Mark,
    Prepared,
    RecipeError,
)
from dlmctl.control.classifier import load_classifier, load_labels
from dlmctl.control.field_labels import FieldLabels
from dlmctl.control.word_latents import word_latents
from dlmctl.models.numerics import widened
from dlmctl.text.fields import Value, nearest_value, value_words
from dlmctl.text.spelling import detokenize

from .bridge import BridgedClassifier
from .huggingface import load_outside
from .ngrams import NgramJudge

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained


class ClassifierParams(ControlParams):
    """The label that a text is to have."""

    label: Value = Field(description="the label, as the labelled text has it", examples=["positive"])
    name: str | None = Field(
        None, max_length=100, description="which classifier, where they were trained under names (--name)"
    )
    huggingface: str | None = Field(
        None,
        max_length=1000,
        description="folder or hub name of a sequence classifier that guides in place of the one trained here",
    )
    model: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="folder or hub name of a sequence classifier that guides and checks: nothing needs to be trained",
        examples=["my-classifiers/sentiment"],
    )

    @model_validator(mode="after")
    def _one_classifier(self) -> Self:
        if self.model is not None and (self.huggingface is not None or self.name is not None):
            raise ValueError("`model` guides and checks alone; leave out `huggingface` and `name`")
        return self


@dataclass(frozen=True)
class TextLabels(FieldLabels):
    """The values of one field as labels, and a judge of texts learned beside the classifier that guides."""

    judge: NgramJudge

    @classmethod
    def from_data(
        cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None, label: str | None
    ) -> TextLabels:
        if label is None:
            known = list(FieldLabels.from_data(sentences, fields, None).values)
            raise DataError("which field holds the labels?", where="--label", remedy=f"Known: {', '.join(known)}.")
        values = FieldLabels.from_data(sentences, fields, label).values
        unjudged = cls(values, NgramJudge([], {}))
        texts, classes = zip(*unjudged._labelled(sentences, fields), strict=True)
        return cls(values, NgramJudge.fit(texts, classes, len(unjudged.known)))

    @property
    def known(self) -> list[str]:
        """The labels."""
        return next(iter(self.values.values()))

    def _labelled(self, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> list[tuple[list[str], int]]:
        """The texts that have a label, each with its place in ``known``."""
        classes = [row[0] for row in self.labels(sentences, fields)]
        return [pair for pair in zip(sentences, classes, strict=True) if pair[1] < len(self.known)]

    def held_out(self, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> dict[str, float]:
        return {"judge_accuracy": self.judge.accuracy(self._labelled(sentences, fields))}

    def to_json(self) -> Any:
        return {"values": self.values, "judge": self.judge.to_json()}

    @classmethod
    def from_json(cls, saved: Any) -> TextLabels:
        return cls(FieldLabels.from_json(saved).values, NgramJudge.from_json(saved["judge"]))


def find_label(label: Value, known: Sequence[str]) -> int:
    """Where a label stands among those known, in upper or lower case.

    Raises:
        RecipeError: there is no such label.
    """
    words = value_words(label)
    for at, other in enumerate(known):
        if other.lower() == words.lower():
            return at
    raise RecipeError(f"there is no label {words!r}.", remedy=nearest_value(words, known))


def nats(groups: Sequence[tuple[nn.Module, Tensor, Tensor]], state: ControlState) -> Tensor:
    """-log p(label given the latent, or given the expected words) ``[B]``, by each network of the rows it is asked
    about and their labels."""
    energies, x = state.x.new_zeros(len(state.x)), word_latents(state)
    for network, rows, wanted in groups:
        if isinstance(network, BridgedClassifier):
            logits = network(state.word_log_probs[rows].exp())
        else:
            mask = None if state.mask is None else state.mask[rows]
            (logits,) = network(x[rows], state.t[rows], mask)
        log_probs = widened(logits).log_softmax(-1)
        energies = energies.index_add(0, rows, -log_probs.gather(1, wanted[:, None])[:, 0])
    return energies


class Classifier(Control[ClassifierParams]):
    """Steers by a noise-aware classifier trained on labelled text, or by a Hugging Face one on the expected words.

    The check is a linear model of the words and word pairs, fitted to the same labelled text (``controls.ngrams``). It
    is kept beside the weights, so a Hugging Face classifier too is checked by what ``dlmctl train control`` made.
    """

    name = "classifier"
    Params = ClassifierParams
    Labels = TextLabels

    def __init__(self, *first: Any, **params: Any) -> None:
        super().__init__(*first, **params)
        self.labels: dict[str | None, TextLabels] = {}
        self.outside: dict[str, BridgedClassifier] = {}

    def attach(self, model: Pretrained) -> None:
        for params in self.sets:
            if params.model is None:
                if params.name not in self.labels:
                    self.labels[params.name] = load_labels(TextLabels, type(self), model, params.name)
                find_label(params.label, self.labels[params.name].known)
            source = params.model or params.huggingface
            if source is not None:
                known = self.outside.get(source)
                if known is None or known.tokenizer is not model.tokenizer:
                    self.outside[source] = load_outside(source, model.tokenizer)
                find_label(params.label, self.outside[source].labels)

    def prepare(self, batch: BatchContext[ClassifierParams]) -> Prepared:
        guides = [(params.name, params.model or params.huggingface) for params in batch.params]
        groups = []
        for name, source in dict.fromkeys(guides):
            rows = [row for row, guide in enumerate(guides) if guide == (name, source)]
            known = self.labels[name].known if source is None else self.outside[source].labels
            network = load_classifier(type(self), batch, name) if source is None else self.outside[source]
            wanted = [find_label(batch.params[row].label, known) for row in rows]
            at = torch.tensor([rows, wanted], device=batch.device)
            groups.append((network.to(batch.device), at[0], at[1]))
        return Energy(lambda state: nats(groups, state))

    def check(self, params: ClassifierParams, words: Sequence[str]) -> Check:
        """The judge's probability of the label; passed if no other label is likelier. Of a classifier of others
        (``model``) its own verdict on the finished text."""
        if params.model is not None:
            network = self.outside[params.model]
            chances = network.chances([detokenize(words)])[0].tolist()
            chance, met, told = _told(params.label, network.labels, chances)
            return Check(chance, met, f"by the classifier that guided {told}")
        labels = self.labels[params.name]
        chances = labels.judge.probabilities(words)
        chance, met, told = _told(params.label, labels.known, chances)
        spans = labels.judge.telling(words, chances.index(chance if met else max(chances)))
        marks = tuple(Mark(start, end, met=met) for start, end in spans)
        return Check(chance, met, f"by its words and word pairs {told}", marks=marks)


def _told(label: Value, known: Sequence[str], chances: Sequence[float]) -> tuple[float, bool, str]:
    """The probability of a label, whether no other is likelier, and which one is likeliest."""
    chance, best = chances[find_label(label, known)], max(chances)
    return chance, chance == best, f"told {known[chances.index(best)]!r} with probability {best:.2f}"
