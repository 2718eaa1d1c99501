"""Training the UPOS tagger on a treebank: a conditional random field fitted with CRFsuite (Okazaki 2007)."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlmctl.annotators.field import Tagger, features
from dlmctl.annotators.tagging import TAGGER_FILE, TAGGER_FORMAT, UPOS_TAGS, load_tagger
from dlmctl.checkpoint.weights import staged
from dlmctl.datasets.conllu import TaggedSentence, conllu_sentences
from dlmctl.datasets.staging import check_writable
from dlmctl.errors import DataError, UserError

# Weights of the L1 and L2 penalties, chosen on GUM dev; L1 keeps one feature in ten, so the file is small. The loss is
# a sum over sentences, so more sentences need larger penalties for as small a file.
L1, L2 = 0.2, 0.05
ITERATIONS = 80


def read_conllu(path: Path) -> list[TaggedSentence]:
    """The sentences of a CoNLL-U file, every word with a UPOS tag; see ``conllu_sentences``.

    Raises:
        DataError: the file cannot be read, is not CoNLL-U, or lacks tags.
    """
    sentences = list(conllu_sentences(path))
    if not sentences:
        raise DataError("holds no sentences.", where=str(path))
    for sentence in sentences:
        unknown = next((tag for tag in sentence.tags if tag not in UPOS_TAGS), None)
        if unknown is not None:
            raise DataError(f"{unknown[:40]!r} in column 4 is not a UPOS tag.", where=f"{path}:{sentence.line}")
    return sentences


def train_tagger(
    train: Path,
    dev: Path,
    out: Path,
    *,
    silver: Path | None = None,
    gold_passes: int = 1,
    l1: float = L1,
    l2: float = L2,
) -> float:
    """Train a tagger on one CoNLL-U file, save it in ``out`` and return its accuracy on another.

    Args:
        silver: further sentences to train on, tagged by another tagger.
        gold_passes: how many times the sentences of ``train`` count.
        l1, l2: weights of the penalties on the sum and on the sum of squares of the weights.

    Raises:
        DataError: a file cannot be read or is not CoNLL-U.
        UserError: a penalty is negative or no number, python-crfsuite is not installed, or ``out`` cannot be written.
    """
    for name, penalty in (("l1", l1), ("l2", l2)):
        if not 0 <= penalty < math.inf:
            raise UserError(f"{penalty} is no penalty.", where=name, remedy="Give a number from 0 on.")
    held_out = read_conllu(dev)
    check_writable(out)
    sentences = read_conllu(train) * gold_passes + ([] if silver is None else read_conllu(silver))
    tagger = fit_crf(sentences, l1, l2)
    with staged(out) as staging:
        save_tagger(tagger, staging)
    return accuracy(load_tagger(out), held_out)


def save_tagger(tagger: dict[str, Any], folder: Path) -> None:
    """Write the result of ``fit_crf`` for ``load_tagger``."""
    (folder / TAGGER_FILE).write_text(json.dumps(tagger, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


def fit_crf(sentences: Iterable[TaggedSentence], l1: float = L1, l2: float = L2) -> dict[str, Any]:
    """Train a tagger; returns the JSON object that ``dlmctl.annotators.tagging.load_tagger`` reads."""
    try:
        import pycrfsuite
    except ImportError:
        raise UserError(
            "training a tagger needs python-crfsuite.", remedy='Install it with `pip install "dlmctl[train]"`.'
        ) from None

    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params({"c1": l1, "c2": l2, "max_iterations": ITERATIONS, "feature.possible_transitions": True})
    for sentence in sentences:
        trainer.append(features(sentence.words), sentence.tags)
    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch) / "crf")
        trainer.train(path)
        tagger = pycrfsuite.Tagger()
        tagger.open(path)
        info, tags = tagger.info(), sorted(tagger.labels())
        tagger.close()
    # Rounding to thousandths does not change decisions and halves the file.
    by_feature: dict[str, dict[str, float]] = {}
    for (name, tag), weight in sorted(info.state_features.items()):
        if round(weight, 3):
            by_feature.setdefault(name, {})[tag] = round(weight, 3)
    transitions = {a: {b: round(info.transitions.get((a, b), 0.0), 3) for b in tags} for a in tags}
    return {"format": TAGGER_FORMAT, "tags": tags, "transitions": transitions, "features": by_feature}


def accuracy(tagger: Tagger, sentences: list[TaggedSentence]) -> float:
    """The share of words with the right tag."""
    tagged = tagger([sentence.words for sentence in sentences])
    pairs = [pair for row, gold in zip(tagged, sentences, strict=True) for pair in zip(row, gold.tags, strict=True)]
    return sum(predicted == gold for predicted, gold in pairs) / len(pairs)
