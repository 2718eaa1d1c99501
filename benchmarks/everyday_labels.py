"""Make labelled text for the attributes of the bundled model of everyday English.

    python benchmarks/everyday_labels.py LABELS SENTENCES OUT

LABELS is a folder with ``emotion_goemotions.jsonl`` and so on (JSON lines with ``text`` and ``label``), SENTENCES JSON
lines with everyday sentences as ``text``. Writes ``OUT/kind.jsonl``, ``sentiment.jsonl``, ``level.jsonl`` and
``topic.jsonl`` with balanced labels; the label of each text is in the field named after the file, next to ``source``.

Labelled texts of sentiment and topic are comments and requests, not everyday sentences. So labels are propagated: a
model of words and word pairs, trained on the half of the texts that guides, labels the everyday sentences of that half,
and confident labels are added (``source``: spread). The other half, that of the judge, has human labels only. Comments
that people found neutral are written without a label, so that the judge learns what no sentiment looks like.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from controls.function_words import FUNCTION_WORDS
from controls.ngrams import NgramJudge
from dlmctl.control.labels import is_guide_half
from dlmctl.text.penn import split_penn

# Most texts of each label, and the allowed numbers of words of a text.
MAX_TEXTS, WORDS = 4000, range(4, 23)
# Without approval and disapproval, which respond to what somebody said and mostly show in a "not".
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
# The label of neutral comments while labels are propagated; they are written without one.
NEUTRAL = "neutral"
# Least probability of a propagated label, attributes with propagated labels, and words that reverse a sentiment.
CONFIDENCE, SPREAD, NEGATIONS = (
    0.9,
    ("sentiment", "topic"),
    {"n't", "not", "no", "never", "nothing", "nobody", "without"},
)
VERBS = set(
    "be have go come take give get make let tell ask put keep look listen try stop wait call read write open close show"
    " help leave stay sit stand turn bring hold eat drink add buy send use find play meet remember forget think watch"
    " hurry shut speak talk say run move learn follow check pay pick pass choose start believe imagine consider see"
    " note explain answer study walk wash clean cut cook enjoy avoid calm relax cheer behave".split()
)
SUBJECTS = {"you", "i", "we", "they", "he", "she"}


def kind_of(words: list[str]) -> str | None:
    """Statement, question, command or exclamation, if the form of a sentence decides it."""
    mark, lower = words[-1], [word.lower() for word in words]
    if mark not in (".", "?", "!") or any(word in '.?!"' for word in words[:-1]):
        return None
    first = 1 if lower[0] in ("please", "never", "always", "just") else 0
    is_prohibition = lower[first : first + 2] in (["do", "n't"], ["do", "not"])
    if mark != "?" and (is_prohibition or (lower[first] in VERBS and lower[first + 1] not in SUBJECTS)):
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
            labels = {} if label == NEUTRAL else {name: label}
            file.write(json.dumps({"text": text, **labels, "source": source}, ensure_ascii=False) + "\n")
    print(name, Counter((label, source) for _, label, source in rows))


def content_words(words: list[str]) -> list[str]:
    """The words without function words."""
    return [word for word in words if word.lower() not in FUNCTION_WORDS]


def propagate(
    rows: list[tuple[str, str, str]], sentences: list[tuple[str, list[str]]]
) -> Iterator[tuple[str, str, str]]:
    """Everyday sentences of the guiding half, labelled by a model of the labelled texts of that half."""
    labelled = [(words, label) for text, label, _ in rows if is_guide_half(words := split_penn(text))]
    labels = sorted({label for _, label in labelled})
    label_ids = [labels.index(label) for _, label in labelled]
    judge = NgramJudge.fit([content_words(words) for words, _ in labelled], label_ids, len(labels))
    for text, words in sentences:
        if is_guide_half(words) and not NEGATIONS & {word.lower() for word in words}:
            probs = judge.probabilities(content_words(words))
            label = labels[probs.index(max(probs))]
            if max(probs) > CONFIDENCE and label != NEUTRAL:
                yield text, label, "spread"


def balanced(rows: list[tuple[str, str, str]], least: int = 0) -> list[tuple[str, str, str]]:
    """At most as many rows (text, label, source) of each label as of the rarest and at most ``MAX_TEXTS``, or ``least``
    if that is more."""
    random.Random(0).shuffle(rows)
    by_label: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        by_label.setdefault(row[1], []).append(row)
    count = max(least, min(MAX_TEXTS, *map(len, by_label.values())))
    return [row for rows in by_label.values() for row in rows[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("labels", "sentences", "out"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    labels, sentences, out = arguments.labels, arguments.sentences, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    everyday = [(text, words) for text, words, _ in rows_of(sentences)]
    write(out, "kind", balanced([(text, kind, "") for text, words in everyday if (kind := kind_of(words)) is not None]))
    for name, (known, files) in FILES.items():
        labelled = [(file, row) for file in files for row in rows_of(labels / f"{file}.jsonl")]
        rows = balanced([(text, known[label], file) for file, (text, _, label) in labelled if label in known])
        neutral = [(text, NEUTRAL, file) for file, (text, _, label) in labelled if label == NEUTRAL]
        training = balanced(rows + neutral, MAX_TEXTS)
        propagated = balanced(list(propagate(training, everyday)), MAX_TEXTS) if name in SPREAD else []
        write(out, name, rows + propagated + (balanced(neutral) if neutral else []))


if __name__ == "__main__":
    main()
