import json
import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dlmctl.cli import app
from dlmctl.datasets.dataset import write_split
from dlmctl.diffusion.bound import likelihood_bound
from dlmctl.diffusion.noise import Draw, SampleNoise
from dlmctl.diffusion.schedule import Schedule
from dlmctl.errors import DataError
from dlmctl.evaluation import nll
from dlmctl.evaluation.nll import Texts, likelihood, read_texts, step_strata

SENTENCES = [
    "the small bakery sells bread .".split(),
    "a noisy garden hides two grey cats .".split(),
    "Anna hides .".split(),
]


@pytest.fixture
def rows(tokenizer):
    return [tokenizer.encode(words) for words in SENTENCES]


def test_with_all_steps_it_is_the_bound_of_each_text(pretrained, rows, tokenizer):
    found = likelihood(pretrained, Texts(rows), steps=6, draws=100, seed=3)
    totals, on_pad = [], 0.0
    for number, row in enumerate(rows):
        ids = torch.tensor([[*row, *[tokenizer.pad_id] * (-len(row) % 8)]])
        bound = likelihood_bound(pretrained.model, ids, 6, SampleNoise([Draw(3, number)]))
        totals.append(bound.total.item())
        each = bound.prior + bound.diffusion.sum(0) + bound.rounding_nats
        on_pad += each[ids == tokenizer.pad_id].sum().item()
    tokens = 8 + 10 + 5
    assert (found.token_count, found.word_count, found.draws) == (tokens, 17, 5)
    assert found.nats == pytest.approx(sum(totals) / tokens, rel=1e-4)
    assert found.nats_per_word == pytest.approx(sum(totals) / 17, rel=1e-4)
    assert found.padding == pytest.approx(on_pad / tokens, rel=1e-4)
    assert found.figures()["bits"] == pytest.approx(found.nats / math.log(2))


@pytest.mark.parametrize("draws", [1, 7, 20])
def test_the_parts_sum_to_the_bound(pretrained, rows, draws):
    found = likelihood(pretrained, Texts(rows), steps=200, draws=draws)
    assert found.prior + sum(part.nats for part in found.diffusion) + found.words == pytest.approx(found.nats)
    assert [part.since for part in found.diffusion[1:]] == [part.until for part in found.diffusion[:-1]]
    assert (found.diffusion[0].since, found.diffusion[-1].until) == (0, 1)


def test_drawn_steps_stand_for_all_of_them(pretrained, rows):
    """The mean over seeds of an estimate from 4 of 24 steps is the bound, within four standard errors of both."""
    whole = [likelihood(pretrained, Texts(rows[2:]), steps=24, draws=100, seed=seed).nats for seed in range(8)]
    drawn = [likelihood(pretrained, Texts(rows[2:]), steps=24, draws=4, seed=seed).nats for seed in range(40)]
    error = math.hypot(np.std(whole) / math.sqrt(8), np.std(drawn) / math.sqrt(40))
    assert np.mean(drawn) == pytest.approx(np.mean(whole), abs=4 * error)
    assert error < 0.1 * np.mean(whole)


def test_parts_stand_at_their_times(pretrained, rows):
    """With four steps there are three terms, which start at t = 1, 3/4 and 1/2."""
    found = likelihood(pretrained, Texts(rows), steps=4)
    assert [part.until for part in found.diffusion if part.nats] == [0.5, 0.75, 1.0]


def test_a_text_costs_the_same_in_any_company(pretrained, rows, monkeypatch):
    together = likelihood(pretrained, Texts(rows * 2), steps=50)
    monkeypatch.setattr(nll, "BATCH_POSITIONS", 8)
    alone = likelihood(pretrained, Texts(rows * 2), steps=50)
    assert alone.nats == pytest.approx(together.nats, rel=1e-4)
    assert alone.nats != likelihood(pretrained, Texts(rows * 2), steps=50, seed=1).nats


def test_the_standard_error_is_that_of_a_ratio():
    ratio_error = nll.ratio_error
    # Two texts of 1 and 3 tokens that cost 4 and 8: the ratio is 3, the residuals 1 and -1.
    assert ratio_error(np.array([4.0, 8.0]), np.array([1, 3])) == pytest.approx(math.sqrt(2 * 2 / 1) / 4)
    assert ratio_error(np.array([2.0, 6.0]), np.array([1, 3])) == 0
    assert math.isnan(ratio_error(np.array([2.0]), np.array([1])))


@pytest.mark.parametrize("schedule", [Schedule("sqrt"), Schedule("linear", 2000), Schedule("cosine")])
def test_stretches_hold_every_step_once_and_are_finer_near_the_words(schedule):
    for draws in (1, 20, 5000):
        strata = step_strata(schedule, 2000, draws)
        assert np.concatenate(strata).tolist() == list(range(1999))
        assert len(strata) <= draws
    lengths = [len(stratum) for stratum in step_strata(schedule, 2000, 20)]
    assert lengths[-1] < max(lengths) / 2


def test_rows_of_a_file_and_of_a_prepared_set(pretrained, tokenizer, tmp_path, rows):
    (tmp_path / "texts.txt").write_text("The small bakery sells bread.\nAnna hides.\n")
    read = read_texts(tmp_path / "texts.txt", pretrained).rows
    assert [len(row) for row in read] == [8, 5]
    assert read[0].count(tokenizer.unk_id) == 1  # "The"
    data = tmp_path / "data"
    data.mkdir()
    tokenizer.save(data)
    write_split(data, "valid", rows)
    assert read_texts(data, pretrained) == Texts(rows)
    assert read_texts(data, pretrained, limit=2) == Texts([rows[0], rows[1]])
    with pytest.raises(DataError, match="holds no 'train' split"):
        read_texts(data, pretrained, "train")
    (data / "vocab.json").write_text(json.dumps({"START": 0, "END": 1, "UNK": 2, "PAD": 3, "x": 4}))
    with pytest.raises(DataError, match="a vocabulary other than"):
        read_texts(data, pretrained)
    (tmp_path / "long.txt").write_text("bread " * 30)
    assert len(read_texts(tmp_path / "long.txt", pretrained).rows[0]) == 32
    (tmp_path / "long.txt").write_text("bread " * 40)
    with pytest.raises(DataError, match="a text of 40 words; the model holds up to 30"):
        read_texts(tmp_path / "long.txt", pretrained)


def test_the_command_prints_parts_that_sum_up_and_draws_them(model_folder, tmp_path):
    (tmp_path / "texts.txt").write_text("the small bakery sells bread .\na red bakery .\n")
    command = ["nll", str(model_folder), f"{tmp_path}/texts.txt", "--steps", "50", "--draws", "5"]
    run = CliRunner().invoke(app, [*command, "--plot", f"{tmp_path}/parts.png"])
    assert run.exit_code == 0, run.stderr
    table = dict(line.split("\t")[:2] for line in run.stdout.splitlines())
    parts = [float(value) for name, value in table.items() if name.startswith("t ")]
    assert float(table["diffusion"]) == pytest.approx(sum(parts), abs=0.002)
    assert "2 texts, 14 tokens; 5 of 50 steps drawn for each; 10.0% of the words are unknown" in run.stderr
    assert (tmp_path / "parts.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert figures["nats"] == pytest.approx(float(table["per token (START, words, END)"]), abs=1e-4)
    bad = CliRunner().invoke(app, [*command, "--plot", f"{tmp_path}/parts.doc"])
    assert (bad.exit_code, "the ending '.doc' is not known" in bad.stderr) == (2, True)
