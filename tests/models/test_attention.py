import pytest
import torch
import torch.nn.functional as F

from dlmctl.models.attention import SHORT, attention


@pytest.mark.parametrize("length", [5, SHORT + 1])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_agrees_with_the_fused_kernel(length, masked):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, length, 8), torch.randn(2, 3, length, 8)
    mask = (torch.arange(length) < 3).expand(2, 1, 1, length) if masked else None
    torch.testing.assert_close(attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask))


def test_dropout_drops_weights():
    q = torch.randn(1, 1, 4, 8)
    assert torch.equal(attention(q, q, q, dropout=1.0), torch.zeros_like(q))
