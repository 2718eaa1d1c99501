"""Controls of the bundled model of everyday English: success, fluency and network passes.

    python benchmarks/everyday.py DATA pos [--targets 200] [--seeds 0,1,2] [--set KEY=VALUE ...]

DATA is a folder that ``dlmctl data prepare valid.jsonl --vocabulary everyday`` made. The targets are read from its
``valid`` split: sentences of 6 to 20 known words, always in the same order. The first 200 are reported; ``--tuning``
uses those from the 201st on, on which settings were chosen. ``--set`` takes settings of recipes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controls import Characters, Classifier, Length, Pos, Syllables, SyntaxTree
from controls.classifier import ClassifierParams
from controls.syntax_params import SpanParams, SyntaxTreeParams
from dlmctl.annotators.parsing import constituency_parser
from dlmctl.annotators.scorer import load_scorer
from dlmctl.annotators.tagging import upos_tagger
from dlmctl.annotators.trees import labelled_spans
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import All, Control
from dlmctl.control.combined import check_all
from dlmctl.datasets.dataset import load_split, load_vocabulary
from dlmctl.generation.generate import draw_recipe
from dlmctl.metrics.diversity import distinct_n, self_bleu
from dlmctl.metrics.lm_score import corpus_nats
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.recipe import Recipe
from dlmctl.text.penn import split_penn

WORDS = range(6, 21)
REPORTED, LONG = 200, 9
ATTRIBUTES = {
    "kind": ("statement", "question", "command", "exclamation"),
    "sentiment": ("positive", "negative"),
    "topic": ("food", "weather", "music", "travel", "money"),
    "level": ("easy", "hard"),
}
CONTROLS: dict[str, type[Control[Any]]] = {
    "pos": Pos,
    "syntax_tree": SyntaxTree,
    "length": Length,
    "syllables": Syllables,
    "characters": Characters,
}


def sentences(data: Path, count: int, *, tuning: bool) -> list[list[str]]:
    """Sentences of the ``valid`` split from which targets are read."""
    split, vocabulary = load_split(data, "valid"), load_vocabulary(data)
    rows = [split.row(at) for at in np.random.default_rng(0).permutation(len(split))]
    known = [row for row in rows if len(row) - 2 in WORDS and vocabulary.unk_id not in row]
    first = REPORTED if tuning else 0
    return [vocabulary.words(row.tolist()) for row in known[first : first + count]]


def spans_of(texts: Sequence[Sequence[str]], judge: str | None = None) -> list[SyntaxTreeParams]:
    """Up to two constituents of each sentence, longer than one word and shorter than the sentence."""
    rng, params = np.random.default_rng(0), []
    for words, tree in zip(texts, constituency_parser(judge)(texts), strict=True):
        usable = [span for span in labelled_spans(tree) if 1 < span.end - span.start + 1 < len(words) - 1]
        chosen = [usable[at] for at in sorted(rng.permutation(len(usable))[:2])]
        if chosen:
            spans = [SpanParams(label=span.label, start=span.start, end=span.end) for span in chosen]
            params.append(SyntaxTreeParams(spans=spans, judge=judge))
    return params


def control_of(name: str, texts: Sequence[Sequence[str]], judge: str | None) -> Control[Any]:
    """A control with one target for each sentence; ``pos+syntax_tree`` combines two."""
    if "+" in name:
        return All([control_of(part, texts, judge) for part in name.split("+")])
    if name == "spans":
        return SyntaxTree.each(spans_of(texts, judge))
    if name in ATTRIBUTES:
        labels = ATTRIBUTES[name]
        return Classifier.each(
            [ClassifierParams(label=labels[at % len(labels)], name=name) for at in range(len(texts))]
        )
    kind: type[Control[Any]] = CONTROLS[name]
    params = [kind.from_target({"words": words, **({"judge": judge} if judge else {})}) for words in texts]
    return kind.each(params)


@contextmanager
def passes_of(pretrained: Pretrained) -> Iterator[list[int]]:
    """Context manager that collects the batch sizes of the network's forward passes."""
    batch_sizes: list[int] = []
    hook = pretrained.model.denoiser.register_forward_pre_hook(lambda _, inputs: batch_sizes.append(len(inputs[0])))
    try:
        yield batch_sizes
    finally:
        hook.remove()


class FirstDraws:
    """Records the first text of each sample that a control checks."""

    def __init__(self, control: Control[Any]) -> None:
        part = control.parts[0] if isinstance(control, All) else control
        verdicts, self.texts = part.verdicts, dict[int, Sequence[str]]()

        def recorded(samples: Sequence[int], texts: Sequence[Sequence[str]], *written: Any) -> list[Any]:
            for sample, words in zip(samples, texts, strict=True):
                self.texts.setdefault(sample, words)
            return verdicts(samples, texts, *written)

        part.verdicts, self.undo = recorded, lambda: setattr(part, "verdicts", verdicts)  # type: ignore[method-assign]


def figures_of(control: Control[Any], pretrained: Pretrained, texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean score and share of texts that pass, lm-score and diversity."""
    control.load_from(pretrained)
    verdicts = check_all(control, range(len(texts)), texts)
    figures = {f"score {label}": statistics.mean(row[label].score for row in verdicts) for label in verdicts[0]}
    for label in sorted({str(params.label) for params in control.sets if isinstance(params, ClassifierParams)}):
        rows = [at for at in range(len(texts)) if control.dealt(at).label == label]
        figures[label] = statistics.mean(verdicts[at]["classifier"].passed for at in rows)
    figures["whole"] = statistics.mean(all(check.passed for check in row.values()) for row in verdicts)
    figures["lm_score"] = corpus_nats(load_scorer(pretrained.folder / "scorer"), texts)
    return figures | diversity_of(texts)


def diversity_of(texts: Sequence[Sequence[str]]) -> dict[str, float]:
    return {"distinct-2": distinct_n(texts, 2), "self-bleu": self_bleu(texts)}


def copied_share(texts: Sequence[Sequence[str]], training: Sequence[Path]) -> float:
    """The share of texts of at least nine words that occur verbatim in files of training text."""
    long = {tuple(words) for words in texts if len(words) >= LONG}
    lines = (json.loads(line)["text"] for path in training for line in path.open(encoding="utf-8"))
    copied = {words for text in lines if (words := tuple(split_penn(text))) in long}
    return sum(tuple(words) in copied for words in texts if len(words) >= LONG) / max(1, len(long))


def second_opinion(control: Control[Any], texts: Sequence[Sequence[str]], judge: str) -> dict[str, float]:
    """The agreement of another tagger with the target tags: the share of words, and of whole texts."""
    tags = upos_tagger(judge)([list(words) for words in texts])
    pairs = [(control.dealt(target).tags, text_tags) for target, text_tags in enumerate(tags)]
    matches = [[target == tag for target, tag in zip(*pair, strict=False)] for pair in pairs]
    return {judge: statistics.mean(chain.from_iterable(matches)), f"{judge}, whole": statistics.mean(map(all, matches))}


def measure(
    control: Control[Any],
    pretrained: Pretrained,
    count: int,
    settings: Recipe,
    seed: int,
    arguments: argparse.Namespace,
) -> dict[str, float]:
    """Draw one text for each target; figures of the results and, with more rounds or candidates, of the first draws."""
    control.load_from(pretrained)  # FirstDraws has to patch this instance, even if a copy checks
    first, guided = FirstDraws(control), not arguments.unguided
    changes: dict[str, Any] = {"seed": seed, "batch_size": 32}
    recipe = settings.model_copy(update=changes if guided else {**changes, "until": None})
    with passes_of(pretrained) as batch_sizes:
        started, clock = time.process_time(), time.perf_counter()
        result = draw_recipe(recipe, control if guided else None, pretrained, None, samples=range(count))
        seconds, clock = time.process_time() - started, time.perf_counter() - clock
    first.undo()
    texts = [sample.words for sample in result]
    figures = figures_of(control, pretrained, texts)
    if first.texts and (settings.until is not None or settings.candidates > 1):
        first_figures = figures_of(control, pretrained, [first.texts[sample] for sample in range(count)])
        figures = {**{f"first {name}": value for name, value in first_figures.items()}, **figures}
    figures |= {"passes": sum(batch_sizes) / count, "seconds": seconds / count, "by the clock": clock / count}
    if arguments.second is not None:
        figures |= second_opinion(control, texts, arguments.second)
    if arguments.training:
        figures["copied"] = copied_share(texts, arguments.training)
    print(json.dumps({"seed": seed, **{name: round(value, 4) for name, value in figures.items()}}), flush=True)
    for words in texts[:4]:
        print("   ", " ".join(words), flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("control", help=f"spans, {', '.join([*CONTROLS, *ATTRIBUTES])}; several joined by +")
    parser.add_argument("--model", default="everyday")
    parser.add_argument("--targets", type=int, default=REPORTED)
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--judge", help="parser or tagger for reading targets and checking, instead of the bundled one")
    parser.add_argument("--second", metavar="TAGGER", help="also tags the texts of pos, e.g. spacy:en_core_web_sm")
    parser.add_argument("--training", type=Path, nargs="*", default=[], help="JSON lines, to find copied texts")
    parser.add_argument("--threads", type=int, default=1, help="reported seconds are CPU time of all threads")
    parser.add_argument("--unguided", action="store_true", help="free texts, checked against the same targets")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pretrained = from_pretrained(arguments.model)
    texts = sentences(arguments.data, arguments.targets, tuning=arguments.tuning)
    control = control_of(arguments.control, texts, arguments.judge)
    count = len((control.parts[0] if isinstance(control, All) else control).sets)
    settings = read_recipe("", "command line", [f"model={arguments.model}", *arguments.settings])[0]
    source_nats = corpus_nats(load_scorer(pretrained.folder / "scorer"), texts)
    print(f"{arguments.control}: {count} targets; lm-score of their source sentences: {source_nats:.3f}", flush=True)
    print({name: round(value, 3) for name, value in diversity_of(texts).items()})
    if arguments.second is not None:
        print("on these sentences", second_opinion(control, texts, arguments.second), flush=True)
    by_seed = [
        measure(control, pretrained, count, settings, int(seed), arguments) for seed in arguments.seeds.split(",")
    ]
    for name in by_seed[0]:
        values = [figures[name] for figures in by_seed]
        print(f"{name}\t{statistics.mean(values):.4f}\t{min(values):.4f} to {max(values):.4f}")


if __name__ == "__main__":
    main()
