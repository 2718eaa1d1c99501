"""Where the weights of a trained control go: in one move, beside those of other names, and checked beforehand."""

import shutil

import pytest

from controls.pos import Pos
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.datasets.dataset import write_split
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.errors import UserError
from dlmctl.models.transformer import TransformerConfig
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig

SENTENCES = ["Anna paints a small bridge .".split(), "the noisy garden hides two cats .".split()]
LOOP = LoopConfig(steps=1, batch_positions=256, optimizer="adamw", validate_every=1, checkpoint_every=1)


@pytest.fixture
def tokenizer():
    return WordTokenizer.from_corpus(SENTENCES, min_count=1)


@pytest.fixture
def model(tmp_path, tokenizer):
    sizes = TransformerConfig(hidden=16, layers=1, heads=2, dropout=0.0, max_length=16, time_channels=8)
    config = ModelConfig(
        vocab_size=len(tokenizer), length=16, embed_dim=8, denoiser=sizes, sentence_lengths=[0, 0, 0, 0, 0, 0, 1, 1]
    )
    save_pretrained(DiffusionLM(config), tokenizer, tmp_path / "model")
    return from_pretrained(tmp_path / "model")


class Named(Pos):
    """One that a recipe asks for by the name of its weights."""

    class Params(Pos.Params):
        name: str | None = None


@pytest.fixture
def data(tmp_path, tokenizer):
    folder = tmp_path / "data"
    folder.mkdir()
    tokenizer.save(folder)
    for split in ("train", "valid"):
        write_split(folder, split, [tokenizer.encode(words) for words in SENTENCES * 4])
    return folder


def test_weights_of_other_names_stay_where_they_are(model, data, tmp_path):
    named = train_control(Named, model, LOOP, data, tmp_path / "a", name="first")
    card = (named / "card.json").read_text()
    train_control(Pos, model, LOOP, data, tmp_path / "b")
    assert (named / "card.json").read_text() == card
    assert {"card.json", "first"} < {path.name for path in named.parent.iterdir()}
    assert [path.name for path in named.parent.parent.iterdir()] == ["pos"]


def test_what_will_be_replaced_is_said_before_it_is(model, data, tmp_path, caplog):
    folder = train_control(Pos, model, LOOP, data, tmp_path / "a")
    assert not caplog.messages
    train_control(Pos, model, LOOP, data, tmp_path / "b")
    assert caplog.messages == [f"dlmctl: {folder}: the weights in this folder will be replaced."]


def test_a_run_does_not_lie_in_its_data_set(model, data):
    for out in (data, data / "run"):
        with pytest.raises(UserError, match="the run cannot be inside the data set"):
            train_control(Pos, model, LOOP, data, out)
    assert not (data / "run").exists()


def test_a_failure_while_saving_leaves_the_weights_that_were_there(model, data, tmp_path, monkeypatch):
    folder = train_control(Pos, model, LOOP, data, tmp_path / "a")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlmctl.checkpoint.control_weights.write_shards", full)
    with pytest.raises(UserError, match="No space left"):
        train_control(Pos, model, LOOP.model_copy(update={"seed": 1}), data, tmp_path / "b")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_targets_that_cannot_be_written_are_found_before_the_first_step(model, data, tmp_path):
    with pytest.raises(UserError, match=r"'\.\.' cannot be the name of weights"):
        train_control(Named, model, LOOP, data, tmp_path / "run", name="..")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot be written: File exists"):
        train_control(Pos, model, LOOP, data, tmp_path / "file")
    shutil.rmtree(model.folder / "controls")
    (model.folder / "controls").write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        train_control(Pos, model, LOOP, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
