"""Semantic content: the text states that fields have values, such as ``food: Italian`` and ``area: riverside``."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dlmctl import BatchContext, Check, Control, FieldLabels, Mark, Prepared, Pretrained, guide
from dlmctl.checkpoint.control_weights import find_control_folder
from dlmctl.control.check import joined
from dlmctl.control.classifier import load_labels
from dlmctl.text.fields import Value, field_key, value_words
from dlmctl.text.tokenizer import WordTokenizer

from .phrases import WordControl
from .semantic_params import SemanticParams
from .stated import Book, stated
from .wordings import Wordings, contradiction, plain, read_wordings, span_of, statement


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

    wordings = Wordings()
    # For each field, by its key, its values, and what the other fields may be that is more than one word.
    beside: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {}
    book: Book | None = None

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        self.wordings = read_wordings(find_control_folder(model.folder, model.model, self.name))
        self.know(load_labels(FieldLabels, type(self), model).values)
        self.book = None

    def know(self, values: Mapping[str, Sequence[str]]) -> None:
        """Take in the values that the data has for each field, which a text may state beside the one asked for."""
        shared = Counter(value for known in values.values() for value in known)
        # Of a value that several fields have a text does not say which it means.
        own = {
            field_key(name): [value for value in known if shared[value] == 1 or value in ("yes", "no")]
            for name, known in values.items()
        }
        names = {key: [plain(one.split()) for one in known if " " in one] for key, known in own.items()}
        self.beside = {
            key: (known, [one for other in names if other != key for one in names[other] if one])
            for key, known in own.items()
        }

    def under_not(self) -> Control[SemanticParams]:
        """Under ``not`` a value is unwanted whatever else is stated."""
        loose = copy.copy(self)
        loose.sets = tuple(one.model_copy(update={"exclusive": False}) for one in self.sets)
        return loose

    def prepare(self, batch: BatchContext[SemanticParams]) -> Prepared:
        guided = guide(self, batch, [params.fields for params in batch.params])
        if not isinstance(batch.vocabulary, WordTokenizer):
            return guided
        if self.book is None or self.book.vocabulary is not batch.vocabulary:
            self.book = Book(self.wordings, batch.vocabulary, {key: values for key, (values, _) in self.beside.items()})
        return stated(guided, batch, self.book)

    def check(self, params: SemanticParams, words: Sequence[str]) -> Check:
        """Share of fields whose value the text states, and no other value of it; see ``controls.wordings``."""
        return joined([self._stated(params, *field, words) for field in params.fields.items()])

    def _stated(self, params: SemanticParams, field: str, value: Value, words: Sequence[str]) -> Check:
        natural, asked = params.match == "natural", value_words(value)
        found = statement(self.wordings, field, value, words, natural=natural)
        if found is None:
            lacking = Mark(None, None, met=False, wanted=f"{field}: {asked}")
            return Check(0.0, False, f"{field} is {asked}: not stated", marks=(lacking,))
        there = Mark(*span_of(found, words), field)
        others, names = self.beside.get(field_key(field), ((), ())) if params.excludes else ((), ())
        against = contradiction(self.wordings, field, value, others, words, names)
        if against is None:
            return Check(1.0, True, f"{field} is {asked}: stated as {found!r}", marks=(there,))
        other, said = against
        why = f"{field} is {asked}: the text also states {other!r}, as {said!r}"
        return Check(0.0, False, why, marks=(there, Mark(*span_of(said, words), f"{field}: {other}", met=False)))

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
