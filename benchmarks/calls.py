"""Calls into torch, waits for the device and tensors made from Python numbers, per reverse step of each control.

Usage: python benchmarks/calls.py [--masked MODEL] [--texts 8 32 64] [--steps 8] [--ways cpu] [--names] [--out FILE]
They are counted on a CPU, where each is cheap; on a GPU each call is a kernel launch, and a wait leaves the GPU idle.
Where the code for the two differs, the GPU's is counted, or with --ways cpu the CPU's. MODEL is a masked model or its
folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from controls import (
    Avoid,
    Characters,
    Contains,
    Edit,
    Infill,
    Length,
    Lexicon,
    Pattern,
    Pos,
    Semantic,
    Surprisal,
    Syllables,
    SyntaxTree,
)
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control import nan_checks
from dlmctl.control.automata import chain, class_sums, pairs, scaled, scan
from dlmctl.control.base import Control
from dlmctl.diffusion import absorbing, noise
from dlmctl.diffusion.noise import Draw
from dlmctl.evaluation.calls import CallCounter, Calls
from dlmctl.recipe.presets import settings_of
from dlmctl.sampling.draw import draw_texts
from dlmctl.sampling.plan import Plan

TAGS = ["DET", "PROPN", "AUX", "DET", "ADJ", "NOUN", "ADP", "DET", "NOUN", "PUNCT"]
TREE = "(S (NP (DT The) (NNP Eagle)) (VP (VBZ is) (NP (DT a) (JJ cheap) (NN pub))) (. .))"
CONTROLS: dict[str, Control[Any] | None] = {
    "free": None,
    "pos": Pos(tags=TAGS),
    "tree": SyntaxTree(tree=TREE),
    "semantic": Semantic(food="Italian", area="riverside"),
    "length": Length(14, tolerance=1),
    "infill": Infill("The Eagle is a ___{1,3} shop near ___{1,3} ."),
    "edit": Edit("The Eagle is a cheap pub near the river.", 3),
    "contains": Contains("riverside", "cheap"),
    "avoid": Avoid("pub", "city centre"),
    "pattern": Pattern("The <any>+ (pub|place) <any>* ."),
    "lexicon": Lexicon(words=["the", "pub", "place", "is", "a", "cheap", "good", "with", "food", "and"]),
    "syllables": Syllables(14),
    "characters": Characters(50, tolerance=5),
    "surprisal": Surprisal(where={"place": -2}, nats=[3, 6]) & Length(14),
}
MASKED = {name: control for name, control in CONTROLS.items() if name != "semantic"} | {
    "contains": Contains("garden", "old house"),
    "avoid": Avoid("garden", "old house"),
    "edit": Edit("The boy is a good friend of the family.", 3),
    "infill": Infill("The boy is a ___{1,3} friend near ___{1,3} ."),
    "pattern": Pattern("The <any>+ (garden|house) <any>* ."),
    "lexicon": Lexicon(frequency=[150, None]),
}


# Where the code differs: on a GPU the number of calls matters, on a CPU cache sizes and the amount of computation. For
# each module, the name of the CPU constant and its value on a GPU.
GPU_CONSTANTS: list[tuple[ModuleType, str, int | None]] = [
    (noise, "MOST_AHEAD_CPU", noise.MOST_AHEAD),
    (scan, "MOST_CPU", scan.MOST),
    (scaled, "TRANSITIONS_CPU", None),
    (chain, "ON_CPU", True),
    (pairs, "MOST_CPU", pairs.MOST),
    (class_sums, "PIECE_CPU", None),
    (absorbing, "PIECE_CPU", None),
    (nan_checks, "AT_ONCE_CPU", False),
]


def count_calls(pretrained: Pretrained, control: Control[Any] | None, texts: int, steps: int, **changes: Any) -> Calls:
    """The calls of the steps of one batch without early exit, and without its preparation.

    Args:
        changes: settings of the sampler.
    """
    chosen = settings_of("fast", pretrained.model.family)
    fixed = {"steps": steps, "precision": "fp32", "patience": 1.0, "compile": False}
    sampler = chosen.sampler.model_copy(update=fixed | changes)
    if control is not None:
        control.load_from(pretrained)
    counter = CallCounter()
    counter.paused = True

    def watch(step: Any) -> None:
        # Called after each step; the first includes what is prepared once for a batch, and is not counted.
        counter.paused = False
        counter.calls.steps += step.number > 0
        if step.number == step.steps - 1:
            counter.paused = True

    plan = Plan(pretrained, control, sampler, chosen.guidance, texts)
    with counter.counting() as calls:
        for _ in draw_texts(plan, [Draw(0, sample) for sample in range(texts)], on_step=watch):
            pass
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masked", metavar="MODEL")
    parser.add_argument("--texts", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument(
        "--ways", choices=("gpu", "cpu"), default="gpu", help="which code to count where the two differ; default: gpu"
    )
    parser.add_argument("--names", action="store_true", help="also print the names of calls")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.ways == "gpu":
        for module, name, value in GPU_CONSTANTS:
            setattr(module, name, value)
    models = {"e2e": CONTROLS} | ({arguments.masked: MASKED} if arguments.masked else {})
    rows = []
    print(
        "| model | text | texts | network | backward | other | waits | made |",
        "|---|---|---|---|---|---|---|---|",
        sep="\n",
    )
    for name, controls in models.items():
        pretrained = from_pretrained(name)
        for kind, control in controls.items():
            for texts in arguments.texts:
                calls = count_calls(pretrained, control, texts, arguments.steps)
                per_step = calls.per_step()
                rows.append({"model": Path(name).name, "text": kind, "texts": texts, **per_step})
                print(
                    f"| {Path(name).name} | {kind} | {texts} | "
                    + " | ".join(f"{x:.1f}" for x in per_step.values())
                    + " |"
                )
                if arguments.names:
                    print({name: count / calls.steps for name, count in calls.names.most_common(40)}, file=sys.stderr)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
