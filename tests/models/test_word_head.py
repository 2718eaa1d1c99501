"""The output layer in pieces against the plain formulas."""

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
    """The greatest number of float32 values that stood in one tensor."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float32:
            self.found = max(self.found, made.numel())
        return made


@pytest.fixture(params=["at once", "in pieces", "computed again"])
def pieces(request, monkeypatch):
    if request.param != "at once":
        monkeypatch.setattr(word_head, "PIECE_CPU", 7 * WORDS)
    if request.param == "computed again":
        monkeypatch.setattr(word_head, "MOST_KEPT", 0)


@pytest.mark.parametrize(("bias", "words"), [(True, None), (False, None), (False, 90)])
def test_nats_and_their_gradients_are_those_of_cross_entropy(pieces, bias, words):
    hidden, weight = normal(POSITIONS, WIDTH), normal(WORDS, WIDTH)
    given = [hidden, weight, *([normal(WORDS)] if bias else [])]
    plain = F.cross_entropy(F.linear(*given)[:, :words], TARGETS, reduction="none")
    found = token_nats(hidden, WordHead(weight, given[2] if bias else None, words), TARGETS)
    torch.testing.assert_close(found, plain)
    expected = torch.autograd.grad((plain * SCALE).sum(), given)
    for one, other in zip(torch.autograd.grad((found * SCALE).sum(), given), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_word_that_is_sure_keeps_its_gradient_in_half_precision():
    """p - 1 rounds to nothing if p is rounded first."""
    hidden, weight = torch.eye(4, requires_grad=True), 9.0 * torch.eye(4)
    with torch.autocast("cpu", torch.bfloat16):
        token_nats(hidden, WordHead(weight), torch.arange(4)).sum().backward()
    sure = 9.0 * (1 - 1 / (1 + 3 * torch.tensor(-9.0).exp()))
    torch.testing.assert_close(-hidden.grad.diagonal(), sure.expand(4), rtol=0.02, atol=0)


def test_expected_embeddings_are_the_mean_of_the_table(pieces):
    hidden, weight, table = normal(5, 10, WIDTH), normal(WORDS, WIDTH), normal(WORDS, 3)
    bias = normal(WORDS)
    found = expected_embeddings(hidden, WordHead(weight, bias), table)
    torch.testing.assert_close(found, F.linear(hidden, weight, bias).softmax(-1) @ table)
    assert not found.requires_grad


def test_scores_of_all_words_at_all_positions_never_stand_in_float32(monkeypatch):
    monkeypatch.setattr(word_head, "PIECE_CPU", 7 * WORDS)
    hidden, weight = normal(POSITIONS, WIDTH, dtype=torch.float32), normal(WORDS, WIDTH, dtype=torch.float32)
    with Largest() as seen, torch.autocast("cpu", torch.bfloat16):
        token_nats(hidden, WordHead(weight), TARGETS).sum().backward()
        expected_embeddings(hidden, WordHead(weight), weight)
    assert seen.found == WORDS * WIDTH
    assert weight.grad.dtype == torch.float32
