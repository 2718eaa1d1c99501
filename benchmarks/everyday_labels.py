"""Labelled text for the attributes of the bundled model of everyday English.

    python benchmarks/everyday_labels.py LABELS SENTENCES OUT

LABELS is a folder with ``emotion_goemotions.jsonl`` and so on (``text`` and ``label`` a line), SENTENCES a file of JSON
lines with everyday sentences as ``text``. Writes ``OUT/kind.jsonl``, ``sentiment.jsonl``, ``level.jsonl`` and
``topic.jsonl``, a label as often as any other, each text with the label under the name of the file and its ``source``.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from dlmctl.text.penn import split_penn

# Texts of each label, and words that a text may have.
MOST, WORDS = 4000, range(4, 23)
POSITIVE = "joy amusement excitement love admiration gratitude optimism pride relief approval caring Happy"
NEGATIVE = (
    "sadness grief disappointment remorse anger annoyance disapproval fear nervousness disgust"
    " Sad Angry Fearful Disgusted"
)
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
    "sentiment": (SENTIMENT, ["emotion_goemotions", "emotion_topicalchat"]),
    "level": (LEVEL, ["grade_tatoeba", "cefr_wiki"]),
    "topic": (TOPIC, ["domain_sgd", "topic_oewn", "intent_slurp", "intent_clinc150"]),
}
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
    """As many rows (text, label, source) of each label as of the rarest, at most ``MOST``."""
    random.Random(0).shuffle(rows)
    by_label: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        by_label.setdefault(row[1], []).append(row)
    count = min(MOST, *map(len, by_label.values()))
    with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for text, label, source in (row for rows in by_label.values() for row in rows[:count]):
            file.write(json.dumps({"text": text, name: label, "source": source}, ensure_ascii=False) + "\n")
    print(name, dict.fromkeys(by_label, count))


def main(labels: Path, sentences: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    kinds = [(text, kind, "") for text, words, _ in rows_of(sentences) if (kind := kind_of(words)) is not None]
    write(out, "kind", kinds)
    for name, (known, files) in FILES.items():
        found = [(file, row) for file in files for row in rows_of(labels / f"{file}.jsonl")]
        write(out, name, [(text, known[label], file) for file, (text, _, label) in found if label in known])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
