"""Texts from the autoregressive scorer under a control: FUDGE, sequential Monte Carlo, and rejection."""

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
from .prefixes import NOTHING
from .tuned import LONGEST, allowed

# Words that FUDGE weighs at each place, and nats of an end that comes too early or too late.
CANDIDATES, ELSEWHERE = 100, -20.0
# Weight of what is foretold, for each control: of 1, 2, 4 and 8 the best on sentences that are no targets.
STRENGTH = {"pos": 2.0, "syntax_tree": 2.0, "spans": 8.0, "semantic": 4.0, "length": 4.0}
# Nats of each thing that a check finds missing in a particle.
PENALTY = {"pos": 5.0, "syntax_tree": 3.0, "spans": 20.0, "semantic": 20.0, "length": 20.0}
MOST_TRIES, BATCH = 128, 64


class Source(NamedTuple):
    """The scorer as a model that writes."""

    model: GPT2
    words: Tokenizer

    def writer(self, texts: int) -> Writer:
        return Writer(self.model, [NOTHING] * texts, self.words.start_id, len(self.words))

    def text(self, ids: Sequence[int]) -> list[str]:
        return self.words.words([self.words.start_id, *ids, self.words.end_id])


Foretold = Callable[[Tensor, int], Tensor]
"""States ``[K, D]`` after so many words to log-probabilities ``[K]`` that the whole text will be as wanted."""


def foretells(future: Future, control: str, params: Any) -> tuple[Foretold, int | None]:
    """What is foretold for a target, and how many words its texts have if that is settled."""
    names = future.names
    device = next(future.parameters()).device
    if control in ("pos", "syntax_tree"):
        wanted = params.tags if control == "pos" else leaf_marks(read_tree(params.tree))
        known = names.tags if control == "pos" else names.marks
        number = {name: at for at, name in enumerate(known)}
        row = [number.get(one, number[OTHER]) for one in wanted] + [number[BEYOND]] * AHEAD
        classes = torch.tensor(row, device=device)
        kind = "tags" if control == "pos" else "marks"

        def ahead(states: Tensor, read: int) -> Tensor:
            after = classes[read - 1 : read - 1 + AHEAD]
            return future.ahead(kind, states)[:, range(len(after)), after].sum(-1)

        return ahead, len(wanted)
    if control == "length":
        return lambda states, read: future.remaining(states)[:, max(0, params.words - read)], params.words
    if control == "semantic":
        ((field, value),) = params.fields.items()
        name = next(name for name in names.fields if field_key(name) == field_key(field))
        place = [known.lower() for known in names.fields[name]].index(value_words(value).lower())
        return lambda states, read: future.field(name, states)[:, place], None
    label = {name: at for at, name in enumerate(names.labels)}
    spans = torch.tensor([(a, b, label.get(name, 0)) for a, b, name in params.wanted], device=device)

    def held(states: Tensor, read: int) -> Tensor:
        each = spans.expand(len(states), -1, -1)
        known = torch.full(each.shape[:2], read, device=device)
        logits = future.has_span(states[:, None].expand(-1, each.shape[1], -1), known, each)
        return torch.nn.functional.logsigmoid(logits).sum(-1)

    return held, None


@torch.no_grad()
def fudge(
    source: Source, future: Future, control: str, params: Any, seed: int, strength: float | None = None
) -> list[str]:
    """FUDGE (Yang and Klein 2021): each word by the model times what a discriminator foretells of the text with it."""
    strength = STRENGTH[control] if strength is None else strength
    foretold, exact = foretells(future, control, params)
    writer, chance = source.writer(1), _chance(source, seed)
    found: list[int] = []
    state: Tensor | None = None
    ending = 0.0
    while len(found) < (LONGEST if exact is None else exact):
        scores, ids = allowed(writer.logits, source.words)[0].log_softmax(-1).topk(CANDIDATES)
        before = None if state is None else state.expand(-1, CANDIDATES, -1).contiguous()
        states, after = future.read(ids[:, None], before)
        weights = strength * foretold(states[:, 0], len(found) + 1)
        end = ending if exact is None else ELSEWHERE
        scores = scores + torch.where(ids == source.words.end_id, strength * end, weights)
        at = int(torch.multinomial(scores.softmax(-1), 1, generator=chance))
        if int(ids[at]) == source.words.end_id:
            break
        found.append(int(ids[at]))
        state = after[:, at : at + 1].contiguous()
        ending = float(foretold(states[at], len(found))) if exact is None else 0.0
        writer.write(ids[at : at + 1])
    return source.text(found)


@torch.no_grad()
def particles(source: Source, control: Control[Any], name: str, target: int, seed: int, count: int = 32) -> list[str]:
    """Sequential Monte Carlo: texts side by side, resampled by what the tagger, the parser or the check makes of their
    beginnings; in the end the one that the check likes best. Of a settled length none ends before it."""
    params, exact = control.dealt(target), settled_words(name, control.dealt(target))
    writer, chance = source.writer(count), _chance(source, seed)
    texts: list[list[int]] = [[] for _ in range(count)]
    ended = [False] * count
    weights, seen = torch.zeros(count), torch.zeros(count)
    for place in range(LONGEST if exact is None else exact):
        logits = allowed(writer.logits, source.words)
        if exact is not None:
            logits[:, source.words.end_id] = -torch.inf
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=chance)[:, 0]
        for row, token in enumerate(drawn.tolist()):
            ended[row] = ended[row] or token == source.words.end_id
            if not ended[row]:
                texts[row].append(token)
        if all(ended):
            break
        now = -PENALTY[name] * _missing(control, name, params, target, [source.text(ids) for ids in texts], ended)
        weights, seen = weights + now - seen, now
        shares = weights.softmax(-1)
        if float(shares.square().sum()) > 2 / count:
            rows = torch.multinomial(
                shares, count, replacement=True, generator=torch.Generator().manual_seed(seed + place)
            )
            texts, ended = [list(texts[row]) for row in rows], [ended[row] for row in rows]
            weights, seen = torch.zeros(count), seen[rows]
            writer.take(rows.to(drawn.device))
            drawn = drawn[rows.to(drawn.device)]
        writer.write(drawn)
    finished = [source.text(ids) for ids in texts]
    checks = control.verdicts([target] * count, finished)
    best = max(range(count), key=lambda row: (checks[row].score, float(weights[row])))
    return finished[best]


def settled_words(control: str, params: Any) -> int | None:
    """How many words the texts of a target have, where that is settled."""
    if control == "syntax_tree":
        return params.words if params.tree is not None else None
    return len(params.tags) if control == "pos" else params.words if control == "length" else None


def _missing(
    control: Control[Any], name: str, params: Any, target: int, texts: list[list[str]], ended: list[bool]
) -> Tensor:
    """How much each beginning of a text already lacks ``[K]``."""
    if name == "pos":
        tagged = upos_tagger()(texts)
        pairs = (zip(params.tags, tags, strict=False) for tags in tagged)
        return torch.tensor([float(sum(a != b for a, b in pair)) for pair in pairs])
    if name == "syntax_tree":
        trees = constituency_parser()(texts)
        found = [set(labelled_spans(tree)) for tree in trees]
        # The last two words may still change what the parser makes of a phrase.
        closed = [[span for span in params.wanted if span.end < len(words) - 2] for words in texts]
        pairs = zip(closed, found, strict=True)
        return torch.tensor([float(sum(span not in have for span in past)) for past, have in pairs])
    if name == "spans":
        last = max(span.end for span in params.wanted)
        past = [len(words) > last + 2 or over for words, over in zip(texts, ended, strict=True)]
        if not any(past):
            return torch.zeros(len(texts))
        checks = control.verdicts([target] * len(texts), texts)
        return torch.tensor([1 - check.score if over else 0.0 for check, over in zip(checks, past, strict=True)])
    checks = control.verdicts([target] * len(texts), texts)
    return torch.tensor([1.0 - check.score for check in checks])


def rejection(source: Source, control: Control[Any], target: int, seed: int) -> list[str]:
    """The text that the check likes best of those drawn until one passes, or there are ``MOST_TRIES``."""
    best: tuple[float, list[str]] = (-1.0, [])
    for batch in range(MOST_TRIES // BATCH):
        texts = free(source, BATCH, 1000 * target + batch + 1_000_000 * seed)
        checks = control.verdicts([target] * len(texts), texts)
        best = max([best, *((check.score, text) for check, text in zip(checks, texts, strict=True))])
        if any(check.passed for check in checks):
            break
    return best[1]


@torch.no_grad()
def free(source: Source, count: int, seed: int) -> list[list[str]]:
    """Texts of the scorer, word by word at temperature 1."""
    writer, chance = source.writer(count), _chance(source, seed)
    found: list[Tensor] = []
    done = torch.zeros(count, dtype=torch.bool, device=writer.logits.device)
    for _ in range(LONGEST):
        ids = torch.multinomial(allowed(writer.logits, source.words).softmax(-1), 1, generator=chance)[:, 0]
        ids = torch.where(done, source.words.end_id, ids)
        found.append(ids)
        done |= ids == source.words.end_id
        if bool(done.all()):
            break
        writer.write(ids)
    rows = torch.stack(found, 1).tolist()
    return [source.text(row[: row.index(source.words.end_id)] if source.words.end_id in row else row) for row in rows]


def _chance(source: Source, seed: int) -> torch.Generator:
    return torch.Generator(next(source.model.parameters()).device).manual_seed(seed)
