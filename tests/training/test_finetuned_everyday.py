"""The bundled model with two words more, as it starts to be trained on: its recipes work with it."""

from __future__ import annotations

import pytest

import dlmctl
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.training.carried_controls import carry_controls
from dlmctl.training.initial_masked import start_masked_from


@pytest.mark.parametrize("recipe", ["pos", "syntax_tree", "attribute"])
def test_recipes_of_everyday_work_with_a_model_made_from_it(everyday_copy, recipe):
    (text,) = dlmctl.run(recipe, model=str(everyday_copy), samples=1)
    assert text.fluency.acceptability is not None


@pytest.fixture(scope="module")
def everyday_copy(tmp_path_factory):
    """The bundled model with two words more, as it starts to be trained on."""
    original, folder = from_pretrained("everyday"), tmp_path_factory.mktemp("copy")
    words = original.tokenizer.extended([["gloxinia", "Gloxinia"]], 1)
    made = MaskedLM(original.masked.config.model_copy(update={"vocab_size": len(words)}))
    start_masked_from(made, words, original)
    save_pretrained(made, words, folder)
    names, kept, left_out = carry_controls(original, Pretrained(made, words, folder))
    assert {"acceptability", "classifier/kind", "pos", "scorer", "syntax_tree"} <= set(names)
    assert not kept
    assert not left_out
    return folder
