"""Labelled text for the attributes of the bundled model of everyday English.

    python benchmarks/everyday_labels.py LABELS SENTENCES OUT

LABELS is a folder with ``emotion_goemotions.jsonl`` and so on (``text`` and ``label`` a line), SENTENCES a file of JSON
lines with everyday sentences as ``text``. Writes ``OUT/kind.jsonl``, ``sentiment.jsonl``, ``level.jsonl`` and
``topic.jsonl``, a label as often as any other, each text with the label under the name of the file and its ``source``.

Labelled texts of sentiment and topic are comments and requests, not everyday sentences. So their labels are spread: a
model of words and word pairs, of the half of the texts that guides, labels the everyday sentences of that half, and
those that it is sure of come along (``source``: spread). The other half, that of the judge, has labels of people only.
Comments that people found neutral come without a label: by them the judge knows what no sentiment looks like.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from controls.function_words import FUNCTION_WORDS
from controls.ngrams import NgramJudge
from dlmctl.control.labels import guides
from dlmctl.text.penn import split_penn

# Texts of each label, and words that a text may have.
MOST, WORDS = 4000, range(4, 23)
# Without approval and disapproval, which are about what somebody said and mostly told by a "not".
POSITIVE = "joy amusement excitement love admiration gratitude optimism pride relief"
NEGATIVE = "sadness grief disappointment remorse anger annoyance fear nervousness disgust embarrassment"
SENTIMENT = {**dict.fromkeys(POSITIVE.split(), "positive"), **dict.fromkeys(NEGATIVE.split(), "negative")}
EASY = [f"grade{grade:02d}" for grade in range(4, 8)]
HARD = [f"grade{grade:02d}" for grade in range(12, 16)]
LEVEL = {
    **dict.fromkeys([*EASY, "A1", "A2"], "easy"),
    **dict.fromkeys([*HARD, "C1", "C2"], "hard"),
}
TOPICS = {
    "food": "Restaurants noun.food verb.consumption cooking takeaway recipe calories cook_time ingredients_list "
    "meal_suggestion restaurant_reviews restaurant_suggestion",
    "weather": "Weather verb.weather noun.phenomenon weather",
    "music": "Music music play play_music next_song what_song update_playlist",
    "travel": "Flights Hotels Travel Trains Buses transport book_flight book_hotel flight_status travel_suggestion "
    "lost_luggage international_visa",
    "money": "Banks Payment noun.possession bill_balance balance pay_bill transfer income taxes credit_score "
    "interest_rate",
}
TOPIC = {label: topic for topic, labels in TOPICS.items() for label in labels.split()}
FILES = {
    "sentiment": (SENTIMENT, ["emotion_goemotions"]),
    "level": (LEVEL, ["grade_tatoeba", "cefr_wiki"]),
    "topic": (TOPIC, ["domain_sgd", "topic_oewn", "intent_slurp", "intent_clinc150"]),
}
# How sure the labels of spread texts are, and what turns a sentiment round.
# Comments that are neither are a label of their own while labels are spread, and are written without one.
NEUTRAL = "neutral"
SURE, SPREAD, NEGATIONS = 0.9, ("sentiment", "topic"), {"n't", "not", "no", "never", "nothing", "nobody", "without"}
VERBS = set(
    "be have go come take give get make let tell ask put keep look listen try stop wait call read write open close show"
    " help leave stay sit stand turn bring hold eat drink add buy send use find play meet remember forget think watch"
    " hurry shut speak talk say run move learn follow check pay pick pass choose start believe imagine consider see"
    " note explain answer study walk wash clean cut cook enjoy avoid calm relax cheer behave".split()
)
SUBJECTS = {"you", "i", "we", "they", "he", "she"}


def kind_of(words: list[str]) -> str | None:
    """Statement, question, command or exclamation, where the form of a sentence says it."""
    mark, low = words[-1], [word.lower() for word in words]
    if mark not in (".", "?", "!") or any(word in '.?!"' for word in words[:-1]):
        return None
    first = 1 if low[0] in ("please", "never", "always", "just") else 0
    asked = low[first : first + 2] in (["do", "n't"], ["do", "not"])
    if mark != "?" and (asked or (low[first] in VERBS and low[first + 1] not in SUBJECTS)):
        return "command"
    return {".": "statement", "?": "question", "!": "exclamation"}[mark]


def rows_of(path: Path) -> Iterator[tuple[str, list[str], str]]:
    """Each text of a file, its words and its label."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        words = split_penn(row["text"])
        if len(words) in WORDS:
            yield row["text"], words, row.get("label", "")


def write(out: Path, name: str, rows: list[tuple[str, str, str]]) -> None:
    with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for text, label, source in rows:
            told = {} if label == NEUTRAL else {name: label}
            file.write(json.dumps({"text": text, **told, "source": source}, ensure_ascii=False) + "\n")
    print(name, Counter((label, source) for _, label, source in rows))


def content(words: list[str]) -> list[str]:
    """The words that say what a text is about."""
    return [word for word in words if word.lower() not in FUNCTION_WORDS]


def spread(rows: list[tuple[str, str, str]], sentences: list[tuple[str, list[str]]]) -> Iterator[tuple[str, str, str]]:
    """Everyday sentences of the half that guides, with the labels that the labelled texts of this half teach."""
    mine = [(words, label) for text, label, _ in rows if guides(words := split_penn(text))]
    known = sorted({label for _, label in mine})
    judge = NgramJudge.fit([content(words) for words, _ in mine], [known.index(label) for _, label in mine], len(known))
    for text, words in sentences:
        if guides(words) and not NEGATIONS & {word.lower() for word in words}:
            chances = judge.probabilities(content(words))
            label = known[chances.index(max(chances))]
            if max(chances) > SURE and label != NEUTRAL:
                yield text, label, "spread"


def even(rows: list[tuple[str, str, str]], least: int = 0) -> list[tuple[str, str, str]]:
    """As many rows (text, label, source) of each label as of the rarest, or up to ``least``, and at most ``MOST``."""
    random.Random(0).shuffle(rows)
    by_label: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        by_label.setdefault(row[1], []).append(row)
    count = max(least, min(MOST, *map(len, by_label.values())))
    return [row for rows in by_label.values() for row in rows[:count]]


def main(labels: Path, sentences: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    everyday = [(text, words) for text, words, _ in rows_of(sentences)]
    write(out, "kind", even([(text, kind, "") for text, words in everyday if (kind := kind_of(words)) is not None]))
    for name, (known, files) in FILES.items():
        found = [(file, row) for file in files for row in rows_of(labels / f"{file}.jsonl")]
        rows = even([(text, known[label], file) for file, (text, _, label) in found if label in known])
        neutral = [(text, NEUTRAL, file) for file, (text, _, label) in found if label == NEUTRAL]
        taught = even(rows + neutral, MOST)
        told = even(list(spread(taught, everyday)), MOST) if name in SPREAD else []
        write(out, name, rows + told + (even(neutral) if neutral else []))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
