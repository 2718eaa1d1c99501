"""What is found in a checkpoint of the original, what is refused, and that its U-Nets compute what they did."""

import json
import pickle
import warnings

import pytest
import torch

from dlmctl.checkpoint.original import load_original
from dlmctl.checkpoint.original.save import original_weights
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import ModelError
from tests.original.conftest import config, formula, write_checkpoint


def fault(folder):
    with pytest.raises(ModelError) as caught:
        load_original(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sizes_are_found_in_the_weights(weights, arguments, tokenizer, tmp_path):
    model, words = load_original(write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments))
    # The heads are not in the weights: 64 wide if nothing says otherwise, and at least one.
    expected = config(denoiser={"heads": 1, "dropout": 0.0})
    assert model.config == expected
    assert words.vocabulary == tokenizer.vocabulary
    assert not model.training


def test_what_is_said_goes_before_what_is_usual(weights, arguments, tokenizer, tmp_path):
    said = {"logits_mode": 2, "image_size": 7, "dropout": 0.2, "config_name": "far/away/bert", "predict_xstart": False}
    folder = write_checkpoint(tmp_path / "run", weights, tokenizer, **{**arguments, **said})
    (folder / "bert").mkdir()
    (folder / "bert" / "config.json").write_text(json.dumps({"num_attention_heads": 8}))
    found = load_original(folder)[0].config
    assert (found.rounding, found.length, found.prediction) == ("l2", 49, "epsilon")
    assert (found.denoiser.heads, found.denoiser.dropout) == (8, 0.2)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model_arch": "trans-unet"}, "model_arch is 'trans-unet': only 'transformer', '1d-unet' and 'conv-unet'"),
        ({"training_mode": "emb"}, "training_mode is 'emb': only models trained end to end"),
        ({"experiment_mode": "conditional_gen"}, "experiment_mode is 'conditional_gen'"),
        ({"class_cond": True}, "class_cond is True"),
        ({"learn_sigma": True}, "learn_sigma is True"),
        ({"timestep_respacing": "ddim50"}, "timestep_respacing is 'ddim50'"),
        ({"noise_schedule": "wavy"}, "noise_schedule is 'wavy', which is unknown"),
        ({"logits_mode": 3}, "logits_mode is 3, which is unknown"),
        ({"rescale_timesteps": False}, "the network must have seen time on 0..1000"),
        ({"in_channel": 128}, "in_channel is 128, but the weights have 16"),
        ({"vocab_size": 821}, "vocab_size is 821, but the weights have 24"),
        ({"image_size": 9}, "length is 81, but the denoiser has max_length 70"),
        ({"image_size": -8}, "image_size is -8, and must be a number from 1"),
        ({"image_size": 7.5}, "image_size is 7.5, and must be a number from 1"),
        ({"predict_xstart": "False"}, "predict_xstart is 'False', and must be true or false"),
        ({"rescale_timesteps": 0}, "rescale_timesteps is 0, and must be true or false"),
    ],
)
def test_what_cannot_be_mapped_is_refused(weights, arguments, tokenizer, tmp_path, said, message):
    assert message in fault(write_checkpoint(tmp_path / "run", weights, tokenizer, **{**arguments, **said}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("word_embedding.weight"), "training_mode is 'emb'"),
        (lambda w: w.update({"encoder_emb.weight": torch.ones(24, 32)}), "experiment_mode is 'conditional_gen'"),
        (lambda w: w.update({"label_emb.weight": torch.ones(3, 64)}), "class_cond is True"),
        (lambda w: w.update({"output_down_proj.2.bias": torch.ones(32)}), "learn_sigma is True"),
        (lambda w: w.pop("LayerNorm.bias"), "the tensor 'LayerNorm.bias' is missing"),
        (lambda w: w.update({"extra.weight": torch.ones(3)}), "the tensor 'extra.weight' has no place in our model"),
        (lambda w: w.update({"LayerNorm.bias": torch.ones(3)}), "has the shape [3], not [32]"),
        (lambda w: w.pop("position_embeddings.weight"), "model_arch is 'trans-unet'"),
    ],
)
def test_the_kind_is_told_by_the_weights_where_nothing_is_said(
    weights, arguments, tokenizer, tmp_path, change, message
):
    change(weights)
    assert message in fault(write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments))


def test_files_that_are_missing_or_damaged_are_said(weights, arguments, tokenizer, tmp_path):
    folder = write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments)
    (folder / "training_args.json").rename(tmp_path / "kept")
    assert 'Write it with the arguments of the run, such as {"diffusion_steps": 2000' in fault(folder)
    (tmp_path / "kept").rename(folder / "training_args.json")
    (folder / "vocab.json").write_text('{"START": 0, "END": 1, "UNK": 2, "PAD": 3}')
    assert "vocab.json has 4 entries, ema_0.9999_000100.pt 24." in fault(folder)
    tokenizer.save(folder)
    torch.save({"state": object}, folder / "ema_0.9999_000200.pt")  # newer, and not weights
    assert "ema_0.9999_000200.pt: is damaged, or holds more than weights" in fault(folder)
    (folder / "ema_0.9999_000200.pt").write_bytes(pickle.dumps({"state": [1.0]}))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert "ema_0.9999_000200.pt: is damaged, or holds more than weights" in fault(folder)
    assert not warned  # torch has one of its own about files that it did not write
    assert fault(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'}: there is no such folder."


@pytest.mark.parametrize("made", [torch.Tensor.to_sparse, lambda tensor: tensor.to("meta")])
def test_tensors_without_plain_numbers_are_refused(weights, arguments, tokenizer, tmp_path, made):
    name = next(name for name, tensor in weights.items() if tensor.dim() == 2)
    folder = write_checkpoint(tmp_path / "run", {**weights, name: made(weights[name])}, tokenizer, **arguments)
    assert f"the tensor {name!r} is not a dense tensor" in fault(folder)


def test_the_head_counts_where_it_differs_from_the_embeddings(weights, arguments, tokenizer, tmp_path):
    head = weights["lm_head.weight"] = weights["word_embedding.weight"] + 1
    model, _ = load_original(write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments))
    assert torch.equal(model.embedding.weight, head)


# What the U-Net of improved diffusion, which the original uses, gives for these weights and inputs (float32, CPU).
ANSWERS = {
    "1d-unet": [-0.06768, -0.07834, -0.12562, -0.17798, 0.003, -0.06572, -0.0638, -0.14965],
    "conv-unet": [-0.08672, 0.3706, 0.23666, 0.31107, 0.00718, 0.2046, 0.20959, 0.32471],
}


@pytest.mark.parametrize("architecture", list(ANSWERS))
def test_u_nets_give_the_originals_numbers(architecture, arguments, tokenizer, tmp_path):
    weights = formula(original_weights(DiffusionLM(config(architecture))))
    folder = write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments)
    model, _ = load_original(folder)
    assert model.config == config(architecture, denoiser={"dropout": 0.0})  # all of it found in the weights
    x = torch.sin(0.37 * torch.arange(2 * 64 * 16, dtype=torch.float64)).float().reshape(2, 64, 16)
    with torch.no_grad():
        out = model.denoiser(x, torch.tensor([3.0, 640.0]))
    torch.testing.assert_close(out[:, ::21, 5].flatten(), torch.tensor(ANSWERS[architecture]), rtol=0, atol=1e-4)


def test_a_u_net_with_other_group_norms_is_refused(arguments, tokenizer, tmp_path):
    weights = original_weights(DiffusionLM(config("1d-unet", denoiser={"channels": 32})))
    folder = write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments)
    assert "num_channels is 32: only larger multiples of 32 can be loaded" in fault(folder)
