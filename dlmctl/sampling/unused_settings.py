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
    "tokens": (LATENT, "LLaDA, Dream, MDLM or BERT"),
    "uniform": ((*LATENT, "threshold"), "uniform"),
    "canvas": ((*LATENT, "temperature", "min_p", "threshold", "remask", "canvas", "new_tokens"), "DiffusionGemma"),
    # Not `min_p`: presets of masked models, which are the default, set it.
    "gaussian": (("block", "threshold"), "latent"),
}


def require_used(sampler: SamplerSettings, family: str, *, over_tokens: bool) -> None:
    """Check that no setting is changed that has no effect for a model family or with the other settings.

    Args:
        over_tokens: whether the model is a checkpoint over tokens.

    Raises:
        RecipeError: one is; the message names it.
    """
    for names, what in _unused(sampler, family, over_tokens):
        for name in names:
            if getattr(sampler, name) != SamplerSettings.model_fields[name].default:
                raise RecipeError(what, where=f"sampler.{name}", remedy=f"Leave sampler.{name} out.")


def _unused(sampler: SamplerSettings, family: str, over_tokens: bool) -> Iterator[tuple[Sequence[str], str]]:
    """The names of settings that have no effect, and why."""
    names, kind = UNUSED.get(family, ((), ""))
    yield names, f"has no meaning for a {kind} model."
    if over_tokens:
        yield ("canvas",), "has no meaning for a model over tokens: its texts end within sampler.new_tokens."
    else:
        yield ("new_tokens",), "has no meaning for a model that is not a checkpoint over tokens."
    if sampler.name != "remasking":
        yield ("remask",), "has no meaning without `name: remasking`."
    if sampler.particles == 1:
        yield ("reward", "reward_scale", "resample_every"), "has no meaning without `particles`."
