"""The chunked output layer against the plain formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from dlmctl.models import word_head
from dlmctl.models.word_head import WordHead, expected_embeddings, token_nats

POSITIONS, WORDS, WIDTH = 50, 101, 16


def normal(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype).requires_grad_()


TARGETS = torch.randint(90, (POSITIONS,), generator=torch.Generator().manual_seed(0))
SCALE = torch.linspace(0, 3, POSITIONS, dtype=torch.float64)


class Largest(TorchDispatchMode):
    """Records the size of the largest float32 tensor."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
            self.size = max(self.size, result.numel())
        return result


@pytest.fixture(params=["at once", "in chunks", "recomputed"])
def chunking(request, monkeypatch):
    if request.param != "at once":
        monkeypatch.setattr(word_head, "PIECE_CPU", 7 * WORDS)
    if request.param == "recomputed":
        monkeypatch.setattr(word_head, "MOST_KEPT", 0)


@pytest.mark.parametrize(("bias", "words"), [(True, None), (False, None), (False, 90)])
def test_nats_and_their_gradients_are_those_of_cross_entropy(chunking, bias, words):
    hidden, weight = normal(POSITIONS, WIDTH), normal(WORDS, WIDTH)
    inputs = [hidden, weight, *([normal(WORDS)] if bias else [])]
    expected_nats = F.cross_entropy(F.linear(*inputs)[:, :words], TARGETS, reduction="none")
    nats = token_nats(hidden, WordHead(weight, inputs[2] if bias else None, words), TARGETS)
    torch.testing.assert_close(nats, expected_nats)
    expected = torch.autograd.grad((expected_nats * SCALE).sum(), inputs)
    for gradient, expected_gradient in zip(torch.autograd.grad((nats * SCALE).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


def test_a_confident_word_keeps_its_gradient_in_half_precision():
    """p - 1 becomes 0 if p is rounded first."""
    hidden, weight = torch.eye(4, requires_grad=True), 9.0 * torch.eye(4)
    with torch.autocast("cpu", torch.bfloat16):
        token_nats(hidden, WordHead(weight), torch.arange(4)).sum().backward()
    expected = 9.0 * (1 - 1 / (1 + 3 * torch.tensor(-9.0).exp()))
    torch.testing.assert_close(-hidden.grad.diagonal(), expected.expand(4), rtol=0.02, atol=0)


def test_expected_embeddings_are_the_mean_of_the_table(chunking):
    hidden, weight, table = normal(5, 10, WIDTH), normal(WORDS, WIDTH), normal(WORDS, 3)
    bias = normal(WORDS)
    embeddings = expected_embeddings(hidden, WordHead(weight, bias), table)
    torch.testing.assert_close(embeddings, F.linear(hidden, weight, bias).softmax(-1) @ table)
    assert not embeddings.requires_grad


def test_scores_of_all_words_at_all_positions_are_never_in_float32(monkeypatch):
    monkeypatch.setattr(word_head, "PIECE_CPU", 7 * WORDS)
    hidden, weight = normal(POSITIONS, WIDTH, dtype=torch.float32), normal(WORDS, WIDTH, dtype=torch.float32)
    with Largest() as largest, torch.autocast("cpu", torch.bfloat16):
        token_nats(hidden, WordHead(weight), TARGETS).sum().backward()
        expected_embeddings(hidden, WordHead(weight), weight)
    assert largest.size == WORDS * WIDTH
    assert weight.grad.dtype == torch.float32
