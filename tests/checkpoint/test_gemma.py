"""DiffusionGemma in our own loop: equal to that of transformers for the same noise, with separate noise per text."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import dlmctl
from controls.classifier import Classifier
from controls.pos import Pos
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.canvas import Uniform
from dlmctl.diffusion.layout import Layout, batch_layouts
from dlmctl.diffusion.walks import drawn
from dlmctl.errors import ModelError, RecipeError, UserError
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig
from tests.checkpoint.tiny_gemma import tiny_gemma
from tests.sampling.token_controls import Likes, Only

CANVAS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma") / "m"
    network, tokenizer = tiny_gemma(CANVAS)
    with torch.no_grad():  # as of random weights, what was predicted a step before would hardly count
        for name, weight in network.named_parameters():
            weight.mul_(30.0 if "self_conditioning" in name else 1.0)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    named = dict.fromkeys(("AutoConfig", "AutoModel"), "modeling_theirs.Theirs")
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": named}))
    mark = folder.parent / "it ran"
    (folder / "modeling_theirs.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return dlmctl.load(folder)


class Numbers:
    """Uniform numbers, recorded for another sampler to use."""

    def __init__(self):
        self.kept, self.generator = [], torch.Generator().manual_seed(0)

    def uniform(self, count, like):
        self.kept.append(torch.rand(count, *like.shape, generator=self.generator))
        return self.kept[-1]


@pytest.mark.parametrize("confidence", [0.005, 10.0])  # the second lets texts stop early
def test_the_loop_is_that_of_transformers_where_the_noise_is_the_same(model, confidence, monkeypatch):
    steps, size = 5, len(model.tokenizer)
    prompt = torch.tensor([[model.tokenizer.start_id, 5, 6], [model.tokenizer.start_id, 7, 8]])
    canvas = model.model.canvas
    monkeypatch.setattr(model.model, "canvas", canvas._replace(confidence=confidence))
    noise = Numbers()
    family = Uniform(model.model, prompt, model.tokenizer.start_id, steps)
    with torch.no_grad():
        x = family.start(batch_layouts([Layout(1 + CANVAS, None)] * 2, torch.device("cpu")), noise)
        for at in range(steps, 0, -1):
            t = torch.full((2,), at / steps)
            x = family.step(x, family.predict(x, t, None, None), t, t, noise).x

    start, *later = noise.kept
    renoise = iter([start[0], *(one[1] for one in later)])
    words = iter(one[0] for one in later)
    random = lambda self, batch_size, device: (next(renoise)[:, 1:] * size).long()  # noqa: E731
    at_once = lambda probs, num_samples: drawn(probs, next(words)[:, 1:].flatten())[:, None]  # noqa: E731
    monkeypatch.setattr(
        "transformers.models.diffusion_gemma.generation_diffusion_gemma.EntropyBoundSampler.initialize_canvas", random
    )
    monkeypatch.setattr(torch, "multinomial", at_once)
    wanted = model.model.network.generate(
        prompt,
        max_new_tokens=CANVAS,
        max_denoising_steps=steps,
        confidence_threshold=confidence,
        eos_token_id=None,
        pad_token_id=None,
    ).sequences
    assert torch.equal(x[:, 1:], wanted[:, 3:])


def texts(model, control=None, **changes):
    sampler = {"precision": "fp32", "steps": 4, **changes.pop("sampler", {})}
    return list(model.generate(control, sampler=sampler, device="cpu", **{"samples": 4, **changes}))


def test_a_row_alone_is_the_row_in_a_batch(folder):
    model = dlmctl.load(folder)
    model.model.network.set_experts_implementation("eager")  # the others know no float64
    model.model.double()
    prompts = ["the red boat", "a river near the red boat", "the"]
    together = texts(model, prompt=prompts, samples=6)
    for number in range(6):
        assert texts(model, prompt=prompts, samples=[number])[0].words == together[number].words
    assert len({sample.text for sample in together}) > 3
    assert [sample.to_dict()["prompt"] for sample in together] == prompts * 2


def test_controls_hold_and_guide(model):
    wanted = [20, 21, 22]
    signs = set(model.tokenizer.decode(wanted))
    assert all(set(sample.text) <= signs for sample in texts(model, Only(tokens=wanted), prompt="the red"))
    count = lambda found: sum(sign in signs for sample in found for sign in sample.text)  # noqa: E731
    assert count(texts(model, Likes(tokens=wanted))) > count(texts(model))


def test_a_text_is_one_canvas_where_nothing_is_said(model):
    assert len(model.generate(samples=1, sampler={"steps": 2}, device="cpu")[0].latent) == 1 + CANVAS


def test_what_a_canvas_cannot(model, folder, tmp_path):
    assert not (folder.parent / "it ran").exists()
    with pytest.raises(RecipeError, match=r"sampler\.new_tokens: has no meaning for a DiffusionGemma"):
        texts(model, sampler={"new_tokens": CANVAS})
    with pytest.raises(
        RecipeError, match=r"tokens and 8 new ones are more than the model's 256\. Shorten the prompt\.$"
    ):
        texts(model, prompt="the " * 300)
    with pytest.raises(RecipeError, match="one sampler"):
        texts(model, sampler={"name": "entropy"})
    from dlmctl.evaluation.masked_nll import bound_of_texts
    from dlmctl.evaluation.nll import Texts

    with pytest.raises(UserError, match="no bound"):
        bound_of_texts(model, Texts([[1, 2, 3]]))


@pytest.mark.parametrize("change", ["layers", "huge", "a tensor less", "cut short"])
def test_folders_that_are_damaged(tmp_path, change):
    network, tokenizer = tiny_gemma(CANVAS)
    folder = tmp_path / "m"
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    message = "cannot be read"
    if change == "layers":
        config["text_config"] |= {"num_hidden_layers": 3, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}
        message = "is missing|cannot be read"
    elif change == "huge":
        config["text_config"]["hidden_size"] = 10**9
        message = "hidden_size"
    elif change == "a tensor less":
        from safetensors.torch import load, save_file

        state = load((folder / "model.safetensors").read_bytes())
        del state[next(name for name in state if name.endswith("norm.weight"))]
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        message = "is missing"
    else:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:999])
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message) as caught:
        from_pretrained(folder)
    assert len(str(caught.value)) < 600


def test_labels_of_texts_are_counted_by_token_and_guide(folder, tmp_path):
    """Which needs no masked texts, as a classifier would."""
    folder, rows = shutil.copytree(folder, tmp_path / "m"), tmp_path / "rows.jsonl"
    lines = [{"text": f"{word} {sign} {word}", "of": sign} for word in ("a", "b", "c", "dd", "ee") for sign in "xyz"]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines * 3), "utf-8")
    prepare(rows, None, tmp_path / "set", tokenizer=from_pretrained(folder).tokenizer, length=16, valid_share=0.1)
    arguments = from_pretrained(folder), LoopConfig(steps=1), tmp_path / "set", None
    with pytest.raises(ModelError, match="controls are not trained for this kind of model, so 'pos'"):
        train_control(Pos, *arguments)
    train_control(Classifier, *arguments, label="of")
    model = dlmctl.load(folder)
    guided, free = (texts(model, 8 * Classifier(label="x"), guidance={"scale": scale}) for scale in (4.0, 0.0))
    count = lambda found: sum(sample.text.count("x") for sample in found)  # noqa: E731
    assert count(guided) > count(free)
