"""Detection of statements that a field has a value, word for word or in another wording with the same meaning.

The wordings are those of a corpus; they are stored with the model that was trained on it, as ``wordings.json``. A
wording counts for a value only if it means the value: ``cheap`` is no wording of ``less than £ 20``, nor ``five stars``
of a ``high`` rating, though writers do use them so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dlmctl import ModelError
from dlmctl.errors import first_validation_error
from dlmctl.text.fields import Value, field_key, value_words
from dlmctl.text.files import read_object

FILE = "wordings.json"
# The most characters of a pattern with all its parts.
MAX_CHARACTERS = 20_000
NEGATIONS = frozenset("not t no non never nor neither lack lacks lacking without un".split())
# A regular expression, matched to whole words of a text normalised by ``plain``; ``<name>`` stands for a part.
Pattern = Annotated[str, Field(max_length=2000)]


class Denial(BaseModel):
    """The negation of a statement: one of ``words`` at most ``reach`` words before it, in its clause."""

    model_config = ConfigDict(extra="forbid")

    words: frozenset[str] = NEGATIONS
    reach: int = Field(ge=1, le=20)


# "Not a place that is family friendly", but "not very cheap".
OF_YES, OF_NO = Denial(reach=5), Denial(words=frozenset(["not", "t"]), reach=2)
NEVER = Denial(words=frozenset(), reach=1)


class Wordings(BaseModel):
    """The wordings of a corpus, by the keys of fields and by values normalised by ``plain``.

    Attributes:
        parts: named pieces of patterns.
        values: for each field and value the wordings, in place of the value itself.
        yes, no: for yes-no fields, the wordings that affirm and that deny them.
        denied_by: how the values of a field are negated; not at all if it is missing, as for names.
        together: values that may be true of one text together, each on a different scale.
        said: for each field and value the phrases by which texts state it, the most frequent first; as the words of
            texts, not normalised by ``plain``.
        general: values that say only that something exists: a coffee shop is called a restaurant, too.
    """

    model_config = ConfigDict(extra="forbid")

    parts: dict[str, Pattern] = {}
    values: dict[str, dict[str, Pattern]] = {}
    yes: dict[str, Pattern] = {}
    no: dict[str, Pattern] = {}
    denied_by: dict[str, Denial] = {}
    together: dict[str, list[frozenset[str]]] = {}
    general: dict[str, frozenset[str]] = {}
    said: dict[str, dict[str, list[Annotated[str, Field(max_length=500)]]]] = {}

    @model_validator(mode="after")
    def _expand_parts(self) -> Wordings:
        """Replace the names of parts by the parts."""
        self.values = {field: self._expanded(patterns) for field, patterns in self.values.items()}
        self.yes, self.no = self._expanded(self.yes), self._expanded(self.no)
        return self

    def _expanded(self, patterns: dict[str, Pattern]) -> dict[str, Pattern]:
        expanded = {}
        for name, pattern in patterns.items():
            for _ in self.parts:  # a part may contain parts itself
                pattern = re.sub(r"<(\w+)>", lambda part: self.parts.get(part[1], part[0]), pattern)
                if len(pattern) > MAX_CHARACTERS:
                    raise ValueError(f"the wordings of {name[:40]!r} have more than {MAX_CHARACTERS:,} characters")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"the wordings of {name[:40]!r} are not a regular expression: {error}") from None
            expanded[name] = pattern
        return expanded

    def of(self, key: str, name: str) -> str:
        """The pattern of a value, by default the value itself without a leading "The"."""
        wording = self.values.get(key, {}).get(name)
        return re.escape(name.removeprefix("the ")) if wording is None else wording


def read_wordings(folder: Path | None) -> Wordings:
    """The wordings in the folder of a control's weights; empty if there is no such file.

    Raises:
        ModelError: the file is damaged.
    """
    if folder is None or not (folder / FILE).exists():
        return Wordings()
    try:
        return Wordings.model_validate(read_object(folder / FILE))
    except ValidationError as error:
        raise ModelError(first_validation_error(error), where=str(folder / FILE)) from None


def plain(words: Sequence[str]) -> str:
    """Join and normalise words: lower case, without accents, hyphens, apostrophes and quotation marks, as in ``not
    family friendly , £ 20 25``."""
    text = unicodedata.normalize("NFKD", " ".join(words)).lower().replace("£", " £ ")
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(re.sub(r"[-'\"`]", " ", text).split())


def statement(wordings: Wordings, field: str, value: Value, words: Sequence[str], *, natural: bool) -> str | None:
    """The words of a text that state that ``field`` is ``value``, or None.

    Args:
        words: as written by the model, with hyphens and currency signs as separate words.
        natural: If False, the value must occur word for word, in upper or lower case. If True, one of its ``wordings``
            must occur without a negation; for values without wordings the value itself, without a leading article. In
            both cases yes and no, which texts do not say, mean that the field's name is affirmed or denied.
    """
    key, wanted = field_key(field), value_words(value).split()
    if plain(wanted) in ("yes", "no"):
        return _yes_or_no(wordings, key, plain(wanted) == "yes", plain(words), natural)
    if not natural:
        text = f" {' '.join(words).lower()} "
        return " ".join(wanted) if f" {' '.join(wanted).lower()} " in text else None
    name = plain(wanted)
    mentions = _mentions(wordings.of(key, name), plain(words), wordings.denied_by.get(key, NEVER))
    return next((mention for mention, denied in mentions if not denied), None)


def contradiction(
    wordings: Wordings, field: str, value: Value, others: Sequence[str], words: Sequence[str], aside: Sequence[str] = ()
) -> tuple[str, str] | None:
    """Another value of ``field`` that a text states, and the words for it, or None.

    Natural wordings count, whole and not negated, as in ``statement``. A part of a wording of ``value`` itself, or a
    value that may be true together with it, is no contradiction.

    Args:
        others: the values of the field; ``value`` among them is ignored.
        aside: values of other fields, normalised by ``plain``; a value within one of them, such as Indian in the name
            Raja Indian Cuisine, is not stated.
    """
    key, text = field_key(field), plain(words)
    for name in aside:
        text = _blanked(text, re.escape(name)) if name in text else text
    wanted = plain(value_words(value).split())
    compatible = next((group for group in wordings.together.get(key, []) if wanted in group), {wanted})
    without_wanted = "" if wanted in ("yes", "no") else _blanked(text, wordings.of(key, wanted))
    for other in others:
        name = plain(value_words(other).split())
        if name in compatible or name in wordings.general.get(key, ()):
            continue
        if name in ("yes", "no"):
            searched = list(words)
        else:  # if the other value contains the wanted one, the text means the longer one
            searched = (text if not without_wanted or f" {wanted} " in f" {name} " else without_wanted).split()
        phrase = statement(wordings, field, other, searched, natural=True)
        if phrase is not None:
            return other, phrase
    return None


def span_of(phrase: str, words: Sequence[str]) -> tuple[int, int]:
    """The first and last word, from 0, of a phrase that ``statement`` or ``contradiction`` returned for a text."""
    parts = [(part, at) for at, word in enumerate(words) for part in plain([word]).split()]
    wanted = plain([phrase]).split()
    for start in range(len(parts) - len(wanted) + 1):
        window = parts[start : start + len(wanted)]
        if [part for part, _ in window] == wanted:
            return window[0][1], window[-1][1]
    return 0, len(words) - 1  # the phrase is somewhere in the text, but its position is unknown


def _blanked(text: str, pattern: str) -> str:
    """A text with a mark in place of each match, so that nothing matches in it or across it."""
    return re.sub(rf"(?<!\S)(?:{pattern})(?!\S)", "_", text)


def _yes_or_no(wordings: Wordings, key: str, yes: bool, text: str, natural: bool) -> str | None:
    affirmed, denied = (patterns.get(key) if natural else None for patterns in (wordings.yes, wordings.no))
    mentions = list(_mentions(re.escape(key) if affirmed is None else affirmed, text, OF_YES))
    if denied is not None and not yes:
        mentions += [(mention, not negated) for mention, negated in _mentions(denied, text, OF_NO)]
    return next((mention for mention, negated in mentions if negated != yes), None)


def _mentions(pattern: str, text: str, denial: Denial) -> Iterator[tuple[str, bool]]:
    """Whole-word matches, each with whether a negation is in it or shortly before it in the same clause."""
    for match in re.finditer(rf"(?<!\S)(?:{pattern})(?!\S)", text):
        clause = re.split(r"[.,;:!?]|\b(?:and|but|however)\b", text[: match.start()])[-1]
        nearby = [*clause.split()[-denial.reach :], *match.group().split()]
        yield match.group(), any(word in denial.words for word in nearby)
