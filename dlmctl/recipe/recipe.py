"""The recipe: what to generate, with which model, controls and sampler, as YAML or as Python objects.

A control stands in the list ``controls`` under its name, ``- pos: {tags: [...]}``, with an optional ``weight``
beside it; ``all``, ``any`` and ``not`` nest controls. A list of parameter sets (``- pos: [{...}, {...}]``) gives
each sample its own, in turn. ``- length: 8`` is short for the first parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StrictBool,
    StrictInt,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from dlmctl.control.argument_checks import MOST_WEIGHT
from dlmctl.control.base import Composite, Control
from dlmctl.control.registry import find_control
from dlmctl.control.shorthand import is_short, written_out
from dlmctl.errors import RecipeError, UserError
from dlmctl.recipe.presets import Preset, filled
from dlmctl.recipe.settings import DEVICES, Criterion, Guidance, Quota, SamplerSettings, TextPrompt, Until
from dlmctl.recipe.yaml_file import MOST_NUMBER, Place
from dlmctl.text.fields import Given, Value

COMBINATIONS = ("all", "any", "not")
# Of one recipe, nested ones counted; of one control.
MOST_CONTROLS, MOST_SETS = 100, 10_000
# Rows of a table inside a recipe; a file of them may have more.
MOST_TARGETS = 100_000

Item = TypeVar("Item")
Some = Annotated[list[Item], Field(min_length=1)]

# Said of a ``second_scorer`` that nothing would ask.
SECOND_IDLE = "is asked by the criterion `fluency` alone, and nothing ranks by it."
RANK_BY_FLUENCY = "Write `rank_by: [satisfaction, fluency]`, with some `candidates`."
# The bundled model of everyday English.
DEFAULT_MODEL = "everyday"


class ControlSpec(BaseModel):
    """One entry under ``controls``, taken apart.

    Attributes:
        made: the control, where the entry is one already; it has no ``params`` then.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: str
    params: list[dict[str, Any]] = []
    parts: list[ControlSpec] = []
    weight: float = Field(default=1.0, ge=0)
    place: tuple[str | int, ...] = Field(default=(), exclude=True)
    made: Control[Any] | None = Field(default=None, exclude=True)

    def place_of(self, number: int) -> Place:
        """Where the set of parameters with this number stands: in a list of several, or alone."""
        return (*self.place, number) if len(self.params) > 1 else self.place


class _Entry:
    """How pydantic reads an entry under ``controls``: a mapping as in YAML, or a control, which is written as one."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda value, read: value if isinstance(value, Control) else read(value),
            handler(dict[str, Any]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda entry: entry_of(entry) if isinstance(entry, Control) else entry
            ),
        )


Entry = Annotated[dict[str, Any] | Control[Any], _Entry()]


def _or_one(schema: dict[str, Any]) -> None:
    """To the JSON schema of a list: or one of its items alone."""
    one = schema["items"]
    several = {key: schema.pop(key) for key in ("type", "items", "minItems", "maxItems") if key in schema}
    schema["anyOf"] = [several, one]


def _or_yes_or_no(schema: dict[str, Any]) -> None:
    """To the JSON schema of settings: or whether they hold at all."""
    schema["anyOf"].append({"type": "boolean"})


class Recipe(BaseModel):
    """Everything that a run of ``dlmctl generate`` depends on.

    In Python ``controls`` may hold control objects, too: ``Recipe(controls=[Length(words=7)])``.
    """

    model_config = ConfigDict(extra="forbid")

    description: str = Field(default="", description="what the recipe is for")
    model: str = Field(
        default=DEFAULT_MODEL, min_length=1, max_length=1000, description="a bundled name, a folder, or a hub name"
    )
    samples: StrictInt = Field(default=8, ge=1, le=10**9, description="how many texts")
    seed: StrictInt = Field(
        default=0, ge=0, le=MOST_NUMBER, description="same seed, same texts, but for the rounding of a batch"
    )
    targets: str | list[dict[str, Any]] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_TARGETS,
        description="a table whose rows fill the placeholders {column} of controls, label and source, `samples` texts "
        "each: a file (.csv, .tsv, .jsonl, .txt), - for standard input, or a list of rows",
    )
    label: Value | Some[Value] | None = Field(
        default=None, description="of a model with labels: the label of the texts, or a list dealt out to them in turn"
    )
    source: Given | Some[Given] | None = Field(
        default=None,
        description="of a model with a source: a text, or fields and values, to write from, or a list of such",
    )
    prompt: str | TextPrompt | Some[str | TextPrompt] | None = Field(
        default=None, description="of a model over tokens: what the texts answer, or go on from, or a list of such"
    )
    controls: list[Entry] = Field(default_factory=list, description="what the texts must satisfy")
    preset: Preset = Field(
        default="balanced", description="settings of sampler and guidance where the recipe says nothing"
    )
    sampler: SamplerSettings = SamplerSettings()
    guidance: Guidance = Guidance()
    quota: Quota | None = Field(
        default=None,
        description="draw until `samples` texts (of each row of targets) pass and differ, within a bound; true for 20 "
        "attempts a text",
        json_schema_extra=_or_yes_or_no,
    )
    unique: StrictBool = Field(
        default=False, description="no text twice, and none of the model's training text where it is known"
    )
    until: Until | None = Field(
        default=None, description="draw texts again that are not good enough; the best are kept"
    )
    candidates: StrictInt = Field(
        default=1, ge=1, le=1000, description="texts drawn for each sample in each round; the best is kept"
    )
    rank_by: list[Criterion] = Field(
        default=["satisfaction"],
        min_length=1,
        max_length=10,
        description="what makes a text the best: satisfaction of the controls, acceptability, fluency, lm_score, "
        "worst_word, mbr",
        json_schema_extra=_or_one,
    )
    second_scorer: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="a causal language model of Hugging Face, by folder or hub name, that `fluency` in rank_by asks "
        "beside the model's own scorer",
    )
    batch_size: StrictInt = Field(default=64, ge=1, le=65_536, description="most samples in one batch")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return filled(value, DEFAULT_MODEL)

    @field_validator("rank_by", mode="before")
    @classmethod
    def _one_criterion(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("quota", mode="before")
    @classmethod
    def _with_a_quota_or_without(cls, value: Any) -> Any:
        return (Quota() if value else None) if isinstance(value, bool) else value

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not DEVICES.fullmatch(device):
            raise ValueError(f"device {device!r} cannot be used; use auto, cpu, cuda, cuda:1 or mps")
        return device

    @model_validator(mode="after")
    def _second_scorer_is_asked(self) -> Self:
        if self.second_scorer is not None and "fluency" not in self.rank_by:
            raise ValueError(f"second_scorer {SECOND_IDLE} {RANK_BY_FLUENCY}")
        return self

    def control_specs(self) -> list[ControlSpec]:
        """The entries of ``controls`` taken apart.

        Raises:
            RecipeError: an entry has not exactly one control.
        """
        return specs_at(self.controls, ("controls",))

    def spec_sets(self) -> list[list[ControlSpec]]:
        """The entries that hold together, of each kind of text that the recipe asks for: here of the only one.

        Raises:
            RecipeError: as ``control_specs``.
        """
        return [self.control_specs()]


class Misplaced(RecipeError):
    """A fault of a recipe, its place a path; whoever knows the file makes it a line."""

    def __init__(self, place: Place, what: str, remedy: str | None = None) -> None:
        super().__init__(what, where=".".join(map(str, place)), remedy=remedy)
        self.place = place


def specs_at(entries: Sequence[Any], place: Place) -> list[ControlSpec]:
    """The entries of a list of controls, which stands at ``place``, taken apart.

    Raises:
        RecipeError: an entry has not exactly one control, or there are too many.
    """
    specs = [_spec(entry, (*place, index)) for index, entry in enumerate(entries)]
    if sum(1 for _ in every(specs)) > MOST_CONTROLS:
        raise Misplaced(place, f"there are more than {MOST_CONTROLS} controls.")
    return specs


def every(specs: list[ControlSpec]) -> Iterator[ControlSpec]:
    """The entries and all that they hold."""
    for spec in specs:
        yield spec
        yield from every(spec.parts)


def entry_of(control: Control[Any]) -> dict[str, Any]:
    """A control as an entry under ``controls``."""
    if isinstance(control, Composite):
        parts = [entry_of(part) for part in control.parts]
        entry: dict[str, Any] = {control.name: parts[0] if control.name == "not" else parts}
    else:
        sets = [params.model_dump(mode="json", exclude_unset=True) for params in control.sets]
        entry = {control.name: sets[0] if len(sets) == 1 else sets}
    own = type(control).weight
    return entry if control.weight == own else {**entry, "weight": control.weight / own if own else control.weight}


def _spec(entry: Any, place: Place) -> ControlSpec:
    if isinstance(entry, Control):
        parts = [_spec(part, place) for part in entry.parts] if isinstance(entry, Composite) else []
        return ControlSpec(name=entry.name, parts=parts, place=place, made=entry)
    if not isinstance(entry, dict):
        raise Misplaced(place, f"a control is written `name: {{parameters}}`, not {entry!r}.")
    names = [key for key in entry if key != "weight"]
    if len(names) != 1:
        listed = ", ".join(map(repr, names)) or "none"
        raise Misplaced(place, f"each list item holds one control (and perhaps `weight`), here: {listed}.")
    name, value, weight = names[0], entry[names[0]], entry.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight <= MOST_WEIGHT:
        raise Misplaced((*place, "weight"), f"weight must be a number from 0 to {MOST_WEIGHT:.0f}, not {weight!r}.")
    inside = (*place, name)
    if name in COMBINATIONS:
        return _combination(name, value, weight, inside)
    sets = value if isinstance(value, list) else [value]
    if is_short(value):
        sets = _written_out(name, value, inside)
    if not sets:
        raise Misplaced(inside, f"`{name}` has an empty list of parameter sets.")
    if len(sets) > MOST_SETS:
        raise Misplaced(inside, f"`{name}` has more than {MOST_SETS:,} sets of parameters.")
    params = [item if isinstance(item, dict) else {} if item is None else _not_params(inside, item) for item in sets]
    return ControlSpec(name=name, params=params, weight=weight, place=inside)


def _combination(name: str, value: Any, weight: float, place: Place) -> ControlSpec:
    children = value if isinstance(value, list) else [value]
    if name == "not" and len(children) != 1:
        raise Misplaced(place, "`not` takes one control.")
    if not children:
        raise Misplaced(place, f"`{name}` needs controls inside.")
    nested = isinstance(value, list)
    parts = [_spec(child, (*place, index) if nested else place) for index, child in enumerate(children)]
    if name == "not" and parts[0].name == "not":  # what is not not so is so, and exactly where that can be had
        (inner,) = parts[0].parts
        return inner.model_copy(update={"weight": weight * parts[0].weight * inner.weight})
    if name == "any" and not any(part.weight for part in parts):
        raise Misplaced(place, "`any` needs a control whose weight is above 0.")
    return ControlSpec(name=name, parts=parts, weight=weight, place=place)


def _written_out(name: str, value: Any, place: Place) -> list[dict[str, Any]]:
    try:
        return written_out(find_control(name).Params, value)
    except UserError as error:
        raise Misplaced(place, str(error)) from None


def _not_params(place: Place, item: Any) -> dict[str, Any]:
    name = place[-1]
    raise Misplaced(
        place, f"parameters are written as a mapping, not {item!r}.", f"`dlmctl controls show {name}` has an example."
    )


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)
