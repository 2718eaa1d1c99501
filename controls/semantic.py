"""Semantic content: the text states that fields have values, such as ``food: Italian`` and ``area: riverside``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from dlmctl import BatchContext, Check, Control, FieldLabels, Prepared, Pretrained, guide
from dlmctl.checkpoint.control_weights import find_control_folder
from dlmctl.control.attached import attached
from dlmctl.control.check import merge_checks
from dlmctl.control.classifier import load_labels
from dlmctl.text.tokenizer import WordTokenizer

from .field_judge import FieldJudge
from .phrases import WordControl
from .semantic_params import SemanticParams
from .stated import PhraseBook, with_stated_phrases
from .wordings import read_wordings


class Semantic(WordControl[SemanticParams]):
    """Steers by a classifier of every field and by phrases that state a value, checks by the wordings of the values.

    The classifier is noise-aware (Li et al. 2022, section 5). The paper uses an autoregressive transformer over
    [latent; field; value]. A softmax over the known values of each field gives the same p(value | latent, field),
    normalised, in one pass for all fields.
    """

    name = "semantic"
    # Its energy has one term per field, where others have one per word; at weight 1 the model outweighs it.
    weight = 8.0
    Params = SemanticParams
    Labels = FieldLabels

    judge: FieldJudge | None = None
    book: PhraseBook | None = None

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        wordings = read_wordings(find_control_folder(model.folder, model.model, self.name))
        judge = self.judge = FieldJudge(wordings, load_labels(FieldLabels, type(self), model).values)
        if isinstance(model.tokenizer, WordTokenizer):
            self.book = PhraseBook(wordings, model.tokenizer, judge.known)

    def under_not(self) -> Control[SemanticParams]:
        """Under ``not`` a value is unwanted whatever else the text states."""
        loose = copy.copy(self)
        loose.sets = tuple(params.model_copy(update={"exclusive": False}) for params in self.sets)
        return loose

    def prepare(self, batch: BatchContext[SemanticParams]) -> Prepared:
        guided = guide(self, batch, [params.fields for params in batch.params])
        return guided if self.book is None else with_stated_phrases(guided, batch, self.book)

    def check(self, params: SemanticParams, words: Sequence[str]) -> Check:
        """Share of the fields for which the text states the value and no other one; see ``controls.wordings``."""
        judge = attached(self.judge, self.name)
        return merge_checks([judge.verdict(params, *field, words) for field in params.fields.items()])

    @classmethod
    def from_target(cls, record: Any) -> SemanticParams:
        """From a list of words such as ``["price", ":", "cheap"]``, alone or as ``attribute``, or from an object of
        fields."""
        words = record.get("attribute") if isinstance(record, dict) else record
        if not isinstance(words, list):
            return SemanticParams.model_validate(record)
        field, colon, value = " ".join(words).partition(" : ")
        if not colon:
            raise ValueError("no field, colon and value")
        return SemanticParams.model_validate({field: value})
