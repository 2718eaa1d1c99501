"""ROCStories: five sentences, and each middle one with its neighbours for infilling."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

SENTENCES = [f"sentence{n}" for n in range(1, 6)]

# Where one sentence ends and the next begins with a capital or a figure; not after "Mr.".
_TITLES = "".join(rf"(?<!\b{title}\.)" for title in ("Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Gen", "Rev", "Capt"))
_SENTENCE_END = re.compile(rf"(?:(?<=[.!?])|(?<=[.!?][\"'\u201d])){_TITLES}\s+(?=[\"'\u201c]?[A-Z0-9])")


class Story(NamedTuple):
    """The sentences of a story as they are given, and what else is said of it."""

    sentences: list[str]
    fields: dict[str, Any] | None


def story(value: Any) -> Story:
    """A story from a list of sentences, or from a mapping that has them as ``sentences`` or ``sentence1`` to 5.

    Raises:
        ValueError: it is neither, or a mapping of other than five sentences.
    """
    if not isinstance(value, dict):
        return Story(_texts(value), None)
    sentences = _texts(value.get("sentences", [value[name] for name in SENTENCES if name in value]))
    if len(sentences) != len(SENTENCES) or not all(part.strip() for part in sentences):
        raise ValueError("not five sentences")
    return Story(sentences, value)


def middles(told: Story) -> list[tuple[str, dict[str, Any]]]:
    """Each sentence of a story but first and last, with its neighbours as the fields ``before`` and ``after``.

    The sentences are those that are given; only a story given as one text is split, where capitals follow full stops.

    Raises:
        ValueError: it has fewer than three sentences.
    """
    given = [part for part in told.sentences if part.strip()]
    sentences = given if len(given) > 1 else _SENTENCE_END.split("".join(given))
    if len(sentences) < 3:
        raise ValueError("fewer than three sentences")
    return [
        (middle, {"before": before, "after": after})
        for before, middle, after in zip(sentences, sentences[1:], sentences[2:], strict=False)
    ]


def _texts(sentences: object) -> list[str]:
    if not isinstance(sentences, list) or not all(isinstance(part, str) for part in sentences):
        raise ValueError("not a list of sentences")
    return sentences
