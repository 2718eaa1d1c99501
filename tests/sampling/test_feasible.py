"""Contradictions between controls, found on the word logits before the first step."""

import pytest
import torch

from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.control.prepared import Prepared
from dlmctl.errors import RecipeError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings

QUICK = SamplerSettings(steps=2)


class Only(Control):
    """Restricts one place to some words."""

    name = "only"
    Params = ControlParams

    def __init__(self, place, ids, count=(4, 4)):
        super().__init__()
        self.place, self.ids, self.count = place, ids, count

    def word_range(self, params):
        return self.count

    def prepare(self, batch):
        return PreparedOnly(self.place, self.ids)

    def check(self, params, words):
        return Check(1.0, True, "")


class PreparedOnly(Prepared):
    exact = True

    def __init__(self, place, ids):
        self.place, self.ids = place, ids

    def restrict(self, logits):
        banned = torch.ones(logits.shape[-1], dtype=torch.bool)
        banned[self.ids] = False
        logits = logits.clone()
        logits[:, self.place, banned] = -torch.inf
        return logits


def test_controls_that_agree_are_let_through(pretrained):
    assert len(generate(Only(2, [5, 6, 7]) & Only(2, [7, 8]), model=pretrained, samples=2, sampler=QUICK)) == 2


def test_no_common_word(pretrained):
    with pytest.raises(RecipeError, match=r"sample 0: .* word 2\. only leaves 2 of the 20 words; only 2 leaves 3 of"):
        generate(Only(2, [5, 6]) & Only(2, [7, 8, 9]), model=pretrained, samples=2, sampler=QUICK)


def test_a_word_that_another_control_forbids(pretrained):
    word = pretrained.tokenizer.words([5])[0]
    with pytest.raises(RecipeError, match=f"only wants '{word}' there; only 2 forbids it"):
        generate(Only(2, [5]) & Only(2, [7, 8]), model=pretrained, samples=2, sampler=QUICK)


def test_a_word_where_the_text_has_ended(pretrained):
    with pytest.raises(RecipeError, match="no word is left for word 6"):
        generate(Only(6, [5]), model=pretrained, samples=1, sampler=QUICK)


def test_the_fault_of_a_later_batch_is_found_before_the_first_step(pretrained):
    class Odd(Only):
        def prepare(self, batch):
            return PreparedOdd(self, batch)

    class PreparedOdd(PreparedOnly):
        def __init__(self, only, batch):
            super().__init__(only.place, only.ids)
            self.odd = torch.tensor([draw.sample % 2 == 1 for draw in batch.draws])

        def restrict(self, logits):
            return torch.where(self.odd[:, None, None], super().restrict(logits), logits)

    steps = []
    with pytest.raises(RecipeError, match="sample 1"):
        generate(
            Odd(2, [5]) & Only(2, [7]),
            model=pretrained,
            samples=2,
            batch_size=1,
            sampler=QUICK,
            on_step=steps.append,
        )
    assert not steps
