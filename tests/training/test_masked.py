"""Training of masked models on twenty sentences of one frame: what is learned, resumed and refused."""

import json

import numpy as np
import pytest
import torch

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.weights import load_weights
from dlmctl.datasets.dataset import load_split
from dlmctl.datasets.prepare import prepare
from dlmctl.errors import DataError
from dlmctl.text.word_counts import load_counts
from dlmctl.training import masked
from dlmctl.training.lm import train_lm
from dlmctl.training.masked import MaskedTask, MaskedTrainingConfig
from dlmctl.training.rows import Rows
from dlmctl.training.word_tags import WordTags, drop_tags

KINDS, PLACES = ["inn", "bar", "cafe", "club"], ["quay", "park", "mill", "lane", "moor"]
TAGS = ["DET", "NOUN", "AUX", "ADP", "DET", "NOUN", "PUNCT"]
LINES = [{"text": f"The {kind} is by the {place}.", "upos": TAGS} for kind in KINDS for place in PLACES]


def data_of(folder, lines):
    (folder / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(folder / "texts.jsonl", None, folder / "set", min_count=1, length=16, valid_share=0.2)
    return folder / "set"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return data_of(tmp_path_factory.mktemp("frame"), LINES)


def config(model=(), tags=None, **loop):
    denoiser = {"hidden": 32, "layers": 2, "heads": 2, "inner": 48, "max_length": 16}
    steps = {"steps": 60, "batch_positions": 128, "lr": 4e-2, "warmup": 5, "optimizer": "muon", "ema": 0.8, "bucket": 1}
    intervals = {"log_every": 10, "validate_every": 60, "checkpoint_every": 10}
    return MaskedTrainingConfig(
        model={"family": "masked", "length": 16, "denoiser": denoiser, **dict(model)},
        tags=tags,
        loop={**steps, **intervals, **loop},
    )


def metrics(out, name):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize("objective", ["count", "time"])
def test_the_loss_falls_and_the_model_is_one_that_is_loaded(data, tmp_path, objective):
    folder = train_lm(config({"objective": objective}, tags="upos"), data, tmp_path / "run")
    losses = metrics(tmp_path / "run", "loss")
    assert losses[-1] < losses[0] / 2
    (given_length,) = metrics(tmp_path / "run", "valid_nats")
    assert given_length < losses[0] / 2
    # All texts are of one length, which then says nothing.
    assert metrics(tmp_path / "run", "valid_nats_with_length") == [pytest.approx(given_length)]
    assert len(metrics(tmp_path / "run", "valid_nats_tagged")) == 1
    trained = from_pretrained(folder).model
    assert trained.config.tags == ["ADP", "AUX", "DET", "NOUN", "PUNCT"]
    assert trained.config.sentence_lengths == [0] * 7 + [16]
    assert not trained.denoiser.tag_embed.weight[0].any()
    words = load_counts(folder)
    assert (words.tokens, words.counts["is"], sum(words.counts.values())) == (16 * 7, 16, 16 * 7)


def test_a_model_that_chooses_lengths_learns_where_texts_end(tmp_path):
    data = data_of(tmp_path, [*LINES, *({"text": f"A {kind}!"} for kind in KINDS)])
    train_lm(config({"lengths": "model"}, full_share=0.5, bucket=8, steps=150), data, tmp_path / "run")
    losses = metrics(tmp_path / "run", "loss")
    assert losses[-1] < losses[0] / 2
    assert not metrics(tmp_path / "run", "valid_nats_with_length")  # which valid_nats is already


def test_padding_is_not_seen(data, monkeypatch):
    """The loss of texts that fill their rows is that of the same texts with PAD behind them."""
    task = MaskedTask(
        config({"denoiser": {"hidden": 16, "layers": 1, "heads": 2, "inner": 16, "max_length": 16}}), data
    )
    rows = np.arange(4)
    ids = torch.from_numpy(np.stack([task.train.row(row) for row in rows]).astype(np.int64))
    wide = torch.nn.functional.pad(ids, (0, 5), value=task.tokenizer.pad_id)
    # Every word is masked, so that nothing is left to chance.
    monkeypatch.setitem(masked.MASKINGS, "count", lambda places, share, order: (places, torch.ones(len(places))))
    with torch.no_grad():
        narrow, padded = (float(task.loss(task.model, masked.MaskedBatch(batch))[0]) for batch in (ids, wide))
    assert padded == pytest.approx(narrow, rel=1e-5)


def test_a_run_cut_off_resumes_bit_for_bit(data, tmp_path, monkeypatch):
    dropout = {"hidden": 16, "layers": 1, "heads": 2, "inner": 16, "max_length": 16, "dropout": 0.1}
    settings = config({"denoiser": dropout}, tags="upos", steps=24, accumulate=2, validate_every=8)
    train_lm(settings, data, tmp_path / "whole")
    loss, seen = MaskedTask.loss, []

    def cut_off(self, model, batch):
        seen.append(1)
        if len(seen) == 2 * 17:
            raise RuntimeError("the power fails")
        return loss(self, model, batch)

    monkeypatch.setattr(MaskedTask, "loss", cut_off)
    with pytest.raises(RuntimeError, match="power"):
        train_lm(settings, data, tmp_path / "cut")
    monkeypatch.undo()
    assert torch.load(tmp_path / "cut" / "state.pt", weights_only=True)["step"] == 10
    train_lm(settings, data, tmp_path / "cut", resume=True)
    whole, cut = (load_weights(tmp_path / name / "model") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert metrics(tmp_path / "whole", "loss") == metrics(tmp_path / "cut", "loss")


def test_labels_are_given_to_a_share_of_the_rows_and_to_half_of_these_in_part():
    torch.manual_seed(0)
    found = drop_tags(torch.ones(4000, 10, dtype=torch.long), 0.3).float().mean(1)
    assert float((found == 0).float().mean()) == pytest.approx(0.7 + 0.15 / 11, abs=0.03)
    assert float((found == 1).float().mean()) == pytest.approx(0.15 + 0.15 / 11, abs=0.03)
    assert set(drop_tags(torch.ones(8, 10, dtype=torch.long), 0.0).flatten().tolist()) == {0}


def test_labels_stand_at_their_words(data):
    tags = WordTags({"train": load_split(data, "train"), "valid": load_split(data, "valid")}, "upos")
    (row,) = Rows(tags.rows["valid"], 0, torch.device("cpu")).batch(np.array([1]), 11).tolist()
    assert [tags.names[number - 1] if number else "" for number in row] == ["", *TAGS, "", "", ""]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, r"the data has no field 'upos'.*--tags"),
        ({"upos": TAGS[1:]}, r"'upos' of row 1 of train has 6 labels for 7 words"),
        ({"upos": "DET NOUN"}, r"'upos' of row 1 of train is not a list of labels"),
    ],
    ids=["none", "too few", "no list"],
)
def test_labels_that_are_none_are_said(tmp_path, changes, said):
    data = data_of(tmp_path, [{"text": line["text"], "kind": "x", **changes} for line in LINES])
    with pytest.raises(DataError, match=said):
        MaskedTask(config(tags="upos"), data)


def test_blocks_are_refused(tmp_path):
    (tmp_path / "texts.txt").write_text("".join(f"{line['text']}\n" for line in LINES))
    prepare(tmp_path / "texts.txt", None, tmp_path / "set", min_count=1, length=8, packing="block")
    with pytest.raises(DataError, match=r"packed in blocks.*--packing pad"):
        MaskedTask(config(), tmp_path / "set")


def test_texts_longer_than_the_model_are_refused(data, tmp_path):
    with pytest.raises(DataError, match="rows of 9 positions, the model holds 8"):
        train_lm(config({"length": 8}), data, tmp_path / "run")
