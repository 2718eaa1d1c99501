"""There and back: a model as the original's checkpoint, and a checkpoint as a model."""

import json
import resource

import pytest
import torch
from typer.testing import CliRunner

from dlmctl.checkpoint.original import export_original, load_original
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.cli import app
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import ModelError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from tests.original.conftest import DENOISERS, config, write_checkpoint


def run(*command):
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    return result.output


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("architecture", list(DENOISERS))
@pytest.mark.parametrize("changes", [{}, {"prediction": "epsilon", "schedule": "cosine", "length": 49}])
def test_a_model_comes_back_from_the_originals_layout(architecture, changes, tokenizer, tmp_path):
    if architecture == "conv-unet" and changes:
        changes = {**changes, "length": 64}  # rows of 7 cannot be halved three times
    torch.manual_seed(1)
    model = DiffusionLM(config(architecture, **changes))
    save_pretrained(model, tokenizer, tmp_path / "model")
    run("export", "original", tmp_path / "model", "--to", tmp_path / "theirs")
    run("import", "original", tmp_path / "theirs", "--to", tmp_path / "again")
    again = from_pretrained(tmp_path / "again")
    assert equal(again.model.state_dict(), model.state_dict())
    assert again.model.config == model.config
    assert again.tokenizer.vocabulary == tokenizer.vocabulary


def test_a_checkpoint_comes_back_through_a_model_of_ours(weights, arguments, tokenizer, tmp_path):
    folder = write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments)
    run("import", "original", folder, "--to", tmp_path / "model")
    run("export", "original", tmp_path / "model", "--to", tmp_path / "again")
    theirs = torch.load(tmp_path / "again" / "ema_0.9999_000000.pt", weights_only=True)
    assert equal(theirs, weights)
    assert (tmp_path / "again" / "vocab.json").read_bytes() == (folder / "vocab.json").read_bytes()
    written = json.loads((tmp_path / "again" / "training_args.json").read_text())
    assert {name: written[name] for name in arguments} == arguments
    assert json.loads((tmp_path / "again" / "bert_config" / "config.json").read_text())["num_attention_heads"] == 1


def test_an_imported_model_generates(weights, arguments, tokenizer, tmp_path):
    write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments)
    run("import", "original", tmp_path / "run", "--to", tmp_path / "model")
    texts = generate(model=str(tmp_path / "model"), samples=2, sampler=SamplerSettings(steps=3))
    assert len(list(texts)) == 2
    known = set(tokenizer.vocabulary)
    assert all(set(text.words) <= known for text in texts)


@pytest.mark.parametrize(
    ("architecture", "changes", "said"),
    [
        ("transformer", {"objective": "cross_entropy"}, "not by cross-entropy (objective)"),
        ("transformer", {"self_conditioning": True}, "it has no self-conditioning"),
        ("transformer", {"denoiser": {"norm_first": True}}, "norms after each sublayer (norm_first)"),
        ("transformer", {"schedule_steps": None}, "this model's time is continuous"),
        ("transformer", {"rounding": "cosine"}, "dot product or L2 only"),
        ("transformer", {"length": 40}, "its lengths are squares, and 40 is not"),
        ("trans-unet", {}, "it cannot train 'trans-unet' end to end"),
        ("1d-unet", {"denoiser": {"multipliers": [1, 2]}}, "its multipliers for this length are [1, 2, 2, 2]"),
        ("1d-unet", {"denoiser": {"channels": 32}}, "its channels are multiples of 32"),
        ("1d-unet", {"denoiser": {"attention_levels": []}}, "attention at one level at least"),
        ("1d-unet", {"rounding": "l2"}, "its U-Nets round by dot product only"),
        ("conv-unet", {"denoiser": {"row": 16}}, "its image has rows of 8"),
    ],
)
def test_what_the_original_cannot_express_is_refused(architecture, changes, said, tokenizer, tmp_path):
    model = DiffusionLM(config(architecture, **changes))
    with pytest.raises(ModelError) as caught:
        export_original(model, tokenizer, tmp_path / "theirs")
    assert str(caught.value).startswith("the original cannot express this model: ")
    assert said in str(caught.value)
    assert not (tmp_path / "theirs").exists()


def test_a_folder_with_weights_is_not_written_over(weights, arguments, tokenizer, tmp_path):
    folder = write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments)
    model, _ = load_original(folder)
    with pytest.raises(UserError, match=r"already holds weights\. Choose another folder"):
        export_original(model, tokenizer, folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export_original(model, tokenizer, tmp_path / "file" / "theirs")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    for command in (("import", "original", folder), ("export", "original", folder)):
        for taken, holds in ((folder, "weights"), (tmp_path / "notes", "other files")):
            before = {path: path.read_bytes() for path in taken.rglob("*") if path.is_file()}
            result = CliRunner().invoke(app, [*map(str, command), "--to", str(taken)])
            assert result.exit_code == 2
            assert f"already holds {holds}. Choose another folder." in result.output
            assert {path: path.read_bytes() for path in taken.rglob("*") if path.is_file()} == before


def test_a_disk_that_is_full_leaves_no_half_checkpoint(weights, arguments, tokenizer, tmp_path):
    model, _ = load_original(write_checkpoint(tmp_path / "run", weights, tokenizer, **arguments))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, unlimited[1]))  # Python ignores its signal
    try:
        with pytest.raises(UserError, match=r"theirs: cannot be written: .* are unchanged; make room"):
            export_original(model, tokenizer, tmp_path / "theirs")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not (tmp_path / "theirs").exists()
    export_original(model, tokenizer, tmp_path / "theirs")
    assert equal(load_original(tmp_path / "theirs")[0].state_dict(), model.state_dict())
