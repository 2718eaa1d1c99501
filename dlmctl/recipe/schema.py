"""The JSON schema of recipes, for editors and for the command line."""

from __future__ import annotations

from typing import Any

from dlmctl.control.catalogue import installed
from dlmctl.control.registry import log
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import Recipe

# The first parameter alone.
SHORT = {"type": ["string", "number", "boolean"]}


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe, with the parameters of every installed control that works."""
    schema = MatchedRecipe.model_json_schema()
    schema["title"] = Recipe.__name__
    schema.pop("required")  # most recipes have no conditions
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
        entries[plugin.name] = {
            "anyOf": [one, {"type": "array", "items": one}, SHORT, {"type": "array", "items": SHORT}]
        }
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
    schema["properties"]["conditions"]["additionalProperties"]["items"] = control
    return schema
