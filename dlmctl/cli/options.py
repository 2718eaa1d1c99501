"""Options shared by several commands, and their translation to recipe settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmctl.cli import complete
from dlmctl.errors import UserError

if TYPE_CHECKING:
    from dlmctl.recipe.recipe import Recipe


class SamplerName(str, Enum):
    auto = "auto"
    ancestral = "ancestral"
    ddim = "ddim"
    dpmpp_2m = "dpmpp_2m"
    remasking = "remasking"
    random = "random"
    low_confidence = "low_confidence"
    confidence = "confidence"
    margin = "margin"
    entropy = "entropy"


class PresetName(str, Enum):
    fast = "fast"
    balanced = "balanced"
    quality = "quality"
    paper = "paper"


Model = Annotated[str, typer.Option(help="A bundled name, a folder or a hub name.", autocompletion=complete.models)]
ModelArgument = Annotated[
    str, typer.Argument(help="A bundled name, a folder or a hub name.", autocompletion=complete.models)
]
AnyModel = Annotated[
    str | None, typer.Option(help="A bundled name, a folder or a hub name.", autocompletion=complete.models)
]
RecipeName = Annotated[
    str, typer.Argument(help="A recipe file or the name of a bundled one.", autocompletion=complete.recipes)
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--scorer",
        help="A scorer, or a model that has one, by folder or name, or any causal language model by folder or hub name "
        "(nats per word); by default the model's own scorer.",
    ),
]
Scorer = Annotated[Path | None, typer.Option(help="Folder of a scorer; by default the model's own scorer.")]
Prompt = Annotated[
    list[str] | None,
    typer.Option(
        help="Text to answer or to continue (models over tokens); repeatable, the texts take the prompts in turn."
    ),
]
Samples = Annotated[int | None, typer.Option("-n", "--samples", help="Number of texts.")]
Seed = Annotated[int | None, typer.Option(help="Random seed: the same seed gives the same texts.")]
Preset = Annotated[PresetName | None, typer.Option(help="Sampler and guidance settings that the recipe leaves open.")]
Steps = Annotated[int | None, typer.Option(help="Number of reverse steps.")]
Sampler = Annotated[SamplerName | None, typer.Option(help="Sampler to use.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")]
ShardRows = Annotated[int | None, typer.Option(min=1, help="Texts per new shard of a long run, by default 512.")]
PartOption = Annotated[
    str | None,
    typer.Option(
        "--part", metavar="K/N", help="Draw part K of N of a run; other commands draw the rest into the same folder."
    ),
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe setting.")]
DrawSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting of the sampler, or another that applies, as in a recipe."
    ),
]
Controls = Annotated[
    list[str] | None,
    typer.Option("--control", "-c", metavar="YAML", help="Add a control, e.g. 'length: {words: 14}'; repeatable."),
]
Targets = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|-",
        help="A table (.csv, .tsv, .jsonl, .txt, .parquet) whose rows fill the recipe's placeholders {column}; -n "
        "texts per row.",
    ),
]
Table = Annotated[
    str | None,
    typer.Option("--targets", metavar="FILE", help="A table whose rows fill the recipe's placeholders {column}."),
]
QuotaFlag = Annotated[
    bool, typer.Option("--quota", help="Draw until -n different texts (per row) pass, within quota.attempts.")
]
UniqueFlag = Annotated[
    bool, typer.Option("--unique", help="No text twice, and none from the training text, if that is known.")
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Stop at a row that cannot be satisfied; exit with 1 if a text fails its checks."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no table.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
FiguresAsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


def overrides(settings: Sequence[str] | None, **options: Any) -> list[str]:
    """The settings that override a recipe: those of ``--set``, then the options that are not None.

    Args:
        options: values by setting name; ``steps`` and ``sampler`` are those of the sampler.
    """
    setting_names = {"steps": "sampler.steps", "sampler": "sampler.name"}
    # JSON is valid YAML, and its quotes keep a folder named 12 or null a string.
    from_options = [
        f"{setting_names.get(name, name)}={json.dumps(value)}" for name, value in options.items() if value is not None
    ]
    return [*(settings or []), *from_options]


def settings_recipe(
    settings: Sequence[str] | None, model: str, preset: str | None = None, *, takes: Sequence[str]
) -> Recipe:
    """A recipe of settings alone; what they leave open is that of the preset for the model.

    Args:
        takes: the settings that the command uses.

    Raises:
        RecipeError: they do not validate.
        UserError: the command does not use one of them.
    """
    from dlmctl.recipe.load import read_recipe

    recipe, _ = read_recipe("", "command line", overrides(settings, model=model, preset=preset))
    for setting in settings or []:
        name = setting.partition("=")[0].partition(".")[0]
        if name not in takes:
            raise UserError("has no effect here.", where=f"--set {name}", remedy=f"Settings here: {', '.join(takes)}.")
    return recipe
