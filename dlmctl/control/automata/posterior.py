"""Word distributions conditioned on automata: exact for words that are independent given the model's marginals.

Forward-backward over the states of an automaton (Rabiner 1989; for guidance of diffusion models "Diffinity",
arXiv 2602.12468) and the arg max (Viterbi 1967; "DINGO", arXiv 2505.23061). Everything is computed with logarithms, so
nothing underflows in float32, and for all rows and states at once; only positions are a loop. Costs O(L S C) a row, for
S states and C classes of words, and one pass over the ``[L, V]`` log-probabilities.

In all of it ``log_probs [B, L, V]`` may hold -inf for what cannot stand somewhere, ``words [B]`` says how many words
each row has, and ``first`` is the position of the first of them (1, behind START). Other positions stay as they are.
``most`` is the largest of ``words``; where it is not given it is looked for, which waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.control.automata.dfa import DEAD, Automaton


class Automata(NamedTuple):
    """The automata of a batch.

    Attributes:
        classes: ``[B, V]``, the class of each token.
        table: ``[B, S, C]``, where each state and class leads; what leads nowhere leads to the last state, and back.
        accepting: ``[B, S]``.
    """

    classes: Tensor
    table: Tensor
    accepting: Tensor


class Inference(NamedTuple):
    """What one pass over a batch found.

    Attributes:
        log_p: ``[B]``, log-probability that words drawn independently make a text of the language; -inf where none can.
        log_ratio: ``[B, N, C]``, log p(class | language) - log p(class) for each of the (at most) N words.
    """

    log_p: Tensor
    log_ratio: Tensor


def stacked(automata: Sequence[Automaton], device: torch.device | str = "cpu") -> Automata:
    """One automaton for each row, as tensors padded to the largest."""
    states = max(len(automaton.table) for automaton in automata) + 1
    width = max(automaton.table.shape[1] for automaton in automata)
    if all(automaton is automata[0] for automaton in automata):  # one copy is enough
        one = _padded(automata[0], states, width, device)
        return Automata(*(part.expand(len(automata), *part.shape) for part in one))
    parts = [_padded(automaton, states, width, device) for automaton in automata]
    return Automata(*map(torch.stack, zip(*parts, strict=True)))


def _padded(automaton: Automaton, states: int, width: int, device: torch.device | str) -> Automata:
    table = np.full((states, width), states - 1)
    rows, columns = automaton.table.shape
    table[:rows, :columns] = np.where(automaton.table == DEAD, states - 1, automaton.table)
    accepting = np.zeros(states, dtype=bool)
    accepting[:rows] = automaton.accepting
    return Automata(*(torch.from_numpy(part).to(device) for part in (automaton.classes, table, accepting)))


def log_probability(
    log_probs: Tensor, automata: Automata, words: Tensor, first: int = 1, most: int | None = None
) -> Tensor:
    """``[B]``: log-probability that independent words make a text of the language; differentiable.

    Its negative is an energy. Its gradient by a word's log-probability is the word's posterior probability, so it does
    not die where the language is nearly impossible; for the opposite of a language take its ``complement``, whose
    log-probability does not die where the language is nearly certain, as log(1 - p) would. -inf, without a gradient,
    where no text is possible.
    """
    scores = _class_scores(_window(log_probs, words, first, most), automata)
    return _backward(scores, automata, words)[0][:, 0]


def infer(scores: Tensor, automata: Automata, words: Tensor) -> Inference:
    """Forward-backward for log-probabilities of the classes, ``scores [B, N, C]``."""
    behind = _backward(scores, automata, words)
    log_p = behind[0][:, 0]
    reached = torch.full_like(behind[0], -torch.inf)
    reached[:, 0] = 0.0
    to = automata.table.flatten(1)
    ratios = []
    for at in range(scores.shape[1]):
        after = behind[at + 1].gather(1, to).view_as(automata.table)
        ratios.append(log_sum(reached[:, :, None] + after, 1) - log_p[:, None])
        stepped = scatter_log_sum((reached[:, :, None] + scores[:, at, None]).flatten(1), to, reached.shape[1])
        reached = torch.where((at < words)[:, None], stepped, reached)
    return Inference(log_p, torch.stack(ratios, 1))


def condition(
    log_probs: Tensor,
    automata: Automata,
    words: Tensor,
    first: int = 1,
    sharpness: float | Tensor = 1.0,
    most: int | None = None,
) -> Tensor:
    """Log-probabilities ``[B, L, V]`` of the words given that the text is in the language.

    Normalised where ``log_probs`` are. A row whose language is impossible stays as it is: ``log_probability`` says so.

    ``sharpness`` other than 1 chooses among the ways to be in the language by their probability to that power: 2 keeps
    to likelier places. Words within a class keep their proportions. One number, or one a row, ``[B, 1, 1]``.
    """
    window = _window(log_probs, words, first, most)
    scores = _class_scores(window, automata)
    found = infer(scores * sharpness, automata, words)
    shift = found.log_ratio + (sharpness - 1.0) * scores.clamp(min=torch.finfo(scores.dtype).min)
    changed = window + _of_words(shift, automata)
    return _written(log_probs, torch.where(_inside(found.log_p, window, words), changed, window), first)


def likeliest(log_probs: Tensor, automata: Automata, words: Tensor, first: int = 1, most: int | None = None) -> Tensor:
    """``log_probs [B, L, V]`` with -inf for all but the word classes of the likeliest text of the language (Viterbi).

    Any choice of the words that are left is in the language; the arg max of each position is the likeliest text of
    all. A row whose language is impossible stays as it is.
    """
    window = _window(log_probs, words, first, most)
    scores = _class_tops(window, automata)
    behind = _backward(scores, automata, words, best=True)
    return _written(log_probs, _on_path(window, scores, behind, automata, words), first)


def draw(log_probs: Tensor, noise: Tensor, automata: Automata, words: Tensor, first: int = 1) -> Tensor:
    """Token ids ``[B, L]`` of a text drawn from the joint posterior: independent words, given the language.

    ``noise [B, L, V]`` is standard Gumbel, of the caller's own streams. Where several words are committed at once, take
    them from one such draw: with its other words they make a text of the language, which words drawn from the marginals
    one by one need not. A row whose language is impossible is drawn as if it had none.
    """
    noisy = log_probs + noise
    window = _window(noisy, words, first)
    # The largest of log p + noise is a draw (Gumbel-max), also among the words of a class.
    behind = _backward(_class_scores(_window(log_probs, words, first), automata), automata, words)
    held = _on_path(window, _class_tops(window, automata), behind, automata, words)
    return _written(noisy, held, first).argmax(-1)


def allowed(committed: Tensor, automata: Automata, words: Tensor, first: int = 1) -> Tensor:
    """``[B, L, V]``: words that can stand at each position so that a text of the language is still to be had.

    ``committed [B, L]`` holds token ids, -1 where a position is open. A walk that commits one allowed word, asks again,
    and so on, always ends in the language. Nothing is allowed at the words' positions of a row that has left it;
    everything elsewhere.
    """
    shape = (*committed.shape, automata.classes.shape[1])
    window = committed[:, first : first + int(words.max())]
    held = automata.classes.gather(1, window.clamp(min=0))
    kinds = torch.arange(automata.table.shape[2], device=committed.device)
    scores = torch.where((window < 0)[..., None] | (kinds == held[..., None]), 0.0, -torch.inf)
    found = infer(scores, automata, words)
    possible = torch.isfinite(found.log_ratio) & torch.isfinite(scores)
    token = torch.arange(shape[2], device=committed.device)
    fits = (window < 0)[..., None] | (token == window[..., None])
    open_words = _of_words(possible, automata) & fits
    within = torch.arange(window.shape[1], device=words.device) < words[:, None]
    result = torch.ones(shape, dtype=torch.bool, device=committed.device)
    return _written(result, open_words | ~within[..., None], first)


def log_sum(values: Tensor, dim: int) -> Tensor:
    """log of the sum of exponentials over a dimension; -inf, with gradient 0 (torch: NaN), of nothing but -inf."""
    top = values.detach().amax(dim, keepdim=True)
    total = (values - top.clamp(min=torch.finfo(top.dtype).min)).exp().sum(dim)
    # The largest is exp(0), so that less than 1 is 0: nothing there.
    return total.clamp(min=1.0).log() + top.squeeze(dim)


def scatter_log_sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    """``[..., M]`` to ``[..., count]``: ``log_sum`` of the values that share an index; -inf where there are none."""
    top = _scatter_top(values.detach(), index, count)
    shift = top.clamp(min=torch.finfo(top.dtype).min)
    total = torch.zeros_like(top).scatter_add(-1, index, (values - shift.gather(-1, index)).exp())
    return total.clamp(min=1.0).log() + top


def _scatter_top(values: Tensor, index: Tensor, count: int) -> Tensor:
    lowest = values.new_full((*values.shape[:-1], count), -torch.inf)
    return lowest.scatter_reduce(-1, index, values, "amax")


def _backward(scores: Tensor, automata: Automata, words: Tensor, best: bool = False) -> list[Tensor]:
    """For 0 to N words read, ``[B, S]``: log-probability to be accepted from each state, or that of the best way."""
    to = automata.table.flatten(1)
    rest = torch.zeros_like(scores[:, :1, 0]).expand(automata.accepting.shape)
    rest = rest.masked_fill(~automata.accepting, -torch.inf)
    found = [rest]
    for at in reversed(range(scores.shape[1])):
        ways = scores[:, at, None] + rest.gather(1, to).view_as(automata.table)
        stepped = ways.amax(2) if best else log_sum(ways, 2)
        rest = torch.where((at < words)[:, None], stepped, rest)
        found.append(rest)
    return found[::-1]


def _on_path(window: Tensor, scores: Tensor, behind: list[Tensor], automata: Automata, words: Tensor) -> Tensor:
    """``window [B, N, V]`` with -inf off the path of classes that is best at each word, by its ``scores [B, N, C]`` and
    what is ``behind`` it."""
    state = torch.zeros(len(window), dtype=torch.long, device=window.device)
    path, to = [], automata.table
    for at in range(window.shape[1]):
        ways = to.gather(1, state[:, None, None].expand(-1, 1, to.shape[2]))[:, 0]
        chosen = (scores[:, at] + behind[at + 1].gather(1, ways)).argmax(1)
        path.append(chosen)
        state = torch.where(at < words, ways.gather(1, chosen[:, None])[:, 0], state)
    off = automata.classes[:, None] != torch.stack(path, 1)[..., None]
    return window.masked_fill(off & _inside(behind[0][:, 0], window, words), -torch.inf)


def _window(log_probs: Tensor, words: Tensor, first: int, most: int | None = None) -> Tensor:
    return log_probs[:, first : first + (int(words.max()) if most is None else most)]


def _class_scores(window: Tensor, automata: Automata) -> Tensor:
    """Log-probabilities of the classes, ``[B, N, C]``, of those of the words, ``window [B, N, V]``."""
    return scatter_log_sum(window, _spread(automata.classes, window), automata.table.shape[2])


def _class_tops(window: Tensor, automata: Automata) -> Tensor:
    return _scatter_top(window, _spread(automata.classes, window), automata.table.shape[2])


def _of_words(values: Tensor, automata: Automata) -> Tensor:
    """Values of classes ``[B, N, C]`` for each token, ``[B, N, V]``."""
    return values.gather(2, automata.classes[:, None].expand(-1, values.shape[1], -1))


def _spread(classes: Tensor, window: Tensor) -> Tensor:
    return classes[:, None].expand_as(window)


def _inside(log_p: Tensor, window: Tensor, words: Tensor) -> Tensor:
    """``[B, N, 1]``: positions of the words of rows whose language is possible."""
    at = torch.arange(window.shape[1], device=words.device)
    return ((at < words[:, None]) & torch.isfinite(log_p)[:, None])[..., None]


def _written(whole: Tensor, window: Tensor, first: int) -> Tensor:
    return torch.cat([whole[:, :first], window, whole[:, first + window.shape[1] :]], 1)
