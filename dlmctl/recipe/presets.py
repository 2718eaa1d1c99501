"""Presets: settings of sampling and guidance chosen together, by measurement (see benchmarks/speed.md).

``balanced`` consists of the settings' own defaults. ``paper`` is the procedure of Li et al. 2022: 200 DDIM steps on the
full length, with the x_0 estimate rounded to words at each step and three Adagrad updates of the latent after it.
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
        # No updates for the last 10 of the 200 steps. The paper's fluency weights range from 0.0001 (POS) to 0.1
        # (spans).
        "guidance": {"method": "langevin", "updates": 3, "step_size": 0.1, "fluency": 0.01, "until": 0.05},
    },
}


# One word per step. The paper's procedure is for latents; for masked models, `paper` is the model as trained, with
# words in random order.
MASKED: Settings = {
    "fast": {"sampler": {"steps": None, "temperature": 1.0, "min_p": 0.02}, "guidance": {}},
    "balanced": {"sampler": {"steps": None, "temperature": 0.9, "min_p": 0.02}, "guidance": {}},
    "quality": {"sampler": {"steps": None, "temperature": 0.8, "min_p": 0.02}, "guidance": {}},
    "paper": {
        "sampler": {"name": "random", "steps": None, "temperature": 1.0, "min_p": 0.0, "precision": "fp32"},
        "guidance": {},
    },
}
# Third-party checkpoints over tokens: one token per step except in `fast`, in the authors' order; `paper` draws from
# the model's own distribution. Not measured on checkpoints with billions of weights.
TOKENS: Settings = {
    "fast": {"sampler": {"steps": 64, "temperature": 0.5, "min_p": 0.02}, "guidance": {}},
    "balanced": {"sampler": {"steps": None, "temperature": 0.5, "min_p": 0.02}, "guidance": {}},
    "quality": {"sampler": {"steps": None, "temperature": 0.3, "min_p": 0.02, "block": 32}, "guidance": {}},
    "paper": {"sampler": {"steps": None, "temperature": 1.0, "min_p": 0.0}, "guidance": {}},
}
# DiffusionGemma: the authors' number of steps, or half of it.
CANVAS: Settings = {
    "fast": {"sampler": {"steps": 24}, "guidance": {}},
    "balanced": {"sampler": {"steps": None}, "guidance": {}},
    "quality": {"sampler": {"steps": None}, "guidance": {}},
    "paper": {"sampler": {"steps": None, "precision": "fp32"}, "guidance": {}},
}
# Uniform noise: every step may change every word, so the number of steps does not depend on the number of words, and
# guidance ends with the last step.
_TO_THE_END = {"until": 0.0}
UNIFORM: Settings = {
    "fast": {"sampler": {"steps": 32, "temperature": 0.9, "min_p": 0.02}, "guidance": _TO_THE_END},
    "balanced": {"sampler": {"steps": 64, "temperature": 0.9, "min_p": 0.02}, "guidance": _TO_THE_END},
    "quality": {"sampler": {"steps": 128, "temperature": 0.8, "min_p": 0.02}, "guidance": _TO_THE_END},
    "paper": {
        "sampler": {"steps": 128, "temperature": 1.0, "min_p": 0.0, "precision": "fp32"},
        "guidance": _TO_THE_END,
    },
}
FAMILIES: Mapping[FamilyName, Settings] = {
    "gaussian": PRESETS,
    "masked": MASKED,
    "tokens": TOKENS,
    "canvas": CANVAS,
    "uniform": UNIFORM,
}


class PresetSettings(NamedTuple):
    """The settings of a preset."""

    sampler: SamplerSettings
    guidance: Guidance


def settings_of(name: Preset, family: FamilyName = "gaussian") -> PresetSettings:
    """The settings of a preset for models of a family.

    Raises:
        KeyError: there is no such preset.
    """
    settings = FAMILIES[family][name]
    return PresetSettings(SamplerSettings(**settings["sampler"]), Guidance(**settings["guidance"]))


def beyond_preset(name: Preset, model: str, settings: PresetSettings) -> dict[str, dict[str, Any]]:
    """The settings of each section that differ from those of a preset for a model."""
    preset = settings_of(name, family_of(model))
    return {
        section: {key: value for key, value in own if value != getattr(default, key)}
        for section, own, default in zip(PresetSettings._fields, settings, preset, strict=True)
    }


def with_preset(recipe: Any, default_model: str) -> Any:
    """A recipe as read from YAML, with missing settings filled in from its preset for its model's family."""
    if not isinstance(recipe, dict) or not isinstance(recipe.get("preset", "balanced"), str):
        return recipe
    preset, model = recipe.get("preset", "balanced"), recipe.get("model", default_model)
    settings = FAMILIES[family_of(model) if isinstance(model, str) else "gaussian"].get(preset, {})
    merged = dict(recipe)
    for section, preset_values in settings.items():
        values = recipe.get(section, {})
        if isinstance(values, dict) and preset_values:
            merged[section] = {**preset_values, **values}
    return merged
