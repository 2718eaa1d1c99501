"""The loop on a tiny diffusion LM over the corpus that ships: interruptions, several processes, failures."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.weights import load_weights
from dlmctl.datasets.prepare import prepare
from dlmctl.errors import UserError
from dlmctl.processes import Terminated, run_lock
from dlmctl.training import lm, loop
from dlmctl.training.averages import Averages
from dlmctl.training.config import LoopConfig
from dlmctl.training.lm import LanguageModelConfig, LanguageModelTask, train_lm
from dlmctl.training.state import digest

CORPUS = Path(__file__).resolve().parents[2] / "data" / "restaurants" / "corpus.jsonl"
STEPS = 24

# Trains by the configuration argv[1] on argv[2], each time in a child of its own so that torch is loaded once, into
# argv[3] and argv[4]: the first is killed at its step 28 of a batch, the other while its second checkpoint is written.
DOOMED = """
import os, signal, sys, torch
from pathlib import Path
from dlmctl.training.lm import LanguageModelConfig, LanguageModelTask, train_lm

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def train(out, batch, checkpoint):
    seen, saved, loss, save = 0, 0, LanguageModelTask.loss, torch.save

    def counted(self, model, ids):
        nonlocal seen
        seen += 1
        return die() if seen == batch else loss(self, model, ids)

    def cut_short(state, path):
        nonlocal saved
        saved += 1
        save(state, path)
        if saved == checkpoint:
            os.truncate(path, 100)
            die()

    LanguageModelTask.loss, torch.save = counted, cut_short
    train_lm(LanguageModelConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(out))

for out, batch, checkpoint in ((sys.argv[3], 28, 0), (sys.argv[4], 0, 2)):
    child = os.fork()
    if not child:
        train(out, batch, checkpoint)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""


def config(**changes):
    denoiser = {"hidden": 16, "layers": 1, "heads": 2, "dropout": 0.1, "max_length": 40, "time_channels": 8}
    settings = {"steps": STEPS, "batch_positions": 256, "accumulate": 2, "lr": 3e-3, "warmup": 4, "ema": 0.9}
    intervals = {"log_every": 4, "validate_every": 16, "checkpoint_every": 8}
    return LanguageModelConfig(
        model={"length": 40, "embed_dim": 8, "denoiser": denoiser},
        loop={**settings, "optimizer": "muon", **intervals, **changes},
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restaurants") / "set"
    prepare(CORPUS, None, folder, min_count=5, length=40)
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The run that nothing interrupts."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train_lm(config(), data, out)
    return out


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]


def state(out):
    return torch.load(out / "state.pt", weights_only=True)


def test_training_learns_and_says_so(whole):
    lines = metrics(whole)
    assert [line["step"] for line in lines if "loss" in line] == list(range(4, STEPS + 1, 4))
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 0.3
    assert [line["step"] for line in lines if "valid_loss" in line] == [16, STEPS]
    assert from_pretrained(whole / "model").model.config.length == 40


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory):
    """Two runs that were killed, and how."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "doomed.py").write_text(DOOMED)
    runs = {"between checkpoints": folder / "between", "while a checkpoint is written": folder / "writing"}
    # As many threads as here: sums depend on how they are shared out.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, folder / "doomed.py", config().model_dump_json(), data, *runs.values()]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr
    return runs


@pytest.mark.parametrize("how", ["between checkpoints", "while a checkpoint is written"])
def test_a_killed_run_resumes_bit_for_bit(data, whole, killed, how):
    out = killed[how]
    assert state(out)["step"] == 8
    assert not (out / "model").exists()
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')  # the kill could fall here, too
    train_lm(config(), data, out, resume=True)
    expected, found = (load_weights(run / "model") for run in (whole, out))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for kind in ("model", "ema", "task"):
        assert all(torch.equal(value, state(out)[kind][name]) for name, value in state(whole)[kind].items())
    assert torch.equal(state(whole)["rng"], state(out)["rng"])
    clocked = dict.fromkeys(("time", "positions_per_second", "data_share", "mfu"), 0)
    timeless = [[{**line, **clocked} for line in metrics(run)] for run in (whole, out)]
    assert timeless[0] == timeless[1]  # no step twice
    assert not list(out.glob("*.partial"))


def test_an_earlier_run_is_neither_overwritten_nor_invented(data, whole, tmp_path):
    with pytest.raises(UserError, match=r"holds an earlier run.*--resume"):
        train_lm(config(), data, whole)
    with pytest.raises(UserError, match="nothing to resume here"):
        train_lm(config(), data, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("left", ["model", "scorer"])
def test_what_is_left_of_a_run_without_its_checkpoint_is_not_overwritten(data, tmp_path, left):
    (tmp_path / left).mkdir()
    (tmp_path / left / "config.json").write_text("{}")
    with pytest.raises(UserError, match=rf"holds {left}, which a new run would replace.*another folder"):
        train_lm(config(), data, tmp_path)


def test_what_lies_beside_a_data_set_is_no_part_of_it(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    before = digest(data)
    (copy / "notes").mkdir()
    (copy / "notes" / "vocab.json").write_text("mine")
    (copy / "Thumbs.db").write_text("")
    assert digest(copy) == before
    (copy / "vocab.json").write_text("{}")
    assert digest(copy) == {**digest(copy), "data": before["data"]} != before
    (copy / "valid.fields.jsonl").write_text("{}")
    assert digest(copy)["data"] != before["data"]


@pytest.mark.parametrize("inside", ["", "runs/lm"])
def test_a_run_is_kept_out_of_its_data(data, inside):
    with pytest.raises(UserError, match="the run cannot be inside the data set"):
        train_lm(config(), data, data / inside)
    assert not (data / "runs").exists()


def test_resuming_a_finished_run_gives_its_model_again(data, whole):
    before = load_weights(whole / "model")
    train_lm(config(), data, whole, resume=True)
    assert all(torch.equal(value, before[name]) for name, value in load_weights(whole / "model").items())


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "other sizes", "pickle", "pipe", "identity", "step", "weights", "optimizers"]
)
def test_a_checkpoint_that_cannot_be_used_is_said(data, whole, tmp_path, damage):
    content, settings = (whole / "state.pt").read_bytes(), config()
    if damage == "cut":
        content = content[: len(content) // 2]
    if damage == "empty":
        content = b""
    if damage == "pickle":
        import pickle

        content = pickle.dumps(os.getcwd)
    if damage == "other sizes":
        settings = config().model_copy(update={"model": settings.model.model_copy(update={"embed_dim": 4})})
    (tmp_path / "state.pt").write_bytes(content)
    if damage == "pipe":
        (tmp_path / "state.pt").unlink()
        os.mkfifo(tmp_path / "state.pt")
    elif damage not in ("cut", "empty", "pickle", "other sizes"):
        key = {"weights": "model"}.get(damage, damage)
        value = -1 if damage == "step" else torch.zeros(3)
        torch.save({**torch.load(whole / "state.pt", weights_only=True), key: value}, tmp_path / "state.pt")
    said = {"other sizes": "model.embed_dim was 8 and is now 4", "pipe": "it is a pipe"}
    said |= {
        "empty": "damaged: it is empty or cut short. Resume",
        "pickle": "something other than tensors and numbers. R",
    }
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(UserError, match=said.get(damage, "does not fit these settings or is damaged")),
    ):
        train_lm(settings, data, tmp_path, resume=True)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_full_disk_is_one_message_and_costs_no_checkpoint(data, tmp_path, monkeypatch, error):
    save, calls = torch.save, []

    def full(state, path):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise error
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"state.pt: the checkpoint could not be written.*--resume") as caught:
        train_lm(config(steps=4, checkpoint_every=2, validate_every=4), data, tmp_path / "run")
    assert str(error.args[-1]) in str(caught.value)
    assert state(tmp_path / "run")["step"] == 2
    assert not list((tmp_path / "run").glob("*.partial"))


def test_where_the_first_checkpoint_does_not_fit_the_run_starts_again(data, tmp_path, monkeypatch):
    def full(state, path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nin short: full")

    save = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError) as caught:
        train_lm(config(), data, tmp_path / "run")
    assert "the disk may be full, " in str(caught.value)
    assert str(caught.value).endswith("pos 64 vs 0. There is no earlier checkpoint; make room and start the run again.")
    monkeypatch.setattr(torch, "save", save)
    assert train_lm(config(), data, tmp_path / "run").is_dir()


def test_a_loss_that_is_no_number_stops_the_run(data, tmp_path, monkeypatch):
    loss, calls = LanguageModelTask.loss, []

    def diverging(self, model, batch):
        calls.append(1)
        value, count = loss(self, model, batch)
        return (value * float("nan") if len(calls) == 8 else value), count

    monkeypatch.setattr(LanguageModelTask, "loss", diverging)
    with pytest.raises(UserError, match="the loss is nan at step 4"):
        train_lm(config(checkpoint_every=2), data, tmp_path / "run")
    saved = state(tmp_path / "run")
    assert saved["step"] == 2
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_weights_that_are_no_numbers_are_neither_validated_nor_saved(data, tmp_path, monkeypatch):
    loss, calls = LanguageModelTask.loss, []

    def diverging(self, model, batch):
        calls.append(1)
        value, count = loss(self, model, batch)
        nothing = 0 * next(model.parameters()).sum()
        # The loss is a number, its gradient is none.
        return (value + nothing.sqrt() if len(calls) == 8 else value), count

    monkeypatch.setattr(LanguageModelTask, "loss", diverging)
    with pytest.raises(UserError, match=r"is not finite \(NaN or infinity\) after step 4. The last checkpoint is from"):
        train_lm(config(checkpoint_every=2, validate_every=4), data, tmp_path / "run")
    assert state(tmp_path / "run")["step"] == 2
    calls.clear()
    with pytest.raises(UserError, match=r"after step 4\. Start again"):
        train_lm(config(checkpoint_every=4, validate_every=5), data, tmp_path / "other")
    assert not (tmp_path / "other" / "state.pt").exists()


def changed(saved, damage):
    """A checkpoint with one thing in it that no run has written."""
    moments, best = saved["optimizers"][0]["state"][0], saved["best"]
    if damage == "moments of another shape":
        moments["exp_avg"] = torch.zeros(3)
    if damage == "no moments":
        del moments["exp_avg_sq"]
    if damage == "momentum of another shape":
        next(iter(saved["optimizers"][1]["state"].values()))["momentum_buffer"] = torch.zeros(3)
    if damage == "other best weights":
        best["weights"] = {"mine": torch.zeros(3)}
    if damage == "best weights of another shape":
        best["weights"] = {name: weight[None] for name, weight in best["weights"].items()}
    if damage == "best weights are none":
        next(iter(best["weights"].values())).fill_(float("nan"))
    if damage == "averages are none":
        next(weight for weight in saved["ema"].values() if weight.ndim).fill_(float("nan"))
    if damage == "times":
        saved["task"]["loss"] = torch.zeros(3)
    return saved


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("moments of another shape", "the state of an optimiser does not fit weight 0"),
        ("no moments", "the state of an optimiser does not fit weight 0"),
        ("momentum of another shape", "the state of an optimiser does not fit weight"),
        ("other best weights", "the best weights have other names"),
        ("best weights of another shape", "the best weights have '.*' of shape"),
        ("best weights are none", "the best weights hold values that are not finite"),
        ("averages are none", "the averaged weights hold values that are not finite"),
        ("times", "the figures of the task have 'loss' of shape"),
    ],
)
def test_what_does_not_fit_in_a_checkpoint_is_found_before_the_first_step(data, whole, tmp_path, damage, said):
    torch.save(changed(state(whole), damage), tmp_path / "state.pt")
    with pytest.raises(UserError, match=f"does not fit these settings or is damaged: {said}"):
        train_lm(config(), data, tmp_path, resume=True)


def test_validation_sees_rows_of_all_lengths(data, monkeypatch):
    task, seen = LanguageModelTask(config(), data), []
    batch = task._batch

    def noted(split, texts, rows, width):
        seen.extend(rows.tolist())
        return batch(split, texts, rows, width)

    monkeypatch.setattr(lm, "VALIDATION_ROWS", 20)
    monkeypatch.setattr(task, "_batch", noted)
    task.validate(task.model.eval())
    assert sorted(seen) == task.valid.spread(20).tolist()


def test_rows_longer_than_the_model_are_refused(data, tmp_path):
    short = config()
    short = short.model_copy(update={"model": short.model.model_copy(update={"length": 8})})
    with pytest.raises(UserError, match=r"rows of \d+ positions, the model holds 8. Prepare"):
        train_lm(short, data, tmp_path / "run")


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_the_learning_rate_warms_up_and_decays(decay):
    settings = LoopConfig(steps=100, warmup=10, decay=decay)
    shares = [loop.learning_rate(settings, step) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10] == 1
    if decay == "constant":
        assert set(shares[10:]) == {1.0}
    else:
        assert shares[10:] == sorted(shares[10:], reverse=True)
        assert shares[55] == pytest.approx(0.5)
        assert 0 < shares[-1] < 0.02


def test_the_decay_may_begin_late():
    settings = LoopConfig(steps=100, warmup=10, decay_share=0.6)
    shares = [loop.learning_rate(settings, step) for step in range(100)]
    assert shares[10:41] == [1.0] * 31
    assert shares[70] == pytest.approx(0.5)
    assert shares[41:] == sorted(shares[41:], reverse=True)
    assert 0 < shares[-1] < 0.02


def test_muon_takes_the_matrices_inside_blocks_and_adamw_the_rest(data):
    model = LanguageModelTask(config(), data).model
    adamw, muon = loop.build_optimizers(model, config().loop)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    others = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert matrices | others == set(names.values())
    assert not matrices & others
    inner = {name for name in names.values() if ".blocks." in name and "norm" not in name}
    assert matrices == {name for name in inner if name.endswith("weight")}
    assert len(loop.build_optimizers(model, LoopConfig(steps=1))) == 1


def test_averages_forget_the_first_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    averages = Averages(model, 0.999)
    for value in (5.0, 1.0, 1.0, 1.0, 1.0):
        torch.nn.init.constant_(model.weight, value)
        averages.update()
    expected = 5.0
    for count in range(1, 5):
        expected += (1 - expected) * (1 - (1 + count) / (10 + count))
    assert averages.module.weight.item() == pytest.approx(expected)
    assert expected < 1.1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_writes_a_checkpoint_and_says_how_to_go_on(
    data, whole, tmp_path, monkeypatch, number
):
    loss, seen = LanguageModelTask.loss, []

    def signalled(self, model, ids):
        seen.append(1)
        if len(seen) == 10:  # in the fifth step, which is finished
            os.kill(os.getpid(), number)
        return loss(self, model, ids)

    monkeypatch.setattr(LanguageModelTask, "loss", signalled)
    with pytest.raises(loop.Stopped, match="stopped after step 5 of 24") as caught:
        train_lm(config(), data, tmp_path / "run")
    monkeypatch.undo()
    assert "--resume" in str(caught.value)
    assert isinstance(caught.value, Terminated) is (number == signal.SIGTERM)
    assert state(tmp_path / "run")["step"] == 5
    train_lm(config(), data, tmp_path / "run", resume=True)
    expected, found = (load_weights(run / "model") for run in (whole, tmp_path / "run"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_first_checkpoint_comes_by_the_clock(data, tmp_path, monkeypatch):
    steps, save = [], loop.save_state

    def saved(path, parts, step, identity):
        steps.append(step)
        save(path, parts, step, identity)

    monkeypatch.setattr(loop, "save_state", saved)
    monkeypatch.setattr(loop, "FIRST_CHECKPOINT_SECONDS", 0.0)
    train_lm(config(steps=3, checkpoint_every=100, validate_every=100), data, tmp_path / "run")
    assert steps == [1, 3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 7}, "loop.seed was 0 and is now 7"),
        ({"optimizer": "adamw"}, "loop.optimizer was muon and is now adamw"),
        ({"steps": 4}, "steps is 4, but 24 are already done"),
    ],
)
def test_another_run_is_not_resumed(data, whole, changes, said):
    with pytest.raises(UserError, match=said):
        train_lm(config(**changes), data, whole, resume=True)


def test_other_data_is_not_resumed_and_more_steps_are(data, tmp_path):
    brief = {"steps": 2, "validate_every": 2, "checkpoint_every": 2}
    train_lm(config(**brief), data, tmp_path / "run")
    lines = CORPUS.read_text("utf-8").split("\n")
    (tmp_path / "other.jsonl").write_text("\n".join(lines[: len(lines) // 2]))
    prepare(tmp_path / "other.jsonl", None, tmp_path / "other", min_count=2, length=40)
    with pytest.raises(UserError, match="the data has changed; the vocabulary has changed"):
        train_lm(config(**brief), tmp_path / "other", tmp_path / "run", resume=True)
    train_lm(config(**{**brief, "steps": 3, "lr": 1e-3}), data, tmp_path / "run", resume=True)
    assert state(tmp_path / "run")["step"] == 3


def test_one_process_at_a_time_trains_in_a_folder(data, tmp_path):
    with (
        run_lock(tmp_path / "run" / ".lock", "run", tmp_path),
        pytest.raises(UserError, match="another process is at work"),
    ):
        train_lm(config(), data, tmp_path / "run")
