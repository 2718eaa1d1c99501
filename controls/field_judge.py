"""The judge of field values that texts state, by the wordings of the values: it shares nothing with the classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dlmctl import Check, Mark
from dlmctl.text.fields import Value, field_key, value_words

from .semantic_params import SemanticParams
from .wordings import Wordings, contradiction, plain, span_of, statement


class FieldJudge:
    """Reads whether a text states the wanted value of a field, or another one.

    Args:
        wordings: the wordings of the corpus.
        values: the values of each field in the data, which a text may state in addition to the wanted one.

    Attributes:
        known: the values by the fields' keys, without values of several fields, because a text does not tell which
            field it means.
    """

    def __init__(self, wordings: Wordings, values: Mapping[str, Sequence[str]]) -> None:
        self.wordings = wordings
        shared = Counter(value for known in values.values() for value in known)
        self.known = {
            field_key(name): [value for value in known if shared[value] == 1 or value in ("yes", "no")]
            for name, known in values.items()
        }
        names = {key: [plain(value.split()) for value in known if " " in value] for key, known in self.known.items()}
        # For each field the values of the other fields that have more than one word.
        self._names_of_others = {
            key: [name for other in names if other != key for name in names[other] if name] for key in names
        }

    def verdict(self, params: SemanticParams, field: str, value: Value, words: Sequence[str]) -> Check:
        """Whether a text states a value of a field in the way that the parameters require."""
        wanted = value_words(value)
        phrase = statement(self.wordings, field, value, words, natural=params.match == "natural")
        if phrase is None:
            missing = Mark(None, None, met=False, wanted=f"{field}: {wanted}")
            return Check(0.0, False, f"{field} is {wanted}: not stated", marks=(missing,))
        stated = Mark(*span_of(phrase, words), field)
        contradicting = self._contradiction(words, field, value) if params.excludes else None
        if contradicting is None:
            return Check(1.0, True, f"{field} is {wanted}: stated as {phrase!r}", marks=(stated,))
        other, other_phrase = contradicting
        why = f"{field} is {wanted}: the text also states {other!r}, as {other_phrase!r}"
        contrary = Mark(*span_of(other_phrase, words), f"{field}: {other}", met=False)
        return Check(0.0, False, why, marks=(stated, contrary))

    def _contradiction(self, words: Sequence[str], field: str, value: Value) -> tuple[str, str] | None:
        """Another value of the field that a text states, and the words for it."""
        key = field_key(field)
        if key not in self.known:
            return None
        return contradiction(self.wordings, field, value, self.known[key], words, self._names_of_others[key])
