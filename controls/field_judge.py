"""The judge of what texts state of fields, by the wordings of their values: it shares nothing with the classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dlmctl import Check, Mark
from dlmctl.text.fields import Value, field_key, value_words

from .semantic_params import SemanticParams
from .wordings import Wordings, contradiction, plain, span_of, statement


class FieldJudge:
    """Reads a text for the value of a field, and for another value of it.

    Args:
        wordings: of the corpus.
        values: that the data has for each field, which a text may state beside the one asked for.

    Attributes:
        known: the same by the fields' keys, without values of several fields: a text does not say which it means.
    """

    def __init__(self, wordings: Wordings, values: Mapping[str, Sequence[str]]) -> None:
        self.wordings = wordings
        shared = Counter(value for known in values.values() for value in known)
        self.known = {
            field_key(name): [value for value in known if shared[value] == 1 or value in ("yes", "no")]
            for name, known in values.items()
        }
        names = {key: [plain(one.split()) for one in known if " " in one] for key, known in self.known.items()}
        # Of each field what the others may be that is more than one word.
        self._aside = {key: [one for other in names if other != key for one in names[other] if one] for key in names}

    def verdict(self, params: SemanticParams, field: str, value: Value, words: Sequence[str]) -> Check:
        """Whether a text states a value of a field as the parameters want it."""
        asked = value_words(value)
        found = statement(self.wordings, field, value, words, natural=params.match == "natural")
        if found is None:
            lacking = Mark(None, None, met=False, wanted=f"{field}: {asked}")
            return Check(0.0, False, f"{field} is {asked}: not stated", marks=(lacking,))
        there = Mark(*span_of(found, words), field)
        against = self._against(words, field, value) if params.excludes else None
        if against is None:
            return Check(1.0, True, f"{field} is {asked}: stated as {found!r}", marks=(there,))
        other, said = against
        why = f"{field} is {asked}: the text also states {other!r}, as {said!r}"
        return Check(0.0, False, why, marks=(there, Mark(*span_of(said, words), f"{field}: {other}", met=False)))

    def _against(self, words: Sequence[str], field: str, value: Value) -> tuple[str, str] | None:
        """Another value of the field that a text states, and the words for it."""
        key = field_key(field)
        if key not in self.known:
            return None
        return contradiction(self.wordings, field, value, self.known[key], words, self._aside[key])
