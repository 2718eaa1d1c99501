"""ROCStories: stories of five sentences, and their middle sentences with neighbours for infilling."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

SENTENCES = [f"sentence{n}" for n in range(1, 6)]

# The boundary before a sentence that begins with a capital letter or a digit; not after "Mr.".
_TITLES = "".join(rf"(?<!\b{title}\.)" for title in ("Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Gen", "Rev", "Capt"))
_SENTENCE_END = re.compile(rf"(?:(?<=[.!?])|(?<=[.!?][\"'\u201d])){_TITLES}\s+(?=[\"'\u201c]?[A-Z0-9])")


class Story(NamedTuple):
    """The sentences of a story, unchanged, and its other fields."""

    sentences: list[str]
    fields: dict[str, Any] | None


def parse_story(value: Any) -> Story:
    """A story from a list of sentences, or from a mapping that has them as ``sentences`` or ``sentence1`` to 5.

    Raises:
        ValueError: it is neither, or a mapping that does not have five sentences.
    """
    if not isinstance(value, dict):
        return Story(_sentence_list(value), None)
    sentences = _sentence_list(value.get("sentences", [value[name] for name in SENTENCES if name in value]))
    if len(sentences) != len(SENTENCES) or not all(part.strip() for part in sentences):
        raise ValueError("not five sentences")
    return Story(sentences, value)


def middle_sentences(story: Story) -> list[tuple[str, dict[str, Any]]]:
    """Each sentence of a story except the first and last, with its neighbours as the fields ``before`` and ``after``.

    A story given as a single text is split into sentences where a capital letter or digit follows a full stop.

    Raises:
        ValueError: it has fewer than three sentences.
    """
    parts = [part for part in story.sentences if part.strip()]
    sentences = parts if len(parts) > 1 else _SENTENCE_END.split("".join(parts))
    if len(sentences) < 3:
        raise ValueError("fewer than three sentences")
    return [
        (middle, {"before": before, "after": after})
        for before, middle, after in zip(sentences, sentences[1:], sentences[2:], strict=False)
    ]


def _sentence_list(sentences: object) -> list[str]:
    if not isinstance(sentences, list) or not all(isinstance(part, str) for part in sentences):
        raise ValueError("not a list of sentences")
    return sentences
