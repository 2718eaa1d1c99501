"""Controlled texts from the autoregressive scorer: FUDGE, sequential Monte Carlo, and rejection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmctl.annotators.parsing import constituency_parser
from dlmctl.annotators.tagging import upos_tagger
from dlmctl.annotators.trees import labelled_spans, read_tree
from dlmctl.control.base import Control
from dlmctl.models.gpt2 import GPT2
from dlmctl.text.fields import field_key, value_words
from dlmctl.text.tokenizer import Tokenizer

from .annotated import leaf_marks
from .future import AHEAD, BEYOND, OTHER, Future
from .network import Writer
from .prefixes import NO_CONTROL
from .tuned import MAX_WORDS, allowed

# Words that FUDGE reweights at each place, and the log-probability of an end that comes too early or too late.
CANDIDATES, WRONG_END = 100, -20.0
# Weight of the predictions for each control: the best of 1, 2, 4 and 8 on sentences that are not targets.
STRENGTH = {"pos": 2.0, "syntax_tree": 2.0, "spans": 8.0, "semantic": 4.0, "length": 4.0}
# Nats for each requirement that a particle misses.
PENALTY = {"pos": 5.0, "syntax_tree": 3.0, "spans": 20.0, "semantic": 20.0, "length": 20.0}
MAX_TRIES, BATCH = 128, 64


class Source(NamedTuple):
    """The scorer as a generator."""

    model: GPT2
    tokenizer: Tokenizer

    def writer(self, texts: int) -> Writer:
        return Writer(self.model, [NO_CONTROL] * texts, self.tokenizer.start_id, len(self.tokenizer))

    def text(self, ids: Sequence[int]) -> list[str]:
        return self.tokenizer.words([self.tokenizer.start_id, *ids, self.tokenizer.end_id])


Predictor = Callable[[Tensor, int], Tensor]
"""Maps states ``[K, D]`` after a number of words to log-probabilities ``[K]`` that the whole text meets the target."""


def target_predictor(future: Future, control: str, params: Any) -> tuple[Predictor, int | None]:
    """The predictor of a target, and the number of words of its texts if that is fixed."""
    names = future.names
    device = next(future.parameters()).device
    if control in ("pos", "syntax_tree"):
        target = params.tags if control == "pos" else leaf_marks(read_tree(params.tree))
        class_names = names.tags if control == "pos" else names.marks
        class_ids = {name: at for at, name in enumerate(class_names)}
        row = [class_ids.get(name, class_ids[OTHER]) for name in target] + [class_ids[BEYOND]] * AHEAD
        target_ids = torch.tensor(row, device=device)
        kind = "tags" if control == "pos" else "marks"

        def log_prob_ahead(states: Tensor, read: int) -> Tensor:
            next_ids = target_ids[read - 1 : read - 1 + AHEAD]
            return future.ahead(kind, states)[:, range(len(next_ids)), next_ids].sum(-1)

        return log_prob_ahead, len(target)
    if control == "length":
        return lambda states, read: future.remaining(states)[:, max(0, params.words - read)], params.words
    if control == "semantic":
        ((field, value),) = params.fields.items()
        name = next(name for name in names.fields if field_key(name) == field_key(field))
        value_id = [known.lower() for known in names.fields[name]].index(value_words(value).lower())
        return lambda states, read: future.field(name, states)[:, value_id], None
    label_ids = {name: at for at, name in enumerate(names.labels)}
    spans = torch.tensor([(a, b, label_ids.get(name, 0)) for a, b, name in params.wanted], device=device)

    def log_prob_spans(states: Tensor, read: int) -> Tensor:
        expanded = spans.expand(len(states), -1, -1)
        words_read = torch.full(expanded.shape[:2], read, device=device)
        logits = future.has_span(states[:, None].expand(-1, expanded.shape[1], -1), words_read, expanded)
        return torch.nn.functional.logsigmoid(logits).sum(-1)

    return log_prob_spans, None


@torch.no_grad()
def fudge(
    source: Source, future: Future, control: str, params: Any, seed: int, strength: float | None = None
) -> list[str]:
    """FUDGE (Yang and Klein 2021): the model's probability of each word times that of the target given the word."""
    strength = STRENGTH[control] if strength is None else strength
    predict, exact_length = target_predictor(future, control, params)
    writer, generator = source.writer(1), _generator(source, seed)
    text_ids: list[int] = []
    state: Tensor | None = None
    end_score = 0.0
    while len(text_ids) < (MAX_WORDS if exact_length is None else exact_length):
        scores, ids = allowed(writer.logits, source.tokenizer)[0].log_softmax(-1).topk(CANDIDATES)
        expanded = None if state is None else state.expand(-1, CANDIDATES, -1).contiguous()
        outputs, next_states = future.read(ids[:, None], expanded)
        weights = strength * predict(outputs[:, 0], len(text_ids) + 1)
        end = end_score if exact_length is None else WRONG_END
        scores = scores + torch.where(ids == source.tokenizer.end_id, strength * end, weights)
        chosen = int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
        if int(ids[chosen]) == source.tokenizer.end_id:
            break
        text_ids.append(int(ids[chosen]))
        state = next_states[:, chosen : chosen + 1].contiguous()
        end_score = float(predict(outputs[chosen], len(text_ids))) if exact_length is None else 0.0
        writer.write(ids[chosen : chosen + 1])
    return source.text(text_ids)


@torch.no_grad()
def particles(source: Source, control: Control[Any], name: str, target: int, seed: int, count: int = 32) -> list[str]:
    """Sequential Monte Carlo: parallel texts, resampled by how their beginnings fare with the tagger, the parser or the
    check; returns the text with the best score. If the length is fixed, none ends before it."""
    params, exact_length = control.dealt(target), fixed_length(name, control.dealt(target))
    writer, generator = source.writer(count), _generator(source, seed)
    texts: list[list[int]] = [[] for _ in range(count)]
    ended = [False] * count
    weights, scores = torch.zeros(count), torch.zeros(count)
    for step in range(MAX_WORDS if exact_length is None else exact_length):
        logits = allowed(writer.logits, source.tokenizer)
        if exact_length is not None:
            logits[:, source.tokenizer.end_id] = -torch.inf
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        for row, token in enumerate(drawn.tolist()):
            ended[row] = ended[row] or token == source.tokenizer.end_id
            if not ended[row]:
                texts[row].append(token)
        if all(ended):
            break
        beginnings = [source.text(ids) for ids in texts]
        new_scores = -PENALTY[name] * _violations(control, name, params, target, beginnings, ended)
        weights, scores = weights + new_scores - scores, new_scores
        shares = weights.softmax(-1)
        if float(shares.square().sum()) > 2 / count:
            rows = torch.multinomial(
                shares, count, replacement=True, generator=torch.Generator().manual_seed(seed + step)
            )
            texts, ended = [list(texts[row]) for row in rows], [ended[row] for row in rows]
            weights, scores = torch.zeros(count), scores[rows]
            writer.reorder(rows.to(drawn.device))
            drawn = drawn[rows.to(drawn.device)]
        writer.write(drawn)
    finished = [source.text(ids) for ids in texts]
    checks = control.verdicts([target] * count, finished)
    best = max(range(count), key=lambda row: (checks[row].score, float(weights[row])))
    return finished[best]


def fixed_length(control: str, params: Any) -> int | None:
    """The number of words of a target's texts, if it is fixed."""
    if control == "syntax_tree":
        return params.words if params.tree is not None else None
    return len(params.tags) if control == "pos" else params.words if control == "length" else None


def _violations(
    control: Control[Any], name: str, params: Any, target: int, texts: list[list[str]], ended: list[bool]
) -> Tensor:
    """How far each beginning of a text already violates the target ``[K]``."""
    if name == "pos":
        tagged = upos_tagger()(texts)
        pairs = (zip(params.tags, tags, strict=False) for tags in tagged)
        return torch.tensor([float(sum(a != b for a, b in pair)) for pair in pairs])
    if name == "syntax_tree":
        trees = constituency_parser()(texts)
        text_spans = [set(labelled_spans(tree)) for tree in trees]
        # With more words the parser may still change phrases that end in the last two.
        complete = [[span for span in params.wanted if span.end < len(words) - 2] for words in texts]
        pairs = zip(complete, text_spans, strict=True)
        return torch.tensor([float(sum(span not in spans for span in due)) for due, spans in pairs])
    if name == "spans":
        last = max(span.end for span in params.wanted)
        is_past = [len(words) > last + 2 or over for words, over in zip(texts, ended, strict=True)]
        if not any(is_past):
            return torch.zeros(len(texts))
        checks = control.verdicts([target] * len(texts), texts)
        return torch.tensor([1 - check.score if past else 0.0 for check, past in zip(checks, is_past, strict=True)])
    checks = control.verdicts([target] * len(texts), texts)
    return torch.tensor([1.0 - check.score for check in checks])


def rejection(source: Source, control: Control[Any], target: int, seed: int) -> list[str]:
    """The text with the best score among those drawn until one passes, or ``MAX_TRIES`` are drawn."""
    best: tuple[float, list[str]] = (-1.0, [])
    for batch in range(MAX_TRIES // BATCH):
        texts = free_texts(source, BATCH, 1000 * target + batch + 1_000_000 * seed)
        checks = control.verdicts([target] * len(texts), texts)
        best = max([best, *((check.score, text) for check, text in zip(checks, texts, strict=True))])
        if any(check.passed for check in checks):
            break
    return best[1]


@torch.no_grad()
def free_texts(source: Source, count: int, seed: int) -> list[list[str]]:
    """Texts of the scorer, drawn word by word at temperature 1."""
    writer, generator = source.writer(count), _generator(source, seed)
    columns: list[Tensor] = []
    done = torch.zeros(count, dtype=torch.bool, device=writer.logits.device)
    end_id = source.tokenizer.end_id
    for _ in range(MAX_WORDS):
        ids = torch.multinomial(allowed(writer.logits, source.tokenizer).softmax(-1), 1, generator=generator)[:, 0]
        ids = torch.where(done, end_id, ids)
        columns.append(ids)
        done |= ids == end_id
        if bool(done.all()):
            break
        writer.write(ids)
    rows = torch.stack(columns, 1).tolist()
    return [source.text(row[: row.index(end_id)] if end_id in row else row) for row in rows]


def _generator(source: Source, seed: int) -> torch.Generator:
    return torch.Generator(next(source.model.parameters()).device).manual_seed(seed)
