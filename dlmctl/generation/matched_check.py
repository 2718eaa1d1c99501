"""Checks of matched sets before anything is drawn: whether any item can be complete.

A few items are tried, with each number of words that all conditions allow. Only what fails for all of them is a fault;
if a recipe leaves too much open to tell, drawing the items will show.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.branches import has_choices
from dlmctl.diffusion.layout import SPECIAL, Layout, batch_layouts, positions_for, uniform_logits
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError
from dlmctl.generation.control_for import ControlFor
from dlmctl.recipe.build import build_control
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import Misplaced, nested_specs
from dlmctl.sampling.batch_layout import prepare_batch
from dlmctl.sampling.plan import Plan
from dlmctl.text.tokenizer import HuggingFaceTokenizer

# Items to try: at least MIN_ITEMS, and one for each combination of parameter sets. With more than MAX_ITEMS
# combinations, or more than MAX_WORD_COUNTS numbers of words, the check is skipped.
MIN_ITEMS, MAX_ITEMS, MAX_WORD_COUNTS = 4, 32, 8


def check_matched(recipe: MatchedRecipe, plans: Mapping[str, Plan], matching: ControlFor) -> None:
    """Check that an item can be complete.

    Args:
        plans: the plan of each condition, with loaded controls.
        matching: the tolerances, with the same controls.

    Raises:
        Misplaced: no number of words fits all conditions, no text has a place that is exchanged, a kept word cannot
            fit two conditions, or no exchanged words are within the tolerances of ``control_for``.
    """
    items = _items_to_try(recipe)
    if recipe.control_for and len(items) <= MAX_ITEMS:
        matching.require_possible(items)
    tokenizer = next((plan.pretrained.tokenizer for plan in plans.values()), None)
    if tokenizer is None or isinstance(tokenizer, HuggingFaceTokenizer) or len(items) > MAX_ITEMS:
        return
    if any(plan.control is not None and has_choices(plan.control) for plan in plans.values()):
        return
    word_counts = [_word_counts(plans, sample) for sample in items]
    longest = max((counts[-1] for counts in word_counts if counts), default=None)
    if longest is None:
        message = "the texts of an item have the same number of words, and no number fits all conditions."
        raise Misplaced(("conditions",), message, "Ask for one that all of them allow.")
    if recipe.exchange.tag is not None:  # the places exchanged depend on the texts
        return
    if not recipe.exchange.at(longest):
        message = f"exchange: no text has a word there; the longest have {longest}."
        raise Misplaced(("exchange",), message, "Name places that the texts have.")
    if max(map(len, word_counts)) <= MAX_WORD_COUNTS:
        _require_common_words(
            recipe,
            plans,
            [(sample, count) for sample, counts in zip(items, word_counts, strict=True) for count in counts],
        )


def matching_of(recipe: MatchedRecipe, pretrained: Pretrained) -> ControlFor:
    """The tolerances of a recipe, with the loaded controls of each condition. Each judges the words of every item, also
    if no item is drawn under it.

    Raises:
        UserError: a control cannot be loaded, or there are tolerances, and the model writes pieces of words.
    """
    controls = {name: build_control(recipe.specs_of(name)) for name in recipe.conditions}
    for control in controls.values():
        if control is not None:
            control.load_from(pretrained)
    return ControlFor(recipe, controls, pretrained)


def _items_to_try(recipe: MatchedRecipe) -> range:
    """The items to try: after them the combinations of parameters repeat."""
    set_count = math.lcm(*(len(spec.params) or 1 for specs in recipe.spec_sets() for spec in nested_specs(specs)))
    return range(min(recipe.samples, max(MIN_ITEMS, set_count)))


def _word_counts(plans: Mapping[str, Plan], sample: int) -> range:
    """The numbers of words that all conditions allow an item; a `not` does not narrow them."""
    low, high = 1, min(int(plan.pretrained.model.config.length) - SPECIAL for plan in plans.values())
    for plan in plans.values():
        word_range = plan.control.range_of(sample) if plan.control is not None else None
        low, high = (max(low, word_range[0]), min(high, word_range[1])) if word_range is not None else (low, high)
    return range(low, high + 1)


def _require_common_words(recipe: MatchedRecipe, plans: Mapping[str, Plan], texts: Sequence[tuple[int, int]]) -> None:
    """Check that in one of these texts, each an item and its length, all conditions share words for the kept places."""
    first_fault: str | None = None
    for sample, count in texts:
        try:
            allowed = {name: _allowed_words(plan, Draw(recipe.seed, sample, 0), count) for name, plan in plans.items()}
        except RecipeError:  # a condition has no text with this number of words
            continue
        exchanged = recipe.exchange.at(count)
        fault = _disagreement(plans, allowed, [place for place in range(count) if place not in exchanged])
        if fault is None:
            return
        first_fault = first_fault or fault
    if first_fault is not None:
        raise Misplaced(("exchange",), first_fault, "Exchange that word, too, or ask the same of it.")


def _allowed_words(plan: Plan, draw: Draw, word_count: int) -> Tensor:
    """The words allowed at each place of a text, a mask ``[word_count, V]``.

    Raises:
        RecipeError: the condition has no such text.
    """
    model, vocabulary = plan.pretrained.model, plan.pretrained.tokenizer
    layout = Layout(positions_for(word_count, model.config.length), word_count)
    control = prepare_batch(plan, [(draw, layout)])
    logits = uniform_logits(batch_layouts([layout], model.embeddings.device), vocabulary, model.config.vocab_size)
    logits = logits if control is None else control.restrict(logits)
    return ~torch.isneginf(logits[0, 1 : word_count + 1])


def _disagreement(plans: Mapping[str, Plan], allowed: Mapping[str, Tensor], kept: Collection[int]) -> str | None:
    """The requirements of two conditions on a kept word that no word fits; None if there is no such conflict."""
    for first, second in combinations(allowed, 2):
        for place in kept:
            if not (allowed[first][place] & allowed[second][place]).any():
                requirements = " and ".join(
                    f"{name!r} {_requirement(plans[name], allowed[name][place])}" for name in (first, second)
                )
                return f"exchange: word {place + 1} is kept, and no word fits both conditions: {requirements}."
    return None


def _requirement(plan: Plan, words: Tensor) -> str:
    word_count = int(words.sum())
    if word_count == 1:
        return f"wants {plan.pretrained.tokenizer.token(int(words.nonzero()[0]))!r}"
    return f"leaves {word_count:,} words"
