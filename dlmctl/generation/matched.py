"""Matched sets: a text drawn under one condition, and its words exchanged under the others, all else kept.

Which condition draws the text goes in turn from item to item, so that none of them has all the words that were chosen
together with their context.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlmctl.annotators.word_selection import found_in
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import All, Control
from dlmctl.control.kept_words import KeptParams, KeptWords
from dlmctl.control.properties import Exchanged, faults_of, hold_exchanged, properties_of
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.diagnose import examine, find_device, load_model
from dlmctl.generation.generate import draw_recipe
from dlmctl.generation.matched_check import controls_of
from dlmctl.generation.model import recipe_from
from dlmctl.generation.prompts import read_prompt
from dlmctl.generation.ranking import satisfied
from dlmctl.generation.results import Sample
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import Recipe
from dlmctl.recipe.settings import Until
from dlmctl.recipe.yaml_file import MOST_NUMBER, SettingsFile
from dlmctl.sampling.device_map import put_on
from dlmctl.text.spelling import letters
from dlmctl.text.word_counts import WordCounts, load_counts

MOST_ITEMS = 10_000
# Between the seeds of the rounds.
STRIDE = 1_000_003
Texts = tuple[tuple[str, ...], ...]
Count = Callable[[int, int], None]
"""Receives items done and items in all."""


@dataclass(frozen=True)
class Item:
    """One frame with its words under each condition.

    Attributes:
        index: number of the item; rounds: how many rounds of drawing it took.
        drawn: the condition that its text was drawn under.
        places: of the words exchanged, from 0.
        texts: of each condition, where one could be had.
        properties: of each condition, for each word exchanged, what is known of it.
        why: what is wrong with it; empty if every condition holds, no two texts are the same, and no other item has
            the same texts.
    """

    index: int
    drawn: str
    places: tuple[int, ...]
    texts: Mapping[str, Sample]
    properties: Mapping[str, Sequence[Mapping[str, float | str | None]]]
    why: str = ""
    rounds: int = 1

    @property
    def passed(self) -> bool:
        return not self.why

    def exchanged(self, condition: str) -> list[str]:
        """The words at the places exchanged."""
        return [self.texts[condition].words[place] for place in self.places] if condition in self.texts else []


@dataclass(frozen=True)
class MatchedSets:
    """The items of a run, in order, and the seconds that they took.

    An item has the ``texts`` of its conditions by name, the ``places`` exchanged, and ``passed``, or ``why`` not.
    """

    items: list[Item]
    conditions: tuple[str, ...]
    seconds: float

    @property
    def success(self) -> float:
        """Share of items that passed."""
        return sum(item.passed for item in self.items) / max(1, len(self.items))


def matched(
    recipe: str | Path | Recipe | Mapping[str, Any],
    *,
    model: Pretrained | None = None,
    samples: int | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    progress: Count | None = None,
) -> MatchedSets:
    """The matched sets that a recipe with ``conditions`` asks for.

    >>> for item in dlmctl.matched("matched").items:
    ...     print(item.passed, item.texts["short"].text, item.exchanged("short"), item.why)

    Args:
        recipe: the name of a bundled one, a file, the settings of one as a dict, or a ``MatchedRecipe``.
        model: a loaded model, in place of the recipe's.
        samples, seed: in place of the recipe's.
        overrides: settings laid over those of a file, as with ``--set``.
        progress: receives items done and in all.

    Raises:
        RecipeError: the recipe has no conditions.
        UserError: it cannot be read, does not validate, or asks for what its model cannot do.
    """
    named = None if model is None else str(model.folder)
    found, origin = recipe_from(recipe, overrides, model=named, samples=samples, seed=seed)
    if not isinstance(found, MatchedRecipe):
        where = None if origin is None else origin.where(())
        raise RecipeError("the recipe has no `conditions`.", where=where, remedy="`dlmctl.run` draws its texts.")
    return run_matched(found, model=model, origin=origin, progress=progress)


def run_matched(
    recipe: MatchedRecipe,
    *,
    model: Pretrained | None = None,
    origin: SettingsFile | None = None,
    progress: Count | None = None,
) -> MatchedSets:
    """The items that a recipe asks for. Those that fail are drawn again, up to ``until.max_rounds`` (4) rounds.

    Args:
        model: the recipe's model, where it is loaded already.
        origin: where the recipe stands; errors about it name the line.

    Raises:
        RecipeError: more than ``MOST_ITEMS`` items are asked for.
        UserError: as ``generate``.
    """
    if recipe.samples > MOST_ITEMS:
        what = f"samples: a run makes at most {MOST_ITEMS:,} items."
        raise RecipeError(what, where=None if origin is None else origin.where(("samples",)))
    started = time.perf_counter()
    pretrained = model or load_model(recipe, origin)
    if origin is not None:
        examine(recipe, pretrained, origin)
    put_on(pretrained.model, find_device(recipe, origin))
    run = _Run(recipe, pretrained)
    best: dict[int, Item] = {}
    owners: dict[Texts, int] = {}
    for number in range(run.until.max_rounds):
        waiting = [index for index in range(recipe.samples) if index not in best or not best[index].passed]
        if progress is not None:
            progress(recipe.samples - len(waiting), recipe.samples)
        for drawn in run.round(waiting, number) if waiting else []:
            item = _unless_there(drawn, owners)
            if item.index not in best or _goodness(item) > _goodness(best[item.index]):
                best[item.index] = item
    # An item that failed took all rounds, whichever of them its best try is from.
    found = [best[index] for index in range(recipe.samples)]
    items = [item if item.passed else replace(item, rounds=run.until.max_rounds) for item in found]
    return MatchedSets(items, tuple(recipe.conditions), time.perf_counter() - started)


class _Run:
    """What stays the same from round to round."""

    def __init__(self, recipe: MatchedRecipe, pretrained: Pretrained) -> None:
        self.recipe, self.pretrained = recipe, pretrained
        self.prompt = read_prompt(pretrained, recipe.label, recipe.source, recipe.prompt)
        self.until = recipe.until or Until()
        self.controls = controls_of(recipe, pretrained)
        self.counts: WordCounts | None = load_counts(pretrained.folder)

    def first(self, index: int) -> str:
        """The condition that draws an item's text."""
        names = list(self.recipe.conditions)
        return names[index % len(names)]

    def round(self, indices: Sequence[int], number: int) -> list[Item]:
        """Each item drawn once."""
        seed = (self.recipe.seed + number * STRIDE) % (MOST_NUMBER + 1)
        texts: dict[int, dict[str, Sample]] = {index: {} for index in indices}
        faults: dict[int, str] = {}
        for name in self.recipe.conditions:
            for sample in self._draw([i for i in indices if self.first(i) == name], self.controls[name], seed):
                texts[sample.index][name] = sample
        wheres = [self.recipe.exchange] * len(indices)
        found = found_in(wheres, [texts[index][self.first(index)].words for index in indices])
        places = dict(zip(indices, map(tuple, found), strict=True))
        kept = {index: KeptParams.around(texts[index][self.first(index)].words, places[index]) for index in indices}
        for name, control in self.controls.items():
            others = [index for index in indices if self.first(index) != name and places[index]]
            # What tags they are to have is known, and not left to what a word mostly is.
            hold_exchanged(control, {index: places[index] for index in others}, self.recipe.exchange.tags)
            # Other noise than the text's own, or the same word would come again.
            for index, filled in self._fill(others, kept, control, (seed + 1) % (MOST_NUMBER + 1)).items():
                if isinstance(filled, Sample):
                    texts[index][name] = filled
                else:
                    faults.setdefault(index, f"{name}: {filled.what}")
        return [self._item(index, number, places[index], texts[index], faults.get(index)) for index in indices]

    def _draw(self, indices: Sequence[int], control: Control[Any] | None, seed: int) -> list[Sample]:
        if not indices:
            return []
        # An item is drawn again as a whole, by its own rounds.
        recipe = self.recipe.model_copy(update={"seed": seed, "until": None})
        return draw_recipe(recipe, control, self.pretrained, self.prompt, samples=indices).samples

    def _fill(
        self, indices: Sequence[int], kept: Mapping[int, KeptParams], control: Control[Any] | None, seed: int
    ) -> dict[int, Sample | UserError]:
        """The texts of a condition around the words that are kept, or what stands against one."""
        rest = KeptWords.by_sample({index: kept[index] for index in indices})
        whole = rest if control is None else All([rest, control])
        try:
            return {sample.index: sample for sample in self._draw(indices, whole, seed)}
        except RecipeError as error:  # of one of them, perhaps: a word that is kept may be one that the condition bans
            if len(indices) == 1:
                return {indices[0]: error}
            return {index: one for at in indices for index, one in self._fill([at], kept, control, seed).items()}

    def _item(
        self, index: int, number: int, places: tuple[int, ...], texts: dict[str, Sample], fault: str | None
    ) -> Item:
        texts = {name: texts[name] for name in self.controls if name in texts}
        properties = {
            name: [self._properties(index, sample.words[place]) for place in places] for name, sample in texts.items()
        }
        why = fault or ("" if places else "no word to exchange") or self._why(index, places, texts)
        return Item(index, self.first(index), places, texts, properties, why, number + 1)

    def _why(self, index: int, places: Sequence[int], texts: Mapping[str, Sample]) -> str:
        failed = [
            f"{name}: {label}: {check.why}"
            for name, sample in texts.items()
            if not satisfied(sample.checks, self.until)
            for label, check in sample.checks.items()
            if not check.passed
        ]
        # A check judges the words that the tagger finds in each text; one that was exchanged is meant whatever its tag.
        failed += [] if failed else self._unfit(index, places, texts)
        alike = len({tuple(sample.words) for sample in texts.values()}) < len(texts)
        return "; ".join([*failed, *(["two conditions have the same words"] if alike else [])])

    def _unfit(self, index: int, places: Sequence[int], texts: Mapping[str, Sample]) -> list[str]:
        """What is wrong with words that were exchanged."""
        tags = self.recipe.exchange.tags
        return [
            f"{name}: {word!r} {fault}"
            for name, sample in texts.items()
            for place in places
            for word in [sample.words[place]]
            for fault in faults_of(self.controls[name], index, Exchanged(word, place, len(sample.words), tags))
        ]

    def _properties(self, index: int, word: str) -> dict[str, float | str | None]:
        found: dict[str, float | str | None] = {"letters": letters(word)}
        counted = None if self.counts is None else self.counts.per_million(word)
        if counted is not None:
            found["frequency"] = counted
        for control in self.controls.values():
            found |= properties_of(control, index, word)
        if counted is not None and found["frequency"] == counted:  # and not that of a user's table
            found["frequency"] = round(counted, 2)
        return found


def _unless_there(item: Item, owners: dict[Texts, int]) -> Item:
    """An item that passed, noted by its texts; as one that failed where another item has the same."""
    if not item.passed:
        return item
    owner = owners.setdefault(tuple(tuple(sample.words) for sample in item.texts.values()), item.index)
    return item if owner == item.index else replace(item, why=f"the same texts as item {owner}")


def _goodness(item: Item) -> tuple[bool, int, float]:
    """What makes one try at an item better than another."""
    checks = [check for sample in item.texts.values() for check in sample.checks.values()]
    return item.passed, len(item.texts), sum(check.score for check in checks)
