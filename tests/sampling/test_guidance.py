import pytest
import torch

from dlmctl.recipe.settings import Guidance
from dlmctl.sampling.guidance import LARGEST_SHIFT, moved_logits, strength, updates_of
from dlmctl.sampling.latent_guidance import langevin, shift_latent


def gradient_of(energy):
    """The gradient function that ``Steered`` passes to the methods, for one energy."""

    def gradient(at):
        leaf = at.detach().requires_grad_()
        return torch.autograd.grad(energy(leaf).sum(), leaf)[0]

    return gradient


def test_words_guidance_is_bayes_rule_for_a_linear_energy():
    logits = torch.randn(2, 3, 5)
    cost = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    guided = moved_logits(logits, gradient_of(lambda p: (p * cost).sum((1, 2))), 0.5, 1)
    assert torch.allclose(guided.softmax(-1), (logits - 0.5 * cost).softmax(-1), atol=1e-5)


def test_words_guidance_reaches_words_that_the_model_finds_unlikely():
    logits = torch.tensor([[[12.0, 0.0, -12.0]]])
    energy = lambda p: -(p[..., 2].clamp(min=1e-20).log()).sum(1)  # noqa: E731
    guided = moved_logits(logits, gradient_of(energy), 1.0, 3)
    assert guided.argmax().item() == 2


@pytest.mark.parametrize("method", ["logits", "latent", "langevin"])
def test_energy_falls(method):
    torch.manual_seed(0)
    wanted = torch.randn(3, 4, 6)
    guidance = Guidance(method=method, updates=3)
    energy = lambda x: (x - wanted).square().sum((1, 2))  # noqa: E731
    x = torch.randn(3, 4, 6)
    if method == "logits":
        before, after = x.softmax(-1), moved_logits(x, gradient_of(energy), 0.3, 3).softmax(-1)
    elif method == "latent":
        before, after = x, shift_latent(x, x, torch.full((3, 1, 1), 0.5), gradient_of(energy), 0.3)
    else:
        before, after = x, langevin(x, x, torch.ones(3, 1, 1), gradient_of(energy), guidance)
    assert bool((energy(after) < energy(before)).all())


def test_langevin_takes_adagrad_steps():
    x, mean, variance = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.full((2, 1, 1), 0.5)
    direction = torch.randn(2, 3, 4)
    guidance = Guidance(method="langevin", updates=3, step_size=0.1, fluency=0.01)
    ours = langevin(x, mean, variance, gradient_of(lambda z: (z * direction).sum((1, 2))), guidance)

    reference = x.clone().requires_grad_()
    adagrad = torch.optim.Adagrad([reference], lr=0.1)
    for _ in range(3):
        adagrad.zero_grad()
        loss = 0.01 * ((mean - reference).square() / variance).sum() + (reference * direction).sum()
        loss.backward()
        adagrad.step()
    assert torch.allclose(ours, reference.detach(), atol=1e-6)


def test_one_update_never_throws_a_sample_off():
    logits = torch.zeros(1, 2, 3)
    guided = moved_logits(logits, gradient_of(lambda p: 1e6 * p[..., 0].sum(1)), 1.0, 1)
    assert guided.abs().max().item() <= LARGEST_SHIFT


def test_strength_over_time():
    assert strength(Guidance(scale=2.0, since=0.9, until=0.1), 0.5) == 2.0
    assert strength(Guidance(scale=2.0, since=0.9), 0.95) == 0.0
    assert strength(Guidance(scale=2.0, until=0.1), 0.05) == 0.0


@pytest.mark.parametrize(
    ("requested", "with_evidence", "expected"), [(None, True, 1), (None, False, 3), (5, True, 5), (1, False, 1)]
)
def test_with_evidence_of_words_one_update_is_enough(requested, with_evidence, expected):
    assert updates_of(Guidance(updates=requested), with_evidence=with_evidence) == expected
