"""Any label that one has text for: a classifier of one's own, or a Hugging Face one with the model's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from controls.huggingface import WordClassifier
from controls.ngrams import NgramJudge
from dlmctl.control import Check, Control, ControlParams, ControlState, Setting
from dlmctl.errors import DataError, RecipeError
from dlmctl.fields import Value, nearest_value, value_words
from dlmctl.precision import widened
from dlmctl.training.control import load_classifier, load_labels
from dlmctl.training.field_labels import FieldLabels

if TYPE_CHECKING:
    from dlmctl.checkpoint import Pretrained


class ClassifierParams(ControlParams):
    """The label that a text is to have."""

    label: Value = Field(description="the label, as the labelled text has it", examples=["positive"])
    name: str | None = Field(None, description="which classifier, where they were trained under names (--name)")
    huggingface: str | None = Field(
        None, description="folder or hub name of a sequence classifier that guides in place of the one trained here"
    )


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


class Classifier(Control[ClassifierParams]):
    """Steers by a noise-aware classifier trained on labelled text, or by a Hugging Face one on the expected words.

    The check is a linear model of the words and word pairs, fitted to the same labelled text (``controls.ngrams``). It
    is kept beside the weights, so a Hugging Face classifier too is checked by what ``dlmctl train control`` made.
    """

    name = "classifier"
    ragged = True
    Params = ClassifierParams
    Labels = TextLabels

    def attach(self, pretrained: Pretrained) -> None:
        self._labels = {
            name: load_labels(TextLabels, type(self), pretrained, name)
            for name in {params.name for params in self.params}
        }
        self._foreign = {
            source: WordClassifier(source, pretrained.tokenizer)
            for source in {params.huggingface for params in self.params}
            if source is not None
        }
        for params in self.params:
            find_label(params.label, self._labels[params.name].known)
            if params.huggingface is not None:
                find_label(params.label, self._foreign[params.huggingface].labels)

    def prepare(self, setting: Setting) -> None:
        device = setting.model.embeddings.device
        guides = [(self.of(row).name, self.of(row).huggingface) for row in range(setting.batch)]
        self._groups = []
        for name, source in dict.fromkeys(guides):
            rows = [row for row, guide in enumerate(guides) if guide == (name, source)]
            known = self._labels[name].known if source is None else self._foreign[source].labels
            network = load_classifier(type(self), setting, name) if source is None else self._foreign[source]
            wanted = [find_label(self.of(row).label, known) for row in rows]
            at = torch.tensor([rows, wanted], device=device)
            self._groups.append((network.to(device), isinstance(network, WordClassifier), at[0], at[1]))

    def energy(self, state: ControlState) -> Tensor:
        """-log p(label given the latent, or given the expected words)."""
        energies = state.x.new_zeros(len(state.x))
        for network, reads_words, rows, wanted in self._groups:
            if reads_words:
                logits = network(state.word_log_probs[rows].exp())
            else:
                inside = None if state.inside is None else state.inside[rows]
                (logits,) = network(state.x[rows], state.t[rows], inside)
            log_probs = widened(logits).log_softmax(-1)
            energies = energies.index_add(0, rows, -log_probs.gather(1, wanted[:, None])[:, 0])
        return energies

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """The judge's probability of the label; passed if no other label is likelier."""
        checks = []
        for sample, text in enumerate(words):
            params = self.of(sample)
            labels = self._labels[params.name]
            chances = labels.judge.probabilities(text)
            chance, best = chances[find_label(params.label, labels.known)], max(chances)
            told = f"told {labels.known[chances.index(best)]!r} with probability {best:.2f}"
            checks.append(Check(chance, chance == best, f"by its words and word pairs {told}"))
        return checks
