import torch

from dlmctl.checkpoint.precision import MAX_BITS, round_matrices, rounded


def test_significant_bits_are_kept():
    assert rounded(torch.tensor([0.3, -5.1, 0.0]), 2).tolist() == [0.25, -6.0, 0.0]
    assert rounded(torch.tensor([0.3]), MAX_BITS).item() == torch.tensor(0.3).half().item()


def test_only_matrices_lose_bits():
    state = {"matrix": torch.full((1, 1), 0.3), "bias": torch.full((1,), 0.3)}
    saved = round_matrices(state, 2)
    assert saved["matrix"].item() == 0.25
    assert saved["bias"].item() == torch.tensor(0.3).half().item()
