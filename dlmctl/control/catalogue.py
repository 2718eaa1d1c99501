"""Descriptions of the installed controls: the origin of each, its parameters, and a valid example.

A description needs the control's class, so its module is imported; only that shows whether the control works at all. A
control that fails stays in the list, with the reason.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import yaml
from pydantic.json_schema import DEFAULT_REF_TEMPLATE

from dlmctl.checkpoint.resolve import resolve
from dlmctl.checkpoint.user_weights import available_weights, has_bundled_weights
from dlmctl.control.base import Control
from dlmctl.control.registry import find_control, offered_controls, origin
from dlmctl.control.training_command import training_command
from dlmctl.control.user_files import parse_reference
from dlmctl.errors import UserError, typed_message


class Parameter(NamedTuple):
    """A parameter as shown to users; ``default`` is None if it is required, or computed anew each time."""

    name: str
    type: str
    required: bool
    default: str | None
    description: str
    examples: list[str]


class Broken(NamedTuple):
    """A control that cannot be used, its origin, and the reason."""

    name: str
    origin: str
    fault: str


@dataclass(frozen=True)
class Plugin:
    """A control that works.

    Attributes:
        name: its name in recipes.
        origin: package and version, or a user's file.
        module, attribute: where its class is imported from.
    """

    name: str
    origin: str
    module: str
    attribute: str
    kind: type[Control[Any]]

    @property
    def description(self) -> str:
        """The docstring of the class, empty if it has none, with code in single backticks."""
        return inspect.cleandoc(self.kind.__doc__ or "").replace("``", "`")

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.description.split("\n")[0]

    @property
    def trainable(self) -> bool:
        """Whether ``dlmctl train control`` has a classifier to train for it."""
        return self.kind.Labels is not None

    def weights(self, model: str) -> str:
        """Whether a model's folder has the weights of its classifier: present, missing or none needed; their names if
        any.

        Raises:
            ModelError: there is no such model.
        """
        folder = resolve(model)
        if not self.trainable:
            return "none needed"
        unnamed, named = available_weights(folder, self.kind.name)
        if not named and not unnamed:
            return "missing"
        return f"present: {', '.join(named)}" if named else "present"

    def training_notes(self, model: str | None) -> list[str]:
        """Lines of text: whether it needs weights, whether they are present, and the command that trains them."""
        if not self.trainable:
            return ["none needed: it has no classifier to train"]
        status = f"{self.weights(model)} for the model {model}" if model else "each model has its own (see --model)"
        data = "DATA is a data set made by `dlmctl data prepare`."
        if model and has_bundled_weights(model, self.name):
            command = training_command(self.kind, "COPY", out=f"runs/{self.kind.name}")
            return [status, f"They came with the model and stay. To train others copy its folder: {command}", data]
        command = training_command(self.kind, model or "MODEL", out=f"runs/{self.kind.name}")
        return [status, f"Train them with: {command}", data]

    def schema(self, ref_template: str = DEFAULT_REF_TEMPLATE) -> dict[str, Any]:
        """JSON schema of its parameters."""
        return self.kind.Params.model_json_schema(ref_template=ref_template)

    def parameters(self) -> list[Parameter]:
        """Its parameters, in order; if it takes names of the user's choice, a last entry describes those."""
        schema = self.schema()
        fields = dict(schema.get("properties", {}))
        if isinstance(extra := schema.get("additionalProperties"), dict):
            fields["any other name"] = {"description": "as many as you like", **extra}
        return [
            Parameter(
                name,
                type_name(field, schema.get("$defs", {})),
                name in schema.get("required", []),
                in_yaml(field["default"]) if "default" in field else None,
                field.get("description", ""),
                [in_yaml(example) for example in field.get("examples", [])],
            )
            for name, field in fields.items()
        ]

    @cached_property
    def example(self) -> dict[str, Any] | None:
        """Valid parameters, built from its author's examples, or None if those are not enough."""
        schema = self.schema()
        properties = schema.get("properties", {}).items()
        fields = {key: field["examples"][0] for key, field in properties if field.get("examples")}
        required = {key: value for key, value in fields.items() if key in schema.get("required", [])}
        # Parameters may exclude each other, so after all of them together each is tried alone.
        single = [{**required, key: value} for key, value in fields.items()]
        for candidate in [*schema.get("examples", []), fields, *single, required]:
            try:
                self.kind.Params.model_validate(candidate)
            except Exception:  # it is invalid, or a validator of its author fails
                continue
            return dict(candidate)
        return None

    def recipe_example(self, model: str) -> str | None:
        """A recipe with the example's parameters."""
        if self.example is None:
            return None
        recipe = {"model": model, "samples": 4, "controls": [{self.name: self.example}]}
        return yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)

    def python_example(self, model: str) -> str | None:
        """The recipe of ``recipe_example`` as Python code."""
        if self.example is None:
            return None
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.example.items())
        return (
            f"from {self.module} import {self.attribute}\n"
            "import dlmctl\n\n"
            f"control = {self.attribute}({arguments})\n"
            f"for sample in dlmctl.load({model!r}).generate(control, samples=4):\n"
            "    print(sample.text, sample.passed)\n"
        )


def installed() -> tuple[list[Plugin], list[Broken]]:
    """All controls that installed packages offer, by name: those that work and those that do not."""
    plugins, broken = [], []
    for name, (chosen, *_) in offered_controls().items():
        try:
            plugins.append(find_plugin(name))
        except UserError as error:
            broken.append(Broken(name, origin(chosen), error.what))
    return plugins, broken


def catalogue(model: str | None = None) -> list[dict[str, Any]]:
    """The ``installed`` controls as records: ``name``, ``summary``, ``origin`` and ``trainable``, or for those that do
    not work, ``name``, ``origin`` and ``fault``.

    Args:
        model: if given, ``weights`` says whether its folder has the weights of each control.

    Raises:
        ModelError: there is no such model.
    """
    plugins, broken = installed()
    records: list[dict[str, Any]] = [{"name": item.name, "origin": item.origin, "fault": item.fault} for item in broken]
    for plugin in plugins:
        record = {"name": plugin.name, "summary": plugin.summary, "origin": plugin.origin}
        weights = {} if model is None else {"weights": plugin.weights(model)}
        records.append({**record, "trainable": plugin.trainable, **weights})
    return sorted(records, key=lambda record: record["name"])


def find_plugin(name: str) -> Plugin:
    """The control ``name``, from a package or a user's file (``mine.py:Formal``).

    Raises:
        RecipeError: no installed package offers it.
        UserError: it cannot be used.
    """
    kind, reference = find_control(name), parse_reference(name)
    if reference is not None:
        plugin = Plugin(name, str(reference.path), reference.path.stem, reference.attribute, kind)
    else:
        point = offered_controls()[name][0]
        plugin = Plugin(name, origin(point), point.module, point.attr, kind)
    try:
        plugin.schema()
    except Exception as error:  # pydantic's errors for types without a JSON schema have no common base class
        raise UserError(
            f"has Params without a JSON schema: {typed_message(error)}.", where=f"control {name!r} of {plugin.origin}"
        ) from error
    return plugin


def in_yaml(value: Any) -> str:
    """A value as YAML on one line, as in a recipe."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n...\n").strip()


_BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
    "minLength": "of at least {} characters",
}


def type_name(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The type of a JSON schema in words: ``list of string``, ``number from 0 to 1``, ``ADJ or NOUN``."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        # A recursive type is named, not expanded again.
        others = {key: value for key, value in definitions.items() if key != name}
        return type_name(definitions[name], others) if name in definitions else name
    if "enum" in field or "const" in field:
        return " or ".join(in_yaml(value) for value in field.get("enum", [field.get("const")]))
    for alternatives in ("anyOf", "oneOf"):
        if alternatives in field:
            return " or ".join(dict.fromkeys(type_name(choice, definitions) for choice in field[alternatives]))
    kind = field.get("type", "anything")
    if kind == "array":
        count, item = _count_of_items(field), type_name(field.get("items", {}), definitions)
        kind = f"list of {count}{f'({item})' if count and ' or ' in item else item}"
    elif kind == "object" and "properties" in field:
        inner = ", ".join(f"{key}: {type_name(value, definitions)}" for key, value in field["properties"].items())
        kind = f"{{{inner}}}"
    elif kind == "object" and isinstance(field.get("additionalProperties"), dict):
        kind = f"mapping to {type_name(field['additionalProperties'], definitions)}"
    bounds = [template.format(field[key]) for key, template in _BOUNDS.items() if key in field]
    return " ".join([kind, *bounds])


def _count_of_items(field: dict[str, Any]) -> str:
    """How many items a list has, before what they are: ``2 ``, ``1 to 9 ``; empty for any number."""
    least, most = field.get("minItems", 0), field.get("maxItems")
    if most is None:
        return f"{least} or more " if least > 1 else ""
    return f"{most} " if least == most else f"{least} to {most} "
