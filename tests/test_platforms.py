"""What other systems do differently, as far as it can be shown on any of them."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import filelock
import platformdirs
import pytest
import torch
from typer.testing import CliRunner

from dlmctl.checkpoint.control_weights import find_control_folder, new_control_folder
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.user_weights import available_weights
from dlmctl.checkpoint.weights import save_weights
from dlmctl.cli import app
from dlmctl.errors import UserError
from dlmctl.generation.bulk import generate_bulk
from dlmctl.generation.destination import Destination
from dlmctl.generation.output import atomic_write
from dlmctl.generation.run import RecipeSampler
from dlmctl.processes import run_lock
from dlmctl.recipe.recipe import Recipe
from dlmctl.training import devices
from dlmctl.training.state import TrainingState, save_state

ROOT = Path(__file__).resolve().parents[1]


def write_text(path):
    with atomic_write(path) as partial:
        partial.write_text("text")


def write_checkpoint(path):
    part = torch.nn.Linear(1, 1)
    save_state(path, TrainingState(part, part, [], part, part), 1, {})


@pytest.mark.parametrize("write", [write_text, write_checkpoint, lambda path: save_weights({"a": torch.ones(1)}, path)])
def test_what_is_flushed_to_disk_is_open_for_writing(tmp_path, monkeypatch, write):
    """As Windows demands; a write of nothing fails with the same error where a file is open for reading only."""
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.write(number, b"")))
    write(tmp_path / "file")
    assert flushed == [0]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs Git")
def test_git_on_windows_leaves_the_files_that_digests_describe_as_they_are(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-c", "core.autocrlf=true", "-C", tmp_path, *arguments], check=True)

    shutil.copy(ROOT / ".gitattributes", tmp_path)
    vocabulary = tmp_path / "data" / "e2e" / "vocab.json"
    vocabulary.parent.mkdir(parents=True)
    vocabulary.write_bytes(b"[\n]\n")
    git("init", "-q")
    git("add", vocabulary)
    vocabulary.unlink()
    git("checkout", "-q", "--", vocabulary)
    assert vocabulary.read_bytes() == b"[\n]\n"


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_file_system_without_locks_can_be_written_to(tmp_path, monkeypatch):
    """As Lustre is unless it was mounted otherwise."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):
        with run_lock(tmp_path / "run" / ".lock", "run", tmp_path):
            (tmp_path / "run" / "rows").write_text("text")


class WindowsLock(filelock.FileLock):
    """Deletes its file when it is released."""

    def release(self, force=False):
        super().release(force)
        os.remove(self.lock_file)


@pytest.mark.parametrize("error", [None, UserError("cannot be drawn.")])
def test_nothing_is_left_beside_a_file_where_open_files_cannot_be_deleted(tmp_path, monkeypatch, model_folder, error):
    unlink = os.unlink

    def unlink_unless_locked(path, **options):
        if Path(path).name == ".lock":
            raise PermissionError(errno.EACCES, "the file is used by another process", str(path))
        unlink(path, **options)

    def draw(*arguments, **options):
        raise error

    monkeypatch.setattr(filelock, "FileLock", WindowsLock)
    monkeypatch.setattr(os, "unlink", unlink_unless_locked)
    recipe = Recipe(model=str(model_folder), samples=2, sampler={"steps": 2})
    if error is not None:
        monkeypatch.setattr(RecipeSampler, "draw", draw)
    with nullcontext() if error is None else pytest.raises(UserError):
        generate_bulk(recipe, Destination(tmp_path / "x.txt.partial", tmp_path / "x.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ([] if error else ["x.txt"])


def test_nothing_is_trained_on_a_device_without_float64(monkeypatch):
    chosen = []
    monkeypatch.setattr(devices, "Accelerator", lambda **settings: chosen.append(settings["cpu"]))
    for device in ("mps", "cuda"):
        with monkeypatch.context() as patch:
            patch.setattr(torch.accelerator, "current_accelerator", lambda name=device, **options: torch.device(name))
            devices.accelerator_for("fp32")
    assert chosen == [True, False]


def test_a_bound_is_not_computed_on_a_device_without_float64():
    done = CliRunner().invoke(app, ["nll", "e2e", "none.txt", "--device", "mps"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("dlmctl: device 'mps' has no float64, in which this is computed. Use auto or cpu.")


def test_a_user_without_a_home_can_use_controls_but_not_train_them_for_a_bundled_model(monkeypatch):
    """As under a number that the system's list of users does not have, in a container."""

    def no_home(*arguments, **options):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_data_path", no_home)
    model = from_pretrained("e2e")
    assert find_control_folder(model.folder, model.model, "pos") == model.folder / "controls" / "pos"
    assert find_control_folder(model.folder, model.model, "pos", "mine") is None
    assert available_weights(model.folder, "pos") == (True, [])
    with pytest.raises(UserError, match="there is no home folder"):
        new_control_folder(model.folder, model.model, "pos")
