"""Guided diffusion compared with autoregressive baselines, on the same targets, checks and scorer.

Usage: python benchmarks/comparison.py TARGETS --rivals RIVALS [--rows ROWS] [--seeds 3] [--limit 100] [--control pos]
       [--method ours] [--scorer MODEL] [--device cpu]
TARGETS has pos.jsonl, spans.jsonl and attribute.jsonl of the published control targets; trees are those of the
sentences of pos.jsonl, lengths are 10 to 40. RIVALS comes from finetune.py. Every text is kept in ROWS with its score
and seconds and not made again, so that a greater --limit adds texts; then the table of comparison.md is printed.
Seconds are CPU time of one thread, so that other work on the machine does not count; on a GPU they are wall-clock time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rivals.future import Future, load_future
from rivals.prefixes import ControlTokens, field_tokens, length_tokens, span_tokens, tag_tokens, tree_tokens
from rivals.tuned import Tuned, beam_search, load_tuned, sample
from rivals.writing import Source, fudge, particles, rejection

from controls.length import Length, LengthParams
from dlmctl.annotators.scorer import load_scorer
from dlmctl.annotators.trees import read_tree
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import Control
from dlmctl.evaluation.control_success import possible_targets, read_targets
from dlmctl.evaluation.speed import settings_for
from dlmctl.generation.generate import generate
from dlmctl.generation.sample_groups import UNSCORED
from dlmctl.metrics.diversity import distinct_n
from dlmctl.metrics.nats import Nats, nats_of

FILES = {"pos": "pos.jsonl", "syntax_tree": "pos.jsonl", "spans": "spans.jsonl", "semantic": "attribute.jsonl"}
CONTROLS = (*FILES, "length")
# Our methods: arguments of ``generate``.
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, fast": {"preset": "fast"},
    "ours, 8 candidates": {"candidates": 8, "rank_by": ("satisfaction", "lm_score")},
    "ours, 8 particles": {"sampler": {"particles": 8}},
    "ours, until": {"until": {"max_rounds": 8}},
    "ours, until with repair": {"until": {"max_rounds": 8, "repair": True}},
}
RIVALS = ("FT, sampled", "FT-search", "FUDGE", "SMC, 32 particles", "rejection")
METHODS = ("paper", *OURS, *RIVALS)


class Case(NamedTuple):
    """A control, and the numbers of its possible targets."""

    name: str
    control: Control[Any]
    targets: list[int]


class Row(NamedTuple):
    """One text with its check, and the mean seconds per text of its run."""

    words: list[str]
    score: float
    passed: bool
    seconds: float


class Models(NamedTuple):
    """The models that generate texts."""

    pretrained: Pretrained
    source: Source
    future: Future | None
    rivals: Path | None
    device: str


def case_of(pretrained: Pretrained, name: str, folder: Path, limit: int) -> Case:
    if name == "length":
        control: Control[Any] = Length.each([LengthParams(words=words) for words in range(10, 41)][:limit])
        count = min(limit, 31)
    else:
        control, count = read_targets("syntax_tree" if name == "spans" else name, folder / FILES[name], limit)
    control.load_from(pretrained)
    control.verdicts([0], [["The"]])  # loads the tagger or parser that checks
    return Case(name, control, possible_targets(control, pretrained, count))


def target_tokens(name: str, params: Any) -> ControlTokens[str]:
    """A target as the tokens that the conditional models were trained on."""
    if name == "pos":
        return tag_tokens(params.tags)
    if name == "length":
        return length_tokens(params.words)
    if name == "semantic":
        ((field, value),) = params.fields.items()
        return field_tokens(field, str(value))
    if name == "spans":
        return span_tokens(*params.wanted[0])
    return tree_tokens(read_tree(params.tree))


def diffusion_texts(models: Models, case: Case, method: str, seed: int) -> list[list[str]]:
    """Texts of the diffusion model for the targets of a case."""
    arguments = OURS.get(method, {})
    if method == "paper":
        sampler, guidance = settings_for("paper", case.name)
        arguments = {"sampler": sampler, "guidance": guidance}
    result = generate(
        case.control,
        model=models.pretrained,
        samples=case.targets,
        seed=seed,
        groups=UNSCORED,
        device=models.device,
        **arguments,
    )
    return [sample.words for sample in result]


def rival_texts(models: Models, case: Case, method: str, seed: int) -> list[list[str]]:
    """Texts of an autoregressive model for the targets of a case."""
    if not method.startswith("FT"):
        return list(map(_writer(models, case, method, seed), case.targets))
    tuned = tuned_model(models, case.name)
    controls = [target_tokens(case.name, case.control.dealt(target)) for target in case.targets]
    if method == "FT-search":
        return [beam_search(tuned, control) for control in controls]
    return sample(tuned, controls, seed)


def _writer(models: Models, case: Case, method: str, seed: int) -> Callable[[int], list[str]]:
    if method == "rejection":
        return lambda target: rejection(models.source, case.control, target, seed)
    if method.startswith("SMC"):
        return lambda target: particles(models.source, case.control, case.name, target, 1000 * seed + target)
    future = models.future
    assert future is not None
    return lambda target: fudge(models.source, future, case.name, case.control.dealt(target), 1000 * seed + target)


@cache
def tuned_model(models: Models, control: str) -> Tuned:
    assert models.rivals is not None
    tuned = load_tuned(models.rivals, control)
    return tuned._replace(model=tuned.model.to(models.device))


def rows_of(models: Models, case: Case, method: str, seed: int, path: Path) -> list[Row]:
    """The rows of a method, read from ``path``; missing ones are made and written there."""
    rows = [Row(**json.loads(line)) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    missing = case._replace(targets=case.targets[len(rows) :])
    if missing.targets:
        print(f"{case.name}, {method}, seed {seed}: {len(missing.targets)} texts", file=sys.stderr, flush=True)
        rows += make_rows(models, missing, method, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return rows[: len(case.targets)]


def make_rows(models: Models, case: Case, method: str, seed: int) -> list[Row]:
    make_texts = diffusion_texts if method == "paper" or method in OURS else rival_texts
    if method.startswith("FT"):
        tuned_model(models, case.name)  # loaded before the clock starts
    clock = time.process_time if models.device == "cpu" else time.perf_counter
    started = clock()
    texts = make_texts(models, case, method, seed)
    seconds = (clock() - started) / len(texts)
    checks = case.control.verdicts(case.targets, texts)
    return [Row(words, check.score, check.passed, seconds) for words, check in zip(texts, checks, strict=True)]


def line_of(case: Case, method: str, seeds: list[list[Row]], judges: Sequence[Nats]) -> str:
    """A line of the table: means over seeds, with the lowest and the highest in brackets."""
    texts_by_seed = [[row.words for row in rows] for rows in seeds]
    cells = [
        _spread([100 * statistics.fmean(row.score for row in rows) for rows in seeds], 1),
        _spread([100 * statistics.fmean(row.passed for row in rows) for rows in seeds], 1),
        *(_spread([nats(texts) for texts in texts_by_seed], 2) for nats in judges),
        _spread([100 * distinct_n(texts, 2) for texts in texts_by_seed], 0),
        _spread([statistics.fmean(row.seconds for row in rows) for rows in seeds], 2),
        f"{len(seeds[0])} x {len(seeds)}",
    ]
    return f"| {case.name} | {method} | {' | '.join(cells)} |"


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def lines(models: Models, arguments: argparse.Namespace) -> Iterator[str]:
    scorers = [None, arguments.scorer] if arguments.scorer else [None]
    judges = [nats for nats in (nats_of(models.pretrained, scorer) for scorer in scorers) if nats is not None]
    heads = [nats.unit for nats in judges]
    cells = (
        "control",
        "method",
        "success, %",
        "whole, %",
        *heads,
        "distinct-2, %",
        "seconds per text",
        "texts x seeds",
    )
    yield f"| {' | '.join(cells)} |"
    yield "|---" * len(cells) + "|"
    for name in arguments.control or CONTROLS:
        case = case_of(models.pretrained, name, arguments.targets, arguments.limit)
        for method in arguments.method or METHODS:
            if method in RIVALS[:3] and models.rivals is None:
                continue
            # Beam search does not depend on the seed.
            seeds = range(arguments.seeds if method != "FT-search" else 1)
            paths = [
                arguments.rows / f"{name}.{method.replace(', ', '-').replace(' ', '_')}.{seed}.jsonl" for seed in seeds
            ]
            rows = [rows_of(models, case, method, seed, path) for seed, path in zip(seeds, paths, strict=True)]
            yield line_of(case, method, rows, judges)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path)
    parser.add_argument(
        "--rivals", type=Path, help="folder that finetune.py wrote; without it some rivals are left out"
    )
    parser.add_argument("--rows", type=Path, default=Path("comparison-rows"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=100, help="of the targets of each control")
    parser.add_argument("--control", action="append", choices=CONTROLS)
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--scorer", help="a causal language model, by folder or hub name, for a second lm-score")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    pretrained = from_pretrained("e2e")
    scorer, tokenizer = load_scorer(pretrained.folder / "scorer")
    source = Source(scorer.to(arguments.device), tokenizer)
    future = None if arguments.rivals is None else load_future(arguments.rivals).to(arguments.device)
    generate(model=pretrained, samples=1, preset="fast", groups=UNSCORED, device=arguments.device)  # warms up
    for line in lines(Models(pretrained, source, future, arguments.rivals, arguments.device), arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
