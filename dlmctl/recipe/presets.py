"""Presets: settings of sampling and guidance chosen together, by measurement (see benchmarks/speed.md).

``balanced`` is what the settings' own defaults say. ``paper`` is the procedure of Li et al. 2022: 200 DDIM steps on
the full length, the x_0 estimate rounded to words at each of them, three Adagrad updates of the latent after each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from dlmctl.checkpoint.resolve import family_of
from dlmctl.recipe.settings import Guidance, SamplerSettings

Preset = Literal["fast", "balanced", "quality", "paper"]
FamilyName = Literal["gaussian", "masked", "tokens", "canvas", "uniform"]
Settings = Mapping[Preset, dict[str, dict[str, Any]]]

PRESETS: Settings = {
    "fast": {"sampler": {"steps": 16, "last": 0.4, "spacing": 2.0}, "guidance": {}},
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


# One word a step. The paper's procedure is about latents; of masked models it is the model as trained, words in random
# order.
MASKED: Settings = {
    "fast": {"sampler": {"steps": None, "temperature": 1.0, "min_p": 0.02}, "guidance": {}},
    "balanced": {"sampler": {"steps": None, "temperature": 0.9, "min_p": 0.02}, "guidance": {}},
    "quality": {"sampler": {"steps": None, "temperature": 0.8, "min_p": 0.02}, "guidance": {}},
    "paper": {
        "sampler": {"name": "random", "steps": None, "temperature": 1.0, "min_p": 0.0, "precision": "fp32"},
        "guidance": {},
    },
}
# Checkpoints of others over tokens: one token a step unless it is to be fast, in the order of their authors; `paper`
# draws from the model's own distribution. Not measured on checkpoints of billions of weights.
TOKENS: Settings = {
    "fast": {"sampler": {"steps": 64, "temperature": 0.5, "min_p": 0.02}, "guidance": {}},
    "balanced": {"sampler": {"steps": None, "temperature": 0.5, "min_p": 0.02}, "guidance": {}},
    "quality": {"sampler": {"steps": None, "temperature": 0.3, "min_p": 0.02, "block": 32}, "guidance": {}},
    "paper": {"sampler": {"steps": None, "temperature": 1.0, "min_p": 0.0}, "guidance": {}},
}
# DiffusionGemma: as many steps as its authors have, and half as many.
CANVAS: Settings = {
    "fast": {"sampler": {"steps": 24}, "guidance": {}},
    "balanced": {"sampler": {"steps": None}, "guidance": {}},
    "quality": {"sampler": {"steps": None}, "guidance": {}},
    "paper": {"sampler": {"steps": None, "precision": "fp32"}, "guidance": {}},
}
# Uniform noise: every step may change every word, so the steps do not follow from the words.
UNIFORM: Settings = {
    "fast": {"sampler": {"steps": 32, "temperature": 0.9, "min_p": 0.02}, "guidance": {}},
    "balanced": {"sampler": {"steps": 64, "temperature": 0.9, "min_p": 0.02}, "guidance": {}},
    "quality": {"sampler": {"steps": 128, "temperature": 0.8, "min_p": 0.02}, "guidance": {}},
    "paper": {"sampler": {"steps": 128, "temperature": 1.0, "min_p": 0.0, "precision": "fp32"}, "guidance": {}},
}
FAMILIES: Mapping[FamilyName, Settings] = {
    "gaussian": PRESETS,
    "masked": MASKED,
    "tokens": TOKENS,
    "canvas": CANVAS,
    "uniform": UNIFORM,
}


class Chosen(NamedTuple):
    """The settings that a preset stands for."""

    sampler: SamplerSettings
    guidance: Guidance


def settings_of(name: Preset, family: FamilyName = "gaussian") -> Chosen:
    """The settings of a preset for models of a family.

    Raises:
        KeyError: there is no such preset.
    """
    settings = FAMILIES[family][name]
    return Chosen(SamplerSettings(**settings["sampler"]), Guidance(**settings["guidance"]))


def filled(recipe: Any, default_model: str) -> Any:
    """A recipe as read from YAML, with the settings of its preset, for its model's family, where it says nothing."""
    if not isinstance(recipe, dict) or not isinstance(recipe.get("preset", "balanced"), str):
        return recipe
    preset, model = recipe.get("preset", "balanced"), recipe.get("model", default_model)
    settings = FAMILIES[family_of(model) if isinstance(model, str) else "gaussian"].get(preset, {})
    merged = dict(recipe)
    for part, values in settings.items():
        given = recipe.get(part, {})
        if isinstance(given, dict) and values:
            merged[part] = {**values, **given}
    return merged
