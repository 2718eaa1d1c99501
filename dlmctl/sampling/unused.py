"""Settings of the sampler that a family of models has no use for: given, they are refused, not passed over."""

from __future__ import annotations

from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings

# Of the walk of latents. `patience` is too, but it only says when a text is done early, which no other one is.
LATENT = ("eta", "last", "spacing", "clamp", "top_p", "condition_scale", "rounding")
# What a family does not read, beside the name of its sampler, and what such a model is called.
UNUSED = {
    "masked": (LATENT, "masked"),
    # Of the positions of a text over tokens `new_tokens` decides, on a canvas the checkpoint.
    "tokens": ((*LATENT, "canvas"), "LLaDA, Dream or MDLM"),
    "uniform": (LATENT, "uniform"),
    "canvas": ((*LATENT, "temperature", "min_p", "remask", "canvas", "new_tokens"), "DiffusionGemma"),
    # Not `min_p`: presets of masked models, which are the default, say it.
    "gaussian": (("block",), "latent"),
}


def require_used(sampler: SamplerSettings, family: str) -> None:
    """Check that no setting is changed that models of a family do not read.

    Raises:
        RecipeError: one is; the message names it.
    """
    names, kind = UNUSED.get(family, ((), ""))
    for name in names:
        if getattr(sampler, name) != SamplerSettings.model_fields[name].default:
            what = f"has no meaning for a {kind} model."
            raise RecipeError(what, where=f"sampler.{name}", remedy=f"Leave sampler.{name} out.")
