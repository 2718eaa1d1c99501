import json
import os

import pytest
import torch
from torch import nn

from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import UserError
from dlmctl.training.progress import TrainingProgress
from dlmctl.training.throughput import DTYPES, ROUNDS, flops_per_position, peak_flops
from tests.conftest import tiny_config


def test_six_operations_for_each_weight_of_a_product():
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 16), nn.LayerNorm(16), nn.Conv1d(16, 4, 3))
    assert flops_per_position(model) == 6 * (8 * 16 + 16 * 4 * 3)


def test_a_weight_shared_with_embeddings_counts_where_it_multiplies():
    head = nn.Linear(8, 50, bias=False)
    table = nn.Embedding(50, 8)
    head.weight = table.weight
    assert flops_per_position(nn.Sequential(table, head)) == 6 * 400


def test_an_output_layer_of_embeddings_counts_for_the_places_that_are_scored():
    sizes = {"hidden": 8, "layers": 1, "heads": 2, "inner": 16, "max_length": 16}
    settings = {"length": 16, "denoiser": sizes, "vocab_size": 49}  # and MASK
    block = 4 * 8 * 8 + 3 * 8 * 16
    assert flops_per_position(MaskedLM(MaskedConfig(**settings))) == 6 * (block + 50 * 8 // 2)
    words = DiffusionLM(tiny_config(50))
    latents = DiffusionLM(tiny_config(50, objective="paper"))
    assert (words.tied_weights, latents.tied_weights) == (0, latents.embedding.weight.numel())


@pytest.mark.parametrize("precision", DTYPES)
def test_the_peak_is_that_of_the_best_product(monkeypatch, precision):
    times = iter([0.0, 3.0, 10.0, 12.0, 20.0, 24.0, 30.0, 33.0, 40.0, 43.0])
    assert ROUNDS == 5
    monkeypatch.setattr("dlmctl.training.throughput.time.perf_counter", lambda: next(times))
    monkeypatch.setattr("torch.Tensor.__matmul__", lambda left, right: left)
    peak_flops.cache_clear()
    try:
        assert peak_flops(torch.device("cpu"), precision) == pytest.approx(2 * 1024**3 / 2.0)
        assert peak_flops(torch.device("cpu"), precision) == pytest.approx(2 * 1024**3 / 2.0)  # not measured again
    finally:
        peak_flops.cache_clear()


def test_utilisation_and_waiting_are_recorded_since_the_last_log(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("dlmctl.training.progress.time.perf_counter", lambda: now[0])
    with TrainingProgress(4, 0, tmp_path, quiet=False, flops=(600.0, 1e6)) as progress:
        for _ in range(2):
            progress.add_losses([1.0])
            progress.advance(500, 0.25)
        now[0] += 2.0
        progress.log(2, {"loss": progress.loss})
        progress.add_losses([1.0])
        progress.advance(100, 0.0)
        now[0] += 1.0
        progress.log(3, {"loss": progress.loss})
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first["positions_per_second"] == pytest.approx(500)
    assert first["data_share"] == pytest.approx(0.25)
    assert first["mfu"] == pytest.approx(600 * 500 / 1e6)
    assert second["positions_per_second"] == pytest.approx(100)
    assert second["data_share"] == 0


def test_the_speed_leaves_out_what_is_no_training(tmp_path, monkeypatch):
    now, said = [100.0], []
    monkeypatch.setattr("dlmctl.training.progress.time.perf_counter", lambda: now[0])
    with TrainingProgress(100, 0, tmp_path, quiet=False) as progress:
        monkeypatch.setattr(progress, "say", said.append)
        for step in range(1, 8):
            progress.add_losses([1.0])
            now[0] += 1.0
            progress.advance(500, 0.25)
            if step == 4:
                with progress.paused():
                    now[0] += 50.0
        progress.log(7, {"loss": progress.loss})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["positions_per_second"] == pytest.approx(500)
    assert line["data_share"] == pytest.approx(0.25)
    assert "(1 s a step" in said[0]  # and so does what is said of the rest


def test_figures_of_steps_to_come_and_what_is_none_are_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [b'{"step": 1}', b'{"step": 3}', b"3", b"null", b"[]", b'{"a": "\xe9"}', b'{"step": []}', b"[" * 200_000]
    path.write_bytes(b"\n".join([*lines, b'{"step": 2}', b'{"step": 2, "los']))
    with TrainingProgress(4, 2, tmp_path, quiet=False):
        assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"metrics.jsonl: cannot be read: it is a pipe.*Move it away"):
        TrainingProgress(4, 2, tmp_path, quiet=False)
