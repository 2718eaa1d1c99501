"""UPOS tagging with the bundled tagger, the user's own, Stanza or spaCy.

The bundled tagger is a conditional random field (``dlmctl.annotators.field``) with weights read from JSON;
``dlmctl.training.tagger`` trains it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from dlmctl.annotators.annotator_files import read_annotator
from dlmctl.annotators.field import FieldTagger, Tagger
from dlmctl.annotators.locking import locked
from dlmctl.annotators.outside import spacy_tagger, stanza_tagger
from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.errors import ModelError

UPOS_TAGS = tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())

TAGGER_FILE = "tagger.json"
TAGGER_FORMAT = 1


@cache
def upos_tagger(source: str | None = None) -> Tagger:
    """A tagger: sentences, as lists of words, to one UPOS tag for each word. Loaded once per process and source.

    Args:
        source: None for the bundled tagger; the folder of one trained by ``dlmctl train tagger``; ``stanza`` or
            ``stanza:LANGUAGE`` for Stanza's default models (English by default), downloaded if they are not on disk;
            ``spacy:MODEL`` for an installed model of spaCy.

    Raises:
        UserError: there is no such tagger, it is damaged, or the program that it needs is missing.
    """
    if source is None:
        folder = bundled_path("annotators", "upos")
        if folder is None:
            raise ModelError("the bundled UPOS tagger is missing.", remedy="Install dlmctl again, or use Stanza.")
        return locked(load_tagger(folder))
    program, _, model = source.partition(":")
    if program == "stanza":
        return locked(stanza_tagger(model or "en"))
    if program == "spacy":
        return locked(spacy_tagger(model))
    return locked(load_tagger(Path(source)))


def load_tagger(folder: Path) -> Tagger:
    """The tagger saved in ``folder``.

    Raises:
        ModelError: it is missing or damaged.
    """
    with read_annotator(folder / TAGGER_FILE, "tagger", TAGGER_FORMAT) as saved:
        tags: list[str] = saved["tags"]
        column = {tag: at for at, tag in enumerate(tags)}
        transitions = np.array([[saved["transitions"][a][b] for b in tags] for a in tags], np.float64)
        # The last row is for all features that were not seen in training.
        weights = np.zeros((len(saved["features"]) + 1, len(tags)))
        rows: dict[str, int] = {}
        for row, (name, by_tag) in enumerate(saved["features"].items()):
            rows[name] = row
            for tag, weight in by_tag.items():
                weights[row, column[tag]] = weight
    return FieldTagger(tags, rows, weights, transitions)
