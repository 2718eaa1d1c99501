"""What keeps every item of matched sets from being whole, found before anything is drawn.

Asked are a few items, with each number of words that all conditions allow. Only what fails for every one of them is a
fault: where a recipe says too little to tell, the items themselves will.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.control.branches import leaves_open
from dlmctl.diffusion.layout import SPECIAL, Layout, even_logits, positions_for, stacked
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError
from dlmctl.recipe.build import build_control
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import Misplaced, every
from dlmctl.sampling.batch_layout import prepared_on
from dlmctl.sampling.plan import Plan
from dlmctl.text.tokenizer import HuggingFaceTokenizer

# Items that are asked about: these at least, and one for each combination of sets of parameters; with more of those
# than the second, or more numbers of words than the third, nothing is said.
FEWEST, MOST, MOST_COUNTS = 4, 32, 8


def check_matched(recipe: MatchedRecipe, plans: Mapping[str, Plan]) -> None:
    """Find out whether any item can be whole.

    Args:
        plans: of each condition, its controls loaded.

    Raises:
        Misplaced: no number of words serves all conditions, no text has a place that is exchanged, or no word that is
            kept can fit two conditions.
    """
    samples = _samples(recipe)
    tokenizer = next((plan.pretrained.tokenizer for plan in plans.values()), None)
    if tokenizer is None or isinstance(tokenizer, HuggingFaceTokenizer) or len(samples) > MOST:
        return
    if any(plan.control is not None and leaves_open(plan.control) for plan in plans.values()):
        return
    counts = [_counts(plans, sample) for sample in samples]
    longest = max((found[-1] for found in counts if found), default=None)
    if longest is None:
        what = "the texts of an item have the same number of words, and none serves all conditions."
        raise Misplaced(("conditions",), what, "Ask for one that all of them allow.")
    if recipe.exchange.tag is not None:  # what is exchanged depends on the texts
        return
    if not recipe.exchange.at(longest):
        what = f"exchange: no text has a word there; the longest have {longest}."
        raise Misplaced(("exchange",), what, "Name places that the texts have.")
    if max(map(len, counts)) <= MOST_COUNTS:
        _require_kept(
            recipe, plans, [(at, count) for at, found in zip(samples, counts, strict=True) for count in found]
        )


def controls_of(recipe: MatchedRecipe, pretrained: Pretrained) -> dict[str, Control[Any] | None]:
    """The controls of each condition, attached: each is asked about the words of every item, also one that no item is
    drawn under."""
    controls = {name: build_control(recipe.specs_of(name)) for name in recipe.conditions}
    for control in controls.values():
        if control is not None:
            control.load_from(pretrained)
    return controls


def _samples(recipe: MatchedRecipe) -> range:
    """The items to ask about: of those after them the parameters are the same again."""
    sets = math.lcm(*(len(spec.params) or 1 for specs in recipe.spec_sets() for spec in every(specs)))
    return range(min(recipe.samples, max(FEWEST, sets)))


def _counts(plans: Mapping[str, Plan], sample: int) -> range:
    """The numbers of words that all conditions allow an item; those of `not` are among them."""
    low, high = 1, min(int(plan.pretrained.model.config.length) - SPECIAL for plan in plans.values())
    for plan in plans.values():
        found = plan.control.range_of(sample) if plan.control is not None else None
        low, high = (max(low, found[0]), min(high, found[1])) if found is not None else (low, high)
    return range(low, high + 1)


def _require_kept(recipe: MatchedRecipe, plans: Mapping[str, Plan], texts: Sequence[tuple[int, int]]) -> None:
    """Refuse conditions that agree on the words that are kept in none of these texts, each an item and its length."""
    first: str | None = None
    for sample, count in texts:
        try:
            allowed = {name: _allowed(plan, Draw(recipe.seed, sample, 0), count) for name, plan in plans.items()}
        except RecipeError:  # no text of a condition has so many words
            continue
        exchanged = recipe.exchange.at(count)
        fault = _disagreement(plans, allowed, [place for place in range(count) if place not in exchanged])
        if fault is None:
            return
        first = first or fault
    if first is not None:
        raise Misplaced(("exchange",), first, "Exchange that word, too, or ask the same of it.")


def _allowed(plan: Plan, draw: Draw, count: int) -> Tensor:
    """The words that may stand at each place of a text of so many words, ``[count, V]``.

    Raises:
        RecipeError: the condition has no such text.
    """
    model, vocabulary = plan.pretrained.model, plan.pretrained.tokenizer
    layout = Layout(positions_for(count, model.config.length), count)
    control = prepared_on(plan, [(draw, layout)])
    logits = even_logits(stacked([layout], model.embeddings.device), vocabulary, model.config.vocab_size)
    logits = logits if control is None else control.restrict(logits)
    return ~torch.isneginf(logits[0, 1 : count + 1])


def _disagreement(plans: Mapping[str, Plan], allowed: Mapping[str, Tensor], kept: Collection[int]) -> str | None:
    """What two conditions ask of the same word, so that none fits both; None where they agree on every word."""
    for one, other in combinations(allowed, 2):
        for place in kept:
            if not (allowed[one][place] & allowed[other][place]).any():
                said = " and ".join(f"{name!r} {_wish(plans[name], allowed[name][place])}" for name in (one, other))
                return f"exchange: word {place + 1} is kept, and no word fits both conditions: {said}."
    return None


def _wish(plan: Plan, words: Tensor) -> str:
    number = int(words.sum())
    if number == 1:
        return f"wants {plan.pretrained.tokenizer.token(int(words.nonzero()[0]))!r}"
    return f"leaves {number:,} words"
