"""A recipe as the Python program that draws the same texts."""

from __future__ import annotations

from typing import Any

from dlmctl.control.base import Control
from dlmctl.control.catalogue import find_plugin
from dlmctl.recipe.recipe import ControlSpec, Recipe, entry_of, specs_at

_JOINED = {"all": "All", "any": "AnyOf"}


def python_code(recipe: Recipe) -> str:
    """A program with control objects, of the settings that the recipe gives.

    Raises:
        UserError: a control of the recipe cannot be imported.
    """
    imports: dict[str, set[str]] = {}
    given = recipe.model_dump(mode="json", exclude_unset=True, exclude={"controls", "model", "description"})
    entries = [entry_of(entry) if isinstance(entry, Control) else entry for entry in recipe.controls]
    parts = [_expression(spec, imports) for spec in specs_at(entries, ("controls",))]
    arguments = [f"{name}={value!r}" for name, value in given.items()]
    lines = ["import dlmctl", *(f"from {name} import {', '.join(sorted(imports[name]))}" for name in sorted(imports))]
    lines += ["", f"model = dlmctl.load({recipe.model!r})"]
    if parts:
        lines.append(f"control = {' & '.join(parts)}")
        arguments.insert(0, "control")
    lines += [f"for sample in model.generate({', '.join(arguments)}):", "    print(sample.text, sample.passed)", ""]
    return "\n".join(lines)


def _expression(spec: ControlSpec, imports: dict[str, set[str]]) -> str:
    """A control as Python; what it needs is added to ``imports``, names by module."""
    weight = "" if spec.weight == 1 else f"{spec.weight:g} * "
    parts = [_expression(part, imports) for part in spec.parts]
    if spec.name == "not":
        made = f"~{parts[0]}"
    elif spec.name in _JOINED:
        imports.setdefault("dlmctl", set()).add(_JOINED[spec.name])
        made = f"{_JOINED[spec.name]}([{', '.join(parts)}])"
    else:
        plugin = find_plugin(spec.name)
        imports.setdefault(plugin.module, set()).add(plugin.attribute)
        made = _made(plugin.attribute, spec.params)
    return f"({weight}{made})" if weight else made


def _made(name: str, sets: list[dict[str, Any]]) -> str:
    one = [", ".join(f"{key}={value!r}" for key, value in params.items()) for params in sets]
    if len(one) == 1:
        return f"{name}({one[0]})"
    return f"{name}.each([{', '.join(f'{name}.Params({params})' for params in one)}])"
