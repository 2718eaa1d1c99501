"""What a user should know of a data set that was prepared all the same: odd values of fields, many unknown words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from dlmctl.text.fields import Value

# From this share on a model mostly learns that words are unknown.
MANY_UNKNOWN = 0.2
# From this share of lines on that hold several sentences a text is rather prose.
MANY_SENTENCES = 0.3
_SENTENCE_END = re.compile(r"[.!?][\"')\]]* +[\"'(\[]*[A-Z]")
# A field with more values than this identifies texts; nobody takes it for a label.
_MOST_VALUES = 500
_NO_VALUES = {"nan", "none", "null", "n/a", "[]", "{}", "?"}
_SHOWN = 3


def field_notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is odd about the fields of these rows; values that are NaN or infinite are taken out of them."""
    missing, nested = Counter[str](), Counter[str]()
    values: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in list(row.items()):
            if isinstance(value, float) and not math.isfinite(value):
                missing[name] += 1
                del row[name]
            elif not isinstance(value, Value):
                nested[name] += not (isinstance(value, list) and value)  # a list, as of tags, may be meant
            elif len(seen := values.setdefault(name, Counter())) <= _MOST_VALUES:
                seen[str(value)] += 1
    notes = [
        f"the field {name!r} is NaN or infinite in {_rows(n)}, which count as without it" for name, n in missing.items()
    ]
    notes += [
        f"the field {name!r} is empty or an object in {_rows(n)}; it is no label there"
        for name, n in nested.items()
        if n
    ]
    for name, seen in values.items():
        if len(seen) <= _MOST_VALUES:
            notes += _odd_values(name, seen)
    return [note[:300] for note in notes]


def _odd_values(name: str, seen: Counter[str]) -> Iterable[str]:
    for value, count in seen.items():
        if value.lower() in _NO_VALUES:
            what = f"the field {name!r} is {value!r} in {_rows(count)}, which counts as a value"
            yield f"{what}; leave it out where none is meant"
    by_lower: dict[str, list[str]] = {}
    for value in seen:
        by_lower.setdefault(_spelled(value), []).append(value)
    alike = [spellings for spellings in by_lower.values() if len(spellings) > 1]
    for spellings in alike[:_SHOWN]:
        shown = " and ".join(f"{value!r} ({_rows(seen[value])})" for value in spellings[:4])
        yield f"the field {name!r} has {shown}, which count as different values"


def _spelled(value: str) -> str:
    """What spellings of one value have in common: letters may be capitals, and 1.0 is 1."""
    try:
        return repr(float(value))
    except ValueError:
        return " ".join(value.lower().split())


def bare_note(names: Sequence[str]) -> list[str]:
    """Which files were left out, as they hold nothing."""
    if not names:
        return []
    more = ", ..." if len(names) > _SHOWN else ""
    files = "files were" if len(names) > 1 else "file was"
    return [f"{len(names)} empty {files} left out: {', '.join(names[:_SHOWN])}{more}"]


def known_note(train: Sequence[Sequence[str]], valid: Sequence[Sequence[str]]) -> list[str]:
    """How many texts to validate on, given as words, are texts to learn from, too."""
    known = {tuple(words) for words in train}
    found = sum(tuple(words) in known for words in valid)
    if not found:
        return []
    stand = "stands" if found == 1 else "stand"
    return [f"{found} of the {len(valid)} texts of valid {stand} in train, too, so that validation flatters"]


def prose_note(format: str, texts: Sequence[str]) -> list[str]:
    """What to say of lines read as texts that are rather paragraphs of running text."""
    several = sum(bool(_SENTENCE_END.search(text)) for text in texts)
    if format != "text" or several < MANY_SENTENCES * len(texts):
        return []
    share = several / len(texts)
    return [f"{share:.0%} of the lines hold several sentences: --format prose makes each sentence a text of its own"]


def unknown_note(split: str, share: float, min_count: int | None) -> str | None:
    """What to say of the share of words outside the vocabulary, from ``MANY_UNKNOWN`` on.

    Args:
        min_count: of the vocabulary; None where it existed before.
    """
    if share < MANY_UNKNOWN:
        return None
    if min_count is None:
        remedy = "take a vocabulary of such texts, or a Hugging Face tokenizer (--tokenizer NAME)"
    else:
        lower = f"keep rarer words (--min-count below {min_count}), or " if min_count > 1 else ""
        remedy = f"{lower}split words into pieces by a Hugging Face tokenizer (--tokenizer NAME)"
    spaces = "Text without spaces between words needs a tokenizer"
    return f"{share:.0%} of the words of {split} are unknown: {remedy}. {spaces}"


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"
