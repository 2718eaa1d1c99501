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
from .stated import Book, stated
from .wordings import read_wordings


class Semantic(WordControl[SemanticParams]):
    """Steers by a classifier of every field and by phrases that state a value, checks by the wordings of the values.

    The classifier is noise-aware (Li et al. 2022, section 5). The paper has an autoregressive transformer over [latent;
    field; value]. A softmax over the known values of each field gives the same p(value | latent, field), normalised, in
    one pass for all fields.
    """

    name = "semantic"
    # Its energy is one term a field, where others have one for every word; at weight 1 it is outvoted by the model.
    weight = 8.0
    Params = SemanticParams
    Labels = FieldLabels

    judge: FieldJudge | None = None
    book: Book | None = None

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        wordings = read_wordings(find_control_folder(model.folder, model.model, self.name))
        judge = self.judge = FieldJudge(wordings, load_labels(FieldLabels, type(self), model).values)
        if isinstance(model.tokenizer, WordTokenizer):
            self.book = Book(wordings, model.tokenizer, judge.known)

    def under_not(self) -> Control[SemanticParams]:
        """Under ``not`` a value is unwanted whatever else is stated."""
        loose = copy.copy(self)
        loose.sets = tuple(one.model_copy(update={"exclusive": False}) for one in self.sets)
        return loose

    def prepare(self, batch: BatchContext[SemanticParams]) -> Prepared:
        guided = guide(self, batch, [params.fields for params in batch.params])
        return guided if self.book is None else stated(guided, batch, self.book)

    def check(self, params: SemanticParams, words: Sequence[str]) -> Check:
        """Share of fields whose value the text states, and no other value of it; see ``controls.wordings``."""
        judge = attached(self.judge, self.name)
        return merge_checks([judge.verdict(params, *field, words) for field in params.fields.items()])

    @classmethod
    def from_target(cls, record: Any) -> SemanticParams:
        """Of a list of words, as ``["price", ":", "cheap"]``, alone or as ``attribute``, or of an object of fields."""
        words = record.get("attribute") if isinstance(record, dict) else record
        if not isinstance(words, list):
            return SemanticParams.model_validate(record)
        field, colon, value = " ".join(words).partition(" : ")
        if not colon:
            raise ValueError("no field, colon and value")
        return SemanticParams.model_validate({field: value})
