"""Training rates: positions a second, MFU, waiting for data, calls and waits of a step, of both families.

Usage: python benchmarks/training.py OUT [--sizes small 22M wide] [--families masked gaussian] [--compile off on]
The data are random words of a vocabulary of 12,031 in texts of the lengths of everyday sentences, made by the script.
What is timed is the trainer itself (``dlmctl.training.loop.fit``), by the figures that it logs. Writes
OUT/training.json after every case, and prints a table. It takes a GPU if there is one (``CUDA_VISIBLE_DEVICES=`` hides
it); there CUDA says how often a step waits, elsewhere tensors read back are counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlmctl.evaluation.calls import CallCounter
from dlmctl.training.lm import LanguageModelTask, LmConfig, read_lm_config
from dlmctl.training.loop import Task, fit
from dlmctl.training.masked import MaskedTask, MaskedTrainingConfig

WORDS, ROWS = 12_031, 1_000_000
# Width, layers, heads and positions of a batch; 22 M weights are those of the bundled everyday model.
SIZES = {
    "tiny": (64, 2, 2, 1024),
    "small": (256, 6, 4, 2560),
    "22M": (384, 10, 6, 32768),
    "22M-65536": (384, 10, 6, 65536),
    "wide": (1024, 12, 16, 32768),
    "wide-65536": (1024, 12, 16, 65536),
}
CASE_SECONDS = 20.0


def write_data(folder: Path) -> None:
    """A prepared data set of random words, in texts of 3 to 30 words, 11 on average."""
    rng = np.random.default_rng(0)
    special = ["START", "END", "UNK", "PAD"]
    words = special + [f"w{number}" for number in range(WORDS - len(special))]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "dataset.json").write_text("{}")
    for split, rows in (("train", ROWS), ("valid", 64)):
        lengths = np.clip(np.round(rng.gamma(5.0, 2.2, rows)), 3, 30).astype(np.int64) + 2
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # Words by Zipf's law, as in a text.
        ranks = np.arange(1, WORDS - len(special) + 1)
        shares = np.cumsum(1 / ranks) / (1 / ranks).sum()
        ids = (np.searchsorted(shares, rng.random(offsets[-1])) + len(special)).astype(np.uint16)
        ids[offsets[:-1]], ids[offsets[1:] - 1] = 0, 1
        np.save(folder / f"{split}.ids.npy", ids)
        np.save(folder / f"{split}.offsets.npy", offsets)


def config_of(family: str, size: str, steps: int, every: int, precision: str, compiled: bool) -> LmConfig:
    """The settings of a case, in the family's plain form: no labels or sources, no self-conditioning, no dropout."""
    width, layers, heads, positions = SIZES[size]
    loop = {
        "steps": steps, "batch_positions": positions, "bucket": 1, "full_share": 0.0, "optimizer": "muon", "lr": 1e-3,
        "warmup": 10, "ema": 0.99, "weight_decay": 0.05, "precision": precision, "compile": compiled,
        "log_every": every, "validate_every": 10**6, "checkpoint_every": 10**6, "checkpoint_minutes": 1e4,
    }  # fmt: skip
    model: dict[str, Any] = {"length": 32}
    if family == "masked":
        sizes = {"hidden": width, "layers": layers, "heads": heads, "inner": -(-width * 8 // 3 // 64) * 64}
        model |= {"family": "masked", "denoiser": {**sizes, "max_length": 32}}
    else:
        sizes = {"hidden": width, "layers": layers, "heads": heads, "dropout": 0.0, "max_length": 32}
        model |= {"embed_dim": 64, "self_conditioning": family == "gaussian-sc", "denoiser": sizes}
    overrides = [f"model={json.dumps(model)}", f"loop={json.dumps(loop)}"]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("{}\n")
        file.flush()
        return read_lm_config(file.name, overrides)


class Stop(Exception):
    """A case has had its time."""


def timed(task: Task, seconds: float, each: Any = lambda step: None) -> list[float]:
    """Let the task's batches end after ``seconds``, and be told of each; returns the list of their times."""
    batches, began = task.batches, time.monotonic()

    def limited(*given: int) -> Any:
        for step, batch in enumerate(batches(*given)):
            each(step)
            if time.monotonic() - began > seconds:
                raise Stop
            yield batch

    task.batches = limited  # type: ignore[method-assign]
    task.validate = lambda model: {"loss": 0.0, "nats": 0.0}  # type: ignore[method-assign]
    task.samples = lambda model: []  # type: ignore[method-assign]
    return []


def run(config: LmConfig, data: Path, seconds: float, each: Any = lambda step: None) -> list[dict[str, Any]]:
    """The lines that the trainer logged."""
    task = MaskedTask(config, data) if isinstance(config, MaskedTrainingConfig) else LanguageModelTask(config, data)
    timed(task, seconds, each)
    with tempfile.TemporaryDirectory() as out:
        with suppress(Stop):
            fit(task, config.loop, Path(out) / "run")
        metrics = Path(out) / "run" / "metrics.jsonl"
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    weights = sum(weight.numel() for weight in task.model.parameters())
    return [{**line, "weights": weights} for line in lines if "loss" in line]


def rate(config: LmConfig, data: Path, seconds: float) -> dict[str, Any]:
    """The medians of the figures of one run, the first lines left out."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    lines = run(config, data, seconds)
    kept = lines[len(lines) // 3 :]
    if not kept:
        return {"problem": "no line in time"}
    names = "positions_per_second", "mfu", "data_share"
    found = {name: statistics.median(line[name] for line in kept) for name in names}
    found |= {"weights": kept[0]["weights"], "loss": kept[-1]["loss"], "lines": len(kept)}
    if torch.cuda.is_available():
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def calls_and_waits(config: LmConfig, data: Path) -> dict[str, Any]:
    """Calls into torch and waits for the device of one step, the mean of a few, none of which is logged."""
    first, steps = 9, 5  # the first few steps are timed for the line that says how long a run will take
    loop = config.loop.model_copy(update={"steps": first + steps + 1, "log_every": 100})
    config = config.model_copy(update={"loop": loop})
    counter, places = CallCounter(), Counter[str]()
    counter.paused = True
    told = [0, 0]
    with warnings.catch_warnings(record=True) as caught, counter.counting() as calls:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")

        def each(step: int) -> None:
            counter.paused = not first <= step < first + steps
            if step in (first, first + steps):
                told[step > first] = len(caught)

        try:
            run(config, data, 120.0, each)
        finally:
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("default")
    found = {"calls": (calls.network + calls.backward + calls.other) / steps, "reads": calls.waits / steps}
    if torch.cuda.is_available():
        for one in caught[told[0] : told[1]]:
            places[f"{Path(one.filename).name}:{one.lineno}"] += 1
        found |= {"waits": (told[1] - told[0]) / steps, "places": dict(places)}
    found["names"] = {name: count / steps for name, count in calls.names.items() if name.startswith("waits")}
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| family | weights | width | compile | positions a second | MFU | waiting for data | calls a step | waits |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "problem" in row:
            lines.append(f"| {row['family']} | {row['size']} | | {row['compile']} | {row['problem']} |")
            continue
        counted = f"{row['calls']:.0f} | {row.get('waits', row['reads']):.1f}" if "calls" in row else "- | -"
        lines.append(
            f"| {row['family']} | {row['weights'] / 1e6:.1f} M | {SIZES[row['size']][0]} | {row['compile']} | "
            f"{row['positions_per_second']:,.0f} | {row['mfu']:.1%} | {row['data_share']:.1%} | {counted} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["small"], choices=SIZES)
    parser.add_argument("--families", nargs="+", default=["masked", "gaussian"])
    parser.add_argument("--compile", nargs="+", default=["off"], choices=["off", "on"])
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--case-seconds", type=float, default=CASE_SECONDS)
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="of everything; cases that do not fit are left out"
    )
    parser.add_argument("--every", type=int, default=0, help="steps between figures")
    parser.add_argument("--no-calls", action="store_true", help="time alone")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    end, cuda = time.monotonic() + given.seconds, torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    found: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cases": [],
    }
    every = given.every or (10 if cuda else 4)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for compiled in given.compile:
            for size in given.sizes:
                for family in given.families:
                    left = end - time.monotonic()
                    if left < given.case_seconds / 2:
                        continue
                    row: dict[str, Any] = {"family": family, "size": size, "compile": compiled}
                    config = config_of(family, size, 10**6, every, given.precision, compiled == "on")
                    try:
                        row |= rate(config, Path(folder), min(left, given.case_seconds))
                        if compiled == "off" and not given.no_calls:
                            row |= calls_and_waits(config, Path(folder))
                    except Exception as error:
                        row["problem"] = f"{type(error).__name__}: {str(error)[:200]}"
                        traceback.print_exc()
                    found["cases"].append(row)
                    print(json.dumps(row), flush=True)
                    (given.out / "training.json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(table(found["cases"])))


if __name__ == "__main__":
    main()
