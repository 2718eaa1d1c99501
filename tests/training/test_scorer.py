import json

import pytest
import torch

from dlmctl.annotators.scorer import load_scorer
from dlmctl.datasets.dataset import write_split
from dlmctl.errors import DataError
from dlmctl.metrics.lm_score import lm_score, mean_nats
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.config import LoopConfig, read_config, shipped_configs
from dlmctl.training.scorer import ScorerConfig, ScorerSizes, ScorerTask, train_scorer

ANIMALS, PLACES = "cat dog hen owl fox".split(), "barn field lane wood".split()
SENTENCES = [f"the {animal} sleeps in the {place} .".split() for animal in ANIMALS for place in PLACES]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    tokenizer = WordTokenizer.from_corpus(SENTENCES, min_count=1)
    tokenizer.save(folder)
    rows = [tokenizer.encode(words) for words in SENTENCES]
    write_split(folder, "train", [row for at, row in enumerate(rows) if at % 5])
    write_split(folder, "valid", rows[::5])
    return folder


def tiny(**loop):
    settings = {"steps": 60, "batch_positions": 128, "full_share": 0.0, "lr": 1e-2, "ema": 0.5, "validate_every": 30}
    return ScorerConfig(
        model=ScorerSizes(length=12, hidden=32, layers=1, heads=2, dropout=0.0),
        loop=LoopConfig(**{**settings, "checkpoint_every": 10, "log_every": 10, **loop}),
    )


def test_training_learns_the_corpus_and_saves_what_it_learned(data, tmp_path):
    out = tmp_path / "run"
    scorer = train_scorer(tiny(), data, out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["valid_loss"] for line in lines if "valid_loss" in line]
    assert losses[-1] < 1.0  # of a vocabulary of 19, knowing nothing costs 2.9 nats
    loaded, tokenizer = load_scorer(out / "scorer")
    valid = SENTENCES[::5]
    assert mean_nats(lm_score(loaded, tokenizer, valid), valid) == pytest.approx(losses[-1], abs=2e-3)
    shuffled = ["barn the . in sleeps the cat".split()]
    assert lm_score(scorer, tokenizer, shuffled)[0] > 2 * lm_score(scorer, tokenizer, valid)[0]


def test_a_resumed_run_ends_with_the_same_weights(data, tmp_path):
    whole = train_scorer(tiny(steps=20), data, tmp_path / "whole", quiet=True)
    part = tiny(steps=20)
    task = ScorerTask(part, data)
    interrupted = ScorerTask.loss

    calls = 0

    def stop(self, model, batch):
        nonlocal calls
        calls += 1
        if calls == 14:
            raise KeyboardInterrupt
        return interrupted(self, model, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScorerTask, "loss", stop)
        with pytest.raises(KeyboardInterrupt):
            train_scorer(part, data, tmp_path / "part", quiet=True)
    resumed = train_scorer(part, data, tmp_path / "part", resume=True, quiet=True)
    assert type(resumed) is type(task.model)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_loss_counts_words_and_end_but_not_padding(data):
    task = ScorerTask(tiny(), data)
    task.model.eval()
    ids = torch.tensor([task.tokenizer.encode(SENTENCES[0])])
    padded = torch.nn.functional.pad(ids, (0, 3), value=task.tokenizer.pad_id)
    assert task.loss(task.model, padded)[0].item() == pytest.approx(task.loss(task.model, ids)[0].item(), abs=1e-6)
    assert task.loss(task.model, padded)[1] == padded.numel()


def test_samples_are_the_same_every_time_and_leave_the_random_state_alone(data):
    task = ScorerTask(tiny(), data)
    task.model.eval()
    state = torch.get_rng_state()
    first = task.samples(task.model)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first) == 4
    assert task.samples(task.model) == first


def test_the_shipped_configuration_is_read():
    assert "scorer-e2e" in shipped_configs()
    config = read_config("scorer-e2e", ScorerConfig)
    assert config.model.length == 64


def test_a_folder_without_data_is_said(tmp_path):
    with pytest.raises(DataError):
        train_scorer(tiny(), tmp_path, tmp_path / "run")
