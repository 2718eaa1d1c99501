"""Texts a second on a GPU, beside the calls and waits of a step, peak memory, and the same texts on the CPU.

Usage: python benchmarks/gpu.py OUT [--model e2e] [--masked FOLDER] [--seconds 220] [--device cuda] [--texts 8 32 256]
Each case has a share of the time and is cut off at a step beyond it, so a slow one cannot eat the rest. Where FOLDER
has no weights, the masked model has random ones of its sizes: of its speed that says as much. Writes OUT/gpu.json,
after every case, and OUT/gpu.md. Drawing alone is timed: what a check takes depends on the check, not on the GPU.
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
from calls import CONTROLS, TAGS, counted
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

# Of one case; it stops at the first step after that.
MOST_SECONDS, REPEATS = 12.0, 3
# What the profiler calls a launch of one kernel, and of a recorded graph.
LAUNCHES = "cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch"
# Goals for one H100: POS fast at 1,024 texts, texts a second; seconds for 32; times paper at 32.
GOALS = {"pos fast 1024, texts a second": 2000.0, "pos fast 32, seconds": 0.3, "fast over paper at 32": 20.0}


class TooSlow(Exception):
    """A case has had its share of the time."""


class Bench:
    """Runs cases until the time is up, and keeps what came of them in a file."""

    def __init__(self, out: Path, device: torch.device, seconds: float) -> None:
        self.out, self.device, self.end = out, device, time.monotonic() + seconds
        self.found: dict[str, Any] = {
            "machine": machine(device),
            "cases": [],
            "equal": [],
            "same": [],
            "steps": [],
            "busy": [],
        }

    def left(self) -> float:
        return self.end - time.monotonic()

    def draw(
        self, pretrained: Pretrained, control: Control[Any] | None, preset: Preset, texts: int, **more: Any
    ) -> Any:
        """The texts of one batch and the seconds of their drawing; ``watch`` sees the steps.

        Raises:
            TooSlow: it takes more than its share.
        """
        watch, batch = more.pop("watch", lambda step: None), more.pop("batch", texts)
        limit = time.monotonic() + min(MOST_SECONDS, max(1.0, self.left()))

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
        return sorted(drawn, key=lambda one: one.draw.sample), time.perf_counter() - started

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(
        self, name: str, pretrained: Pretrained, control: Control[Any] | None, preset: Preset, texts: int, **more: Any
    ) -> None:
        """The quickest of a few runs, the first beside it, which makes what the others find ready."""
        how = ", ".join(f"{field} {value}" for field, value in more.items())
        case: dict[str, Any] = {"text": name, "preset": preset, "texts": texts, "how": how}
        if self.left() < 2:
            self.note("cases", case | {"problem": "no time left"})
            return
        seconds: list[float] = []
        steps = [0]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.monotonic()

        def watch(step: Any) -> None:
            steps[0] += 1

        try:
            while len(seconds) < REPEATS and time.monotonic() - started < MOST_SECONDS / 2:
                steps[0] = 0
                seconds.append(self.draw(pretrained, control, preset, texts, watch=watch, **more)[1])
        except (TooSlow, torch.OutOfMemoryError) as error:
            case["problem"] = type(error).__name__
        if seconds:
            case |= {"first": seconds[0], "seconds": min(seconds), "a_second": texts / min(seconds), "steps": steps[0]}
        if self.device.type == "cuda":
            case["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.empty_cache()
        self.note("cases", case)

    def compared(self, name: str, on: Pretrained, cpu: Pretrained, control: Control[Any] | None, texts: int) -> None:
        """The same few texts in float32 on both devices: equal words, and the largest distance of a state at each step
        until then, which rounding makes grow."""
        paths: list[list[torch.Tensor]] = [[], []]
        words = []
        try:
            for path, model in zip(paths, (on, cpu), strict=True):
                keep = lambda step, path=path: path.append(step.x.detach().double().cpu())  # noqa: E731
                drawn, _ = self.draw(model, control, "fast", texts, precision="fp32", patience=1.0, watch=keep)
                words.append([one.words for one in drawn])
        except TooSlow:
            self.note("equal", {"text": name, "texts": texts, "equal": None})
            return
        equal = sum(one == other for one, other in zip(*words, strict=True))
        apart = [float((a - b).abs().max()) if a.shape == b.shape else None for a, b in zip(*paths, strict=False)]
        self.note("equal", {"text": name, "texts": texts, "equal": equal, "apart": apart, "words": words[0][:2]})

    def same(self, name: str, pretrained: Pretrained, control: Control[Any] | None, texts: int) -> None:
        """The same texts in float32 where steps are not recorded, and in batches of three."""
        try:
            for what, change in (("recorded or not", {"compile": False}), ("in threes", {"batch": 3})):
                drawn = [
                    self.draw(pretrained, control, "fast", texts, precision="fp32", **more)[0] for more in ({}, change)
                ]
                equal = sum(one.words == other.words for one, other in zip(*drawn, strict=True))
                bits = sum(
                    bool((one.latent == other.latent).all())
                    for one, other in zip(*drawn, strict=True)
                    if one.latent.shape == other.latent.shape
                )
                self.note("same", {"text": name, "what": what, "texts": texts, "equal": equal, "bits": bits})
        except TooSlow:
            self.note("same", {"text": name, "what": "too slow", "texts": texts, "equal": None})

    def calls(self, name: str, pretrained: Pretrained, control: Control[Any] | None, texts: int) -> None:
        """Calls of a step by kind where none is recorded, and how often one waited for the device, as CUDA itself
        says, where they are."""
        if self.left() < 5:
            return
        try:
            found = {"text": name, "texts": texts, **counted(pretrained, control, texts, 16).a_step()}
            if self.device.type == "cuda":
                found["cuda_waits"] = self.waits(pretrained, control, texts)
        except TooSlow:
            found = {"text": name, "texts": texts, "problem": "TooSlow"}
        self.note("steps", found)

    def waits(self, pretrained: Pretrained, control: Control[Any] | None, texts: int) -> float:
        """How often a step waits for the device, between the first step and the last."""
        told: list[int] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self.draw(pretrained, control, "fast", texts, watch=lambda _: told.append(len(caught)))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return (told[-1] - told[0]) / max(1, len(told) - 1)

    def busy(self, name: str, pretrained: Pretrained, control: Control[Any] | None, texts: int) -> None:
        """Seconds that the kernels of a drawing take, how many there are, and by how many launches they come."""
        if self.device.type != "cuda" or self.left() < 8:
            return
        row: dict[str, Any] = {"text": name, "texts": texts}
        try:
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                row["seconds_profiled"] = self.draw(pretrained, control, "fast", texts)[1]
            kernels = seen.key_averages()
            row["kernel_seconds"] = sum(one.self_device_time_total for one in kernels) / 1e6
            row["kernels"] = sum(one.count for one in kernels if one.self_device_time_total > 0)
            row["launches"] = sum(one.count for one in kernels if one.key in LAUNCHES)
        except TooSlow:
            row["problem"] = "TooSlow"
        self.note("busy", row)

    def note(self, part: str, row: dict[str, Any]) -> None:
        self.found[part].append(row)
        print(f"{self.left():6.1f} s left", part, json.dumps(row)[:300], flush=True)
        (self.out / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n")


def machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version(), "cuda": torch.version.cuda}


def masked_model(folder: Path) -> Pretrained:
    """The model of a folder, or one with random weights of its sizes."""
    if list(folder.glob("model*.safetensors")):
        return from_pretrained(str(folder))
    read = json.loads((folder / "config.json").read_text())
    config = MaskedConfig.model_validate({name: read[name] for name in read if name in MaskedConfig.model_fields})
    torch.manual_seed(0)
    words = TypeAdapter(dict[str, int]).validate_json((folder / "vocab.json").read_bytes())
    return Pretrained(MaskedLM(config).eval(), WordTokenizer(words), folder)


def table(found: dict[str, Any]) -> list[str]:
    lines = [
        "| text | preset | | texts | first, s | s | texts a second | steps | peak, GiB | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["cases"]:
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
    for row in found["steps"]:
        names = "network", "backward", "other", "waits", "made", "cuda_waits"
        cells = " | ".join(f"{row[name]:.1f}" if name in row else "-" for name in names)
        lines.append(f"| {row['text']} | {row['texts']} | {cells} |")
    for row in found["busy"]:
        lines.append(
            f"kernels of {row['text']}, {row['texts']} texts: {row.get('kernels')} by {row.get('launches')} launches, "
            f"{row.get('kernel_seconds')} s"
        )
    lines += ["", *(f"{row['text']}: {row['equal']} of {row['texts']} texts as on the CPU" for row in found["equal"])]
    lines += [f"{row['text']}, {row['what']}: {row['equal']} of {row['texts']} texts the same" for row in found["same"]]
    return [*lines, "", *(f"{name}: {goal:g} wanted, {reached(found, name)} reached" for name, goal in GOALS.items())]


def reached(found: dict[str, Any], goal: str) -> str:
    cases = [row for row in found["cases"] if "seconds" in row and not row["how"]]
    by = {(row["text"], row["preset"], row["texts"]): row for row in cases}
    if goal.startswith("pos fast 1024"):
        return f"{by['pos', 'fast', 1024]['a_second']:.0f}" if ("pos", "fast", 1024) in by else "not"
    if goal.startswith("pos fast 32"):
        return f"{by['pos', 'fast', 32]['seconds']:.2f}" if ("pos", "fast", 32) in by else "not"
    pairs = [(by.get((text, "paper", 32)), by.get((text, "fast", 32)), text) for text in ("free", "pos")]
    return ", ".join(f"{text} {a['seconds'] / b['seconds']:.1f}" for a, b, text in pairs if a and b) or "not"


def run(bench: Bench, on: Pretrained, masked: Path | None, texts: Sequence[int]) -> None:
    """All cases, those first that the goals are about."""
    for preset in ("fast", "balanced"):
        for count in texts:
            for name in ("free", "pos"):
                bench.timed(name, on, CONTROLS[name], preset, count)
    for name in ("free", "pos"):
        bench.timed(name, on, CONTROLS[name], "paper", 32)
        for count in sorted({32, max(texts)}):
            bench.timed(name, on, CONTROLS[name], "fast", count, precision="fp32")
            bench.timed(name, on, CONTROLS[name], "fast", count, compile=False)
    for name in ("tree", "semantic", "infill", "contains", "avoid"):
        bench.timed(name, on, CONTROLS[name], "fast", 32)
    if masked is not None:
        model = masked_model(masked)
        model.model.to(bench.device)
        frame = Pos(tags=TAGS)
        for preset in ("fast", "balanced"):
            for count in [count for count in texts if count >= 32]:
                for name, control in (("masked free", None), ("masked pos", frame)):
                    bench.timed(name, model, control, preset, count)
        bench.calls("masked free", model, None, 32)
        bench.calls("masked pos", model, frame, 32)
    for name in ("free", "pos", "tree", "contains"):
        bench.calls(name, on, CONTROLS[name], 32)
    bench.busy("pos", on, CONTROLS["pos"], 32)
    bench.busy("pos", on, CONTROLS["pos"], max(texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="e2e")
    parser.add_argument("--masked", type=Path)
    parser.add_argument("--seconds", type=float, default=220.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--texts", type=int, nargs="+", default=[8, 32, 256, 1024])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.out, torch.device(given.device), given.seconds)
    cpu, on = from_pretrained(given.model), from_pretrained(given.model)
    on.model.to(bench.device)
    for name in ("free", "pos", "tree"):
        bench.compared(name, on, cpu, CONTROLS[name], 4)
    for name in ("free", "pos", "contains"):
        bench.same(name, on, CONTROLS[name], 8)
    run(bench, on, given.masked, given.texts)
    lines = table(bench.found)
    (given.out / "gpu.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
