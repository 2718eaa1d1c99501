"""BERT, RoBERTa, ModernBERT and others: read as masked diffusion models, drawn with a settled number of tokens."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import dlmctl
from controls import Contains, Infill, Length, Pattern
from dlmctl.cli import app
from dlmctl.diffusion.masked_base import Context
from dlmctl.errors import ModelError, RecipeError, UnsatisfiableError
from tests.checkpoint.tiny_encoders import KINDS, PIECES, WORD_PIECE, write_encoder

SAMPLER = {"precision": "fp32", "temperature": 1.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return {kind: write_encoder(root / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def loaded(folders):
    return {kind: dlmctl.load(folder) for kind, folder in folders.items()}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def reference(folder, kind):
    return getattr(transformers, f"{KINDS[kind]}ForMaskedLM").from_pretrained(folder).eval()


def tokens(model, text):
    return model.tokenizer.encode_text(text)[1:-1]


@torch.no_grad()
def test_logits_are_those_of_transformers(kind, folders, loaded):
    model = loaded[kind].model
    ids = torch.randint(0, len(loaded[kind].tokenizer), (3, 14), generator=torch.Generator().manual_seed(1))
    wanted = reference(folders[kind], kind)(ids).logits[..., : len(loaded[kind].tokenizer)]
    never = model.never.tolist()
    logits = model.logits(ids)
    assert set(never) > {model.mask_id}
    assert logits[..., never].isneginf().all()
    wanted[..., never] = -torch.inf
    assert torch.allclose(logits, wanted, atol=1e-4)


@torch.no_grad()
def test_padding_and_prompts_of_other_lengths_change_nothing(kind, loaded):
    model, pad = loaded[kind].model, loaded[kind].tokenizer.pad_id
    start, end = loaded[kind].tokenizer.start_id, loaded[kind].tokenizer.end_id
    text = tokens(loaded[kind], "the red boat sinks")
    canvas = torch.tensor([[start, *text, end, pad, pad], [start, *text[:-1], end, pad, pad, pad]])
    prompts = torch.tensor([[pad, pad, start], [start, *text[:2]]])
    context = Context(prompts, prompts != pad)
    together = model.logits(canvas, attention_mask=canvas != pad, context=context)
    for row, (size, first) in enumerate([(len(text) + 2, 2), (len(text) + 1, 0)]):
        alone = model.logits(
            canvas[row : row + 1, :size],
            context=Context(prompts[row : row + 1, first:], torch.ones(1, 3 - first, dtype=torch.bool)),
        )
        assert torch.allclose(together[row, :size], alone[0], atol=1e-4)


def test_texts_have_the_tokens_asked_for_and_no_special_ones(kind, loaded):
    for sample in loaded[kind].generate(samples=6, sampler={**SAMPLER, "new_tokens": 7}):
        assert "[" not in sample.text.replace("[unused", "[[")
        assert "<" not in sample.text or kind not in WORD_PIECE
    words = {len(sample.words) for sample in loaded[kind].generate(Length(6), samples=4, sampler=SAMPLER)}
    assert words == {6}


@pytest.mark.parametrize("kind", WORD_PIECE)
def test_controls_hold(kind, loaded):
    control = Contains(["boat"]) & Infill("the ___{1,3} sinks ___{2,4} .")
    samples = loaded[kind].generate(control, samples=6, sampler=SAMPLER)
    assert all(sample.passed for sample in samples)
    assert len({sample.text for sample in samples}) > 1
    assert all(sample.passed for sample in loaded[kind].generate(~Pattern("<any>* the <any>*"), samples=4))


def test_a_text_goes_on_from_its_prompt(loaded):
    samples = loaded["bert"].generate(
        Length(3), prompt=["the red boat", "the boy"], samples=4, sampler={**SAMPLER, "new_tokens": 5}
    )
    assert [sample.prompted["prompt"] for sample in samples] == ["the red boat", "the boy"] * 2
    assert all(len(sample.words) == 3 for sample in samples)


def test_texts_that_are_too_long(loaded):
    with pytest.raises(UnsatisfiableError, match=r"up to 24 tokens, as sampler\.new_tokens allows.*higher"):
        loaded["bert"].generate(Length(30), samples=1)
    assert len(loaded["bert"].generate(Length(30), samples=1, sampler={"new_tokens": 40})[0].words) == 30
    with pytest.raises(RecipeError, match=r"START and 63 new ones are more than the model's 64"):
        loaded["bert"].generate(samples=1, sampler={"new_tokens": 63})
    assert loaded["bert"].generate(samples=1, sampler={"new_tokens": 62})[0].words


def test_the_first_positions_of_roberta_belong_to_its_padding(folders, loaded):
    assert loaded["roberta"].model.config.length == loaded["bert"].model.config.length == 64


def test_pieces_in_a_text_file_are_a_tokenizer(tmp_path, folders, loaded):
    folder = write_encoder(tmp_path / "bert", "bert")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    text = "The boats, near the River: singing a song."
    assert dlmctl.load(folder).tokenizer.encode_text(text) == loaded["bert"].tokenizer.encode_text(text)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert dlmctl.load(folder).tokenizer.unk_id in dlmctl.load(folder).tokenizer.encode_text("The boat")


def test_names_of_the_first_checkpoints_and_other_heads(tmp_path, loaded):
    folder = write_encoder(tmp_path / "bert", "bert")
    state = load_file(folder / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in state.items()
    }
    others = ("bert.pooler.dense.weight", "cls.seq_relationship.bias", "bert.embeddings.position_ids")
    renamed |= {name: torch.arange(3) for name in others}
    renamed["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
    save_file(renamed, folder / "model.safetensors")
    ids = torch.tensor([[3, 6, 7, 8, 4]])
    assert torch.equal(dlmctl.load(folder).model.logits(ids), loaded["bert"].model.logits(ids))


def test_folders_that_are_none(tmp_path):
    folder = write_encoder(tmp_path / "bert", "bert")
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "is_decoder": True}))
    with pytest.raises(ModelError, match=r"config\.json: is_decoder"):
        dlmctl.load(folder)
    path.write_text(json.dumps({**settings, "attn_implementation": "someone/kernels"}))
    assert dlmctl.load(folder).model.network.network.config._attn_implementation == "sdpa"
    weights = folder / "model.safetensors"
    state = load_file(weights)
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("cls.")}, weights)
    with pytest.raises(ModelError, match="no weights that predict masked tokens"):
        dlmctl.load(folder)
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        dlmctl.load(folder)


def test_weights_that_torch_saved(tmp_path, loaded):
    folder = write_encoder(tmp_path / "bert", "bert")
    state, path = load_file(folder / "model.safetensors"), folder / "pytorch_model.bin"
    (folder / "model.safetensors").unlink()
    torch.save(state, path)
    ids = torch.tensor([[3, 6, 7, 8, 4]])
    assert torch.equal(dlmctl.load(folder).model.logits(ids), loaded["bert"].model.logits(ids))
    torch.save({**state, "cls.predictions.bias": torch.full_like(state["cls.predictions.bias"], torch.nan)}, path)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*cls\.predictions\.bias"):
        dlmctl.load(folder)
    torch.save({**state, "more": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(ModelError, match="holds more than weights"):
        dlmctl.load(folder)


def test_commands(tmp_path, folders):
    info = CliRunner().invoke(app, ["info", str(folders["modernbert"])])
    assert "a checkpoint of ModernBERT" in info.output
    assert "chosen before a text is drawn" in info.output
    (tmp_path / "texts.txt").write_text("the red boat sinks .\nthe xylophone sinks .\n")
    bound = CliRunner().invoke(app, ["nll", str(folders["bert"]), str(tmp_path / "texts.txt"), "--json"])
    figures = json.loads(bound.stdout)
    assert figures["unknown"] == pytest.approx(1 / 9)
    assert 0 < figures["nats_given_length"] < 100
    arguments = ["generate", "--model", str(folders["bert"]), "-n", "2", "--control", "infill: the ___ boat sinks ."]
    drawn = CliRunner().invoke(app, [*arguments, "--json"])
    assert drawn.exit_code == 0, drawn.output
