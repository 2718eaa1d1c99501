"""UPOS tagging with the bundled tagger, the user's own, Stanza or spaCy.

The bundled tagger is a conditional random field (``dlmctl.annotators.field``) with weights read from JSON;
``dlmctl.training.tagger`` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from dlmctl.annotators.annotator_files import read_annotator
from dlmctl.annotators.field import FieldTagger, Tagger
from dlmctl.annotators.locking import locked
from dlmctl.annotators.outside import spacy_tagger, stanza_tagger
from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.errors import ModelError, did_you_mean

UPOS_TAGS = tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
# Tags of the Penn Treebank and usual abbreviations, by the UPOS tags that their words have.
OTHER_TAGS = {
    other: upos
    for upos, others in {
        "ADJ": "JJ JJR JJS A",
        "ADP": "RP PREP",
        "ADP|SCONJ": "IN",
        "ADV": "RB RBR RBS WRB",
        "AUX": "MD",
        "AUX|VERB": "VBD VBG VBN VBP VBZ VB",
        "CCONJ": "CC",
        "CCONJ|SCONJ": "CONJ",
        "DET": "DT PDT ART",
        "DET|PRON": "WDT",
        "INTJ": "UH",
        "NOUN": "NN NNS N",
        "NUM": "CD",
        "PART": "POS",
        "PART|ADP": "TO",
        "PRON": "PRP PRP$ WP WP$ EX",
        "PROPN": "NNP NNPS",
        "PUNCT": ". : ! ? PUNC",
        "VERB": "V",
        "X": "FW",
    }.items()
    for other in others.split()
}

TAGGER_FILE = "tagger.json"
TAGGER_FORMAT = 1


def read_upos(tags: Sequence[str], also: Sequence[str] = ()) -> list[str]:
    """UPOS tags as people write them, in any case, with alternatives as ``NOUN|VERB``.

    Args:
        also: what is allowed in place of a tag.

    Raises:
        ValueError: there is no such tag; for tags of the Penn Treebank the message says those of UPOS.
    """
    choices = dict.fromkeys(choice for tag in tags for choice in tag.split("|"))
    unknown = [choice for choice in choices if choice.upper() not in (*UPOS_TAGS, *also)]
    if unknown:
        others = {choice: OTHER_TAGS.get(choice.upper()) for choice in unknown}
        translated = ", ".join(f"{choice!r} is {upos}" for choice, upos in others.items() if upos)
        hint = f"In UPOS, {translated}." if translated else did_you_mean(unknown[0], list(UPOS_TAGS))
        raise ValueError(f"there is no UPOS tag {unknown[0]!r}. {hint}")
    return [tag.upper() for tag in tags]


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
