"""Presets: settings of sampling and guidance chosen together, by measurement (see benchmarks/speed.md).

``balanced`` is what the settings' own defaults say. ``paper`` is the procedure of Li et al. 2022: 200 DDIM steps on
the full length, the x_0 estimate rounded to words at each of them, three Adagrad updates of the latent after each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from dlmctl.recipe.settings import Guidance, SamplerSettings

Preset = Literal["fast", "balanced", "quality", "paper"]

PRESETS: Mapping[Preset, dict[str, dict[str, Any]]] = {
    "fast": {"sampler": {"steps": 20, "last": 0.4}, "guidance": {}},
    "balanced": {"sampler": {}, "guidance": {}},
    "quality": {"sampler": {"steps": 150}, "guidance": {}},
    "paper": {
        "sampler": {
            "steps": 200,
            "last": 0.0,
            "spacing": 1.0,
            "temperature": 1.0,
            "clamp": True,
            "patience": 1,
            "canvas": "full",
            "precision": "fp32",
        },
        # None for the last 10 of the 200 steps. The paper's fluency weights go from 0.0001 (POS) to 0.1 (spans).
        "guidance": {"method": "langevin", "updates": 3, "step_size": 0.1, "fluency": 0.01, "until": 0.05},
    },
}


class Chosen(NamedTuple):
    """The settings that a preset stands for."""

    sampler: SamplerSettings
    guidance: Guidance


def settings_of(name: Preset) -> Chosen:
    """The settings of a preset.

    Raises:
        KeyError: there is no such preset.
    """
    settings = PRESETS[name]
    return Chosen(SamplerSettings(**settings["sampler"]), Guidance(**settings["guidance"]))


def filled(recipe: Any) -> Any:
    """A recipe as read from YAML, with the settings of its preset where it does not say otherwise.

    What is no recipe, or names no preset, stays as it is: validation says what is wrong with it.
    """
    if not isinstance(recipe, dict):
        return recipe
    merged = dict(recipe)
    settings = next((found for name, found in PRESETS.items() if name == recipe.get("preset", "balanced")), {})
    for part, chosen in settings.items():
        given = recipe.get(part, {})
        if isinstance(given, dict) and chosen:
            merged[part] = {**chosen, **given}
    return merged
