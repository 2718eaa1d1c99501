"""Controls trained for third-party checkpoints over tokens, whose roles may share tokens and which end their texts."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

import dlmctl
from controls.classifier import Classifier
from controls.pos import Pos
from dlmctl.checkpoint.control_weights import save_control_files
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.cli import app
from dlmctl.control.evidence.bag import load_bag
from dlmctl.datasets.dataset import load_vocabulary
from dlmctl.errors import ModelError, RecipeError
from dlmctl.text.checkpoint_tokenizer import ROLES_FILE, CheckpointTokenizer
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig
from tests.checkpoint.tiny_blocks import write_sdar
from tests.checkpoint.tiny_uniform import write_duo
from tests.checkpoint.tiny_vendors import write_dream, write_llada

WRITERS = {"LLaDA": write_llada, "Dream": write_dream, "SDAR": write_sdar, "Duo": write_duo}
SENTENCES = ["the red boat sinks near a river .", "a boat sinks .", "the river is red .", "a red river sinks ."]
TARGET = Pos("DET NOUN VERB ADP DET NOUN PUNCT")


@pytest.fixture(scope="module", params=WRITERS)
def made(request, tmp_path_factory):
    """A checkpoint, and a data set that was prepared with its tokenizer."""
    root = tmp_path_factory.mktemp("checkpoints")
    folder = WRITERS[request.param](root / request.param)
    (root / "texts.txt").write_text("\n".join(SENTENCES * 5))
    return folder, prepared(root / "texts.txt", folder, root / "set")


def prepared(texts, vocabulary, out):
    command = ["data", "prepare", str(texts), "--vocabulary", str(vocabulary), "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return out


def test_a_data_set_keeps_the_roles_of_a_checkpoint(made, tmp_path):
    folder, data = made
    theirs, ours = from_pretrained(folder).tokenizer, load_vocabulary(data)
    assert isinstance(ours, CheckpointTokenizer)
    for role in ("start_id", "end_id", "pad_id", "mask_id", "unk_id", "stop_ids", "digest"):
        assert getattr(ours, role) == getattr(theirs, role), role
    assert ours.encode_text(SENTENCES[0]) == theirs.encode_text(SENTENCES[0])
    copied = shutil.copytree(data, tmp_path / "set")
    (copied / "tokenizer" / ROLES_FILE).write_text(json.dumps({"mask_id": "7"}))
    with pytest.raises(ModelError, match="mask_id must be a number"):
        load_vocabulary(copied)


def test_controls_are_trained_and_guide(made, tmp_path):
    folder, data = shutil.copytree(made[0], tmp_path / "model"), made[1]
    settings = LoopConfig(steps=3, batch_positions=128, log_every=3, validate_every=3, checkpoint_every=3)
    assert train_control(Pos, from_pretrained(folder), settings, data, tmp_path / "run") == folder / "controls" / "pos"
    longest = json.loads((folder / "controls" / "pos" / "card.json").read_text())["positions"] - 1
    model = dlmctl.load(folder)
    with pytest.raises(RecipeError, match=rf"^sampler\.new_tokens: texts have up to 60 tokens.* Set it to {longest}"):
        model.generate(TARGET, samples=1, sampler={"new_tokens": 60})
    guided, free = (
        model.generate(TARGET, samples=4, guidance={"scale": scale}, sampler={"new_tokens": longest})
        for scale in (4.0, 0.0)
    )
    assert all(len(sample.words) == 7 for sample in (*guided, *free))
    assert [sample.text for sample in guided] != [sample.text for sample in free]
    card = folder / "controls" / "pos" / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "positions": "10"}))
    with pytest.raises(ModelError, match=r"card\.json: positions must be a whole number"):
        dlmctl.load(folder).generate(TARGET, samples=1, sampler={"new_tokens": longest})


def test_labels_of_texts_are_counted_by_token(made, tmp_path):
    """Without a run, and whatever the length of the texts that are then drawn."""
    folder = shutil.copytree(made[0], tmp_path / "model")
    rows = [
        {"text": f"{first} {colour} boat {last} .", "colour": colour}
        for first, last in itertools.product(("the", "a", "no", "my"), ("sinks", "sails", "is here", "was there"))
        for colour in ("red", "green")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    data = prepared(tmp_path / "rows.jsonl", folder, tmp_path / "labelled")
    # What another way of learning left is replaced.
    earlier = folder / "controls" / "classifier" / "of"
    save_control_files(lambda staging: (staging / "model.safetensors").write_bytes(b"earlier"), earlier, {})
    (earlier / "notes.txt").touch()
    command = ["train", "control", "classifier", "--model", folder, "--data", data, "--label", "colour", "--name", "of"]
    run = CliRunner().invoke(app, [*map(str, command)])
    assert run.exit_code == 0, run.output
    assert {path.name for path in (folder / "controls/classifier/of").iterdir()} == {
        "bag.safetensors",
        "card.json",
        "labels.json",
        "notes.txt",
    }
    model, bag = dlmctl.load(folder), load_bag(folder / "controls" / "classifier" / "of" / "bag.safetensors")
    for number, label in enumerate(bag.labels):
        control = 8 * Classifier(label=label, name="of")
        guided, free = (
            model.generate(
                control, samples=8, sampler={"new_tokens": 60, "temperature": 1, "min_p": 0}, guidance={"scale": scale}
            )
            for scale in (4.0, 0.0)
        )
        chances = [chance_of(number, bag, model.model.embeddings, sample) for sample in (*guided, *free)]
        assert min(chances[:8]) > 0.9
        assert sum(chances[:8]) > sum(chances[8:])


def test_a_loaded_model_finds_labels_that_are_counted_anew(made, tmp_path):
    folder, loaded = shutil.copytree(made[0], tmp_path / "model"), []
    for label, values in (("tone", ("x", "y")), ("mood", ("a", "b"))):
        rows = [{"text": f"the {word} {value} .", label: value} for word in SENTENCES for value in values] * 3
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        data = prepared(tmp_path / "rows.jsonl", folder, tmp_path / label)
        loaded = loaded or [dlmctl.load(folder)]
        train_control(Classifier, loaded[0], LoopConfig(steps=1), data, None, label=label)
        assert loaded[0].generate(Classifier(label=values[0]), samples=1, sampler={"new_tokens": 8})[0].checks


def chance_of(number, bag, embeddings, sample):
    """The probability of a label by the weights that guide, for the tokens of a text: random ones spell no words."""
    ids = torch.cdist(torch.from_numpy(sample.latent), embeddings).argmin(1)
    return (bag.weights[ids].sum(0) + bag.bias).softmax(0)[number].item()
