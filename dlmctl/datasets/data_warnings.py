"""Warnings about a prepared data set, such as odd field values or many unknown words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from dlmctl.text.fields import Value, value_words

# With this share of unknown words or more, a model mostly learns UNK.
MANY_UNKNOWN = 0.2
# With this share of lines that hold several sentences, or more, the file is probably prose.
MANY_SENTENCES = 0.3
_SENTENCE_END = re.compile(r"[.!?][\"')\]]* +[\"'(\[]*[A-Z]")
# A field with more values than this identifies texts and is not a label.
_MAX_VALUES = 500
_NULL_SPELLINGS = {"nan", "none", "null", "nil", "n/a", "na", "<na>", "#n/a", "-", "[]", "{}", "?"}
_MAX_EXAMPLES = 3


def field_notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Warnings about the fields of these rows. Removes NaN and infinite values from the rows."""
    missing, nested = Counter[str](), Counter[str]()
    values: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in list(row.items()):
            if isinstance(value, float) and not math.isfinite(value):
                missing[name] += 1
                del row[name]
            elif not isinstance(value, Value):
                nested[name] += not (isinstance(value, list) and value)  # a list, e.g. of tags, may be intended
            elif len(counts := values.setdefault(name, Counter())) <= _MAX_VALUES:
                counts[str(value)] += 1
    notes = [
        f"the field {name!r} is NaN or infinite in {_rows(n)}, which are treated as without it"
        for name, n in missing.items()
    ]
    notes += [
        f"the field {name!r} is empty or an object in {_rows(n)}; it is not a label there"
        for name, n in nested.items()
        if n
    ]
    for name, counts in values.items():
        if len(counts) <= _MAX_VALUES:
            notes += _odd_values(name, counts)
    return [note[:300] for note in notes]


def _odd_values(name: str, counts: Counter[str]) -> Iterable[str]:
    for value, count in counts.items():
        if value.lower() in _NULL_SPELLINGS:
            what = f"the field {name!r} is {value!r} in {_rows(count)}, which counts as a value"
            yield f"{what}; leave it out if no value is meant"
    by_spelling: dict[str, list[str]] = {}
    for value in counts:
        by_spelling.setdefault(_normalised(value), []).append(value)
    alike = [spellings for spellings in by_spelling.values() if len(spellings) > 1]
    for spellings in alike[:_MAX_EXAMPLES]:
        listed = " and ".join(f"{value!r} ({_rows(counts[value])})" for value in spellings[:4])
        same = len({value_words(value).lower() for value in spellings}) == 1
        yield f"the field {name!r} has {listed}, which count as {'one label' if same else 'different values'}"


def _normalised(value: str) -> str:
    """The value in a form that ignores case and extra spaces, and in which 1.0 equals 1."""
    try:
        return repr(float(value))
    except ValueError:
        return " ".join(value.lower().split())


def bare_note(names: Sequence[str]) -> list[str]:
    """A warning about empty files that were left out."""
    if not names:
        return []
    more = ", ..." if len(names) > _MAX_EXAMPLES else ""
    files = "files were" if len(names) > 1 else "file was"
    return [f"{len(names)} empty {files} left out: {', '.join(names[:_MAX_EXAMPLES])}{more}"]


def known_note(train: Sequence[Sequence[str]], valid: Sequence[Sequence[str]]) -> list[str]:
    """A warning about validation texts, given as words, that are also training texts."""
    train_texts = {tuple(words) for words in train}
    count = sum(tuple(words) in train_texts for words in valid)
    if not count:
        return []
    occur = "occurs" if count == 1 else "occur"
    return [f"{count} of the {len(valid)} texts of valid also {occur} in train, so validation will be too optimistic"]


def prose_note(format: str, texts: Sequence[str]) -> list[str]:
    """A warning about lines that seem to be paragraphs of running text rather than single texts."""
    paragraphs = sum(bool(_SENTENCE_END.search(text)) for text in texts)
    if format != "text" or paragraphs < MANY_SENTENCES * len(texts):
        return []
    share = paragraphs / len(texts)
    return [f"{share:.0%} of the lines hold several sentences: --format prose makes each sentence a separate text"]


def unknown_note(split: str, share: float, remedy: str) -> str | None:
    """A warning about the share of words outside the vocabulary, if it is ``MANY_UNKNOWN`` or more.

    Args:
        remedy: how to have fewer.
    """
    if share < MANY_UNKNOWN:
        return None
    spaces = "Text without spaces between words needs a tokenizer"
    return f"{share:.0%} of the words of {split} are unknown: {remedy}. {spaces}"


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"
