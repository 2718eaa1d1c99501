"""Two processes on the CPU, started with torchrun as by users: they share the work, and only the first one prints."""

import json
import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml

from dlmctl import processes
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.weights import load_weights
from dlmctl.datasets.dataset import write_split
from dlmctl.errors import UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
SENTENCES = [
    "the small bakery sells bread .".split(),
    "a bakery paints the old bridge .".split(),
    "Anna hides two cats near a river .".split(),
] * 8
SIZES = "{length: 32, embed_dim: 8, denoiser: {hidden: 16, layers: 1, heads: 2, max_length: 32, time_channels: 8}}"

MASKED_SIZES = (
    "{family: masked, length: 32, denoiser: {hidden: 16, layers: 1, heads: 2, inner: 24, max_length: 32, dropout: 0.1}}"
)

# Runs the commands of a file one after the other in the processes that torchrun starts, so that torch loads once.
# Notes what each process trained, and its exit codes.
COMMANDS = """
import hashlib, json, pathlib, shlex, sys
import torch
from dlmctl import processes
from dlmctl.cli import app
from dlmctl.training import classifier, lm
from dlmctl.training.loop import fit

folder, trained, codes = pathlib.Path(sys.argv[1]), [], []

def noted(*arguments, **options):
    model = fit(*arguments, **options)
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(tensor.numpy().tobytes())
    trained.append(digest.hexdigest())
    return model

lm.fit = classifier.fit = noted
for line in (folder / "commands").read_text().splitlines():
    try:
        app(shlex.split(line))
    except SystemExit as end:
        codes.append(end.code)
    if torch.distributed.is_initialized():  # the next command may read what the first process has yet to write
        torch.distributed.barrier()
processes.leave_team()
(folder / f"process-{processes.rank()}.json").write_text(json.dumps({"trained": trained, "codes": codes}))
"""


def torchrun(folder: Path, *commands: str) -> tuple[list[dict], str, str]:
    """The notes of each process, and the stdout and stderr of both."""
    (folder / "commands").write_text("\n".join(commands))
    (folder / "run.py").write_text(COMMANDS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*launcher, "run.py", str(folder)], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return [json.loads((folder / f"process-{rank}.json").read_text()) for rank in (0, 1)], run.stdout, run.stderr


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tokenizer, model_folder):
    folder = tmp_path_factory.mktemp("processes")
    (folder / "data").mkdir()
    tokenizer.save(folder / "data")
    for split in ("train", "valid"):
        write_split(folder / "data", split, [tokenizer.encode(words) for words in SENTENCES])
    loop = {"steps": 4, "batch_positions": 64, "log_every": 1, "validate_every": 4, "checkpoint_every": 4}
    loop |= {"accumulate": 2, "optimizer": "muon"}
    (folder / "lm.yaml").write_text(yaml.safe_dump({"model": yaml.safe_load(SIZES), "loop": loop}))
    sizes = yaml.safe_load(MASKED_SIZES)
    (folder / "masked.yaml").write_text(yaml.safe_dump({"model": sizes, "loop": loop}))
    (folder / "control.yaml").write_text(yaml.safe_dump(loop))
    (folder / "shared.yaml").write_text(
        f"model: {model_folder}\nsamples: 22\nseed: 5\nsampler: {{steps: 2, deterministic: true}}\n"
        "controls:\n  - length: [{words: 5}, {words: 7}, {words: 6}]\n"
    )
    (folder / "masked-texts.yaml").write_text(
        "model: masked/model\nsamples: 10\nseed: 5\ncandidates: 2\nsampler: {steps: 2, deterministic: true}\n"
        "controls: [contains: bread]\nuntil: {max_rounds: 2}\n"
    )
    notes, out, err = torchrun(
        folder,
        "generate -r shared.yaml",
        "train lm --data data --out lm --config lm.yaml",
        "train control pos --model lm/model --data data --out pos --config control.yaml",
        "generate -r shared.yaml --out run/ --shard-rows 4",
        "generate -r shared.yaml --out texts.jsonl",
        "generate -r shared.yaml --out texts.npz",
        f"decode {model_folder} -n 22 --seed 5 --steps 2 --set sampler.deterministic=true --out decoded",
        "train lm --data data --out masked --config masked.yaml",
        "generate -r masked-texts.yaml --out masked-run/ --shard-rows 4",
        "generate -r shared.yaml --seed 6 --out run/",
        "generate -r shared.yaml --set 'controls=[{length: {words: 99}}]' --out unfit/",
    )
    return folder, notes, out.splitlines(), err


def test_both_processes_train_the_same_model_and_the_first_saves_it(ran):
    folder, (first, second), out, _ = ran
    assert first["trained"] == second["trained"]
    assert len(first["trained"]) == 3  # the last is a masked one
    assert out.count("model saved in lm/model") == 1
    assert out.count("pos for this model saved in lm/model/controls/pos") == 1
    from_pretrained(folder / "lm" / "model")
    assert load_weights(folder / "lm" / "model" / "controls" / "pos")
    for run in ("lm", "pos"):
        records = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
        losses = [record["loss"] for record in records if "loss" in record]
        assert len(losses) == 4  # written by one process
        assert all(map(math.isfinite, losses))
        assert [record["step"] for record in records if "valid_loss" in record] == [4]
        assert torch.load(folder / run / "state.pt", weights_only=True)["step"] == 4


def test_texts_are_those_of_one_process_in_order(ran, tmp_path):
    from typer.testing import CliRunner

    from dlmctl.cli import app

    folder, _, out, _ = ran
    run = CliRunner().invoke(app, ["generate", "-r", str(folder / "shared.yaml"), "--out", str(tmp_path / "one.jsonl")])
    assert run.exit_code == 0, run.stderr
    alone = (tmp_path / "one.jsonl").read_text("utf-8")
    shards = sorted((folder / "run").glob("rows-*.jsonl"))
    assert len(shards) == 6
    assert "".join(path.read_text("utf-8") for path in shards) == alone
    assert (folder / "texts.jsonl").read_text("utf-8") == alone
    assert not (folder / "texts.jsonl.partial").exists()
    assert [line for line in out if line.startswith("texts saved")] == [
        "texts saved in run",
        "texts saved in texts.jsonl",
        "texts saved in texts.npz",
        "texts saved in masked-run",
    ]


def test_texts_of_a_masked_model_are_those_of_one_process(ran, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from dlmctl.cli import app

    folder, _, _, _ = ran
    monkeypatch.chdir(folder)
    run = CliRunner().invoke(app, ["generate", "-r", "masked-texts.yaml", "--out", str(tmp_path / "one.jsonl")])
    assert run.exit_code == 0, run.stderr
    shards = sorted((folder / "masked-run").glob("rows-*.jsonl"))
    assert len(shards) == 3
    rows = "".join(path.read_text("utf-8") for path in shards)
    assert rows == (tmp_path / "one.jsonl").read_text("utf-8")
    assert all("bread" in json.loads(row)["words"] for row in rows.splitlines())


def test_decoding_is_that_of_one_process(ran, tmp_path, model_folder):
    from dlmctl.evaluation.decode import decode
    from dlmctl.recipe.recipe import Recipe

    folder, _, out, _ = ran
    decode(Recipe(model=str(model_folder), samples=22, seed=5, sampler={"steps": 2, "deterministic": True}), tmp_path)
    for name in ("samples.txt", "samples.jsonl"):
        assert (folder / "decoded" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert sum(line.startswith("self_bleu") for line in out) == 1


def test_a_mistake_is_one_message_and_stops_every_process(ran):
    _, (first, second), _, err = ran
    assert first["codes"] == second["codes"] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2]
    said = [line for line in err.splitlines() if line.startswith("dlmctl")]
    assert said == [
        "dlmctl: several processes need a place for their texts. Give --out FOLDER/ or FILE.",
        "dlmctl: run: holds a run with other settings: seed was 5 and is 6. "
        "Give the same settings to continue it, name another place, or delete it.",
        "dlmctl: command line: sample 0: the target has 99 words, but the model holds at most 30. "
        "Shorten the target or choose a model with a greater length.",
    ]
    assert "Traceback" not in err


def test_who_a_process_is_stands_in_its_environment(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (processes.count(), processes.rank(), processes.local_rank(), processes.is_main()) == (1, 0, 0, True)
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert (processes.count(), processes.rank(), processes.local_rank(), processes.is_main()) == (8, 5, 1, False)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"RANK": "a", "WORLD_SIZE": "2"},
            "RANK: 'a' is not a process of this run. torchrun and accelerate launch set it",
        ),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK: '2' is not a process of this run."),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE: 'two' is not a number of processes."),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE: '0' is not a number of processes."),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "x"}, "LOCAL_RANK: 'x' is not a process of this run."),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR: is not set, but there are 2 processes."),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "MASTER_PORT: is not set, but there are 2 processes."),
    ],
)
def test_a_launch_that_cannot_work_is_one_message(monkeypatch, model_folder, tmp_path, said, message):
    from typer.testing import CliRunner

    from dlmctl.cli import app

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    run = CliRunner().invoke(app, ["generate", "--model", str(model_folder), "--out", f"{tmp_path}/run/"])
    assert (run.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert message in run.stderr


def test_variables_that_are_empty_are_not_set(monkeypatch):
    monkeypatch.setenv("RANK", "")
    monkeypatch.setenv("WORLD_SIZE", "")
    assert (processes.count(), processes.rank(), processes.local_rank(), processes.is_main()) == (1, 0, 0, True)


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["generate", "--no-such-option"], 2)])
def test_a_command_takes_its_process_from_the_team_before_it_ends(monkeypatch, capsys, arguments, code):
    from dlmctl import cli

    left = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: left.append(True))
    monkeypatch.setattr(sys, "argv", ["dlmctl", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, left) == (code, [True])


def test_one_process_alone_is_a_team():
    team = processes.Team()
    assert (team.run_on_main(lambda: 3), team.run_on_all(lambda: 4)) == (3, 4)

    def fail():
        raise UserError("no.")

    for ask in (team.run_on_main, team.run_on_all):
        with pytest.raises(UserError, match="no"):
            ask(fail)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, processes.Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_that_other_code_takes_for_its_own_fault_still_ends_the_run(number, kind):
    """torch does this when it converts numbers: it asks an object for its length, and drops the exception raised."""

    def forgetful(number):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    def goes_on(number):
        with suppress(ValueError):  # nor does it say so
            forgetful(number)
        generate(model="e2e", samples=1, sampler=SamplerSettings(steps=2))

    kept = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(kind) as caught, processes.terminable():
            forgetful(number)
        assert type(caught.value) is kind
        with pytest.raises(kind), processes.terminable():
            goes_on(number)
        with pytest.raises(ValueError, match="its own"), processes.terminable():
            raise ValueError("its own")
    finally:
        for one, handler in kept.items():
            signal.signal(one, handler)
