"""Options that several commands share, and how they become settings of a recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from dlmctl.cli import complete


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
        help="Folder of a scorer, or folder or hub name of any causal language model, which gives nats a word; by "
        "default the scorer beside the model.",
    ),
]
Scorer = Annotated[Path | None, typer.Option(help="Folder of a scorer; by default the one beside the model.")]
Prompt = Annotated[str | None, typer.Option(help="What the texts answer or go on from (models over tokens).")]
Samples = Annotated[int | None, typer.Option("-n", "--samples", help="How many texts.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same texts.")]
Preset = Annotated[PresetName | None, typer.Option(help="Sampler and guidance where the recipe says nothing of them.")]
Steps = Annotated[int | None, typer.Option(help="Reverse steps.")]
Sampler = Annotated[SamplerName | None, typer.Option(help="Which sampler.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")]
ShardRows = Annotated[int | None, typer.Option(min=1, help="Texts in each new shard of a long run; 512 if not given.")]
PartOption = Annotated[
    str | None,
    typer.Option(
        "--part", metavar="K/N", help="Draw part K of N of a run; other commands fill its folder with the rest."
    ),
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe setting.")]
Controls = Annotated[
    list[str] | None,
    typer.Option(
        "--control", "-c", metavar="YAML", help="A control beside the recipe's, e.g. 'length: {words: 14}'; repeatable."
    ),
]
Targets = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|-",
        help="A table (.csv, .tsv, .jsonl, .txt, .parquet) whose rows fill the recipe's placeholders {column}; -n "
        "texts each.",
    ),
]
QuotaFlag = Annotated[
    bool, typer.Option("--quota", help="Draw until -n texts (of each row) pass and differ, within quota.attempts.")
]
UniqueFlag = Annotated[
    bool, typer.Option("--unique", help="No text twice, and none of the training text where it is known.")
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Stop at a row that cannot be met; exit with 1 where a text fails its checks."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
FiguresAsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


def overrides(settings: Sequence[str] | None, **options: Any) -> list[str]:
    """The settings laid over a recipe: what ``--set`` says, then the options that are given.

    Args:
        options: by the names of settings, or ``steps`` and ``sampler`` for those of the sampler; None is none.
    """
    places = {"steps": "sampler.steps", "sampler": "sampler.name"}
    # As JSON, which is YAML: a folder named 12 or null is still a name.
    given = [f"{places.get(name, name)}={json.dumps(value)}" for name, value in options.items() if value is not None]
    return [*(settings or []), *given]
