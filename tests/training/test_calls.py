"""What a step of training asks of a device: calls that do not grow with the batch, and nothing read back."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.hints import HintRequest
from dlmctl.datasets.dataset import Split, padded_batch, write_split
from dlmctl.evaluation.calls import CallCounter
from dlmctl.models.hints import HintsConfig
from dlmctl.training.hints import HintTask, encode_examples
from dlmctl.training.lm import LanguageModelTask, read_lm_config
from dlmctl.training.loop import fit
from dlmctl.training.masked import MaskedTask
from dlmctl.training.rows import Rows

LOGGED = 6
DENOISER = {"hidden": 16, "layers": 2, "heads": 2, "max_length": 16, "dropout": 0.0}
MODELS = {
    "masked": {"family": "masked", "denoiser": {**DENOISER, "inner": 24}},
    "masked by time": {"family": "masked", "objective": "time", "denoiser": {**DENOISER, "inner": 24}},
    "gaussian": {"embed_dim": 8, "self_conditioning": False, "denoiser": {**DENOISER, "time_channels": 8}},
    "self-conditioned": {"embed_dim": 8, "denoiser": {**DENOISER, "time_channels": 8}},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    rng = np.random.default_rng(0)
    words = ["START", "END", "UNK", "PAD", *(f"w{number}" for number in range(60))]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "dataset.json").write_text("{}")
    for split in ("train", "valid"):
        write_split(folder, split, [[0, *rng.integers(4, 64, 10).tolist(), 1] for _ in range(64)])
    return folder


def task_of(model, data, rows):
    loop = {"steps": LOGGED + 1, "batch_positions": 12 * rows, "bucket": 1, "full_share": 0.0, "optimizer": "muon"}
    loop |= {"log_every": LOGGED, "validate_every": 100, "checkpoint_every": 100, "lr": 1e-3}
    (data / "config.yaml").write_text(json.dumps({"model": {**MODELS[model], "length": 16}, "loop": loop}))
    config = read_lm_config(str(data / "config.yaml"))
    return config, (MaskedTask if "masked" in model else LanguageModelTask)(config, data)


def hint_task(data, rows):
    """Hints for a masked model, of two features of words."""
    config, task = task_of("masked", data, rows)
    ids = [task.train.row(at) for at in range(len(task.train))]
    asks = [[HintRequest([["a"], ["b"]] * 5), HintRequest([["a", "b"]])]] * len(ids)
    examples = encode_examples(ids, asks, ["a", "b"], [])
    shape = HintsConfig(features=["a", "b"], width=8, blocks=0)
    return config, HintTask(config.loop, shape, Pretrained(task.model, task.tokenizer, data), examples, examples)


def count_calls(model, data, out, rows):
    """The calls of the three steps before the one that is logged."""
    config, task = hint_task(data, rows) if model == "hints" else task_of(model, data, rows)
    batches, counter = task.batches, CallCounter()

    def recorded_batches(*arguments):
        for step, batch in enumerate(batches(*arguments)):
            counter.paused = not LOGGED - 4 <= step < LOGGED - 1
            yield batch

    task.batches, task.validate, task.samples = recorded_batches, lambda _: {"loss": 0.0, "nats": 0.0}, lambda _: []
    with counter.counting() as calls:
        fit(task, config.loop, out, quiet=True)
    return calls


@pytest.mark.parametrize("model", [*MODELS, "hints"])
def test_a_step_reads_nothing_back_and_makes_as_many_calls_for_many_texts_as_for_few(model, data, tmp_path):
    few, many = (count_calls(model, data, tmp_path / str(rows), rows) for rows in (4, 16))
    if model != "self-conditioned":  # which predicts twice at every second step, by chance
        assert few.network + few.backward + few.other == many.network + many.backward + many.other
    # On the CPU wherever the weights are: how many steps the averages have seen, and whether to predict twice.
    expected = Counter({"waits: __int__": 3})
    if model == "self-conditioned":
        expected["waits: item"] = 3
    assert Counter({name: count for name, count in many.names.items() if name.startswith("waits")}) == expected


def test_rows_on_a_device_are_those_in_memory():
    split = Split(np.arange(1, 22, dtype=np.uint16), np.array([0, 5, 7, 15, 21]))
    rows, chosen = Rows(split, 9, torch.device("cpu")), np.array([3, 1, 2])
    plain = rows.batch(chosen, 6)
    assert plain.tolist() == padded_batch(split, chosen, 6, 9).tolist()
    rows.flat = torch.from_numpy(split.ids.astype(np.int32))  # as on a GPU
    assert torch.equal(rows.batch(chosen, 6), plain)


@pytest.mark.parametrize("model", ["masked", "gaussian"])
def test_compiled_blocks_train_alike_and_are_one_graph(model, data):
    _, task = task_of(model, data, 4)
    losses = []
    for compiled in (False, True):
        if compiled:
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
            task.model.compile(dynamic=True, backend="aot_eager", fullgraph=True)
        torch.manual_seed(1)
        task.model.zero_grad()
        loss, _ = task.loss(task.model, next(task.batches(0, 0, 1)))
        loss.backward()
        losses.append([loss.detach(), *(weight.grad.clone() for weight in task.model.parameters())])
    torch.testing.assert_close(losses[0], losses[1])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
