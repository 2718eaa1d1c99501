"""Settings of the sampler that nothing reads, by the family of models or beside others: given, they are refused, not
passed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
# Families whose texts end within some new tokens; of others their lengths are settled before they are drawn.
OF_TOKENS = ("tokens", "canvas")


def require_used(sampler: SamplerSettings, family: str) -> None:
    """Check that no setting is changed that models of a family do not read, or nothing beside the other settings.

    Raises:
        RecipeError: one is; the message names it.
    """
    for names, what in _unread(sampler, family):
        for name in names:
            if getattr(sampler, name) != SamplerSettings.model_fields[name].default:
                raise RecipeError(what, where=f"sampler.{name}", remedy=f"Leave sampler.{name} out.")


def _unread(sampler: SamplerSettings, family: str) -> Iterator[tuple[Sequence[str], str]]:
    """The names of settings that are not read, and why not."""
    names, kind = UNUSED.get(family, ((), ""))
    yield names, f"has no meaning for a {kind} model."
    if family not in OF_TOKENS:
        yield ("new_tokens",), "has no meaning for a model that is no checkpoint over tokens."
    if sampler.name != "remasking":
        yield ("remask",), "has no meaning without `name: remasking`."
    if sampler.particles == 1:
        yield ("reward", "reward_scale", "resample_every"), "has no meaning without `particles`."
