"""Training settings: the configuration of the loop, and reading configuration files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlmctl.errors import UserError, did_you_mean
from dlmctl.recipe.explain import explain
from dlmctl.recipe.overrides import overlay
from dlmctl.recipe.yaml_file import SettingsFile, parse, read_yaml

T = TypeVar("T", bound=BaseModel)

# Of a batch: more than any device holds, yet small enough for arrays of this length.
MAX_POSITIONS = 2**24


class LoopConfig(BaseModel):
    """Settings of the training loop, for every kind of task."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    steps: int = Field(gt=0, description="optimiser steps")
    batch_positions: int = Field(
        default=4096, gt=0, le=MAX_POSITIONS, description="positions (rows x padded length) of one batch"
    )
    accumulate: int = Field(default=1, gt=0, le=100_000, description="batches whose gradients are summed into one step")
    bucket: int = Field(
        default=8,
        gt=0,
        le=MAX_POSITIONS,
        description="rows of similar length share a batch; the width of a length class in positions",
    )
    full_share: float = Field(default=0.2, ge=0, le=1, description="share of rows padded to the full length")
    optimizer: Literal["adamw", "muon"] = Field(default="adamw", description="muon: for matrices, AdamW for the rest")
    lr: float = Field(default=1e-4, gt=0, le=10, description="peak learning rate")
    warmup: int = Field(default=0, ge=0, description="steps of linear warm-up")
    decay: Literal["linear", "cosine", "constant"] = Field(default="linear", description="shape of the decay to zero")
    decay_share: float = Field(
        default=1.0, gt=0, le=1, description="share of the steps, at the end, during which the rate falls"
    )
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="decoupled weight decay")
    clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0 for none")
    ema: float = Field(default=0.9999, ge=0, lt=1, description="decay of the averaged weights, warmed up from 0")
    precision: Literal["fp32", "bf16", "fp16"] = Field(default="fp32", description="of matrix products, by autocast")
    compile: bool = Field(default=False, description="torch.compile the model")
    patience: int = Field(
        default=0,
        ge=0,
        description="stop after this many validations in a row without improvement; 0: take all the steps",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the shuffle, the noise and the initial weights")
    log_every: int = Field(default=50, gt=0, description="steps between metrics")
    validate_every: int = Field(default=1000, gt=0, description="steps between validations and sample texts")
    checkpoint_every: int = Field(default=1000, gt=0, description="steps between checkpoints")
    checkpoint_minutes: float = Field(
        default=10,
        gt=0,
        description="most minutes between checkpoints, for slow steps; the first is written after one minute",
    )


def shipped_configs() -> list[str]:
    """Names of the configurations that come with the package."""
    folder = resources.files("dlmctl.training") / "configs"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_config(source: str, kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a configuration from a YAML file or from the name of a shipped one.

    Args:
        source: a path, or a name that ``shipped_configs`` lists.
        kind: the pydantic model it must fit.
        overrides: ``key=value`` settings that replace those of the file, with dotted keys, e.g. ``loop.steps=100``.

    Raises:
        UserError: there is no such file, it cannot be read, or it does not fit; the message names the line.
    """
    value, file = read_settings(source, overrides)
    return validate_settings(value, file, kind)


def read_settings(source: str, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], SettingsFile]:
    """The unvalidated settings of a configuration, and the file for messages; see ``read_config``."""
    value, file = parse(_config_text(source), source)
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UserError("a configuration is a mapping of settings.", where=f"{source}:1")
    overlay(value, overrides, file)
    return value, file


def validate_settings(value: dict[str, Any], file: SettingsFile, kind: type[T]) -> T:
    """Validate settings as a pydantic model.

    Raises:
        UserError: they do not fit; the message names the line.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise explain(error, kind, (), file, value) from None


def _config_text(source: str) -> str:
    path = Path(source)
    if not path.is_file() and source in shipped_configs():
        return (resources.files("dlmctl.training") / "configs" / f"{source}.yaml").read_text("utf-8")
    if not path.exists():
        raise UserError(f"no such configuration {source!r}.", remedy=did_you_mean(source, shipped_configs()))
    return read_yaml(path)
