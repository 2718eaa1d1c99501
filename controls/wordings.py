"""How a text says that a field has a value: word for word, or in another wording of the same meaning.

The wordings are those of a corpus, and stand beside the model that was trained on it, as ``wordings.json``. A wording
counts for a value only if it means it: ``cheap`` is no wording of ``less than £ 20``, nor ``five stars`` of a ``high``
rating, though writers do use them so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dlmctl import ModelError
from dlmctl.errors import first_fault
from dlmctl.text.fields import Value, field_key, value_words
from dlmctl.text.files import read_object

FILE = "wordings.json"
# Of a pattern with all its parts.
MOST_CHARACTERS = 20_000
NEGATIONS = frozenset("not t no non never nor neither lack lacks lacking without un".split())
# A regular expression, matched to whole words of a text as ``plain`` leaves it; ``<name>`` stands for a part.
Pattern = Annotated[str, Field(max_length=2000)]


class Denial(BaseModel):
    """What denies a statement: ``words`` at most ``reach`` words before it, in its clause."""

    model_config = ConfigDict(extra="forbid")

    words: frozenset[str] = NEGATIONS
    reach: int = Field(ge=1, le=20)


# "Not a place that is family friendly", but "not very cheap".
OF_YES, OF_NO = Denial(reach=5), Denial(words=frozenset(["not", "t"]), reach=2)
NEVER = Denial(words=frozenset(), reach=1)


class Wordings(BaseModel):
    """The wordings of a corpus; fields by their keys and values as ``plain`` leaves them.

    Attributes:
        parts: named pieces of patterns.
        values: of each field and value the wordings, in place of the value itself.
        yes, no: of fields that are said or not, what affirms and what denies them.
        denied_by: what denies the values of a field; nothing where it is not given, as of names.
        together: values that may be true of one text together, each in another measure.
        said: of each field and value the phrases by which texts state it, the most frequent first; as the words of
            texts, not as ``plain`` leaves them.
        general: values that say no more than that there is something: a coffee shop is called a restaurant, too.
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
    def _put_together(self) -> Wordings:
        """Parts in place of their names, once for all."""
        self.values = {field: self._whole(of) for field, of in self.values.items()}
        self.yes, self.no = self._whole(self.yes), self._whole(self.no)
        return self

    def _whole(self, patterns: dict[str, Pattern]) -> dict[str, Pattern]:
        found = {}
        for name, pattern in patterns.items():
            for _ in self.parts:  # a part may have parts itself
                pattern = re.sub(r"<(\w+)>", lambda part: self.parts.get(part[1], part[0]), pattern)
                if len(pattern) > MOST_CHARACTERS:
                    raise ValueError(f"the wordings of {name[:40]!r} have more than {MOST_CHARACTERS:,} characters")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"the wordings of {name[:40]!r} are no regular expression: {error}") from None
            found[name] = pattern
        return found

    def of(self, key: str, name: str) -> str:
        """The pattern of a value, by default the value itself without a "The" in front."""
        wording = self.values.get(key, {}).get(name)
        return re.escape(name.removeprefix("the ")) if wording is None else wording


def read_wordings(folder: Path | None) -> Wordings:
    """The wordings in the folder of a control's weights; none where there is no such file.

    Raises:
        ModelError: the file is damaged.
    """
    if folder is None or not (folder / FILE).exists():
        return Wordings()
    try:
        return Wordings.model_validate(read_object(folder / FILE))
    except ValidationError as error:
        raise ModelError(first_fault(error), where=str(folder / FILE)) from None


def plain(words: Sequence[str]) -> str:
    """Lower case, without accents, hyphens, apostrophes and quotation marks: ``not family friendly , £ 20 25``."""
    text = unicodedata.normalize("NFKD", " ".join(words)).lower().replace("£", " £ ")
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(re.sub(r"[-'\"`]", " ", text).split())


def statement(wordings: Wordings, field: str, value: Value, words: Sequence[str], *, natural: bool) -> str | None:
    """The words of a text that state that ``field`` is ``value``, or None.

    Args:
        words: as the model made them, hyphens and currency signs being words.
        natural: False: the value word for word, in upper or lower case, wherever it stands. True: one of its
            ``wordings``, not denied; of values that have none the value itself, any article in front left out.
            Yes and no, which texts do not say, are the field's name affirmed or denied in both cases.
    """
    key, wanted = field_key(field), value_words(value).split()
    if plain(wanted) in ("yes", "no"):
        return _yes_or_no(wordings, key, plain(wanted) == "yes", plain(words), natural)
    if not natural:
        said = f" {' '.join(words).lower()} "
        return " ".join(wanted) if f" {' '.join(wanted).lower()} " in said else None
    name = plain(wanted)
    mentions = _mentions(wordings.of(key, name), plain(words), wordings.denied_by.get(key, NEVER))
    return next((found for found, denied in mentions if not denied), None)


def contradiction(
    wordings: Wordings, field: str, value: Value, others: Sequence[str], words: Sequence[str], aside: Sequence[str] = ()
) -> tuple[str, str] | None:
    """Another value of ``field`` that a text states, and the words for it, or None.

    Natural wordings count, whole and not denied, as in ``statement``. What is part of a wording of ``value`` itself, or
    may be true beside it, is no contradiction.

    Args:
        others: the values of the field; ``value`` among them is left out.
        aside: values of other fields as ``plain`` leaves them; a value within one, as Indian in the name Raja Indian
            Cuisine, is not stated.
    """
    key, text = field_key(field), plain(words)
    for name in aside:
        text = _blanked(text, re.escape(name)) if name in text else text
    wanted = plain(value_words(value).split())
    beside = next((group for group in wordings.together.get(key, []) if wanted in group), {wanted})
    own = "" if wanted in ("yes", "no") else _blanked(text, wordings.of(key, wanted))
    for other in others:
        name = plain(value_words(other).split())
        if name in beside or name in wordings.general.get(key, ()):
            continue
        if name in ("yes", "no"):
            rest = list(words)
        else:  # of a longer value that has the wanted one in it, the text means the longer one
            rest = (text if not own or f" {wanted} " in f" {name} " else own).split()
        found = statement(wordings, field, other, rest, natural=True)
        if found is not None:
            return other, found
    return None


def span_of(found: str, words: Sequence[str]) -> tuple[int, int]:
    """The first and last word, from 0, of what ``statement`` or ``contradiction`` found in a text."""
    places = [(part, at) for at, word in enumerate(words) for part in plain([word]).split()]
    wanted = plain([found]).split()
    for start in range(len(places) - len(wanted) + 1):
        some = places[start : start + len(wanted)]
        if [part for part, _ in some] == wanted:
            return some[0][1], some[-1][1]
    return 0, len(words) - 1  # what stands there is known only to be somewhere


def _blanked(text: str, pattern: str) -> str:
    """A text with a mark in place of each match, so that nothing is found in it, nor across it."""
    return re.sub(rf"(?<!\S)(?:{pattern})(?!\S)", "_", text)


def _yes_or_no(wordings: Wordings, key: str, yes: bool, text: str, natural: bool) -> str | None:
    affirmed, denied = (of.get(key) if natural else None for of in (wordings.yes, wordings.no))
    mentions = list(_mentions(re.escape(key) if affirmed is None else affirmed, text, OF_YES))
    if denied is not None and not yes:
        mentions += [(found, not turned) for found, turned in _mentions(denied, text, OF_NO)]
    return next((found for found, turned in mentions if turned != yes), None)


def _mentions(pattern: str, text: str, denial: Denial) -> Iterator[tuple[str, bool]]:
    """Whole-word matches, each with whether a negation stands in it or shortly before it in the same clause."""
    for match in re.finditer(rf"(?<!\S)(?:{pattern})(?!\S)", text):
        clause = re.split(r"[.,;:!?]|\b(?:and|but|however)\b", text[: match.start()])[-1]
        nearby = [*clause.split()[-denial.reach :], *match.group().split()]
        yield match.group(), any(word in denial.words for word in nearby)
