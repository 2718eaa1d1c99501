"""Texts per second on a GPU, with the calls and waits of a step, peak memory, and a comparison with the CPU's texts.

Usage: python benchmarks/gpu.py OUT [--model e2e] [--masked FOLDER] [--seconds 220] [--device cuda] [--texts 8 32 256]
Each case has a share of the time and is stopped at the first step beyond it, so that a slow one cannot use up the rest.
If FOLDER has no weights, the masked model has random ones of the same sizes, which are as fast. Writes OUT/gpu.json
after every case, and OUT/gpu.md. Only drawing is timed: the time of checks does not depend on the GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from calls import CONTROLS, TAGS, count_calls
from pydantic import TypeAdapter
from torch.profiler import ProfilerActivity, profile

from controls import Pos
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import Control
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.noise import Draw
from dlmctl.recipe.presets import Preset, settings_of
from dlmctl.sampling.draw import draw_texts
from dlmctl.sampling.plan import Plan
from dlmctl.text.tokenizer import WordTokenizer

# Time limit of one case, which stops at the first step after it.
MAX_SECONDS, REPEATS = 12.0, 3
# The profiler's names for launches of one kernel, and of a recorded graph.
LAUNCHES = "cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch"
# Goals for one H100: POS fast at 1,024 texts, texts per second; seconds for 32; times paper at 32.
GOALS = {"pos fast 1024, texts per second": 2000.0, "pos fast 32, seconds": 0.3, "fast over paper at 32": 20.0}


class TooSlow(Exception):
    """A case has used up its share of the time."""


class Bench:
    """Runs cases until the time is up, and writes their results to a file."""

    def __init__(self, out: Path, device: torch.device, seconds: float) -> None:
        self.out, self.device, self.end = out, device, time.monotonic() + seconds
        self.results: dict[str, Any] = {
            "machine": machine(device),
            "cases": [],
            "equal": [],
            "same": [],
            "steps": [],
            "busy": [],
        }

    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    def draw(
        self, pretrained: Pretrained, control: Control[Any] | None, preset: Preset, texts: int, **more: Any
    ) -> Any:
        """The texts of one batch and the seconds to draw them; ``watch`` is called with every step.

        Raises:
            TooSlow: it takes more than its share of the time.
        """
        watch, batch = more.pop("watch", lambda step: None), more.pop("batch", texts)
        limit = time.monotonic() + min(MAX_SECONDS, max(1.0, self.seconds_left()))

        def on_step(step: Any) -> None:
            if time.monotonic() > limit:
                raise TooSlow
            watch(step)

        chosen = settings_of(preset, "masked" if isinstance(pretrained.model, MaskedLM) else "gaussian")
        sampler = chosen.sampler.model_copy(update=more)
        plan = Plan(pretrained, control, sampler, chosen.guidance, batch)
        self.wait()
        started = time.perf_counter()
        drawn = list(draw_texts(plan, [Draw(0, sample) for sample in range(texts)], on_step=on_step))
        self.wait()
        return sorted(drawn, key=lambda text: text.draw.sample), time.perf_counter() - started

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def time_runs(
        self, name: str, pretrained: Pretrained, control: Control[Any] | None, preset: Preset, texts: int, **more: Any
    ) -> None:
        """Record the fastest of a few runs, and the first, which includes warming up."""
        how = ", ".join(f"{field} {value}" for field, value in more.items())
        case: dict[str, Any] = {"text": name, "preset": preset, "texts": texts, "how": how}
        if self.seconds_left() < 2:
            self.record("cases", case | {"problem": "no time left"})
            return
        seconds: list[float] = []
        steps = [0]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.monotonic()

        def watch(step: Any) -> None:
            steps[0] += 1

        try:
            while len(seconds) < REPEATS and time.monotonic() - started < MAX_SECONDS / 2:
                steps[0] = 0
                seconds.append(self.draw(pretrained, control, preset, texts, watch=watch, **more)[1])
        except (TooSlow, torch.OutOfMemoryError) as error:
            case["problem"] = type(error).__name__
        if seconds:
            case |= {"first": seconds[0], "seconds": min(seconds), "a_second": texts / min(seconds), "steps": steps[0]}
        if self.device.type == "cuda":
            case["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.empty_cache()
        self.record("cases", case)

    def compare_devices(
        self, name: str, on_device: Pretrained, cpu: Pretrained, control: Control[Any] | None, texts: int
    ) -> None:
        """Draw the same few texts in float32 on both devices, and record how many are equal, and the largest distance
        of the states at each step, which rounding makes grow."""
        trajectories: list[list[torch.Tensor]] = [[], []]
        words = []
        try:
            for states, model in zip(trajectories, (on_device, cpu), strict=True):
                keep_state = lambda step, states=states: states.append(step.x.detach().double().cpu())  # noqa: E731
                drawn, _ = self.draw(model, control, "fast", texts, precision="fp32", patience=1.0, watch=keep_state)
                words.append([text.words for text in drawn])
        except TooSlow:
            self.record("equal", {"text": name, "texts": texts, "equal": None})
            return
        equal = sum(first == second for first, second in zip(*words, strict=True))
        pairs = zip(*trajectories, strict=False)
        distances = [float((a - b).abs().max()) if a.shape == b.shape else None for a, b in pairs]
        self.record("equal", {"text": name, "texts": texts, "equal": equal, "apart": distances, "words": words[0][:2]})

    def compare_modes(self, name: str, pretrained: Pretrained, control: Control[Any] | None, texts: int) -> None:
        """Draw the same texts in float32 without recorded steps, and in batches of three, and record how many agree."""
        try:
            for what, change in (("recorded or not", {"compile": False}), ("in threes", {"batch": 3})):
                drawn = [
                    self.draw(pretrained, control, "fast", texts, precision="fp32", **more)[0] for more in ({}, change)
                ]
                equal = sum(first.words == second.words for first, second in zip(*drawn, strict=True))
                bits = sum(
                    bool((first.latent == second.latent).all())
                    for first, second in zip(*drawn, strict=True)
                    if first.latent.shape == second.latent.shape
                )
                self.record("same", {"text": name, "what": what, "texts": texts, "equal": equal, "bits": bits})
        except TooSlow:
            self.record("same", {"text": name, "what": "too slow", "texts": texts, "equal": None})

    def calls(self, name: str, pretrained: Pretrained, control: Control[Any] | None, texts: int) -> None:
        """Record the calls per step by kind without recorded steps, and the waits for the device, as CUDA reports
        them, with recorded steps."""
        if self.seconds_left() < 5:
            return
        try:
            row = {"text": name, "texts": texts, **count_calls(pretrained, control, texts, 16).per_step()}
            if self.device.type == "cuda":
                row["cuda_waits"] = self.waits(pretrained, control, texts)
        except TooSlow:
            row = {"text": name, "texts": texts, "problem": "TooSlow"}
        self.record("steps", row)

    def waits(self, pretrained: Pretrained, control: Control[Any] | None, texts: int) -> float:
        """The mean number of waits for the device per step, from the first step to the last."""
        warning_counts: list[int] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self.draw(pretrained, control, "fast", texts, watch=lambda _: warning_counts.append(len(caught)))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return (warning_counts[-1] - warning_counts[0]) / max(1, len(warning_counts) - 1)

    def profile_kernels(self, name: str, pretrained: Pretrained, control: Control[Any] | None, texts: int) -> None:
        """Record the seconds of all kernels in a run, their number, and the number of launches."""
        if self.device.type != "cuda" or self.seconds_left() < 8:
            return
        row: dict[str, Any] = {"text": name, "texts": texts}
        try:
            with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                row["seconds_profiled"] = self.draw(pretrained, control, "fast", texts)[1]
            events = profiler.key_averages()
            row["kernel_seconds"] = sum(event.self_device_time_total for event in events) / 1e6
            row["kernels"] = sum(event.count for event in events if event.self_device_time_total > 0)
            row["launches"] = sum(event.count for event in events if event.key in LAUNCHES)
        except TooSlow:
            row["problem"] = "TooSlow"
        self.record("busy", row)

    def record(self, part: str, row: dict[str, Any]) -> None:
        self.results[part].append(row)
        print(f"{self.seconds_left():6.1f} s left", part, json.dumps(row)[:300], flush=True)
        (self.out / "gpu.json").write_text(json.dumps(self.results, indent=1) + "\n")


def machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version(), "cuda": torch.version.cuda}


def masked_model(folder: Path) -> Pretrained:
    """The model of a folder, with random weights if the folder has none."""
    if list(folder.glob("model*.safetensors")):
        return from_pretrained(str(folder))
    settings = json.loads((folder / "config.json").read_text())
    config = MaskedConfig.model_validate(
        {name: settings[name] for name in settings if name in MaskedConfig.model_fields}
    )
    torch.manual_seed(0)
    vocabulary = TypeAdapter(dict[str, int]).validate_json((folder / "vocab.json").read_bytes())
    return Pretrained(MaskedLM(config).eval(), WordTokenizer(vocabulary), folder)


def table(results: dict[str, Any]) -> list[str]:
    lines = [
        "| text | preset | | texts | first, seconds | seconds | texts per second | steps | peak, GiB | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["cases"]:
        figures = [row.get(name) for name in ("first", "seconds", "a_second", "steps", "peak_gib")]
        cells = ["-" if x is None else f"{x:.3f}" if x < 10 else f"{x:.0f}" for x in figures]
        lines.append(
            f"| {row['text']} | `{row['preset']}` | {row['how']} | {row['texts']} | {' | '.join(cells)} "
            f"| {row.get('problem', '')} |"
        )
    lines += [
        "",
        "| text | texts | network | backward | other | waits | made | CUDA's waits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results["steps"]:
        names = "network", "backward", "other", "waits", "made", "cuda_waits"
        cells = " | ".join(f"{row[name]:.1f}" if name in row else "-" for name in names)
        lines.append(f"| {row['text']} | {row['texts']} | {cells} |")
    for row in results["busy"]:
        lines.append(
            f"kernels of {row['text']}, {row['texts']} texts: {row.get('kernels')} by {row.get('launches')} launches, "
            f"{row.get('kernel_seconds')} s"
        )
    lines += ["", *(f"{row['text']}: {row['equal']} of {row['texts']} texts as on the CPU" for row in results["equal"])]
    lines += [
        f"{row['text']}, {row['what']}: {row['equal']} of {row['texts']} texts the same" for row in results["same"]
    ]
    return [*lines, "", *(f"{name}: goal {goal:g}, {reached(results, name)} reached" for name, goal in GOALS.items())]


def reached(results: dict[str, Any], goal: str) -> str:
    cases = [row for row in results["cases"] if "seconds" in row and not row["how"]]
    by_case = {(row["text"], row["preset"], row["texts"]): row for row in cases}
    if goal.startswith("pos fast 1024"):
        return f"{by_case['pos', 'fast', 1024]['a_second']:.0f}" if ("pos", "fast", 1024) in by_case else "not"
    if goal.startswith("pos fast 32"):
        return f"{by_case['pos', 'fast', 32]['seconds']:.2f}" if ("pos", "fast", 32) in by_case else "not"
    pairs = [(by_case.get((text, "paper", 32)), by_case.get((text, "fast", 32)), text) for text in ("free", "pos")]
    return ", ".join(f"{text} {a['seconds'] / b['seconds']:.1f}" for a, b, text in pairs if a and b) or "not"


def run(bench: Bench, on_device: Pretrained, masked: Path | None, texts: Sequence[int]) -> None:
    """Run all cases, those of the goals first."""
    for preset in ("fast", "balanced"):
        for count in texts:
            for name in ("free", "pos"):
                bench.time_runs(name, on_device, CONTROLS[name], preset, count)
    for name in ("free", "pos"):
        bench.time_runs(name, on_device, CONTROLS[name], "paper", 32)
        for count in sorted({32, max(texts)}):
            bench.time_runs(name, on_device, CONTROLS[name], "fast", count, precision="fp32")
            bench.time_runs(name, on_device, CONTROLS[name], "fast", count, compile=False)
    for name in ("tree", "semantic", "infill", "contains", "avoid"):
        bench.time_runs(name, on_device, CONTROLS[name], "fast", 32)
    if masked is not None:
        model = masked_model(masked)
        model.model.to(bench.device)
        frame = Pos(tags=TAGS)
        for preset in ("fast", "balanced"):
            for count in [count for count in texts if count >= 32]:
                for name, control in (("masked free", None), ("masked pos", frame)):
                    bench.time_runs(name, model, control, preset, count)
        bench.calls("masked free", model, None, 32)
        bench.calls("masked pos", model, frame, 32)
    for name in ("free", "pos", "tree", "contains"):
        bench.calls(name, on_device, CONTROLS[name], 32)
    bench.profile_kernels("pos", on_device, CONTROLS["pos"], 32)
    bench.profile_kernels("pos", on_device, CONTROLS["pos"], max(texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="e2e")
    parser.add_argument("--masked", type=Path)
    parser.add_argument("--seconds", type=float, default=220.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--texts", type=int, nargs="+", default=[8, 32, 256, 1024])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.out, torch.device(arguments.device), arguments.seconds)
    cpu, on_device = from_pretrained(arguments.model), from_pretrained(arguments.model)
    on_device.model.to(bench.device)
    for name in ("free", "pos", "tree"):
        bench.compare_devices(name, on_device, cpu, CONTROLS[name], 4)
    for name in ("free", "pos", "contains"):
        bench.compare_modes(name, on_device, CONTROLS[name], 8)
    run(bench, on_device, arguments.masked, arguments.texts)
    lines = table(bench.results)
    (arguments.out / "gpu.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
