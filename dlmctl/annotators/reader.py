"""What reads texts: the scorer of a model, or any causal language model of Hugging Face."""

from __future__ import annotations

from pathlib import Path

from dlmctl.annotators.causal import CausalLM, is_causal_model, load_causal
from dlmctl.annotators.scorer import Judge, load_scorer, scorer_of
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.scorer import scorer_folder
from dlmctl.errors import ModelError

Reader = Judge | CausalLM
"""A scorer with its tokeniser, or a causal language model of Hugging Face with its own."""


def load_reader(source: str | Path) -> Reader:
    """A scorer or a causal language model, by folder or by name.

    Args:
        source: a scorer, a model that has one, or a model of Hugging Face, in any form that ``resolve`` accepts.

    Raises:
        ModelError: there is no such model, or it cannot be read.
    """
    folder = scorer_folder(source)
    return load_causal(str(source)) if is_causal_model(folder) else load_scorer(folder)


def load_word_reader(source: str | Path) -> Reader:
    """``load_reader``, of one that tells which of its tokens are those of a word.

    Raises:
        ModelError: there is no such model, it cannot be read, or its tokeniser does not tell where tokens are.
    """
    reader = load_reader(source)
    if isinstance(reader, CausalLM) and not reader.tokenizer.is_fast:
        what = "its tokeniser does not tell where in a text a token is."
        raise ModelError(what, where=str(source), remedy="Take a model with a `tokenizer.json`.")
    return reader


def text_scorer(pretrained: Pretrained) -> Reader | None:
    """What scores the texts of a model; None if it has no scorer, and none was named.

    Raises:
        ModelError: it cannot be read.
    """
    if pretrained.scorer is None:
        return scorer_of(pretrained.folder)
    return load_word_reader(pretrained.scorer)


def required_scorer(pretrained: Pretrained) -> Reader:
    """``text_scorer`` of a model that must have one.

    Raises:
        ModelError: it has none, or it cannot be read.
    """
    return text_scorer(pretrained) or load_scorer(pretrained.scorer_folder)  # which says what is missing
