"""Any label for which there is labelled text, by a classifier trained here or one from Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import ConfigDict, Field, model_validator

from dlmctl import BatchContext, Check, Control, ControlParams, Prepared, Pretrained, guide
from dlmctl.control.attached import attached
from dlmctl.control.classifier import load_labels, named_weights
from dlmctl.control.row_groups import grouped
from dlmctl.control.text_labels import find_label
from dlmctl.errors import SettingError, UserError, setting_errors
from dlmctl.text.fields import Value, value_words
from dlmctl.text.spelling import detokenize

from .huggingface import guided_by, load_outside
from .judged_labels import LIKELIER_THAN_NOT, JudgedLabels, ranks_of, verdict_of


class ClassifierParams(ControlParams):
    """The label that a text should have."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"label": "positive", "name": "sentiment"}]})

    label: Value = Field(description="the label, as in the labelled text", examples=["positive"])
    name: str | None = Field(
        default=None, max_length=100, description="name of the classifier, if it was trained under one (--name)"
    )
    huggingface: str | None = Field(
        default=None,
        max_length=1000,
        description="folder or hub name of a sequence classifier that guides instead of the one trained here",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="folder or hub name of a sequence classifier that guides and checks: nothing needs to be trained",
        examples=["my-classifiers/sentiment"],
    )
    pass_at: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="least probability of the label that passes; if not given, the label must be the likeliest, or if "
        "the judge knows texts without a label, likelier than not",
    )

    @property
    def judge(self) -> str | None:
        """The classifier that decides whether a text passes; None for the one without a name."""
        return self.model or self.name

    reads: ClassVar[Sequence[str]] = ("huggingface", "model")
    models: ClassVar[Sequence[str]] = reads

    @model_validator(mode="after")
    def _one_classifier(self) -> Self:
        if self.model is not None and (self.huggingface is not None or self.name is not None):
            raise ValueError("`model` guides and checks alone; leave out `huggingface` and `name`")
        return self


class Classifier(Control[ClassifierParams]):
    """Steers by a noise-aware classifier trained on labelled text.

    Texts of masked models are steered by weights of words or tokens instead. If a Hugging Face classifier is named, it
    steers the texts of any model, by reading the expected words.

    The check is a linear model of words, word pairs and rare words, fitted to the same labelled text
    (``controls.ngrams``). It is stored with the weights, so texts guided by a Hugging Face classifier are also checked
    by what ``dlmctl train control`` made.
    """

    name = "classifier"
    Params = ClassifierParams
    Labels = JudgedLabels

    model: Pretrained | None = None

    def attach(self, model: Pretrained) -> None:
        self.model = model
        for params in self.sets:
            if params.model is None:
                self._require_label(params)
            if (source := params.model or params.huggingface) is not None:
                with setting_errors("huggingface" if params.model is None else "model"):
                    network = load_outside(source, model.tokenizer)
                find_label(params.label, network.labels)

    def _require_label(self, params: ClassifierParams) -> None:
        try:
            self._labels(params).number(params.label)
        except SettingError as error:
            names = named_weights(type(self), attached(self.model, self.name))
            having = [name for name in names if self._has_label(params.model_copy(update={"name": name}))]
            remedy = (
                f"{params.label!r} is a label of: {', '.join(having)}. Write `name: {having[0]}`." if having else None
            )
            raise SettingError("name", error.what, where=error.where, remedy=remedy or error.remedy) from None

    def _has_label(self, params: ClassifierParams) -> bool:
        try:
            self._labels(params).number(params.label)
        except UserError:  # another label, or damaged weights
            return False
        return True

    def _labels(self, params: ClassifierParams) -> JudgedLabels:
        model = attached(self.model, self.name)
        labels = load_labels(JudgedLabels, type(self), model, params.name)
        return replace(labels, judge=replace(labels.judge, ranks=ranks_of(model.tokenizer)))

    def lengths(self, params: ClassifierParams, most: int) -> Sequence[float]:
        """The lengths of texts that have the label."""
        if params.model is not None:
            return ()
        model = attached(self.model, self.name)
        return self._labels(params).lengths_of(params.label, model.model.config.sentence_lengths, most)

    def clash(self, params: ClassifierParams, other: ClassifierParams) -> str | None:
        """Two labels of one classifier, of which only one can be the likeliest, or likelier than not; a low ``pass_at``
        requires less."""
        labels = [value_words(target.label) for target in (params, other)]
        bounds = [target.pass_at for target in (params, other) if target.pass_at is not None]
        can_both_pass = bool(bounds) and sum(bounds) + LIKELIER_THAN_NOT * (2 - len(bounds)) <= 1
        if can_both_pass or params.judge != other.judge or labels[0].lower() == labels[1].lower():
            return None
        named = f" {params.judge!r}" if params.judge else ""
        return f"the classifier{named} gives a text one label, but both {labels[0]!r} and {labels[1]!r} are wanted"

    def prepare(self, batch: BatchContext[ClassifierParams]) -> Prepared:
        sources = [(params.name, params.model or params.huggingface) for params in batch.params]
        return grouped(batch, sources, self._guidance)

    def _guidance(self, batch: BatchContext[ClassifierParams], key: tuple[str | None, str | None]) -> Prepared:
        (name, source), wanted = key, [params.label for params in batch.params]
        return guide(self, batch, wanted, name) if source is None else guided_by(source, batch, wanted)

    def check(self, params: ClassifierParams, words: Sequence[str]) -> Check:
        """The judge's probability of the label (see ``judged_labels.verdict_of``), or with ``model`` that classifier's
        own verdict on the finished text."""
        if params.model is None:
            return self._labels(params).verdict(params.label, words, params.pass_at)
        return self._outside(params, detokenize(words))

    def check_written(
        self, params: Sequence[ClassifierParams], texts: Sequence[Sequence[str]], written: Sequence[str]
    ) -> list[Check]:
        """``check``; a third-party classifier reads the texts as they were written."""
        rows = zip(params, texts, written, strict=True)
        return [
            self.check(target, words) if target.model is None else self._outside(target, text)
            for target, words, text in rows
        ]

    def _outside(self, params: ClassifierParams, text: str) -> Check:
        assert params.model is not None
        network = load_outside(params.model, attached(self.model, self.name).tokenizer)
        (probabilities,) = network.label_probabilities([text]).tolist()
        return verdict_of(params.label, network.labels, probabilities, "the classifier that guided", params.pass_at)
