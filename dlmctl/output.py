"""Results as files and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlmctl.errors import UserError

if TYPE_CHECKING:
    from dlmctl.generation import Generation, Sample
    from dlmctl.recipe import Recipe

FORMATS = (".txt", ".jsonl", ".npz")


def check_target(path: Path) -> None:
    """Find out before sampling whether ``path`` can be written.

    Raises:
        UserError: its ending is not known or its folder does not exist.
    """
    if path.suffix not in FORMATS:
        raise UserError(
            f"the ending {path.suffix!r} is not known.", where=str(path), remedy=f"Use {', '.join(FORMATS)}."
        )
    if path.is_dir():
        raise UserError("is a folder; name a file in it.", where=str(path))
    if not path.parent.is_dir():
        raise UserError("the folder does not exist.", where=str(path.parent), remedy="Make it first.")


def record(sample: Sample) -> dict[str, Any]:
    """A sample as plain values, without its latent."""
    return {
        "index": sample.index,
        "text": sample.text,
        "words": sample.words,
        "passed": sample.passed,
        "checks": {name: check._asdict() for name, check in sample.checks.items()},
        "rounds": sample.rounds,
        "problem": sample.problem,
    }


def as_json(result: Generation, recipe: Recipe) -> str:
    """A whole run as one JSON object."""
    seconds = round(result.seconds, 3)
    return json.dumps(
        {
            "recipe": recipe.model_dump(),
            "samples": [record(sample) for sample in result],
            "success": result.success,
            "seconds": seconds,
            "samples_per_second": round(len(result) / max(result.seconds, 1e-9), 3),
        },
        ensure_ascii=False,
        indent=2,
    )


def write(result: Generation, path: Path) -> None:
    """Write the samples: texts (``.txt``), one JSON object a line (``.jsonl``), texts and latents (``.npz``).

    The file appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.suffix == ".npz":
            with partial.open("wb") as file:
                _write_arrays(result, file)
        else:
            lines = (
                sample.text if path.suffix == ".txt" else json.dumps(record(sample), ensure_ascii=False)
                for sample in result
            )
            partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}.", where=str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def _write_arrays(result: Generation, file: Any) -> None:
    """``texts [N]``, ``passed [N]``, and latents end to end with the offsets of each sample."""
    lengths = [len(sample.latent) for sample in result]
    np.savez_compressed(
        file,
        texts=np.array([sample.text for sample in result]),
        passed=np.array([sample.passed for sample in result]),
        latents=np.concatenate([sample.latent for sample in result]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
    )
