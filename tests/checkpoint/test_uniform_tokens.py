"""Published uniform models over tokens, UDLM and Duo: equal to a plain forward pass, and steered as any other."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import dlmctl
from controls import Contains, Length, Pattern
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.cli import app
from dlmctl.diffusion.masked_base import Context
from dlmctl.diffusion.uniform_tokens import UniformTokenLM
from dlmctl.errors import ModelError, RecipeError
from tests.checkpoint.tiny_uniform import write_duo, write_udlm
from tests.checkpoint.tiny_vendors import plain_mdlm

WRITERS = {"UDLM": write_udlm, "Duo": write_duo}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("uniform")
    return {name: writes(root / name) for name, writes in WRITERS.items()}


@pytest.fixture(scope="module", params=WRITERS)
def folder(request, folders):
    return folders[request.param]


@pytest.fixture(scope="module")
def model(folder):
    return dlmctl.load(folder)


def texts(model, *controls, **changes):
    sampler = {"new_tokens": 12, "precision": "fp32", **changes.pop("sampler", {})}
    return list(model.generate(*controls, sampler=sampler, device="cpu", **{"samples": 4, **changes}))


def plain(folder, ids, t):
    """Scores of the words at times ``t [B]``, by the schedule of the authors: alphabar is 1 - 0.999 t."""
    state = {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}
    return plain_mdlm(state, ids, -(1 - 0.999 * t).log())


def test_logits_are_those_of_a_plain_forward_pass_at_the_level_of_the_time(folder):
    model = from_pretrained(folder).model.double()
    assert type(model) is UniformTokenLM
    t, size = torch.tensor([1.0, 0.4, 0.01]).double(), model.config.vocab_size
    ids = torch.randint(6, size, (3, 9), generator=torch.Generator().manual_seed(1))
    wanted = plain(folder, ids, t)[..., :size]
    wanted[..., model.special] = -torch.inf
    assert torch.allclose(model.logits_at(ids, t), wanted, atol=1e-5)


def test_a_prompt_with_padding_on_its_left_is_read_before_the_text(folder):
    model = from_pretrained(folder).model.double()
    t, prompts = torch.tensor([0.7, 0.2]).double(), [[9, 8, 7, 6], [7, 6]]
    canvas = torch.tensor([[3, 10, 11, 12], [3, 13, 14, 15]])
    ids = torch.tensor([[0] * (4 - len(prompt)) + prompt for prompt in prompts])
    context = Context(ids, torch.arange(4) >= torch.tensor([[0], [2]]))
    found = model.logits_at(canvas, t, context=context).log_softmax(-1)
    keep = torch.tensor([index not in model.special for index in range(model.config.vocab_size)])
    for row, prompt in enumerate(prompts):
        whole = torch.tensor([prompt + canvas[row, 1:].tolist()])
        wanted = plain(folder, whole, t[row : row + 1])[0, len(prompt) - 1 :, : len(keep)][:, keep].log_softmax(-1)
        assert torch.allclose(found[row][:, keep], wanted, atol=1e-5)


def test_mask_is_no_token_that_noise_writes(folders):
    """It is one of the tokens of BERT, which UDLM has; Duo has it behind those of GPT-2."""
    udlm, duo = (from_pretrained(folder).model for folder in folders.values())
    assert udlm.special == [udlm.mask_id] == [5]
    assert duo.special == []
    assert duo.mask_id == duo.config.vocab_size
    uniform = torch.linspace(0, 1 - 1e-6, 2000)
    for model in (udlm, duo):
        assert set(model.random_words(uniform).tolist()) == set(range(model.config.vocab_size)) - {model.mask_id}


def test_exact_controls_hold_and_a_row_alone_is_the_row_in_a_batch(model):
    boat = Contains(words=["boat"])
    for control in (boat, boat & Length(words=3), Pattern("the boat <any>*")):
        for steps in (12, 3):
            prompts = ["the red", "a river"]
            together = texts(model, control, prompt=prompts, sampler={"steps": steps, "new_tokens": 16})
            assert all(text.passed for text in together), [text.text for text in together]
            alone = texts(model, control, prompt=prompts, sampler={"steps": steps, "new_tokens": 16}, samples=[3])
            assert alone[0].words == together[3].words


def test_any_token_may_change_until_the_last_step(model):
    seen = []
    texts(model, samples=1, sampler={"steps": 24}, on_step=lambda step: seen.append(step.x[0, 1:].clone()))
    assert len(seen) == 24
    assert len({tuple(x.tolist()) for x in seen[:-1]}) > 3
    assert not any((x == model.model.mask_id).any() for x in seen)


def test_the_bound_is_that_of_its_authors(folder):
    """Their form of it (Schiff et al. 2024, eq. 18), for alpha = 1 - t, with the predictions of the network alone."""
    model = from_pretrained(folder).model.double()
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(6, model.config.vocab_size, (5, 8), generator=generator)
    t, order = (torch.rand(shape, generator=generator).double() for shape in (5, (5, 8)))
    places = torch.arange(8).expand(5, -1) > 0
    z, count, alpha = model.noised(ids, places, t[:, None], order), model.words, 1 - t[:, None, None]
    words = [index for index in range(model.config.vocab_size) if index not in model.special]
    number = torch.zeros(model.config.vocab_size, dtype=torch.long).index_put(
        (torch.tensor(words),), torch.arange(count)
    )
    of_words = torch.eye(count).double()
    estimate = plain(folder, z, t)[..., words].softmax(-1)
    bar, bar_theta = (count * alpha * x + 1 - alpha for x in (of_words[number[ids]], estimate))
    at_z, at_z_theta = (x.gather(-1, number[z][..., None]) for x in (bar, bar_theta))
    sums = (bar / at_z * ((at_z_theta * bar) / (bar_theta * at_z)).log()).sum(-1)
    wanted = ((count / at_z_theta - count / at_z)[..., 0] + sums) / (count * alpha[..., 0])
    assert torch.allclose(model.bound_nats(ids, places, t, order), (wanted * places).sum(1), rtol=1e-4)


def test_commands(tmp_path, folder):
    def run(*arguments):
        result = CliRunner().invoke(app, [str(part) for part in arguments])
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        return result.output

    assert "uniform: a checkpoint of" in run("info", folder)
    command = ["generate", "--model", folder, "--prompt", "the boat", "--json", "--samples", 2]
    made = json.loads(run(*command, "--set", "sampler.new_tokens=6", "--control", "contains: boat"))
    assert all("boat" in sample["text"] for sample in made["samples"])
    assert not any("nats" in sample for sample in made["samples"])
    (tmp_path / "texts.txt").write_text("the red boat sinks .\na river .\n")
    figures = json.loads(run("nll", folder, tmp_path / "texts.txt", "--json"))
    assert figures["unit"] == "token"
    assert figures["nats_given_length"] > 0


@pytest.mark.parametrize(
    ("sampler", "where"), [({"canvas": 4}, "canvas"), ({"name": "entropy"}, "name"), ({"threshold": 0.9}, "threshold")]
)
def test_settings_that_uniform_noise_has_no_use_for(model, sampler, where):
    with pytest.raises(RecipeError, match=rf"sampler\.?{where}|no other sampler"):
        texts(model, sampler=sampler)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("UDLM", {"cfg": True}, "cfg"),
        ("UDLM", {"time_conditioning": False}, "time_conditioning"),
        ("UDLM", {"n_heads": 3}, "does not divide"),
        ("Duo", {"causal": True}, "causal"),
        ("Duo", {"n_blocks": 3}, "is missing"),
        ("Duo", {"vocab_size": 100}, "different checkpoints"),
    ],
)
def test_configurations_that_cannot_be_read(tmp_path, name, changes, message):
    folder = WRITERS[name](tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ModelError) as caught:
        from_pretrained(folder)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600
