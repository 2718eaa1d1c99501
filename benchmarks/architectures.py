"""Parameters, memory and step times of the architectures at similar parameter counts, and a training run of each.

    python benchmarks/architectures.py
    python benchmarks/architectures.py train DATA OUT

Prints the tables of architectures.md. The second command trains a small model of each architecture on a prepared data
set with the same settings, and prints its validation loss and five texts. Times are measured in turns, one step of each
architecture after the other, so that other load on the machine affects all alike; the table shows medians, and medians
of the ratio to the transformer's step of the same turn. Memory is measured in a separate process for each.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from dlmctl import load
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.training.config import read_config
from dlmctl.training.lm import LanguageModelConfig, objective, train_lm

TURNS, WORDS, ROWS, TEXTS = 11, 821, 40, 8
SIZES: dict[str, dict[str, object]] = {
    "transformer": {"hidden": 256, "layers": 4, "heads": 4, "max_length": 64, "time_channels": 64},
    "1d-unet": {"channels": 56, "multipliers": [1, 2, 2, 2]},
    "conv-unet": {"channels": 40, "multipliers": [1, 2, 2, 2]},
    "trans-unet": {"channels": 128, "multipliers": [1, 1, 1], "residual_blocks": 1, "max_length": 64},
}
# Smaller sizes, also of similar parameter counts, that train in minutes.
SMALL: dict[str, dict[str, object]] = {
    "transformer": {"hidden": 128, "layers": 3, "heads": 4, "norm_first": True, "max_length": 64, "time_channels": 64},
    "1d-unet": {"channels": 24, "multipliers": [1, 2, 2, 2]},
    "conv-unet": {"channels": 16, "multipliers": [1, 2, 2, 2]},
    "trans-unet": {"channels": 64, "head_width": 32, "multipliers": [1, 1, 1], "residual_blocks": 1, "max_length": 64},
}
TRAINING = ["loop.steps=1500", "loop.optimizer=adamw", "loop.lr=1e-3", "loop.validate_every=1500"]


def build(architecture: str) -> DiffusionLM:
    torch.manual_seed(0)
    denoiser = {**SIZES[architecture], "dropout": 0.0}
    return DiffusionLM(
        ModelConfig.model_validate(
            {"vocab_size": WORDS, "embed_dim": 32, "architecture": architecture, "denoiser": denoiser}
        )
    )


def training(model: DiffusionLM) -> Callable[[], None]:
    """One step of the e2e configuration in full precision: 40 rows of 64 positions, forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids, t = torch.randint(0, WORDS, (ROWS, 64)), torch.rand(ROWS, dtype=torch.float64)

    def step() -> None:
        torch.manual_seed(1)  # every architecture makes the same choice of whether to self-condition
        objective(model.train(), ids, t).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def sampling(model: DiffusionLM, length: int) -> Callable[[], None]:
    """One reverse step of 8 texts: the self-conditioned estimate of x_0."""
    x, t = torch.randn(TEXTS, length, 32), torch.full((TEXTS,), 0.5, dtype=torch.float64)

    @torch.no_grad()
    def step() -> None:
        model.eval().predict(x, t, x)

    return step


def peak_memory(architecture: str, task: str) -> float:
    """Peak MiB of a separate process over a few steps, above its memory with torch loaded."""
    command = [sys.executable, __file__, architecture, task]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_memory(architecture: str, task: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = build(architecture)
    step = training(model) if task == "training" else sampling(model, 64)
    for _ in range(3):
        step()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def train(data: Path, out: Path) -> None:
    """Train a small model of each architecture with the configuration ``small`` and ``TRAINING``; print the results.

    Finished models in ``out`` are not trained again, and interrupted runs are resumed.
    """
    rows, texts = [], []
    for name, sizes in SMALL.items():
        settings = [f"model.architecture={name}", f"model.denoiser={json.dumps({**sizes, 'dropout': 0.0})}", *TRAINING]
        if not (out / name / "model").exists():
            config = read_config("small", LanguageModelConfig, settings)
            train_lm(config, data, out / name, resume=(out / name / "state.pt").exists())
        model = load(out / name / "model")
        figures = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text("utf-8").splitlines()]
        loss = [record["valid_loss"] for record in figures if "valid_loss" in record][-1]
        parameters = sum(p.numel() for p in model.model.parameters()) / 1e6
        rows.append(f"| `{name}` | {parameters:.2f} M | {loss:.3f} |")
        texts.append("\n".join([f"`{name}`:", "", *(f"- {text}" for text in model.generate(samples=5).texts)]))
    print("|  | parameters | validation loss |\n|---|---|---|")
    print("\n".join([*rows, "", "\n\n".join(texts)]))


def main() -> None:
    # Before anything is built here, as the peak of a process starts at that of its parent.
    memory = {name: [peak_memory(name, task) for task in ("training", "sampling")] for name in SIZES}
    models = {name: build(name) for name in SIZES}
    kinds = {
        "training step": {name: training(model) for name, model in models.items()},
        "sampling step, 64 positions": {name: sampling(model, 64) for name, model in models.items()},
        "24 positions": {name: sampling(model, 24) for name, model in models.items()},
    }
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kind, steps in kinds.items():
        for turn in range(TURNS + 1):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                if turn:  # the first turn warms up
                    seconds[kind, name].append(time.perf_counter() - start)
    print(f"{torch.get_num_threads()} threads, {TURNS} turns\n")
    columns = ["", "parameters", *kinds, "memory, training", "memory, sampling"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for name, model in models.items():
        parameters = f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M"
        times = [_time_cell(seconds[kind, name], seconds[kind, "transformer"]) for kind in kinds]
        cells = [f"`{name}`", parameters, *times, *(f"{mebibytes:.0f} MiB" for mebibytes in memory[name])]
        print("| " + " | ".join(cells) + " |")


def _time_cell(seconds: list[float], baseline: list[float]) -> str:
    ratio = median(ours / base for ours, base in zip(seconds, baseline, strict=True))
    return f"{1000 * median(seconds):.0f} ms ({ratio:.2f})"


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["train", data, out]:
            train(Path(data), Path(out))
        case [architecture, task]:
            measure_memory(architecture, task)
