"""The presets compared with the paper's procedure and with rejection sampling from an autoregressive model.

Usage: python benchmarks/speed.py TARGETS [--samples 16] [--repeats 2] [--out benchmarks]
TARGETS is a folder with pos.jsonl, attribute.jsonl, spans.jsonl and trees.jsonl; see control.md.
Prints the tables of speed.md and writes speed.svg.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from rivals.writing import Source, free_texts, rejection

from dlmctl.annotators.scorer import load_scorer
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.evaluation.control_success import possible_targets, read_targets
from dlmctl.evaluation.speed import Case, Speed, compare, speedup_over_paper
from dlmctl.generation.generate import generate
from dlmctl.metrics.lm_score import corpus_nats
from dlmctl.recipe.presets import PRESETS, settings_of

FILES = {
    "pos": ("pos", "pos.jsonl"),
    "semantic": ("semantic", "attribute.jsonl"),
    "syntax_tree": ("syntax_tree", "trees.jsonl"),
    "spans": ("syntax_tree", "spans.jsonl"),
}


def cases(pretrained: Pretrained, folder: Path, samples: int) -> list[Case]:
    cases = [Case("free", None, samples)]
    for name, (kind, file) in FILES.items():
        control, count = read_targets(kind, folder / file, samples)
        control.load_from(pretrained)
        sets = [control.sets[at] for at in possible_targets(control, pretrained, count)]
        possible = control.each(sets)
        possible.load_from(pretrained)
        cases.append(Case(name, possible, len(sets)))
    return cases


def measure_rejection(pretrained: Pretrained, case: Case) -> tuple[float, float | None, float]:
    """Seconds per sample, success (None for free text) and lm-score of the autoregressive model on a case."""
    judge = load_scorer(pretrained.folder / "scorer")
    source = Source(*judge)
    started = time.perf_counter()
    success = None
    if case.control is None:
        texts = free_texts(source, case.samples, 0)
    else:
        texts = [rejection(source, case.control, target, 0) for target in range(case.samples)]
        checks = case.control.verdicts(range(case.samples), texts)
        success = sum(check.score for check in checks) / len(checks)
    seconds = (time.perf_counter() - started) / case.samples
    return seconds, success, corpus_nats(judge, texts)


def by_batch_and_steps(pretrained: Pretrained) -> list[str]:
    lines = ["| batch | seconds per sample |", "|---|---|"]
    for batch in (1, 8, 32, 128, 512):
        result = generate(model=pretrained, samples=batch, preset="fast", batch_size=batch)
        lines.append(f"| {batch} | {result.seconds / batch:.4f} |")
    lines += ["", "| steps | seconds per sample |", "|---|---|"]
    for steps in (10, 20, 50, 100, 200):
        sampler = settings_of("balanced").sampler.model_copy(update={"steps": steps})
        result = generate(model=pretrained, samples=32, sampler=sampler)
        lines.append(f"| {steps} | {result.seconds / 32:.4f} |")
    return lines


def by_length(pretrained: Pretrained) -> list[str]:
    """``fast`` on all positions of models that differ only in length; they are untrained, as weights do not matter."""
    lines = ["| positions | seconds per sample |", "|---|---|"]
    config = pretrained.model.config
    sampler = settings_of("fast").sampler.model_copy(update={"canvas": "full"})
    for length in (16, 32, 64, 128, 256):
        sizes = config.denoiser.model_copy(update={"max_length": length})
        lengths = [0, 0, 0, 1]  # three words each
        changed = config.model_copy(update={"length": length, "denoiser": sizes, "sentence_lengths": lengths})
        untrained = Pretrained(DiffusionLM(changed).eval(), pretrained.tokenizer, Path())
        result = generate(model=untrained, samples=16, sampler=sampler)
        lines.append(f"| {length} | {result.seconds / 16:.4f} |")
    return lines


# The peak that Linux reports for the process since its start; that of wait4 includes the parent's at the fork.
RUN = """
import pathlib, sys
from dlmctl.cli import app
try:
    app()
finally:
    peak = pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(f"peak {peak}", file=sys.stderr)
"""


def whole_processes(model: str) -> list[str]:
    """`dlmctl generate --recipe e2e-pos` from start to exit: seconds and peak memory (Linux only)."""
    lines = ["| preset | texts | seconds | peak memory, MiB |", "|---|---|---|---|"]
    for preset in PRESETS:
        for texts in (1, 16):
            command = ["generate", "--recipe", "e2e-pos", "--model", model, "--preset", preset, "-n", str(texts)]
            started = time.perf_counter()
            run = subprocess.run([sys.executable, "-c", RUN, *command], capture_output=True, text=True, check=True)
            seconds, peak = time.perf_counter() - started, int(run.stderr.split()[-1]) / 1024
            lines.append(f"| `{preset}` | {texts} | {seconds:.1f} | {peak:.0f} |")
    return lines


def table(rows: list[Speed], rejection_figures: dict[str, tuple[float, float | None, float]]) -> list[str]:
    lines = ["| text | preset | seconds per sample | times paper | success | lm-score |", "|---|---|---|---|---|---|"]
    for row in rows:
        spread = f"{row.seconds:.3f} ({row.least:.3f} to {row.most:.3f})"
        lines.append(
            f"| {row.case} | `{row.preset}` | {spread} | {speedup_over_paper(rows, row):.1f} "
            f"| {percent(row.success)} | {row.lm_score:.2f} |"
        )
        if row.preset == "paper":
            seconds, share, fluency = rejection_figures[row.case]
            times = f"{row.seconds / seconds:.1f}"
            lines.append(
                f"| {row.case} | autoregressive | {seconds:.3f} | {times} | {percent(share)} | {fluency:.2f} |"
            )
    return lines


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def plot(rows: list[Speed], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for name in dict.fromkeys(row.case for row in rows):
        points = sorted((row.seconds, row) for row in rows if row.case == name)
        seconds = [point[0] for point in points]
        if points[0][1].success is not None:
            left.plot(seconds, [100 * (row.success or 0) for _, row in points], "o-", label=name)
        right.plot(seconds, [row.lm_score for _, row in points], "o-", label=name)
    for axes, label in ((left, "success, %"), (right, "lm-score, nats per token")):
        axes.set(xscale="log", xlabel="seconds per sample", ylabel=label)
        axes.grid(alpha=0.3)
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--model", default="e2e")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    pretrained = from_pretrained(arguments.model)
    timed = cases(pretrained, arguments.targets, arguments.samples)
    rows = list(
        compare(
            pretrained,
            timed,
            list(PRESETS),
            repeats=arguments.repeats,
            watch=lambda run: print(run, file=sys.stderr),
        )
    )
    rejected = {case.name: measure_rejection(pretrained, case) for case in timed}
    where = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    text = [
        f"{arguments.samples} samples per row, median of {arguments.repeats} runs; {where}.",
        "",
        *table(rows, rejected),
    ]
    text += ["", "Free text, `fast` by batch size and `balanced` by steps:", "", *by_batch_and_steps(pretrained)]
    text += ["", "`fast` by length:", "", *by_length(pretrained)]
    text += ["", "Whole processes:", "", *whole_processes(arguments.model)]
    print("\n".join(text))
    plot(rows, arguments.out / "speed.svg")


if __name__ == "__main__":
    main()
