import pytest
import torch
from pydantic import ValidationError

from dlmctl.models import build_denoiser
from dlmctl.models.transformer import TransformerConfig, TransformerDenoiser, sinusoid


def denoiser(**changes):
    torch.manual_seed(0)
    sizes = {"hidden": 16, "layers": 3, "heads": 2, "dropout": 0.0, "max_length": 12, "time_channels": 7}
    return build_denoiser("transformer", TransformerConfig(**{**sizes, **changes}), 5, 9)


X, T = torch.randn(2, 10, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([10.0, 700.0])


@pytest.mark.parametrize("norm_first", [True, False])
def test_every_output_depends_on_every_position_and_on_time(norm_first):
    model = denoiser(norm_first=norm_first).eval()
    out = model(X, T)
    assert out.shape == (2, 10, 9)
    moved = X.clone()
    moved[0, 3] += 1
    changed = (model(moved, T) - out).abs().amax(-1) > 1e-7
    assert changed[0].all()  # attention is bidirectional
    assert not changed[1].any()  # and never crosses samples
    assert ((model(X, T + 100) - out).abs() > 1e-7).any()


def test_norms_are_where_the_setting_says():
    pre_norm, post_norm = (denoiser(norm_first=first).eval().encoder(X, T) for first in (True, False))
    # Both end in a LayerNorm with untrained scale and shift.
    for h in (pre_norm, post_norm):
        torch.testing.assert_close(h.mean(-1), torch.zeros(2, 10), atol=1e-5, rtol=0)
        torch.testing.assert_close(h.var(-1, correction=0), torch.ones(2, 10), atol=1e-3, rtol=0)
    assert not torch.allclose(pre_norm, post_norm, atol=1e-2)
    assert "final_norm.weight" not in denoiser(norm_first=False).encoder.state_dict()


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_memory_not_gradients(norm_first, dropout):
    gradients = []
    for checkpointing in (False, True):
        model = denoiser(norm_first=norm_first, dropout=dropout, checkpointing=checkpointing).train()
        torch.manual_seed(2)
        model(X, T).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    # Every parameter gets a gradient.
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gradients[0].values())
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad)


def test_dropout_is_off_in_evaluation():
    model = denoiser(dropout=0.5)
    assert not torch.equal(model.train()(X, T), model(X, T))
    assert torch.equal(model.eval()(X, T), model(X, T))


def test_sinusoids_are_cosines_then_sines_padded_to_odd_widths():
    features = sinusoid(torch.tensor([0.0, 1.0]), 5)
    assert features.shape == (2, 5)
    assert features[0].tolist() == [1, 1, 0, 0, 0]
    expected = [torch.tensor(1.0).cos(), torch.tensor(0.01).cos(), torch.tensor(1.0).sin(), torch.tensor(0.01).sin()]
    torch.testing.assert_close(features[1, :4], torch.stack(expected))


def test_heads_that_do_not_share_the_width_are_refused():
    with pytest.raises(ValidationError, match=r"heads \(3\) must divide hidden \(16\)"):
        TransformerConfig(hidden=16, heads=3)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="unknown architecture 'rnn'"):
        build_denoiser("rnn", TransformerConfig(), 5, 9)
    assert isinstance(denoiser(), TransformerDenoiser)
