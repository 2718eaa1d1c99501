"""What DiffuGPT and DiffuLLaMA have of their own; what they share with other checkpoints is in ``test_vendors``."""

import json

import pytest
import torch
from safetensors.torch import load, save_file

import dlmctl
from controls import Contains, Length
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.weights import save_weights
from dlmctl.errors import ModelError
from tests.checkpoint.tiny_diffu import END, MASK, write_diffugpt, write_diffullama


@pytest.fixture(scope="module", params=[write_diffugpt, write_diffullama])
def model(request, tmp_path_factory):
    return dlmctl.load(request.param(tmp_path_factory.mktemp("diffu") / "m"))


def changed(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_mask_is_spelled_with_other_tokens_where_it_is_a_word(model):
    tokenizer = model.tokenizer
    assert tokenizer.token(tokenizer.mask_id) == MASK
    assert tokenizer.mask_id in tokenizer.inner.encode("the boat sinks here", add_special_tokens=False)
    for ids in (tokenizer.prompt_ids("the boat sinks here"), tokenizer.encode_text("the boat sinks here")):
        assert tokenizer.mask_id not in ids
        assert tokenizer.decode(ids) == "the boat sinks here"
    found = model.generate(
        Contains(["boat sinks"]) & Length(4), prompt="the red boat sinks", samples=6, sampler={"new_tokens": 12}
    )
    assert found.success == 1.0, found.texts
    assert all(sample.nats < float("inf") for sample in found)


def test_rows_beyond_those_of_the_configuration_are_found_in_the_weights(tmp_path):
    """As of DiffuGPT-M, where MASK was added to the vocabulary of a GPT-2."""
    folder = write_diffugpt(tmp_path / "m")
    ids = torch.randint(0, 250, (1, 9))
    wanted = from_pretrained(folder).model.logits(ids)
    changed(folder, "config.json", vocab_size=280)
    assert torch.equal(from_pretrained(folder).model.logits(ids), wanted)
    state = load((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    save_weights(state, folder, max_shard_bytes=40_000)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    assert torch.equal(from_pretrained(folder).model.logits(ids), wanted)
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    for zipped in (True, False):
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        assert torch.equal(from_pretrained(folder).model.logits(ids), wanted)
    (folder / "pytorch_model.bin").write_bytes(b"1234")
    with pytest.raises(ModelError, match=r"pytorch_model.bin: is damaged"):
        from_pretrained(folder)


def test_an_output_layer_of_its_own_is_refused(tmp_path):
    folder = write_diffugpt(tmp_path / "m")
    path = folder / "model.safetensors"
    state = load(path.read_bytes())
    save_file({**state, "lm_head.weight": state["embed_tokens.weight"].clone()}, path)
    ids = torch.randint(0, 250, (1, 9))
    assert from_pretrained(folder).model.logits(ids).isfinite().any()
    save_file({**state, "lm_head.weight": state["embed_tokens.weight"] + 1}, path)
    with pytest.raises(ModelError, match=r"lm_head.weight is not embed_tokens.weight"):
        from_pretrained(folder)


@pytest.mark.parametrize("write_one", [write_diffugpt, write_diffullama])
def test_a_model_that_writes_from_left_to_right_is_refused(tmp_path, write_one):
    folder = write_one(tmp_path / "m")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({"bos_token": END, "eos_token": END}))
    with pytest.raises(ModelError, match=r"which token is MASK.*writes from left to right"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    "changes",
    [{"activation_function": "relu"}, {"layer_norm_epsilon": 1e-6}, {"n_head": 5}, {"scale_attn_weights": False}],
    ids=str,
)
def test_settings_that_no_diffugpt_has(tmp_path, changes):
    with pytest.raises(ModelError, match="|".join([*changes, "heads"])):
        from_pretrained(write_diffugpt(tmp_path / "m", **changes))
