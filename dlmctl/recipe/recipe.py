"""The recipe: what to generate, with which model, controls and sampler, as YAML or as Python objects.

A control stands in the list ``controls`` under its name, ``- pos: {tags: [...]}``, with an optional ``weight``
beside it; ``all``, ``any`` and ``not`` nest controls. A list of parameter sets (``- pos: [{...}, {...}]``) gives
each sample its own, in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dlmctl.checkpoint.bundled import bundled_names, bundled_path
from dlmctl.errors import RecipeError, UserError, nearest
from dlmctl.recipe.presets import Preset, filled
from dlmctl.recipe.settings import Criterion, Guidance, SamplerSettings, Until
from dlmctl.recipe.yaml_file import Place, line_of, parse
from dlmctl.text.fields import Given, Value

COMBINATIONS = ("all", "any", "not")


class ControlSpec(BaseModel):
    """One entry under ``controls``, taken apart."""

    model_config = ConfigDict(extra="forbid")

    name: str
    params: list[dict[str, Any]] = []
    parts: list[ControlSpec] = []
    weight: float = Field(1.0, ge=0)
    place: tuple[str | int, ...] = Field((), exclude=True)


class Recipe(BaseModel):
    """Everything that a run of ``dlmctl generate`` depends on."""

    model_config = ConfigDict(extra="forbid")

    description: str = Field("", description="what the recipe is for")
    model: str = Field("e2e", description="a bundled name, a folder, or a hub name")
    samples: int = Field(8, ge=1, description="how many texts")
    seed: int = Field(0, ge=0, description="same seed, same texts, but for the rounding of a batch")
    label: Value | list[Value] | None = Field(
        None, description="of a model with labels: the label of the texts, or a list dealt out to them in turn"
    )
    source: Given | list[Given] | None = Field(
        None, description="of a model with a source: a text, or fields and values, to write from, or a list of such"
    )
    controls: list[dict[str, Any]] = Field(default_factory=list, description="what the texts must satisfy")
    preset: Preset = Field("balanced", description="settings of sampler and guidance where the recipe says nothing")
    sampler: SamplerSettings = SamplerSettings()
    guidance: Guidance = Guidance()
    until: Until | None = Field(None, description="draw texts again that are not good enough; the best are kept")
    candidates: int = Field(1, ge=1, description="texts drawn for each sample in each round; the best is kept")
    rank_by: list[Criterion] = Field(
        ["satisfaction"],
        min_length=1,
        description="what makes a text the best: satisfaction of the controls, lm_score, worst_word, mbr",
    )
    batch_size: int = Field(64, ge=1, description="most samples in one batch")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return filled(value)

    def control_specs(self) -> list[ControlSpec]:
        """The entries of ``controls`` taken apart.

        Raises:
            RecipeError: an entry has not exactly one control.
        """
        return [_spec(entry, ("controls", index)) for index, entry in enumerate(self.controls)]


def _spec(entry: Any, place: Place) -> ControlSpec:
    if not isinstance(entry, dict):
        raise _Misplaced(place, f"a control is written `name: {{parameters}}`, not {entry!r}.")
    names = [key for key in entry if key != "weight"]
    if len(names) != 1:
        listed = ", ".join(map(repr, names)) or "none"
        raise _Misplaced(place, f"each list item holds one control (and perhaps `weight`), here: {listed}.")
    name, value, weight = names[0], entry[names[0]], entry.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < float("inf"):
        raise _Misplaced((*place, "weight"), f"weight must be a number from 0, not {weight!r}.")
    inside = (*place, name)
    if name in COMBINATIONS:
        children = value if isinstance(value, list) else [value]
        if name == "not" and len(children) != 1:
            raise _Misplaced(inside, "`not` takes one control.")
        if not children:
            raise _Misplaced(inside, f"`{name}` needs controls inside.")
        nested = isinstance(value, list)
        parts = [_spec(child, (*inside, index) if nested else inside) for index, child in enumerate(children)]
        return ControlSpec(name=name, parts=parts, weight=weight, place=inside)
    sets = value if isinstance(value, list) else [value]
    params = [item if isinstance(item, dict) else {} if item is None else _not_params(inside, item) for item in sets]
    return ControlSpec(name=name, params=params, weight=weight, place=inside)


def _not_params(place: Place, item: Any) -> dict[str, Any]:
    raise _Misplaced(place, f"parameters are written as a mapping, not {item!r}.")


class _Misplaced(Exception):
    def __init__(self, place: Place, what: str, remedy: str | None = None) -> None:
        self.place, self.what, self.remedy = place, what, remedy


class Source:
    """Where settings came from: the file's name, the line of every value, and what the command line laid over it."""

    def __init__(self, name: str, lines: dict[Place, int], overridden: Sequence[Place] = ()) -> None:
        self.name, self.lines, self.overridden = name, lines, overridden

    def error(self, place: Place, what: str, remedy: str | None = None) -> RecipeError:
        # What the command line set lies around the place at fault, or inside it.
        theirs = any(a == b for a, b in ((place[: len(o)], o[: len(place)]) for o in self.overridden))
        where = "command line" if theirs else f"{self.name}:{line_of(place, self.lines)}"
        return RecipeError(what, where=where, remedy=remedy)


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path or by bundled name (``pos`` or ``pos.yaml``).

    Raises:
        RecipeError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    found = bundled_path("recipes", path.name.removesuffix(".yaml"))
    if found is not None and path.parent == Path("."):
        return found
    known = bundled_names("recipes")
    if found is not None:
        raise RecipeError("there is no such file.", where=name, remedy=f"The bundled recipe is named {path.stem!r}.")
    raise RecipeError("there is no such recipe file.", where=name, remedy=f"Bundled recipes: {', '.join(known)}.")


def load_recipe(name: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Source]:
    """Read and validate a recipe, controls' parameters included.

    Args:
        name: a path or the name of a bundled recipe.
        overrides: ``key=value`` settings laid over it, keys dotted (``sampler.steps=20``), values YAML.

    Raises:
        RecipeError: it cannot be read or does not validate; the message names file and line.
    """
    path = find_recipe(name)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}.", where=str(path)) from None
    return read_recipe(text, str(path), overrides)


def read_recipe(text: str, name: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Source]:
    """``load_recipe`` for a YAML text at hand; ``name`` stands for the file in messages."""
    value, lines = parse(text, name)
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise RecipeError("a recipe is a mapping of settings.", where=f"{name}:1", remedy="See `dlmctl recipe schema`.")
    source = Source(name, lines, [override(value, text) for text in overrides])
    try:
        recipe = Recipe.model_validate(value)
        for spec in recipe.control_specs():
            _validate_params(spec)
    except ValidationError as error:
        raise explain(error, Recipe, (), source) from None
    except _Invalid as invalid:
        raise explain(invalid.error, invalid.kind, invalid.place, source) from None
    except _Misplaced as misplaced:
        raise source.error(misplaced.place, misplaced.what, misplaced.remedy) from None
    return recipe, source


class _Invalid(Exception):
    def __init__(self, error: ValidationError, kind: type[BaseModel], place: Place) -> None:
        self.error, self.kind, self.place = error, kind, place


def _validate_params(spec: ControlSpec) -> None:
    from dlmctl.control.registry import find_control

    for part in spec.parts:
        _validate_params(part)
    if spec.name in COMBINATIONS:
        return
    try:
        control = find_control(spec.name)
    except UserError as error:
        raise _Misplaced(spec.place, str(error)) from None
    for index, params in enumerate(spec.params):
        try:
            control.Params.model_validate(params)
        except ValidationError as error:
            inner = (*spec.place, index) if len(spec.params) > 1 else spec.place
            raise _Invalid(error, control.Params, inner) from None


def explain(error: ValidationError, kind: type[BaseModel], place: Place, source: Source) -> RecipeError:
    """One message for the first thing that pydantic found."""
    first = error.errors()[0]
    where: Place = (*place, *(part for part in first["loc"]))
    dotted = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        *outer, key = first["loc"]
        known = _keys_at(kind, outer)
        return source.error(where, f"unknown key {key!r}.", nearest(str(key), known) if known else None)
    if first["type"] == "missing":
        return source.error(where, f"{dotted} is required.")
    head = f"{dotted}: " if dotted else ""
    if first["type"] == "value_error":  # a sentence of ours, perhaps with a hint behind it
        message = first["msg"].removeprefix("Value error, ")
        return source.error(where, head + message + ("" if message[-1] in ".?" else "."))
    message = "should be a mapping" if first["type"] == "model_type" else first["msg"]
    message = message[0].lower() + message[1:]
    given = repr(first["input"])
    said = "" if ", not " in message or len(given) > 60 else f", not {given}"
    return source.error(where, f"{head}{message}{said}.")


def _keys_at(kind: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys that the model at ``path`` inside ``kind`` knows, or whichever of several models may stand there."""
    kinds = [kind]
    for part in path:
        if not isinstance(part, int):
            fields = [found for kind in kinds if (found := kind.model_fields.get(part))]
            kinds = [model for field in fields for model in _models_in(field.annotation)]
    return list(dict.fromkeys(name for kind in kinds for name in kind.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models in a type such as ``list[Span] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def override(settings: dict[str, Any], setting: str) -> Place:
    """Lay one ``key=value`` over ``settings`` (key dotted, value YAML) and return the place it went to.

    Raises:
        RecipeError: it is not ``key=value``, or there is no such place.
    """
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"{setting!r} is not key=value.", where="--set", remedy="For example sampler.steps=20.")
    try:
        value, _ = parse(text, "value")
    except RecipeError:
        raise RecipeError(f"{text!r} is not a YAML value.", where=f"--set {key}") from None
    *parents, last = key.split(".")
    inner: Any = settings
    place: list[str | int] = []
    for parent in parents:
        place.append(_step(inner, parent, key))
        inner = inner.setdefault(parent, {}) if isinstance(inner, dict) else inner[place[-1]]
        if not isinstance(inner, dict | list):
            raise RecipeError(f"{parent!r} holds a value, not settings.", where=f"--set {key}")
    place.append(_step(inner, last, key))
    inner[place[-1]] = value
    return tuple(place)


def _step(inner: dict[str, Any] | list[Any], step: str, key: str) -> str | int:
    if isinstance(inner, dict):
        return step
    if step.isdecimal() and int(step) < len(inner):
        return int(step)
    raise RecipeError(f"{step!r} is not an item of a list of {len(inner)}.", where=f"--set {key}")


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe, with the parameters of every installed control that works."""
    from dlmctl.control.catalogue import installed
    from dlmctl.control.registry import log

    schema = Recipe.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    entries: dict[str, Any] = {"weight": {"type": "number", "minimum": 0, "default": 1.0}}
    plugins, broken = installed()
    for name, source, fault in broken:
        log.warning("dlmctl: the schema is without control %r of %s: it %s", name, source, fault)
    for plugin in plugins:
        # Two controls may each have a nested model of one name, so each has a corner of its own.
        corner = f"control_{plugin.name}"
        params = plugin.schema(ref_template=f"#/$defs/{corner}.{{model}}")
        definitions.update({f"{corner}.{key}": value for key, value in params.pop("$defs", {}).items()})
        definitions[corner] = params
        one = {"$ref": f"#/$defs/{corner}"}
        entries[plugin.name] = {"anyOf": [one, {"type": "array", "items": one}]}
    control = {"$ref": "#/$defs/control"}
    for name in ("all", "any"):
        entries[name] = {"type": "array", "items": control, "minItems": 1}
    entries["not"] = control
    definitions["control"] = {
        "type": "object",
        "properties": entries,
        "additionalProperties": False,
        "maxProperties": 2,
    }
    schema["properties"]["controls"]["items"] = control
    return schema
