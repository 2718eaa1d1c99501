"""Initial weights of a scorer from another one, possibly shallower, shorter and with another vocabulary."""

from __future__ import annotations

from pathlib import Path

from transformers import GPT2LMHeadModel

from dlmctl.annotators.scorer import load_scorer
from dlmctl.checkpoint.scorer import TIED, scorer_folder
from dlmctl.errors import ModelError
from dlmctl.text.files import read_object
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.text.word_matching import RowMatch, matched_words, start_like_similar
from dlmctl.training.weight_copying import Blocks, copy_weights, refuse_other_settings, repetitions

BLOCKS = Blocks("transformer.h.", ("c_proj",))
WORDS, POSITIONS = "transformer.wte.weight", "transformer.wpe.weight"


def start_scorer_from(scorer: GPT2LMHeadModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Copy the weights of the scorer in ``folder`` into ``scorer``.

    Words are matched by spelling; a new word starts as the mean of the known words that end like it, or at random if
    there are none. Positions beyond those of the other scorer start at random. For a deeper one see ``copy_weights``.

    Raises:
        ModelError: there is no scorer, or the two differ in something other than vocabulary, length and depth.
    """
    original, their_words = load_scorer(folder)
    ours, theirs = scorer.config, original.config
    refuse_other_settings(
        {"hidden": ours.n_embd, "heads": ours.n_head}, {"hidden": theirs.n_embd, "heads": theirs.n_head}, folder
    )
    words = matched_words(tokenizer, their_words)
    positions = RowMatch.of_names(range(ours.n_positions), range(theirs.n_positions))
    state = scorer.state_dict()
    copy_weights(
        {name: tensor for name, tensor in state.items() if name != TIED},
        original.state_dict(),
        BLOCKS,
        times=repetitions(ours.n_layer, theirs.n_layer, folder),
        rows={WORDS: words, POSITIONS: positions},
        where=folder,
    )
    start_like_similar(state[WORDS], tokenizer, words.ours)


def initial_folder(init: str) -> Path:
    """The folder of the scorer that the setting ``init`` names, as ``scorer_folder`` finds it.

    Raises:
        ModelError: there is no such model, or it has no scorer.
    """
    folder = scorer_folder(init)
    if read_object(folder / "config.json").get("model_type") != "gpt2":
        raise ModelError("has no scorer to start from.", where=str(folder), remedy="Leave out init.")
    return folder
