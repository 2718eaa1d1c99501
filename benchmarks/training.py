"""Training speed of both families: positions per second, MFU, waiting for data, and calls and waits per step.

Usage: python benchmarks/training.py OUT [--sizes small 22M wide] [--families masked gaussian] [--compile off on]
The script makes its own data: random words of a vocabulary of 12,031, in texts as long as everyday sentences. It times
the trainer itself (``dlmctl.training.loop.fit``) by its logged figures, writes OUT/training.json after every case, and
prints a table. It uses a GPU if there is one (``CUDA_VISIBLE_DEVICES=`` hides it); there CUDA reports how often a step
waits, elsewhere tensors read back are counted.
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
        # Word frequencies follow Zipf's law, as in real text.
        ranks = np.arange(1, WORDS - len(special) + 1)
        shares = np.cumsum(1 / ranks) / (1 / ranks).sum()
        ids = (np.searchsorted(shares, rng.random(offsets[-1])) + len(special)).astype(np.uint16)
        ids[offsets[:-1]], ids[offsets[1:] - 1] = 0, 1
        np.save(folder / f"{split}.ids.npy", ids)
        np.save(folder / f"{split}.offsets.npy", offsets)


def config_of(family: str, size: str, steps: int, every: int, precision: str, compiled: bool) -> LmConfig:
    """The settings of a case, without labels, sources and dropout; ``gaussian-sc`` alone has self-conditioning."""
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
    """The time of a case is over."""


def limit_time(task: Task, seconds: float, on_step: Any = lambda step: None) -> None:
    """Make the task's batches raise ``Stop`` after ``seconds``, and call ``on_step`` before each step."""
    batches, started = task.batches, time.monotonic()

    def limited(*arguments: int) -> Any:
        for step, batch in enumerate(batches(*arguments)):
            on_step(step)
            if time.monotonic() - started > seconds:
                raise Stop
            yield batch

    task.batches = limited  # type: ignore[method-assign]
    task.validate = lambda model: {"loss": 0.0, "nats": 0.0}  # type: ignore[method-assign]
    task.samples = lambda model: []  # type: ignore[method-assign]


def run(config: LmConfig, data: Path, seconds: float, on_step: Any = lambda step: None) -> list[dict[str, Any]]:
    """Train for a time; returns the records of training losses that the trainer logged."""
    task = MaskedTask(config, data) if isinstance(config, MaskedTrainingConfig) else LanguageModelTask(config, data)
    limit_time(task, seconds, on_step)
    with tempfile.TemporaryDirectory() as out:
        with suppress(Stop):
            fit(task, config.loop, Path(out) / "run")
        metrics = Path(out) / "run" / "metrics.jsonl"
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    weights = sum(weight.numel() for weight in task.model.parameters())
    return [{**line, "weights": weights} for line in lines if "loss" in line]


def rate(config: LmConfig, data: Path, seconds: float) -> dict[str, Any]:
    """The medians of the figures of one run, without the first third of its records."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    lines = run(config, data, seconds)
    steady = lines[len(lines) // 3 :]
    if not steady:
        return {"problem": "no line in time"}
    names = "positions_per_second", "mfu", "data_share"
    figures = {name: statistics.median(line[name] for line in steady) for name in names}
    figures |= {"weights": steady[0]["weights"], "loss": steady[-1]["loss"], "lines": len(steady)}
    if torch.cuda.is_available():
        figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return figures


def calls_and_waits(config: LmConfig, data: Path) -> dict[str, Any]:
    """Calls into torch and waits for the device per step, the mean of a few steps that are not logged."""
    first, steps = 9, 5  # later than the steps that are timed for the estimate of the remaining time
    loop = config.loop.model_copy(update={"steps": first + steps + 1, "log_every": 100})
    config = config.model_copy(update={"loop": loop})
    counter, places = CallCounter(), Counter[str]()
    counter.paused = True
    caught_by = [0, 0]
    with warnings.catch_warnings(record=True) as caught, counter.counting() as calls:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")

        def on_step(step: int) -> None:
            counter.paused = not first <= step < first + steps
            if step in (first, first + steps):
                caught_by[step > first] = len(caught)

        try:
            run(config, data, 120.0, on_step)
        finally:
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("default")
    figures = {"calls": (calls.network + calls.backward + calls.other) / steps, "reads": calls.waits / steps}
    if torch.cuda.is_available():
        for warning in caught[caught_by[0] : caught_by[1]]:
            places[f"{Path(warning.filename).name}:{warning.lineno}"] += 1
        figures |= {"waits": (caught_by[1] - caught_by[0]) / steps, "places": dict(places)}
    figures["names"] = {name: count / steps for name, count in calls.names.items() if name.startswith("waits")}
    return figures


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| family | weights | width | compile | positions per second | MFU | waiting for data | calls per step "
        "| waits |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "problem" in row:
            lines.append(f"| {row['family']} | {row['size']} | | {row['compile']} | {row['problem']} |")
            continue
        calls = f"{row['calls']:.0f} | {row.get('waits', row['reads']):.1f}" if "calls" in row else "- | -"
        lines.append(
            f"| {row['family']} | {row['weights'] / 1e6:.1f} M | {SIZES[row['size']][0]} | {row['compile']} | "
            f"{row['positions_per_second']:,.0f} | {row['mfu']:.1%} | {row['data_share']:.1%} | {calls} |"
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
    parser.add_argument("--seconds", type=float, default=600.0, help="of all cases; those that do not fit are left out")
    parser.add_argument("--every", type=int, default=0, help="steps between logged figures")
    parser.add_argument("--no-calls", action="store_true", help="only time the runs")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    deadline, cuda = time.monotonic() + arguments.seconds, torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    report: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cases": [],
    }
    every = arguments.every or (10 if cuda else 4)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for compiled in arguments.compile:
            for size in arguments.sizes:
                for family in arguments.families:
                    seconds_left = deadline - time.monotonic()
                    if seconds_left < arguments.case_seconds / 2:
                        continue
                    row: dict[str, Any] = {"family": family, "size": size, "compile": compiled}
                    config = config_of(family, size, 10**6, every, arguments.precision, compiled == "on")
                    try:
                        row |= rate(config, Path(folder), min(seconds_left, arguments.case_seconds))
                        if compiled == "off" and not arguments.no_calls:
                            row |= calls_and_waits(config, Path(folder))
                    except Exception as error:
                        row["problem"] = f"{type(error).__name__}: {str(error)[:200]}"
                        traceback.print_exc()
                    report["cases"].append(row)
                    print(json.dumps(row), flush=True)
                    (arguments.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(table(report["cases"])))


if __name__ == "__main__":
    main()
