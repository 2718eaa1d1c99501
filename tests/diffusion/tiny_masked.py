"""A masked model small enough to enumerate everything: three words, sequences of three."""

from __future__ import annotations

from itertools import combinations, permutations, product

import torch
from torch import Tensor

from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.models.llama import LlamaConfig
from dlmctl.text.tokenizer import WordTokenizer

TOKENIZER = WordTokenizer({word: number for number, word in enumerate("START END UNK PAD oak elm ash".split())})
WORDS = (4, 5, 6)
PLACES = range(3)
MASK = len(TOKENIZER)
TEXTS = list(product(WORDS, repeat=3))


def tiny_masked(scale: float = 15.0, **changes: object) -> MaskedLM:
    """A model with large random weights, so that its words depend on each other."""
    torch.manual_seed(0)
    sizes = LlamaConfig(hidden=16, layers=2, heads=2, inner=24, max_length=16)
    config = MaskedConfig.model_validate({"vocab_size": MASK, "length": 16, "denoiser": sizes, **changes})
    model = MaskedLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(scale)
        model.denoiser.model.embed_tokens.weight.mul_(0.5)
    return model


class Enumerated:
    """A table of the model's word distributions at every canvas of three places.

    Args:
        framed: put START before the three places and END after them, as in generation.
    """

    def __init__(self, model: MaskedLM, *, framed: bool = False) -> None:
        self.canvases = torch.tensor(list(product((*WORDS, MASK), repeat=3)))
        start, end = (torch.full((len(self.canvases), 1), number) for number in (0, 1))
        with torch.no_grad():
            if framed:
                self.logits = model.double().logits(torch.cat([start, self.canvases, end], dim=1))[:, 1:-1]
            else:
                self.logits = model.double().logits(self.canvases)
        self.logits[..., :4] = -torch.inf
        self.log_probs = self.logits.log_softmax(-1)

    def at(self, canvases: Tensor) -> Tensor:
        """Logits ``[B, 3, V]`` at canvases ``[B, 3]``."""
        return self.logits[((canvases - WORDS[0]) * torch.tensor([16, 4, 1])).sum(1)]

    def nats(self, text: tuple[int, ...], seen: tuple[int, ...], place: int) -> float:
        """-log p of the word of ``text`` at a place, given its words at the ``seen`` places."""
        canvas = torch.tensor([[word if at in seen else MASK for at, word in enumerate(text)]])
        index = int(((canvas - WORDS[0]) * torch.tensor([16, 4, 1])).sum())
        return -float(self.log_probs[index, place, text[place]])

    def drawn_in(self, groups: list[tuple[tuple[int, ...], ...]]) -> Tensor:
        """Probabilities of ``TEXTS`` if places are written group by group, all groupings being equally likely."""
        probabilities = []
        for text in TEXTS:
            total = 0.0
            for grouping in groups:
                nats, seen = 0.0, ()
                for group in grouping:
                    nats += sum(self.nats(text, seen, place) for place in group)
                    seen += group
                total += float(torch.exp(torch.tensor(-nats, dtype=torch.float64)))
            probabilities.append(total / len(groups))
        return torch.tensor(probabilities, dtype=torch.float64)


def one_by_one() -> list[tuple[tuple[int, ...], ...]]:
    """Every order of the three places."""
    return [tuple((place,) for place in order) for order in permutations(PLACES)]


def first_then_rest(*sizes: int) -> list[tuple[tuple[int, ...], ...]]:
    """Every first group of one of these sizes, followed by the rest."""
    first_groups = [group for size in sizes for group in combinations(PLACES, size)]
    return [(group, tuple(place for place in PLACES if place not in group)) for group in first_groups]
