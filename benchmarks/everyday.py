"""Controls of the bundled model of everyday English: success, fluency and passes of the network.

    python benchmarks/everyday.py DATA pos [--targets 200] [--seeds 0,1,2] [--set KEY=VALUE ...]

DATA is a folder that ``dlmctl data prepare valid.jsonl --vocabulary everyday`` made. The targets are read off its
``valid`` split: sentences of 6 to 20 words, every word known, in an order that is always the same. The first 200 are
reported; ``--tuning`` takes those from the 201st on, by which settings were chosen. A setting is one of a recipe.
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

from controls import Classifier, Pos, SyntaxTree
from controls.classifier import ClassifierParams
from controls.syntax_params import SpanParams, SyntaxTreeParams
from dlmctl.annotators.parsing import constituency_parser
from dlmctl.annotators.tagging import upos_tagger
from dlmctl.annotators.trees import labelled_spans
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import All, Control
from dlmctl.control.combined import check_all
from dlmctl.datasets.dataset import load_split, load_vocabulary
from dlmctl.generation.generate import draw_recipe
from dlmctl.metrics.diversity import distinct_n, self_bleu
from dlmctl.metrics.lm_score import corpus_nats, load_scorer
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


def sentences(data: Path, count: int, *, tuning: bool) -> list[list[str]]:
    """Sentences of the ``valid`` split that targets are read off."""
    split, vocabulary = load_split(data, "valid"), load_vocabulary(data)
    rows = [split.row(at) for at in np.random.default_rng(0).permutation(len(split))]
    known = [row for row in rows if len(row) - 2 in WORDS and vocabulary.unk_id not in row]
    first = REPORTED if tuning else 0
    return [vocabulary.words(row.tolist()) for row in known[first : first + count]]


def spans_of(texts: Sequence[Sequence[str]], judge: str | None = None) -> list[SyntaxTreeParams]:
    """Two constituents of each sentence, of more than one word and less than all."""
    rng, found = np.random.default_rng(0), []
    for words, tree in zip(texts, constituency_parser(judge)(texts), strict=True):
        usable = [span for span in labelled_spans(tree) if 1 < span.end - span.start + 1 < len(words) - 1]
        chosen = [usable[at] for at in sorted(rng.permutation(len(usable))[:2])]
        if chosen:
            spans = [SpanParams(label=span.label, start=span.start, end=span.end) for span in chosen]
            found.append(SyntaxTreeParams(spans=spans, judge=judge))
    return found


def control_of(name: str, texts: Sequence[Sequence[str]], judge: str | None) -> Control[Any]:
    """A control with one target for each sentence; ``pos+syntax_tree`` asks for both."""
    if "+" in name:
        return All([control_of(part, texts, judge) for part in name.split("+")])
    if name == "spans":
        return SyntaxTree.each(spans_of(texts, judge))
    if name in ATTRIBUTES:
        labels = ATTRIBUTES[name]
        return Classifier.each(
            [ClassifierParams(label=labels[at % len(labels)], name=name) for at in range(len(texts))]
        )
    kind: type[Control[Any]] = {"pos": Pos, "syntax_tree": SyntaxTree}[name]
    params = [kind.from_target({"words": words, **({"judge": judge} if judge else {})}) for words in texts]
    return kind.each(params)


@contextmanager
def passes_of(pretrained: Pretrained) -> Iterator[list[int]]:
    """Counts the texts that go through the network."""
    seen: list[int] = []
    hook = pretrained.model.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        yield seen
    finally:
        hook.remove()


class First:
    """Keeps the texts that the first round drew, one for each sample, while a control checks them."""

    def __init__(self, control: Control[Any]) -> None:
        part = control.parts[0] if isinstance(control, All) else control
        verdicts, self.texts = part.verdicts, dict[int, Sequence[str]]()

        def watched(samples: Sequence[int], texts: Sequence[Sequence[str]]) -> list[Any]:
            for sample, words in zip(samples, texts, strict=True):
                self.texts.setdefault(sample, words)
            return verdicts(samples, texts)

        part.verdicts, self.undo = watched, lambda: setattr(part, "verdicts", verdicts)  # type: ignore[method-assign]


def figures_of(control: Control[Any], pretrained: Pretrained, texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean score and share of texts that pass, lm-score and diversity."""
    control.load_from(pretrained)
    verdicts = check_all(control, range(len(texts)), texts)
    figures = {f"score {label}": statistics.mean(row[label].score for row in verdicts) for label in verdicts[0]}
    for label in sorted({str(one.label) for one in control.sets if isinstance(one, ClassifierParams)}):
        rows = [at for at in range(len(texts)) if control.dealt(at).label == label]
        figures[label] = statistics.mean(verdicts[at]["classifier"].passed for at in rows)
    figures["whole"] = statistics.mean(all(check.passed for check in row.values()) for row in verdicts)
    figures["lm_score"] = corpus_nats(load_scorer(pretrained.folder / "scorer"), texts)
    return figures | diversity_of(texts)


def diversity_of(texts: Sequence[Sequence[str]]) -> dict[str, float]:
    return {"distinct-2": distinct_n(texts, 2), "self-bleu": self_bleu(texts)}


def copied(texts: Sequence[Sequence[str]], training: Sequence[Path]) -> float:
    """Share of the texts of nine words and more that stand word for word in files of training text."""
    long = {tuple(words) for words in texts if len(words) >= LONG}
    lines = (json.loads(line)["text"] for path in training for line in path.open(encoding="utf-8"))
    found = {words for text in lines if (words := tuple(split_penn(text))) in long}
    return sum(tuple(words) in found for words in texts if len(words) >= LONG) / max(1, len(long))


def second_reading(control: Control[Any], texts: Sequence[Sequence[str]], judge: str) -> dict[str, float]:
    """How far another tagger agrees with the tags that texts were asked for: of the words, and of whole texts."""
    tags = upos_tagger(judge)([list(words) for words in texts])
    pairs = [(control.dealt(at).tags, found) for at, found in enumerate(tags)]
    met = [[wanted == tag for wanted, tag in zip(*pair, strict=False)] for pair in pairs]
    return {judge: statistics.mean(chain.from_iterable(met)), f"{judge}, whole": statistics.mean(map(all, met))}


def measure(
    control: Control[Any], pretrained: Pretrained, count: int, settings: Recipe, seed: int, given: argparse.Namespace
) -> dict[str, float]:
    """One text for each target: figures of the first draw and, with more rounds or candidates, of the texts kept."""
    control.load_from(pretrained)  # what First keeps is asked of this one, whatever copy checks
    first, guided = First(control), not given.unguided
    changes: dict[str, Any] = {"seed": seed, "batch_size": 32}
    recipe = settings.model_copy(update=changes if guided else {**changes, "until": None})
    with passes_of(pretrained) as seen:
        started, clock = time.process_time(), time.perf_counter()
        result = draw_recipe(recipe, control if guided else None, pretrained, None, samples=range(count))
        seconds, clock = time.process_time() - started, time.perf_counter() - clock
    first.undo()
    texts = [sample.words for sample in result]
    figures = figures_of(control, pretrained, texts)
    if first.texts and (settings.until is not None or settings.candidates > 1):
        drawn = figures_of(control, pretrained, [first.texts[sample] for sample in range(count)])
        figures = {**{f"first {name}": value for name, value in drawn.items()}, **figures}
    figures |= {"passes": sum(seen) / count, "seconds": seconds / count, "by the clock": clock / count}
    if given.second is not None:
        figures |= second_reading(control, texts, given.second)
    if given.training:
        figures["copied"] = copied(texts, given.training)
    print(json.dumps({"seed": seed, **{name: round(value, 4) for name, value in figures.items()}}), flush=True)
    for words in texts[:4]:
        print("   ", " ".join(words), flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("control", help="pos, syntax_tree, spans, kind, sentiment, topic, level; several joined by +")
    parser.add_argument("--model", default="everyday")
    parser.add_argument("--targets", type=int, default=REPORTED)
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--judge", help="a parser or tagger that reads the targets and checks, in place of the bundled")
    parser.add_argument("--second", metavar="TAGGER", help="reads the texts of pos too, e.g. spacy:en_core_web_sm")
    parser.add_argument("--training", type=Path, nargs="*", default=[], help="JSON lines: which texts are copied?")
    parser.add_argument("--threads", type=int, default=1, help="seconds are the processor's, of all threads")
    parser.add_argument("--unguided", action="store_true", help="free texts, checked by the same targets")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pretrained = from_pretrained(given.model)
    texts = sentences(given.data, given.targets, tuning=given.tuning)
    control = control_of(given.control, texts, given.judge)
    count = len((control.parts[0] if isinstance(control, All) else control).sets)
    settings = read_recipe("", "command line", [f"model={given.model}", *given.settings])[0]
    own = corpus_nats(load_scorer(pretrained.folder / "scorer"), texts)
    print(f"{given.control}: {count} targets; lm-score of the sentences they were read off: {own:.3f}", flush=True)
    print({name: round(value, 3) for name, value in diversity_of(texts).items()})
    if given.second is not None:
        print("of these sentences", second_reading(control, texts, given.second), flush=True)
    found = [measure(control, pretrained, count, settings, int(seed), given) for seed in given.seeds.split(",")]
    for name in found[0]:
        values = [figures[name] for figures in found]
        print(f"{name}\t{statistics.mean(values):.4f}\t{min(values):.4f} to {max(values):.4f}")


if __name__ == "__main__":
    main()
