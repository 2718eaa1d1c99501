"""The JSON schema of recipes, for editors and for the command line."""

from __future__ import annotations

from typing import Any

from dlmctl.control.catalogue import installed
from dlmctl.control.registry import log
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import Recipe

# Shorthand: the first parameter alone.
SHORT = {"type": ["string", "number", "boolean"]}


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, with the parameters of every installed control that works."""
    schema = MatchedRecipe.model_json_schema()
    schema["title"] = Recipe.__name__
    schema.pop("required")  # most recipes have no conditions
    definitions = schema.setdefault("$defs", {})
    entries: dict[str, Any] = {"weight": {"type": "number", "minimum": 0, "default": 1.0}}
    plugins, broken = installed()
    for name, source, fault in broken:
        log.warning("dlmctl: the schema is without control %r of %s: it %s", name, source, fault)
    for plugin in plugins:
        # Nested models of two controls may have the same name, so each control has its own prefix.
        prefix = f"control_{plugin.name}"
        params = plugin.schema(ref_template=f"#/$defs/{prefix}.{{model}}")
        definitions.update({f"{prefix}.{key}": value for key, value in params.pop("$defs", {}).items()})
        definitions[prefix] = params
        params_ref = {"$ref": f"#/$defs/{prefix}"}
        entries[plugin.name] = {
            "anyOf": [params_ref, {"type": "array", "items": params_ref}, SHORT, {"type": "array", "items": SHORT}]
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
