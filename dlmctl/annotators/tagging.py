"""Words to UPOS tags, by the tagger that comes with the toolkit or by Stanza.

The bundled tagger is a linear-chain conditional random field (Lafferty et al. 2001). Its weights are read from
JSON and decoded here with numpy; ``dlmctl.training.tagger`` makes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.errors import ModelError, UserError

UPOS_TAGS = tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())

TAGGER_FILE = "tagger.json"
TAGGER_FORMAT = 1

Tagger = Callable[[Sequence[Sequence[str]]], list[list[str]]]

_DIGIT = re.compile(r"\d")
_REPEAT = re.compile(r"(.)\1+")


@cache
def upos_tagger(source: str | None = None) -> Tagger:
    """A tagger: sentences, given as words, to one UPOS tag for each word. Loaded once a process.

    Args:
        source: None for the bundled tagger, the folder of one made by ``dlmctl train tagger``, or ``stanza`` or
            ``stanza:LANGUAGE`` for Stanza's default models (English unless said), downloaded where they are
            not on disk.

    Raises:
        UserError: there is no such tagger, it is damaged, or Stanza's models cannot be had.
    """
    if source is None:
        folder = bundled_path("annotators", "upos")
        if folder is None:
            raise ModelError("the bundled UPOS tagger is missing.", remedy="Install dlmctl again, or use Stanza.")
        return load_tagger(folder)
    if source == "stanza" or source.startswith("stanza:"):
        return _stanza_tagger(source.partition(":")[2] or "en")
    return load_tagger(Path(source))


def load_tagger(folder: Path) -> Tagger:
    """The tagger saved in ``folder``.

    Raises:
        ModelError: it is missing or damaged.
    """
    path = folder / TAGGER_FILE
    try:
        saved = json.loads(path.read_text("utf-8"))
        if saved["format"] != TAGGER_FORMAT:
            raise ModelError(f"format {saved['format']!r} is not the known {TAGGER_FORMAT}.", where=str(path))
        tags: list[str] = saved["tags"]
        place = {tag: at for at, tag in enumerate(tags)}
        transitions = np.array([[saved["transitions"][a][b] for b in tags] for a in tags], np.float64)
        # The last row stands for every feature that was not seen in training.
        weights = np.zeros((len(saved["features"]) + 1, len(tags)))
        rows: dict[str, int] = {}
        for row, (name, by_tag) in enumerate(saved["features"].items()):
            rows[name] = row
            for tag, weight in by_tag.items():
                weights[row, place[tag]] = weight
    except FileNotFoundError:
        raise ModelError(
            f"no tagger here: {TAGGER_FILE} is missing.",
            where=str(folder),
            remedy="Make one with `dlmctl train tagger`, or give `stanza`.",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the tagger is damaged: {error!r}.", where=str(path)) from None
    return lambda sentences: [
        [tags[at] for at in best_path(_emissions(words, rows, weights), transitions)] if words else []
        for words in sentences
    ]


def features(words: Sequence[str]) -> list[list[str]]:
    """What the tagger sees of each word: forms, affixes and shapes of it and its neighbours. Equally many for each."""
    low = ["<<", "<", *(_DIGIT.sub("0", word.lower()) for word in words), ">", ">>"]
    shapes = ["<<", "<", *map(shape, words), ">", ">>"]
    found = []
    for at, word in enumerate(words, start=2):
        l2, l1, here, r1, r2 = low[at - 2 : at + 3]
        left, middle, right = shapes[at - 1 : at + 2]
        found.append(
            [
                f"word={here}",
                f"form={word}",
                f"prefix1={here[:1]}",
                f"prefix2={here[:2]}",
                f"prefix3={here[:3]}",
                f"suffix1={here[-1:]}",
                f"suffix2={here[-2:]}",
                f"suffix3={here[-3:]}",
                f"suffix4={here[-4:]}",
                f"shape={middle}",
                f"shapes-1={left} {middle}",
                f"shapes+1={middle} {right}",
                f"word-2={l2}",
                f"word-1={l1}",
                f"word+1={r1}",
                f"word+2={r2}",
                f"words-1={l1} {here}",
                f"words+1={here} {r1}",
                f"around={l1} {r1}",
                f"suffix3-1={l1[-3:]}",
                f"suffix3+1={r1[-3:]}",
                f"suffix2+1={r1[-2:]}",
            ]
        )
    return found


def shape(word: str) -> str:
    """The word's kinds of characters, runs shortened: ``Café`` is ``Xx``, ``25`` is ``d``, ``A-1`` is ``X-d``."""
    kinds = ("X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word)
    return _REPEAT.sub(r"\1", "".join(kinds))


def best_path(emissions: NDArray[np.float64], transitions: NDArray[np.float64]) -> list[int]:
    """The best tag numbers (Viterbi) for scores ``[words, tags]`` and ``[from tag, to tag]``; at least one word."""
    score, came_from = emissions[0], []
    for emission in emissions[1:]:
        reached = score[:, None] + transitions
        came_from.append(reached.argmax(0))
        score = reached.max(0) + emission
    path = [int(score.argmax())]
    for back in reversed(came_from):
        path.append(int(back[path[-1]]))
    return path[::-1]


def _emissions(words: Sequence[str], rows: dict[str, int], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    unseen = len(rows)
    found = [[rows.get(name, unseen) for name in names] for names in features(words)]
    total: NDArray[np.float64] = weights[np.array(found)].sum(1)
    return total


def stanza_pipeline(language: str, processors: str, bundled: str) -> Any:
    """A Stanza pipeline over words that are split already; ``bundled`` names what can take its place.

    Raises:
        UserError: its models are not on disk and cannot be downloaded.
    """
    import stanza

    try:
        return stanza.Pipeline(
            language,
            processors=processors,
            tokenize_pretokenized=True,
            download_method=stanza.DownloadMethod.REUSE_RESOURCES,
            verbose=False,
        )
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"Stanza's {language!r} models are not on disk and could not be downloaded: {first}",
            where=f"stanza:{language}",
            remedy=f"Use the bundled {bundled}, or run `stanza.download` where there is a network.",
        ) from None


def _stanza_tagger(language: str) -> Tagger:
    pipeline = stanza_pipeline(language, "tokenize,pos", "tagger")

    def tag(sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        full = [list(words) for words in sentences if words]  # Stanza would drop empty ones and shift the rest
        tagged = iter(pipeline(full).sentences if full else [])
        return [[word.upos for word in next(tagged).words] if words else [] for words in sentences]

    return tag
