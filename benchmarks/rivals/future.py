"""Predicting properties of a whole text from its first words: the discriminators of FUDGE (Yang and Klein 2021).

One GRU reads the words; its heads predict the tags and tree marks of the last word and the next ones, the number of
remaining words, the value of each field, and whether the text will contain a given span.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .annotated import Text, leaf_marks

# Number of words whose tags and marks are predicted: the last one and those after it.
AHEAD = 4
LEAST_COUNT = 5
BEYOND, OTHER, UNSAID = "<end>", "<other>", "<unsaid>"
LONGEST = 64


@dataclass
class Names:
    """The classes of each head."""

    words: int
    tags: list[str]
    marks: list[str]
    labels: list[str]
    fields: dict[str, list[str]]


def names_of(texts: Sequence[Text], words: int) -> Names:
    tags = Counter(tag for text in texts for tag in text.tags)
    marks = Counter(mark for text in texts for mark in leaf_marks(text.tree))
    labels = Counter(span.label for text in texts for span in text.spans)
    fields = {name: {text.fields[name] for text in texts if name in text.fields} for name in sorted(texts[0].fields)}
    for text in texts:
        for name, value in text.fields.items():
            fields.setdefault(name, set()).add(value)

    def frequent(counts: Counter[str]) -> list[str]:
        return sorted(name for name, count in counts.items() if count >= LEAST_COUNT)

    values = {name: [UNSAID, *sorted(known)] for name, known in fields.items()}
    return Names(
        words, [BEYOND, OTHER, *frequent(tags)], [BEYOND, OTHER, *frequent(marks)], [OTHER, *frequent(labels)], values
    )


class Future(nn.Module):
    """The network. A state ``[layers, B, D]`` summarises the words read so far."""

    def __init__(self, names: Names, width: int = 256) -> None:
        super().__init__()
        self.names = names
        self.embed = nn.Embedding(names.words, 128)
        self.gru = nn.GRU(128, width, num_layers=2, batch_first=True, dropout=0.1)
        self.tags = nn.Linear(width, AHEAD * len(names.tags))
        self.marks = nn.Linear(width, AHEAD * len(names.marks))
        self.left = nn.Linear(width, LONGEST)
        self.fields = nn.Linear(width, sum(map(len, names.fields.values())))
        self.ends = nn.Embedding(4 * LONGEST, 32)
        self.label = nn.Embedding(len(names.labels), 32)
        self.span = nn.Sequential(nn.Linear(width + 96, 256), nn.GELU(), nn.Linear(256, 1))

    def read(self, ids: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The outputs ``[B, L, D]`` after each of the words ``ids [B, L]``, and the state to continue from."""
        return self.gru(self.embed(ids), state)

    def ahead(self, kind: str, states: Tensor) -> Tensor:
        """Log-probabilities ``[..., AHEAD, classes]`` of the tags or marks of the last word and those after it."""
        head = self.tags if kind == "tags" else self.marks
        return head(states).unflatten(-1, (AHEAD, -1)).log_softmax(-1)

    def remaining(self, states: Tensor) -> Tensor:
        """Log-probabilities ``[..., LONGEST]`` of the number of remaining words."""
        return self.left(states).log_softmax(-1)

    def field(self, name: str, states: Tensor) -> Tensor:
        """Log-probabilities ``[..., values]`` of the value that the whole text states for a field."""
        sizes = [len(values) for values in self.names.fields.values()]
        parts = self.fields(states).split(sizes, -1)
        return parts[list(self.names.fields).index(name)].log_softmax(-1)

    def has_span(self, states: Tensor, read: Tensor, spans: Tensor) -> Tensor:
        """Logits ``[...]`` of spans ``[..., 3]`` (first, last, label) after ``read [...]`` words."""
        distances = (spans[..., :2] - read[..., None]).clamp(-LONGEST + 1, LONGEST - 1) + LONGEST
        ends = self.ends(distances + torch.tensor([0, 2 * LONGEST], device=distances.device)).flatten(-2)
        return self.span(torch.cat([states, ends, self.label(spans[..., 2])], -1))[..., 0]


@dataclass
class EncodedTexts:
    """Texts as tensors ``[N, LONGEST]``, padded with -1."""

    ids: Tensor
    tags: Tensor
    marks: Tensor
    fields: Tensor
    spans: list[Tensor]

    @classmethod
    def encode(cls, texts: Sequence[Text], word_ids: Sequence[Sequence[int]], names: Names) -> EncodedTexts:
        def padded(rows: Sequence[Sequence[int]]) -> Tensor:
            return torch.tensor([[*row, *[-1] * (LONGEST - len(row))] for row in rows])

        tag_ids, mark_ids, label_ids = (
            {name: at for at, name in enumerate(classes)} for classes in (names.tags, names.marks, names.labels)
        )
        values = [
            [classes.index(text.fields[name]) if name in text.fields else 0 for name, classes in names.fields.items()]
            for text in texts
        ]
        spans = [torch.tensor([(a, b, label_ids.get(label, 0)) for a, b, label in text.spans]) for text in texts]
        return cls(
            padded(word_ids),
            padded([[tag_ids.get(tag, 1) for tag in text.tags] for text in texts]),
            padded([[mark_ids.get(mark, 1) for mark in leaf_marks(text.tree)] for text in texts]),
            torch.tensor(values),
            spans,
        )


def loss(model: Future, texts: EncodedTexts, chosen: Tensor, rng: random.Random) -> Tensor:
    """Nats of a batch, averaged over all prefixes and summed over the heads."""
    device = next(model.parameters()).device
    ids = texts.ids[chosen].to(device)
    ids = ids[:, : int((ids >= 0).sum(1).max())]
    mask = ids >= 0
    states, _ = model.read(ids.clamp(min=0))
    length = mask.shape[1]
    total = ids.new_zeros((), dtype=torch.float32)
    for kind, table in (("tags", texts.tags), ("marks", texts.marks)):
        targets = F.pad(table[chosen].to(device).clamp(min=0), (0, AHEAD))
        targets = torch.stack([targets[:, at : at + length] for at in range(AHEAD)], -1)
        log_probs = model.ahead(kind, states).flatten(0, 2)
        total = total + _mean(F.nll_loss(log_probs, targets.flatten(), reduction="none").view_as(targets).sum(-1), mask)
    left = (mask.sum(1, keepdim=True) - 1 - torch.arange(length, device=device)).clamp(min=0)
    total = total + _mean(F.nll_loss(model.remaining(states).flatten(0, 1), left.flatten(), reduction="none"), mask)
    for at, name in enumerate(model.names.fields):
        targets = texts.fields[chosen, at].to(device)[:, None].expand(-1, length)
        log_probs = model.field(name, states).flatten(0, 1)
        total = total + _mean(F.nll_loss(log_probs, targets.flatten(), reduction="none"), mask)
    return total + _span_loss(model, texts, chosen, states, mask, rng)


def _mean(nats: Tensor, mask: Tensor) -> Tensor:
    return (nats.view_as(mask) * mask).sum() / mask.sum()


def _span_loss(
    model: Future, texts: EncodedTexts, chosen: Tensor, states: Tensor, mask: Tensor, rng: random.Random
) -> Tensor:
    """The loss on one span of each text, and on one span of another text."""
    device, sampled, contained = states.device, [], []
    for row in chosen.tolist():
        own = texts.spans[row].tolist() or [[0, 0, 0]]
        other = texts.spans[rng.randrange(len(texts.spans))].tolist() or [[0, 0, 0]]
        sampled.append([rng.choice(own), rng.choice(other)])
        contained.append([True, sampled[-1][1] in own])
    spans = torch.tensor(sampled, device=device)[:, None].expand(-1, states.shape[1], -1, -1)
    read = torch.arange(1, states.shape[1] + 1, device=device)[None, :, None].expand(len(sampled), -1, 2)
    logits = model.has_span(states[:, :, None].expand(-1, -1, 2, -1), read, spans)
    targets = torch.tensor(contained, device=device, dtype=torch.float32)[:, None].expand_as(logits)
    return _mean(F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1), mask)


def save_future(model: Future, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "future.json").write_text(json.dumps(asdict(model.names), ensure_ascii=False), "utf-8")
    state = {name: tensor.half().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "future.safetensors")


def load_future(folder: Path) -> Future:
    model = Future(Names(**json.loads((folder / "future.json").read_text("utf-8"))))
    state = load_file(folder / "future.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()
