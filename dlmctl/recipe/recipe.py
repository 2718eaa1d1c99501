"""The recipe: what to generate, with which model, controls and sampler, as YAML or as Python objects.

An entry of the list ``controls`` is a control under its name, ``- pos: {tags: [...]}``, with an optional ``weight``;
``all``, ``any`` and ``not`` nest controls. A list of parameter sets (``- pos: [{...}, {...}]``) gives each sample its
own, in turn. ``- length: 8`` is shorthand for the first parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn, Self, TypeVar

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

from dlmctl.control.argument_checks import MAX_WEIGHT, no_function
from dlmctl.control.base import Composite, Control
from dlmctl.control.registry import find_control
from dlmctl.control.shorthand import is_short, written_out
from dlmctl.errors import RecipeError, UserError
from dlmctl.recipe.presets import Preset, PresetSettings, beyond_preset, with_preset
from dlmctl.recipe.readable import ReadableSettings
from dlmctl.recipe.settings import DEVICES, Criterion, Guidance, Quota, SamplerSettings, TextPrompt, Until
from dlmctl.recipe.yaml_file import MOST_NUMBER, Place
from dlmctl.text.fields import Source, Value
from dlmctl.text.plain_values import plain_value

COMBINATIONS = ("all", "any", "not")
# Controls in one recipe, nested ones included; parameter sets of one control.
MOST_CONTROLS, MOST_SETS = 100, 10_000
# Rows of a table inside a recipe; files may have more.
MOST_TARGETS = 100_000

Item = TypeVar("Item")
NonEmpty = Annotated[list[Item], Field(min_length=1)]

# The error for a ``second_scorer`` that would not be used.
UNUSED_SECOND_SCORER = "is used by the criterion `fluency` only, and nothing ranks by it."
RANK_BY_FLUENCY = "Write `rank_by: [satisfaction, fluency]`, with some `candidates`."
# The bundled model of everyday English.
DEFAULT_MODEL = "everyday"


class ControlSpec(BaseModel):
    """One parsed entry under ``controls``.

    Attributes:
        control: the control, if the entry is a control object; ``params`` is then empty.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: str
    params: list[dict[str, Any]] = []
    parts: list[ControlSpec] = []
    weight: float = Field(default=1.0, ge=0)
    place: tuple[str | int, ...] = Field(default=(), exclude=True)
    control: Control[Any] | None = Field(default=None, exclude=True)

    def place_of(self, number: int) -> Place:
        """The place of the parameter set with this number: in a list if there are several, or alone."""
        return (*self.place, number) if len(self.params) > 1 else self.place


class _Entry:
    """The pydantic type of an entry under ``controls``: a mapping as in YAML, or a control, serialised as one."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda value, read: value if isinstance(value, Control) else read(no_function(value)),
            handler(dict[str, Any]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda entry: entry_of(entry) if isinstance(entry, Control) else entry
            ),
        )


Entry = Annotated[dict[str, Any] | Control[Any], _Entry()]


def _allow_single_item(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a list also accept a single item."""
    item_schema = schema["items"]
    list_schema = {key: schema.pop(key) for key in ("type", "items", "minItems", "maxItems") if key in schema}
    schema["anyOf"] = [list_schema, item_schema]


def _allow_boolean(schema: dict[str, Any]) -> None:
    """Let the JSON schema of settings also accept a boolean, which turns them on or off."""
    schema["anyOf"].append({"type": "boolean"})


class Recipe(ReadableSettings):
    """Everything that a run of ``dlmctl generate`` depends on.

    In Python, ``controls`` may also hold control objects: ``Recipe(controls=[Length(words=7)])``. ``changed`` makes a
    copy with other settings, ``dlmctl.save_recipe`` a file.

    Raises:
        SettingsError: the settings do not validate; it is both a RecipeError and a ValueError.
    """

    model_config = ConfigDict(extra="forbid")

    description: str = Field(default="", description="what the recipe is for")
    model: str = Field(
        default=DEFAULT_MODEL, min_length=1, max_length=1000, description="a bundled name, a folder, or a hub name"
    )
    samples: StrictInt = Field(default=8, ge=1, le=10**9, description="how many texts")
    seed: StrictInt = Field(
        default=0, ge=0, le=MOST_NUMBER, description="same seed, same texts, up to the rounding in a batch"
    )
    targets: str | list[dict[str, Any]] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_TARGETS,
        description="a table whose rows fill the placeholders {column} of controls, label and source, `samples` texts "
        "each: a file (.csv, .tsv, .jsonl, .txt), - for standard input, or a list of rows",
    )
    label: Value | NonEmpty[Value] | None = Field(
        default=None, description="for models with labels: the label of the texts, or a list assigned to them in turn"
    )
    source: Source | NonEmpty[Source] | None = Field(
        default=None,
        description="for models with a source: a text, or fields and values, to write from, or a list of them",
    )
    prompt: str | TextPrompt | NonEmpty[str | TextPrompt] | None = Field(
        default=None, description="for models over tokens: the prompt that the texts answer or continue, or a list"
    )
    controls: list[Entry] = Field(default_factory=list, description="what the texts must satisfy")
    preset: Preset = Field(
        default="balanced", description="settings of sampler and guidance that the recipe does not set"
    )
    sampler: SamplerSettings = SamplerSettings()
    guidance: Guidance = Guidance()
    quota: Quota | None = Field(
        default=None,
        description="draw until `samples` texts (for each row of targets) pass and differ, within a bound; true: 20 "
        "attempts per text",
        json_schema_extra=_allow_boolean,
    )
    unique: StrictBool = Field(
        default=False,
        description="no text twice, and none from the model's training text, if that is known; for matched sets: no "
        "exchanged word in two items",
    )
    until: Until | None = Field(default=None, description="redraw texts that are not good enough; the best are kept")
    candidates: StrictInt = Field(
        default=1, ge=1, le=1000, description="texts drawn for each sample in each round; the best is kept"
    )
    rank_by: list[Criterion] = Field(
        default=["satisfaction"],
        min_length=1,
        max_length=10,
        description="criteria for the best text: satisfaction of the controls, acceptability, fluency, lm_score, "
        "worst_word, mbr",
        json_schema_extra=_allow_single_item,
    )
    scorer: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="scores the texts in place of the model's own scorer: a scorer, a model that has one (`everyday`), "
        "or a causal language model of Hugging Face, by folder or hub name",
    )
    second_scorer: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="a causal language model of Hugging Face, by folder or hub name, that `fluency` in rank_by uses "
        "in addition to the model's own scorer",
    )
    batch_size: StrictInt = Field(default=64, ge=1, le=65_536, description="most samples in one batch")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:
        return with_preset(plain_value(value), DEFAULT_MODEL)

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        if hasattr(value, "tokenizer"):
            raise ValueError("a recipe names its model; one already loaded goes to `dlmctl.run(recipe, model=...)`")
        return value

    @field_validator("rank_by", mode="before")
    @classmethod
    def _wrap_single_criterion(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("quota", mode="before")
    @classmethod
    def _read_boolean_quota(cls, value: Any) -> Any:
        return (Quota() if value else None) if isinstance(value, bool) else value

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not DEVICES.fullmatch(device):
            raise ValueError(f"device {device!r} cannot be used; use auto, cpu, cuda, cuda:1 or mps")
        return device

    @model_validator(mode="after")
    def _second_scorer_is_used(self) -> Self:
        if self.second_scorer is not None and "fluency" not in self.rank_by:
            raise ValueError(f"second_scorer {UNUSED_SECOND_SCORER} {RANK_BY_FLUENCY}")
        return self

    def given(self) -> dict[str, Any]:
        """The settings that make this recipe; of ``sampler`` and ``guidance`` those that differ from the preset's."""
        sections = beyond_preset(self.preset, self.model, PresetSettings(self.sampler, self.guidance))
        others = {name: value for name, value in super().given().items() if name not in sections}
        return others | {name: own for name, own in sections.items() if own}

    def control_specs(self) -> list[ControlSpec]:
        """The parsed entries of ``controls``.

        Raises:
            RecipeError: an entry does not have exactly one control.
        """
        return specs_at(self.controls, ("controls",))

    def spec_sets(self) -> list[list[ControlSpec]]:
        """The entries that apply together, for each kind of text that the recipe asks for: here the only kind.

        Raises:
            RecipeError: as ``control_specs``.
        """
        return [self.control_specs()]


class Misplaced(RecipeError):
    """A fault of a recipe at a path in its settings; code that knows the file turns the path into a line."""

    def __init__(self, place: Place, what: str, remedy: str | None = None) -> None:
        super().__init__(what, where=".".join(map(str, place)), remedy=remedy)
        self.place = place


def specs_at(entries: Sequence[Any], place: Place) -> list[ControlSpec]:
    """The parsed entries of a list of controls at ``place``.

    Raises:
        RecipeError: an entry does not have exactly one control, or there are too many controls.
    """
    specs = [_spec(entry, (*place, index)) for index, entry in enumerate(entries)]
    if sum(1 for _ in nested_specs(specs)) > MOST_CONTROLS:
        raise Misplaced(place, f"there are more than {MOST_CONTROLS} controls.")
    return specs


def nested_specs(specs: list[ControlSpec]) -> Iterator[ControlSpec]:
    """Yield the entries and all entries nested in them."""
    for spec in specs:
        yield spec
        yield from nested_specs(spec.parts)


def entry_of(control: Control[Any]) -> dict[str, Any]:
    """A control as an entry under ``controls``."""
    if isinstance(control, Composite):
        parts = [entry_of(part) for part in control.parts]
        entry: dict[str, Any] = {control.name: parts[0] if control.name == "not" else parts}
    else:
        sets = [params.model_dump(mode="json", exclude_unset=True) for params in control.sets]
        entry = {control.name: sets[0] if len(sets) == 1 else sets}
    base = type(control).weight
    return entry if control.weight == base else {**entry, "weight": control.weight / base if base else control.weight}


def _spec(entry: Any, place: Place) -> ControlSpec:
    if isinstance(entry, Control):
        parts = [_spec(part, place) for part in entry.parts] if isinstance(entry, Composite) else []
        return ControlSpec(name=entry.name, parts=parts, place=place, control=entry)
    if not isinstance(entry, dict):
        raise Misplaced(place, f"a control is written `name: {{parameters}}`, not {entry!r}.")
    names = [key for key in entry if key != "weight"]
    if len(names) != 1:
        listed = ", ".join(map(repr, names)) or "none"
        remedy = "Each needs a dash of its own." if names else None
        raise Misplaced(place, f"each list item holds one control (and perhaps `weight`), here: {listed}.", remedy)
    name, value, weight = names[0], entry[names[0]], entry.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight <= MAX_WEIGHT:
        raise Misplaced((*place, "weight"), f"weight must be a number from 0 to {MAX_WEIGHT:.0f}, not {weight!r}.")
    value_place = (*place, name)
    if name in COMBINATIONS:
        return _combination(name, value, weight, value_place)
    sets = value if isinstance(value, list) else [value]
    if is_short(value):
        sets = _expand_shorthand(name, value, value_place)
    if not sets:
        raise Misplaced(value_place, f"`{name}` has an empty list of parameter sets.")
    if len(sets) > MOST_SETS:
        raise Misplaced(value_place, f"`{name}` has more than {MOST_SETS:,} sets of parameters.")
    params = [
        item if isinstance(item, dict) else {} if item is None else _refuse_params(value_place, item) for item in sets
    ]
    return ControlSpec(name=name, params=params, weight=weight, place=value_place)


def _combination(name: str, value: Any, weight: float, place: Place) -> ControlSpec:
    children = value if isinstance(value, list) else [value]
    if name == "not" and len(children) != 1:
        raise Misplaced(place, "`not` takes one control.", "For several: `not: {any: [..., ...]}`.")
    if not children:
        raise Misplaced(place, f"`{name}` needs controls inside.")
    is_list = isinstance(value, list)
    parts = [_spec(child, (*place, index) if is_list else place) for index, child in enumerate(children)]
    if name == "not" and parts[0].name == "not":  # a double negation is dropped, so that the control can be exact
        (inner,) = parts[0].parts
        return inner.model_copy(update={"weight": weight * parts[0].weight * inner.weight})
    if name == "any" and not any(part.weight for part in parts):
        raise Misplaced(place, "`any` needs a control whose weight is above 0.")
    return ControlSpec(name=name, parts=parts, weight=weight, place=place)


def _expand_shorthand(name: str, value: Any, place: Place) -> list[dict[str, Any]]:
    try:
        return written_out(find_control(name).Params, value)
    except UserError as error:
        raise Misplaced(place, str(error)) from None


def _refuse_params(place: Place, item: Any) -> NoReturn:
    name = place[-1]
    raise Misplaced(
        place, f"parameters are written as a mapping, not {item!r}.", f"`dlmctl controls show {name}` has an example."
    )


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)
