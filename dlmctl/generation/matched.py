"""Matched sets: a text is drawn under one condition, and some words are exchanged under the others; the rest is kept.

The conditions take turns in drawing the text of an item, so that the words that were chosen together with their context
do not all belong to the same condition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlmctl.annotators.word_selection import selected_places
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import All, Control
from dlmctl.control.exchanged_words import ExchangedWords
from dlmctl.control.kept_words import KeptParams, KeptWords
from dlmctl.control.properties import Exchanged, faults_of, hold_exchanged
from dlmctl.control.user_files import one_version
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.control_for import ControlFor, Place
from dlmctl.generation.diagnose import examine, find_device, load_model
from dlmctl.generation.generate import draw_recipe
from dlmctl.generation.matched_check import matching_of
from dlmctl.generation.matched_sets import Item, MatchedSets
from dlmctl.generation.model import AnyRecipe, Overridden, name_and_model, recipe_from
from dlmctl.generation.notebook_bar import progress_or_bar
from dlmctl.generation.prompts import read_prompt
from dlmctl.generation.ranking import satisfied
from dlmctl.generation.results import Sample
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.settings import Until
from dlmctl.recipe.yaml_file import MOST_NUMBER, SettingsFile
from dlmctl.sampling.device_map import move_to_device

MAX_ITEMS = 10_000
# Offset between the seeds of the rounds.
SEED_STRIDE = 1_000_003
Texts = tuple[tuple[str, ...], ...]
ItemProgress = Callable[[int, int], None]
"""Receives the items done and the items in all."""


@one_version()
def matched(
    recipe: AnyRecipe,
    *,
    model: str | Path | Pretrained | None = None,
    samples: int | None = None,
    seed: int | None = None,
    overrides: Overridden = (),
    progress: ItemProgress | bool | None = None,
) -> MatchedSets:
    """Generate the matched sets of a recipe with ``conditions``.

    >>> for item in dlmctl.matched("matched"):
    ...     print(item.passed, item.texts["short"].text, item.exchanged("short"), item.why)

    Args:
        recipe: the name of a bundled recipe, a file, a dict of settings, or a ``MatchedRecipe``.
        model: in place of the recipe's: a bundled name, a folder, a hub name, or a model already loaded.
        samples, seed: in place of the recipe's.
        overrides: settings that override those of a file, as for ``run``.
        progress: called with the items done and in all; by default a notebook shows a bar, False shows none.

    Raises:
        RecipeError: the recipe has no conditions.
        UserError: it cannot be read, does not validate, or requests what its model cannot do.
    """
    model_name, loaded = name_and_model(model)
    resolved, origin = recipe_from(recipe, overrides, model=model_name, samples=samples, seed=seed)
    if not isinstance(resolved, MatchedRecipe):
        where = None if origin is None else origin.where(())
        raise RecipeError("the recipe has no `conditions`.", where=where, remedy="`dlmctl.run` draws its texts.")
    with progress_or_bar(progress, "items") as item_progress:
        return run_matched(resolved, model=loaded, origin=origin, progress=item_progress)


@own_modes()
def run_matched(
    recipe: MatchedRecipe,
    *,
    model: Pretrained | None = None,
    origin: SettingsFile | None = None,
    progress: ItemProgress | None = None,
) -> MatchedSets:
    """Generate the items of a recipe. Items that fail are drawn again, up to ``until.max_rounds`` (4) rounds.

    Args:
        model: the recipe's model, if it is loaded already.
        origin: the recipe's file; errors about the recipe name the line.

    Raises:
        RecipeError: more than ``MAX_ITEMS`` items are requested.
        UserError: as ``generate``.
    """
    if recipe.samples > MAX_ITEMS:
        message = f"samples: a run makes at most {MAX_ITEMS:,} items."
        raise RecipeError(message, where=None if origin is None else origin.where(("samples",)))
    start = time.perf_counter()
    pretrained = load_model(recipe, origin, model)
    if origin is None:
        move_to_device(pretrained.model, find_device(recipe, None))
        matching = None
    else:
        matching = examine(recipe, pretrained, origin)  # which moves it, too
    run = _Run(recipe, pretrained, matching or matching_of(recipe, pretrained))
    best: dict[int, Item] = {}
    owners: dict[Texts, int] = {}
    word_owners: dict[str, int] = {}
    for round_number in range(run.until.max_rounds):
        open_items = [index for index in range(recipe.samples) if index not in best or not best[index].passed]
        if progress is not None:
            progress(recipe.samples - len(open_items), recipe.samples)
        if recipe.unique:
            run.matching.take(word_owners)
        for attempt in run.draw_round(open_items, round_number) if open_items else []:
            item = _unless_duplicate(attempt, owners)
            if recipe.unique:
                item = _unless_shared(item, word_owners)
            if item.index not in best or _quality(item) > _quality(best[item.index]):
                best[item.index] = item
    # An item that failed took all rounds, whichever round its best attempt is from.
    best_items = [best[index] for index in range(recipe.samples)]
    items = [item if item.passed else replace(item, rounds=run.until.max_rounds) for item in best_items]
    return MatchedSets(items, tuple(recipe.conditions), time.perf_counter() - start, recipe.control_for)


class _Run:
    """Draws the items of a run, round by round."""

    def __init__(self, recipe: MatchedRecipe, pretrained: Pretrained, matching: ControlFor) -> None:
        self.recipe, self.pretrained = recipe, pretrained
        self.prompt = read_prompt(pretrained, recipe.label, recipe.source, recipe.prompt)
        self.until = recipe.until or Until()
        self.controls, self.matching = matching.controls, matching

    def drawing_condition(self, index: int) -> str:
        """The condition that an item's text is drawn under."""
        if self.recipe.drawn is not None:
            return self.recipe.drawn
        names = list(self.recipe.conditions)
        return names[index % len(names)]

    def draw_round(self, indices: Sequence[int], round_number: int) -> list[Item]:
        """Draw each item once."""
        seed = (self.recipe.seed + round_number * SEED_STRIDE) % (MOST_NUMBER + 1)
        texts: dict[int, dict[str, Sample]] = {index: {} for index in indices}
        faults: dict[int, str] = {}
        for name in self.recipe.conditions:
            for sample in self._draw_frames(name, [i for i in indices if self.drawing_condition(i) == name], seed):
                texts[sample.index][name] = sample
        selections = [self.recipe.exchange] * len(indices)
        selected = selected_places(selections, [texts[index][self.drawing_condition(index)].words for index in indices])
        places = dict(zip(indices, map(tuple, selected), strict=True))
        kept = {
            index: KeptParams.around(texts[index][self.drawing_condition(index)].words, places[index])
            for index in indices
        }
        for name, control in self.controls.items():
            to_fill = [index for index in indices if self.drawing_condition(index) != name and places[index]]
            # The exchanged words must have these tags, rather than the most frequent tag of each word.
            hold_exchanged(control, {index: places[index] for index in to_fill}, self.recipe.exchange.tags)
            # Use different noise from that of the text, or it would yield the same word again.
            held: list[Control[Any]] = [KeptWords.by_sample(kept)]
            if self.matching.chooses:
                choices = self._choices(name, to_fill, places, texts)
                none_left = f"{name}: unique: other items have all words"
                if self.recipe.control_for:
                    none_left = f"{name}: control_for: no word is within the tolerances"
                faults = {index: none_left for index in to_fill if index not in choices} | faults
                held.append(ExchangedWords.by_sample(choices))
                to_fill = list(choices)
            for index, filled in self._fill(to_fill, held, control, (seed + 1) % (MOST_NUMBER + 1)).items():
                if isinstance(filled, Sample):
                    texts[index][name] = filled
                else:
                    faults.setdefault(index, f"{name}: {filled.what}")
        return [self._item(index, round_number, places[index], texts[index], faults.get(index)) for index in indices]

    def _draw_frames(self, name: str, indices: Sequence[int], seed: int) -> list[Sample]:
        """Draw the first text of items, with words for which the other conditions have some within the tolerances; if
        an item has no such text, any of its texts, which then fails."""
        control = self.controls[name]
        if not self.matching.chooses:
            return self._draw(indices, control, seed)
        held = [ExchangedWords.by_sample(self.matching.frames(name, indices))]
        drawn = self._fill(indices, held, control, seed).values() if indices else ()
        samples = [sample for sample in drawn if isinstance(sample, Sample)]
        unmet = sorted(set(indices) - {sample.index for sample in samples})
        return [*samples, *self._draw(unmet, control, seed)]

    def _choices(
        self,
        name: str,
        indices: Sequence[int],
        places: Mapping[int, Sequence[int]],
        texts: Mapping[int, Mapping[str, Sample]],
    ) -> dict[int, dict[int, frozenset[str]]]:
        """The words by place, from 1, within the tolerances of the texts so far, of each item that has some."""
        choices = {}
        for index in indices:
            length = len(texts[index][self.drawing_condition(index)].words)
            words = {
                place + 1: self.matching.choices(
                    index,
                    name,
                    Place(place, length),
                    {other: sample.words[place] for other, sample in texts[index].items()},
                )
                for place in places[index]
            }
            if all(words.values()):
                choices[index] = words
        return choices

    def _draw(self, indices: Sequence[int], control: Control[Any] | None, seed: int) -> list[Sample]:
        if not indices:
            return []
        # `until` applies to whole items, which the rounds of this run redraw.
        recipe = self.recipe.model_copy(update={"seed": seed, "until": None, "unique": False})
        return draw_recipe(recipe, control, self.pretrained, self.prompt, samples=indices).samples

    def _fill(
        self, indices: Sequence[int], held: Sequence[Control[Any]], control: Control[Any] | None, seed: int
    ) -> dict[int, Sample | UserError]:
        """Draw the texts of a condition with words ``held``; a text that cannot be drawn is an error instead."""
        combined = All([*held, *([] if control is None else [control])])
        try:
            samples = self._draw(indices, combined, seed)
            return {sample.index: _without_tolerances(sample) for sample in samples}
        except RecipeError as error:  # perhaps for one item only: the condition may ban one of its kept words
            if len(indices) == 1:
                return {indices[0]: error}
            return {
                index: fill for single in indices for index, fill in self._fill([single], held, control, seed).items()
            }

    def _item(
        self, index: int, round_number: int, places: tuple[int, ...], texts: dict[str, Sample], fault: str | None
    ) -> Item:
        texts = {name: texts[name] for name in self.controls if name in texts}
        properties = {
            name: [self.matching.properties(index, sample.words[place]) for place in places]
            for name, sample in texts.items()
        }
        differences = self.matching.differences(properties)
        why = fault or ("" if places else "no word to exchange") or self._failures(index, places, texts)
        why = why or "; ".join(self.matching.faults(differences))
        return Item(index, self.drawing_condition(index), places, texts, properties, why, round_number + 1, differences)

    def _failures(self, index: int, places: Sequence[int], texts: Mapping[str, Sample]) -> str:
        failed = [
            f"{name}: {label}: {check.why}"
            for name, sample in texts.items()
            if not satisfied(sample.checks, self.until)
            for label, check in sample.checks.items()
            if not check.passed
        ]
        # Checks judge words by the tagger's tags in each text; exchanged words must conform whatever their tags.
        failed += [] if failed else self._exchange_faults(index, places, texts)
        has_duplicates = len({tuple(sample.words) for sample in texts.values()}) < len(texts)
        return "; ".join([*failed, *(["two conditions have the same words"] if has_duplicates else [])])

    def _exchange_faults(self, index: int, places: Sequence[int], texts: Mapping[str, Sample]) -> list[str]:
        """The faults of exchanged words."""
        tags = self.recipe.exchange.tags
        return [
            f"{name}: {word!r} {fault}"
            for name, sample in texts.items()
            for place in places
            for word in [sample.words[place]]
            for fault in faults_of(self.controls[name], index, Exchanged(word, place, len(sample.words), tags))
        ]


def _without_tolerances(sample: Sample) -> Sample:
    """A text without the check of the words it was limited to: items are checked as a whole."""
    return replace(sample, checks={name: check for name, check in sample.checks.items() if name != ExchangedWords.name})


def _unless_duplicate(item: Item, owners: dict[Texts, int]) -> Item:
    """Record the texts of an item that passed; it fails if another item has the same texts."""
    if not item.passed:
        return item
    owner = owners.setdefault(tuple(tuple(sample.words) for sample in item.texts.values()), item.index)
    return item if owner == item.index else replace(item, why=f"the same texts as item {owner}")


def _unless_shared(item: Item, owners: dict[str, int]) -> Item:
    """Record the exchanged words of an item that passed; it fails if another item has one of them."""
    words = [word for condition in item.texts for word in item.exchanged(condition)]
    shared = next((word for word in words if owners.get(word.casefold(), item.index) != item.index), None)
    if shared is not None:
        return replace(item, why=item.why or f"item {owners[shared.casefold()]} has {shared!r}, too")
    owners.update({word.casefold(): item.index for word in words if item.passed})
    return item


def _quality(item: Item) -> tuple[bool, int, float]:
    """A sort key of attempts at an item: the greater the better."""
    checks = [check for sample in item.texts.values() for check in sample.checks.values()]
    return item.passed, len(item.texts), sum(check.score for check in checks)
