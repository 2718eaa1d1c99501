"""Guidance of models over tokens: through the logits alone, without a gradient of the network."""

from __future__ import annotations

import pytest
import torch

import dlmctl
from tests.checkpoint.tiny_uniform import write_duo
from tests.checkpoint.tiny_vendors import write_bd3lm, write_dream, write_llada, write_mdlm, write_sedd
from tests.sampling.token_controls import Likes, Only


@pytest.fixture(
    scope="module",
    params=[write_llada, write_dream, write_mdlm, write_bd3lm, write_sedd, write_duo],
    ids=["LLaDA", "Dream", "MDLM", "BD3LM", "SEDD", "Duo"],
)
def model(request, tmp_path_factory):
    return dlmctl.load(request.param(tmp_path_factory.mktemp("guided") / "m"))


def ids_of(model, **changes):
    """The token ids ``[B, L]`` of four texts of ten tokens."""
    seen = []
    sampler = {"new_tokens": 10, "precision": "fp32"}
    model.generate(samples=4, sampler=sampler, device="cpu", on_step=lambda step: seen.append(step.x), **changes)
    return seen[-1][:, 1:]


def test_an_energy_guides_and_the_network_sees_no_gradient(model, monkeypatch):
    wanted, graphs = torch.tensor([20, 21]), []
    hidden = model.model.network.hidden

    def watched(*read, **named):
        found = hidden(*read, **named)
        graphs.append(torch.is_grad_enabled() or found.requires_grad)
        return found

    free = ids_of(model, prompt="the red boat")
    monkeypatch.setattr(model.model.network, "hidden", watched)
    guided = ids_of(model, control=Likes(tokens=wanted.tolist()), prompt="the red boat")
    assert torch.isin(guided, wanted).sum() > torch.isin(free, wanted).sum()
    assert len(graphs) == (64 if model.model.family == "uniform" else 10)
    assert not any(graphs)


def test_excluded_tokens_are_never_written(model):
    wanted = torch.tensor([20, 21, 22])
    assert torch.isin(ids_of(model, control=Only(tokens=wanted.tolist()), prompt="a river"), wanted).all()
    few = ids_of(model, control=Only(tokens=wanted.tolist()), preset="fast")
    assert torch.isin(few, wanted).all()
