"""Refuse, rather than ignore, sampler settings that have no effect for a model family or with the other settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings

# Settings for latents only. `patience` is one too, but is accepted for all: it only ends texts early, and texts of
# other families never do.
LATENT = ("eta", "last", "spacing", "clamp", "top_p", "condition_scale", "rounding")
# The unused settings of each family, and what its models are called.
UNUSED = {
    "masked": (LATENT, "masked"),
    # The positions of a text over tokens are set by `new_tokens`, on a canvas by the checkpoint.
    "tokens": ((*LATENT, "canvas"), "LLaDA, Dream, MDLM or BERT"),
    "uniform": ((*LATENT, "threshold"), "uniform"),
    "canvas": ((*LATENT, "temperature", "min_p", "threshold", "remask", "canvas", "new_tokens"), "DiffusionGemma"),
    # Not `min_p`: presets of masked models, which are the default, set it.
    "gaussian": (("block", "threshold"), "latent"),
}
# Families whose texts end within a number of new tokens; other families fix the length before a text is drawn.
TOKEN_FAMILIES = ("tokens", "canvas")


def require_used(sampler: SamplerSettings, family: str) -> None:
    """Check that no setting is changed that has no effect for a model family or with the other settings.

    Raises:
        RecipeError: one is; the message names it.
    """
    for names, what in _unused(sampler, family):
        for name in names:
            if getattr(sampler, name) != SamplerSettings.model_fields[name].default:
                raise RecipeError(what, where=f"sampler.{name}", remedy=f"Leave sampler.{name} out.")


def _unused(sampler: SamplerSettings, family: str) -> Iterator[tuple[Sequence[str], str]]:
    """The names of settings that have no effect, and why."""
    names, kind = UNUSED.get(family, ((), ""))
    yield names, f"has no meaning for a {kind} model."
    if family not in TOKEN_FAMILIES:
        yield ("new_tokens",), "has no meaning for a model that is not a checkpoint over tokens."
    if sampler.name != "remasking":
        yield ("remask",), "has no meaning without `name: remasking`."
    if sampler.particles == 1:
        yield ("reward", "reward_scale", "resample_every"), "has no meaning without `particles`."
