"""Any label that one has text for: a classifier of one's own, or a Hugging Face one with the model's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from dlmctl import (
    BatchContext,
    Check,
    Control,
    ControlParams,
    ControlState,
    DataError,
    Energy,
    LabelledText,
    Mark,
    Prepared,
    Pretrained,
    TextLabels,
    guide,
)
from dlmctl.control.classifier import load_labels
from dlmctl.control.evidence.beside import Counted
from dlmctl.control.grouped import grouped
from dlmctl.control.hints import Ask
from dlmctl.control.labels import guides
from dlmctl.control.text_labels import BAG_FILE, find_label
from dlmctl.models.numerics import widened
from dlmctl.text.fields import Value
from dlmctl.text.spelling import detokenize
from dlmctl.text.tokenizer import WordTokenizer

from .huggingface import load_outside
from .ngrams import NgramJudge


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
class JudgedLabels(TextLabels):
    """The labels, and a judge of texts learned beside what guides."""

    judge: NgramJudge = field(default_factory=lambda: NgramJudge([], {}))

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        found = super().from_data(data)
        texts, classes = zip(*found.labelled(data), strict=True)
        return replace(found, judge=NgramJudge.fit(texts, classes, len(found.known)))

    @classmethod
    def counted(cls, data: LabelledText, vocabulary: WordTokenizer) -> tuple[Self, Counted]:
        """Weights of words from one half of the texts; the judge learns from the other half."""
        guide, check = data.halves()
        if not guide.sentences or not check.sentences:
            raise DataError("a guide and a judge need different texts, and there are too few.", where="--data")
        found = cls.from_data(check)
        return found, {BAG_FILE: found.bag(guide, vocabulary)}

    def asks(self, data: LabelledText) -> list[list[Ask]]:
        """The label at every word, of the texts of the half that guides."""
        found = zip(data.sentences, super().asks(data), strict=True)
        return [asked if guides(words) else [] for words, asked in found]

    def held_out(self, data: LabelledText) -> dict[str, float]:
        # In the other half labels may come from what the guide learned from.
        return {"judge_accuracy": self.judge.accuracy(self.labelled(data.halves()[1]))}

    def to_json(self) -> Any:
        return {**super().to_json(), "judge": self.judge.to_json()}

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        return replace(super().from_json(saved), judge=NgramJudge.from_json(saved["judge"]))


class Classifier(Control[ClassifierParams]):
    """Steers by a noise-aware classifier trained on labelled text.

    Texts of masked models are steered by weights of words; all by a Hugging Face classifier that reads the expected
    words, where one is named.

    The check is a linear model of the words and word pairs, fitted to the same labelled text (``controls.ngrams``). It
    is kept beside the weights, so a Hugging Face classifier too is checked by what ``dlmctl train control`` made.
    """

    name = "classifier"
    Params = ClassifierParams
    Labels = JudgedLabels

    def attach(self, model: Pretrained) -> None:
        self.model = model
        for params in self.sets:
            if params.model is None:
                self._labels(params).number(params.label)
            if (source := params.model or params.huggingface) is not None:
                find_label(params.label, load_outside(source, model.tokenizer).labels)

    def _labels(self, params: ClassifierParams) -> JudgedLabels:
        return load_labels(JudgedLabels, type(self), self.model, params.name)

    def prepare(self, batch: BatchContext[ClassifierParams]) -> Prepared:
        guides = [(params.name, params.model or params.huggingface) for params in batch.params]
        return grouped(batch, guides, self._guided)

    def _guided(self, batch: BatchContext[ClassifierParams], guided_by: tuple[str | None, str | None]) -> Prepared:
        (name, source), wanted = guided_by, [params.label for params in batch.params]
        if source is None:
            return guide(self, batch, wanted, name)
        network = load_outside(source, batch.vocabulary).to(batch.device)
        classes = torch.tensor([find_label(label, network.labels) for label in wanted], device=batch.device)

        def energy(state: ControlState) -> Tensor:
            """-log p(label given the expected words)."""
            return F.cross_entropy(widened(network(state.word_log_probs.exp())), classes, reduction="none")

        return Energy(energy, looks=True)

    def check(self, params: ClassifierParams, words: Sequence[str]) -> Check:
        """The judge's probability of the label; passed if no other label is likelier. Of a classifier of others
        (``model``) its own verdict on the finished text."""
        if params.model is not None:
            network = load_outside(params.model, self.model.tokenizer)
            chances = network.chances([detokenize(words)])[0].tolist()
            return _verdict(
                find_label(params.label, network.labels), network.labels, chances, "the classifier that guided"
            )
        labels = self._labels(params)
        wanted, chances = labels.number(params.label), labels.judge.probabilities(words)
        found = _verdict(wanted, labels.known, chances, "its words and word pairs")
        likeliest = chances.index(max(chances))
        where = () if found.passed else labels.judge.against(words, wanted, likeliest)
        marks = (Mark(*span, met=found.passed) for span in labels.judge.telling(words, likeliest))
        return found._replace(where=where, marks=tuple(marks))


def _verdict(wanted: int, known: Sequence[str], chances: Sequence[float], judge: str) -> Check:
    """Passed if no label is likelier than the one wanted."""
    best = max(chances)
    told = f"by {judge} told {known[chances.index(best)]!r} with probability {best:.2f}"
    return Check(chances[wanted], chances[wanted] == best, told)
