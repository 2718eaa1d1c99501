"""Any label that one has text for: a classifier of one's own, or a Hugging Face one with the model's vocabulary."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
from dlmctl.control.evidence.bag import Bag, balanced, evidence, fit_bag, wanted_labels
from dlmctl.control.evidence.beside import Counted, bag_of, evidence_file, fingerprint_of, known_or_negative
from dlmctl.control.field_labels import FieldLabels
from dlmctl.control.word_latents import word_latents
from dlmctl.models.numerics import widened
from dlmctl.text.fields import Value, nearest_value, value_words
from dlmctl.text.spelling import detokenize
from dlmctl.text.tokenizer import WordTokenizer

from .bridge import BridgedClassifier
from .huggingface import load_outside
from .ngrams import NgramJudge

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained


BAG_FILE, SOURCE_FIELD = "bag.safetensors", "source"
# Of the evidence of words. At 9 sentiment is met more often (73 % for 63), but texts repeat whatever weighs most.
BAG_WEIGHT = 3.0


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

    @classmethod
    def counted(
        cls,
        sentences: list[list[str]],
        fields: list[dict[str, Any]] | None,
        vocabulary: WordTokenizer,
        label: str | None,
        judge: str | None,
    ) -> tuple[TextLabels, Counted]:
        """Weights of words from one half of the texts; the judge learns from the other half."""
        if judge is not None:
            return cls.judged(sentences, fields, label, judge), {}
        half = [zlib.crc32(" ".join(words).encode()) & 1 for words in sentences]
        own, other = ([at for at, side in enumerate(half) if side == wanted] for wanted in (0, 1))
        rows = fields or [{}] * len(sentences)
        found = cls.from_data([sentences[at] for at in other], [rows[at] for at in other], label)
        texts, classes = [sentences[at] for at in own], found.labels(sentences, fields)
        usable = [(words, classes[at][0], rows[at]) for words, at in zip(texts, own, strict=True)]
        usable = [one for one in usable if one[1] < len(found.known)]
        bags = [_bag_of(words, vocabulary) for words, _, _ in usable]
        wanted = [number for _, number, _ in usable]
        size, words = len(vocabulary), fingerprint_of(vocabulary)
        weights = balanced(wanted, _sources([row for _, _, row in usable]))
        return found, {BAG_FILE: fit_bag(bags, wanted, found.known, size, weights=weights, vocabulary=words)}

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


def _bag_of(words: Sequence[str], vocabulary: WordTokenizer) -> list[int]:
    """Ids of the known words of a text."""
    return [number for number in known_or_negative(words, vocabulary) if number >= 0]


def _sources(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Numbers of the texts' sources, their field ``source``: one for all where they have none."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(str(row.get(SOURCE_FIELD, "")), len(numbers)) for row in rows]


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


class PreparedBag(Prepared):
    """Guidance by linear weights of words, exact for each word given what the others are or are expected to be."""

    weighs = True

    def __init__(self, groups: Sequence[tuple[Bag, list[int], list[str]]], batch: BatchContext[Any]) -> None:
        """``groups``: weights, the rows that they are asked about, and the label of each of these rows."""
        self.groups = [
            (
                Bag(bag.labels, bag.weights.to(batch.device), bag.bias.to(batch.device), bag.vocabulary),
                torch.tensor(rows, device=batch.device),
                wanted_labels(bag, [[label] for label in labels]).to(batch.device),
            )
            for bag, rows, labels in groups
        ]

    def evidence_given(self, probabilities: Tensor) -> Tensor:
        found = torch.zeros_like(probabilities)
        for bag, rows, wanted in self.groups:
            found[rows] = BAG_WEIGHT * evidence(bag, bag.expected(probabilities[rows]), wanted).to(found)
        return found

    def energy(self, state: ControlState) -> Tensor:
        """-log p(label given the expected words)."""
        probabilities = state.word_log_probs.exp()
        energies = probabilities.new_zeros(len(probabilities))
        for bag, rows, wanted in self.groups:
            scores = bag.expected(probabilities[rows]).sum(1) + bag.bias
            energies = energies.index_add(0, rows, -scores.log_softmax(-1)[wanted])
        return energies


class Classifier(Control[ClassifierParams]):
    """Steers by a noise-aware classifier trained on labelled text.

    Texts of masked models are steered by weights of words; all by a Hugging Face classifier that reads the expected
    words, where one is named.

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
        files = [evidence_file(batch, self.name, BAG_FILE, params.name) for params in batch.params]
        guides = [(params.name, params.model or params.huggingface) for params in batch.params]
        if all(path is not None for path in files) and all(source is None for _, source in guides):
            return PreparedBag(self._bags([path for path in files if path is not None], batch), batch)
        groups = []
        for name, source in dict.fromkeys(guides):
            rows = [row for row, guide in enumerate(guides) if guide == (name, source)]
            known = self.labels[name].known if source is None else self.outside[source].labels
            network = load_classifier(type(self), batch, name) if source is None else self.outside[source]
            wanted = [find_label(batch.params[row].label, known) for row in rows]
            at = torch.tensor([rows, wanted], device=batch.device)
            groups.append((network.to(batch.device), at[0], at[1]))
        return Energy(lambda state: nats(groups, state))

    def _bags(
        self, files: Sequence[Path], batch: BatchContext[ClassifierParams]
    ) -> list[tuple[Bag, list[int], list[str]]]:
        """The different weights of a batch, with their rows and the labels that these want."""
        groups = []
        for path in dict.fromkeys(files):
            rows = [row for row, other in enumerate(files) if other == path]
            bag = bag_of(path, fingerprint_of(batch.vocabulary))
            groups.append((bag, rows, [bag.labels[find_label(batch.params[row].label, bag.labels)] for row in rows]))
        return groups

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
        likeliest = chances.index(max(chances))
        spans = labels.judge.telling(words, chances.index(chance) if met else likeliest)
        marks = tuple(Mark(start, end, met=met) for start, end in spans)
        where = (
            ()
            if met
            else labels.judge.against(words, find_label(params.label, labels.known), chances.index(max(chances)))
        )
        return Check(chance, met, f"by its words and word pairs {told}", where, marks)


def _told(label: Value, known: Sequence[str], chances: Sequence[float]) -> tuple[float, bool, str]:
    """The probability of a label, whether no other is likelier, and which one is likeliest."""
    chance, best = chances[find_label(label, known)], max(chances)
    return chance, chance == best, f"told {known[chances.index(best)]!r} with probability {best:.2f}"
