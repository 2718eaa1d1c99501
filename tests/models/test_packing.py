"""Texts packed into one row are computed as if each had its own row."""

import pytest
import torch

from dlmctl.models.llama import LlamaConfig, LlamaDenoiser
from dlmctl.models.packing import Packing
from dlmctl.models.transformer import LatentEncoder, TransformerConfig

LENGTH, WIDTH = 13, 16


def llama():
    sizes = LlamaConfig(hidden=WIDTH, layers=2, heads=2, inner=24, max_length=16)
    return LlamaDenoiser(sizes, 30).double(), lambda network, ids: network(ids)


def transformer():
    sizes = TransformerConfig(hidden=WIDTH, layers=2, heads=2, dropout=0.0, max_length=16, time_channels=8)
    times = torch.linspace(0, 1000, 9, dtype=torch.float64)
    latents = torch.randn(30, 5, dtype=torch.float64)
    return LatentEncoder(sizes, 5).double(), lambda network, ids: network(latents[ids], times)


@pytest.mark.parametrize("build", [llama, transformer])
def test_packed_texts_and_their_gradients_are_those_of_texts_alone(build, monkeypatch):
    torch.manual_seed(0)
    network, run = build()
    ids = torch.randint(30, (9, LENGTH))  # four in a row, and one left over
    results = []
    for packed in (False, True):
        if packed:  # as on a GPU
            monkeypatch.setattr(Packing, "of", lambda network, h: Packing(*h.shape[:2], 4))
        states = run(network, ids)
        results.append([states, *torch.autograd.grad((states**3).sum(), network.parameters(), allow_unused=True)])
    torch.testing.assert_close(results[1], results[0])


def test_only_short_texts_in_training_on_a_gpu_share_a_row():
    states = torch.randn(5, LENGTH, WIDTH)
    assert Packing.of(torch.nn.Identity(), states) is None
    for texts, rows in ((5, 2), (1, 2), (4, 2)):
        packing = Packing(texts, LENGTH, 4)
        packed = packing.pack(states[:texts])
        assert packed.shape == (rows, 4 * LENGTH, WIDTH)
        assert torch.equal(packing.unpack(packed), states[:texts])
    mask = Packing(5, 2, 2).mask(states)[0, 0]
    assert (mask == 0).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
