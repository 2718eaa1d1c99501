"""Long runs: interrupted anywhere and continued, they end with the texts of a single run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.cli import app
from dlmctl.errors import UserError
from dlmctl.generation import bulk
from dlmctl.generation.bulk import generate_bulk, generate_shards
from dlmctl.generation.destination import Destination, read_destination
from dlmctl.generation.part import Part
from dlmctl.generation.run import RecipeSampler, run_recipe
from dlmctl.generation.shards import Run, open_run
from dlmctl.processes import Terminated, run_lock
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.recipe import Recipe

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


# Bit-identical in any shard.
ALONE = {"steps": 2, "deterministic": True}


def recipe_for(model_folder, **settings) -> Recipe:
    return Recipe(model=str(model_folder), **{"samples": 20, "seed": 3, "sampler": ALONE, **settings})


def rows(folder: Path) -> list[dict]:
    lines = [line for path in sorted(folder.glob("rows-*.jsonl")) for line in path.read_text("utf-8").split("\n")[:-1]]
    return [json.loads(line) for line in lines]


@pytest.fixture
def whole(model_folder):
    return json.loads(json.dumps(run_recipe(recipe_for(model_folder)).to_dicts()))


def test_shards_together_equal_a_single_run(model_folder, tmp_path, whole):
    generate_shards(recipe_for(model_folder), tmp_path / "run", shard_rows=6)
    assert rows(tmp_path / "run") == whole
    assert [len(path.read_text().splitlines()) for path in sorted((tmp_path / "run").glob("rows-*"))] == [6, 6, 6, 2]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["shards"], manifest["shards_done"]) == (20, 4, 4)
    assert manifest["settings"]["sampler"]["steps"] == 2
    assert [one["deterministic"] for one in manifest["environments"]] == [True]


def test_independent_parts_fill_one_folder(model_folder, tmp_path, whole):
    recipe, folder = recipe_for(model_folder), tmp_path / "run"
    # The first command determines the size of the shards, as if each part were a process of one command.
    second = generate_bulk(recipe, Destination(folder, None), part=Part(2, 3))
    assert (second.drawn, second.tally.rows) == (7, 7)
    assert [row["index"] for row in rows(folder)] == list(range(7, 14))
    with run_lock(folder / ".part-1.lock", "part", folder), pytest.raises(UserError, match=r"part \(1\) of a run"):
        generate_shards(recipe, folder, part=Part(1, 3))
    assert generate_shards(recipe, folder, part=Part(3, 3)).drawn == 6
    assert generate_bulk(recipe, Destination(folder, None), part=Part(1, 3)).tally.rows == 20
    assert generate_shards(recipe, folder, part=Part(1, 3)).drawn == 0
    assert rows(folder) == whole
    assert json.loads((folder / "manifest.json").read_text())["shards_done"] == 3


def drawn_meanwhile(monkeypatch, other):
    """Run ``other`` while the first shard is drawn."""
    draw = RecipeSampler.draw

    def beside(work, numbers, **options):
        monkeypatch.setattr(RecipeSampler, "draw", draw)
        other()
        return draw(work, numbers, **options)

    monkeypatch.setattr(RecipeSampler, "draw", beside)


@pytest.mark.parametrize(("seed", "shard_rows"), [(4, None), (3, 4)])
def test_a_run_started_while_parts_draw_their_first_shard_gets_no_shard_of_theirs(
    model_folder, tmp_path, monkeypatch, seed, shard_rows
):
    folder, later = tmp_path / "run", recipe_for(model_folder, seed=seed)
    drawn_meanwhile(monkeypatch, lambda: generate_shards(later, folder, part=Part(2, 2), shard_rows=shard_rows))
    with pytest.raises(UserError, match=r"run: another command has started a run with other settings or other shards"):
        generate_shards(recipe_for(model_folder), folder, part=Part(1, 2))
    assert rows(folder)
    generate_shards(later, folder)
    assert rows(folder) == json.loads(json.dumps(run_recipe(later).to_dicts()))


def test_parts_of_another_count_adopt_the_shards_of_running_parts(model_folder, tmp_path, monkeypatch, whole):
    recipe, folder = recipe_for(model_folder), tmp_path / "run"
    drawn_meanwhile(monkeypatch, lambda: generate_shards(recipe, folder, part=Part(2, 4)))
    generate_shards(recipe, folder, part=Part(1, 2))
    assert rows(folder) == whole
    assert len(list(folder.glob("rows-*"))) == 2


def test_rows_that_are_not_a_shard_of_the_run_are_refused(model_folder, tmp_path):
    generate_shards(recipe_for(model_folder), tmp_path, shard_rows=8)
    shutil.copy(tmp_path / "rows-000000008.jsonl", tmp_path / "rows-000000999.jsonl")
    with pytest.raises(UserError, match=r"rows-000000999\.jsonl: is no shard of the run in its folder\. Delete it"):
        generate_shards(recipe_for(model_folder), tmp_path)
    (tmp_path / "rows-000000999.jsonl").unlink()
    assert generate_shards(recipe_for(model_folder), tmp_path).drawn == 0


def test_missing_shards_are_told_from_one_listing_of_the_folder(tmp_path, monkeypatch):
    """Asking for each of 10,000 files after every shard would take as long as drawing them on a GPU."""
    run = open_run(tmp_path / "run", {}, 9, shard_rows=2)
    run.path(run.shards[3]).touch()
    monkeypatch.setattr(Path, "exists", lambda path: pytest.fail(f"{path} is asked for"))
    assert (run.missing(), run.done()) == ([run.shards[at] for at in (0, 1, 2, 4)], 2)
    assert Run(tmp_path / "none", run.shards, latents=False).missing() == run.shards


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--part", "0/3", "--out", "run/"], "--part: '0/3' is not a part of a run. E.g. 2/16"),
        (["--part", "two", "--out", "run/"], "--part: 'two' is not a part of a run."),
        (["--part", "1/3", "--out", "x.csv"], "--part: the parts of a run are drawn into a folder"),
        (["--part", "1/3"], "--part: the parts of a run are drawn into a folder"),
        (["--part", "1/3", "--out", "run/", "--unique"], "Use one process, or write `unique: false` (`--set"),
    ],
)
def test_invalid_parts_are_refused_with_one_message(model_folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["generate", "--model", str(model_folder), "-n", "20", "--steps", "2", *options])
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert message in result.stderr.replace("\n", " ")


def test_shards_assign_parameter_sets_by_sample_number(model_folder, tmp_path):
    text = "controls: [{pos: [{tags: [NOUN]}, {tags: [NOUN, VERB]}, {tags: [NOUN, VERB, NOUN]}]}]\nsampler: {steps: 2}"
    recipe, _ = read_recipe(text, "mine", [f"model={model_folder}", "samples=8"])
    generate_shards(recipe, tmp_path / "run", shard_rows=4)
    assert [len(row["words"]) for row in rows(tmp_path / "run")] == [1, 2, 3, 1, 2, 3, 1, 2]


# Starts the command line again and again, each time as a process of its own (a fork, so that torch loads once), and
# kills it at a random moment after its next shard. Prints the rows on disk after each kill.
KILLER = """
import os, pathlib, random, signal, sys, time
import torch
import dlmctl.generation.bulk
from dlmctl.cli import main

torch.set_num_threads(1)
folder, rng = pathlib.Path(sys.argv.pop(1)), random.Random(1)

def shards():
    return len(list(folder.glob("rows-*.jsonl")))

for _ in range(6):
    before, child = shards(), os.fork()
    if not child:
        main()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and shards() == before:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    print(shards())
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_run_killed_repeatedly_neither_loses_nor_repeats_rows(model_folder, tmp_path):
    settings = ["--model", model_folder, "-n", 800, "--seed", 3, "--steps", 2, "--shard-rows", 8, "--quiet"]
    arguments = [*map(str, ["generate", *settings]), "--out", f"{tmp_path}/often/"]
    run = subprocess.run(
        [sys.executable, "-c", KILLER, tmp_path / "often", *arguments], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    counts = list(map(int, run.stdout.split()))
    assert counts == sorted(set(counts))  # every start got further
    assert counts[-1] < 100  # and none to the end
    generate_shards(recipe_for(model_folder, samples=800, sampler={"steps": 2}), tmp_path / "once", shard_rows=8)
    assert rows(tmp_path / "often") == rows(tmp_path / "once")
    assert [row["index"] for row in rows(tmp_path / "often")] == list(range(800))
    names = {path.name for path in (tmp_path / "often").iterdir()}
    assert names == {path.name for path in (tmp_path / "once").iterdir()}


def test_changed_settings_are_refused_and_named(model_folder, tmp_path):
    folder = tmp_path / "run"
    generate_shards(recipe_for(model_folder), folder, shard_rows=8)
    before = rows(folder)
    for change, message in [
        ({"seed": 4}, "seed was 3 and is 4."),
        ({"samples": 9}, "samples was 20 and is 9, which is fewer."),
        ({"sampler": {**ALONE, "steps": 3, "eta": 0}}, "sampler.eta was 1.0 and is 0.0; sampler.steps was 2 and is 3."),
        ({"controls": [{"length": {"words": 5}}]}, 'controls.0.length.words was null and is 5'),
    ]:  # fmt: skip
        with pytest.raises(UserError) as caught:
            generate_shards(recipe_for(model_folder, **change), folder)
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"{folder}: holds a run with other settings: ")
    with pytest.raises(UserError, match="latents was false and is true"):
        generate_shards(recipe_for(model_folder), folder, latents=True)
    assert rows(folder) == before


def test_changed_weights_are_refused(model_folder, tmp_path):
    import torch

    from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained

    model = from_pretrained(shutil.copytree(model_folder, tmp_path / "model"))
    generate_shards(recipe_for(model.folder), tmp_path / "run")
    with torch.no_grad():
        next(model.model.parameters()).add_(0.01)
    save_pretrained(model.model, model.tokenizer, model.folder)
    with pytest.raises(UserError, match="weights was"):
        generate_shards(recipe_for(model.folder), tmp_path / "run")


def test_changed_weights_of_a_control_in_use_are_refused_and_named(model_folder, tmp_path):
    import torch
    from safetensors.torch import load, save_file

    folder = shutil.copytree(model_folder, tmp_path / "model")
    guided = recipe_for(folder, samples=2, controls=[{"not": {"pos": {"tags": ["NOUN", "VERB"]}}}])
    free = recipe_for(folder, samples=2)
    generate_shards(guided, tmp_path / "guided")
    generate_shards(free, tmp_path / "free")
    weights = folder / "controls" / "pos" / "model.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load(weights.read_bytes()).items()}, weights)
    with pytest.raises(UserError, match=r"other settings: control_weights.pos was \S+ and is \S+\. Give"):
        generate_shards(guided, tmp_path / "guided")
    assert generate_shards(free, tmp_path / "free").drawn == 0  # does not use them


def test_the_identity_of_a_run(model_folder, tmp_path, monkeypatch):
    from dlmctl.generation import identity

    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "scorer").mkdir()
    (folder / "scorer" / "config.json").write_text("{}")
    model = from_pretrained(folder)
    ranked = recipe_for(folder, candidates=2, rank_by=["lm_score"], controls=[{"length": {"words": 5}}])
    original = identity.identity(ranked, model)
    assert (original["control_weights"], original["packages"]) == ({}, {})
    (folder / "scorer" / "config.json").write_text("{ }")
    assert identity.identity(ranked, model)["scorer"] != original["scorer"]
    assert identity.identity(recipe_for(folder), model)["scorer"] is None
    judged = recipe_for(folder, controls=[{"surprisal": {"word": "cats", "nats": [None, 3]}}])
    assert identity.identity(judged, model)["scorer"] is not None
    monkeypatch.setattr(identity, "origin", lambda point: f"acme-{point.name} 4.2")
    assert identity.identity(ranked, model)["packages"] == {"length": "acme-length 4.2"}


def test_the_identity_of_a_unique_run_includes_the_training_text(model_folder, tmp_path):
    from dlmctl.checkpoint.pretrained import from_pretrained
    from dlmctl.datasets.known_texts import write_known_texts
    from dlmctl.generation.identity import identity

    folder = shutil.copytree(model_folder, tmp_path / "model")
    model, unique = from_pretrained(folder), recipe_for(folder, unique=True)
    digests = []
    for texts in ([], ["one ."], ["another ."]):
        if texts:
            write_known_texts(folder, texts)
        digests.append(identity(unique, model)["training_texts"])
        assert "training_texts" not in identity(recipe_for(folder), model)
    assert digests[0] is None
    assert len(set(digests)) == 3


@pytest.mark.parametrize("nested", [False, True])
def test_files_that_a_control_reads_are_part_of_the_identity(model_folder, tmp_path, nested):
    words, norms = tmp_path / "words.txt", tmp_path / "norms.csv"
    words.write_text("bread\nbridge\n")
    norms.write_text("word,age\nbread,3\nriver,4\n")
    listed, table = {"lexicon": {"file": str(words)}}, {"lexicon": [{"table": str(norms), "age": [1, 9]}]}
    entries = [{"any": [listed, {"not": table}]}] if nested else [listed, table]
    recipe = recipe_for(model_folder, samples=1, controls=entries)
    generate_shards(recipe, tmp_path / "run")
    assert generate_shards(recipe, tmp_path / "run").drawn == 0
    for file in (words, norms):
        before = file.read_text()
        file.write_text(f"{before}old,5\n")
        with pytest.raises(UserError, match=rf"files\.\S*{file.name} was \S+ and is"):
            generate_shards(recipe, tmp_path / "run")
        file.write_text(before)


def test_folders_that_a_control_reads_are_part_of_the_identity(tmp_path):
    from controls import Classifier
    from dlmctl.generation.identity import files_of, identity

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    written = Recipe(controls=[{"classifier": {"label": "good", "model": str(folder)}}])
    made = Recipe(controls=[~Classifier("good", huggingface=str(folder))])
    hub = Recipe(controls=[{"classifier": {"label": str(folder), "model": "user/model"}}])
    assert files_of(written) == files_of(made) == {str(folder): folder}
    assert files_of(hub) == {}
    model = from_pretrained("e2e")
    before = identity(written, model)["files"]
    (folder / "checkpoint-1").mkdir()
    assert identity(written, model)["files"] == before
    (folder / "tokenizer.json").write_text("{}")
    assert identity(written, model)["files"] != before


def test_models_that_a_control_names_are_part_of_the_identity(hub_model, tmp_path):
    """By a bundled or hub name, of which only the cache is asked; a scorer inside a model's folder is read, too."""
    from dlmctl.checkpoint.bundled import bundled_path
    from dlmctl.generation.identity import files_of, identity

    def digest(source):
        recipe = Recipe(controls=[{"surprisal": {"word": "pub", "nats": [None, 3], "scorer": source}}])
        assert files_of(recipe).keys() == {source}
        return identity(recipe, model)["files"][source]

    model, name = from_pretrained("e2e"), "someone/a-model"
    assert digest("everyday") == digest(str(bundled_path("models", "everyday")))
    copied = shutil.copytree(bundled_path("models", "e2e"), tmp_path / "copied")
    assert digest("e2e") == digest(str(copied))
    (copied / "scorer" / "config.json").write_text("{}")
    assert digest("e2e") != digest(str(copied))
    assert digest(name) == hub_model.name
    later = hub_model.rename(hub_model.with_name("b" * 40))
    (later.parents[1] / "refs" / "main").write_text(later.name)
    assert digest(name) == later.name
    later.rename(tmp_path / "elsewhere")
    assert files_of(Recipe(controls=[{"classifier": {"label": "good", "model": name}}])) == {}


def test_a_damaged_manifest_does_not_cost_the_shards(model_folder, tmp_path):
    generate_shards(recipe_for(model_folder), tmp_path, shard_rows=8)
    before = rows(tmp_path)
    (tmp_path / "rows-000000016.jsonl").unlink()
    for damage in ("{", "", None):
        (tmp_path / "manifest.json").unlink() if damage is None else (tmp_path / "manifest.json").write_text(damage)
        with pytest.raises(UserError, match="seed was 3 and is 4"):
            generate_shards(recipe_for(model_folder, seed=4), tmp_path)
    assert generate_shards(recipe_for(model_folder), tmp_path).drawn == 4
    assert rows(tmp_path) == before
    assert json.loads((tmp_path / "manifest.json").read_text())["shards"] == 3


def test_a_foreign_manifest_is_left_alone(model_folder, tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(UserError, match=r"manifest\.json: is no manifest of a run"):
        generate_shards(recipe_for(model_folder), tmp_path)
    assert (tmp_path / "manifest.json").read_text() == '{"name": "an app"}'


def test_settings_that_change_no_text_may_change(model_folder, tmp_path, whole):
    generate_shards(recipe_for(model_folder), tmp_path / "run", shard_rows=8)
    (tmp_path / "run" / "rows-000000008.jsonl").unlink()
    generate_shards(recipe_for(model_folder, batch_size=3, device="cpu", description="again"), tmp_path / "run")
    assert rows(tmp_path / "run") == whole


def test_the_manifest_lists_the_environments_of_the_rows(model_folder, tmp_path):
    usual = {"steps": 2}
    generate_shards(recipe_for(model_folder, sampler=usual), tmp_path / "run", shard_rows=8)
    again = recipe_for(model_folder, sampler=usual, batch_size=3)
    generate_shards(again, tmp_path / "run")  # draws nothing
    (tmp_path / "run" / "rows-000000008.jsonl").unlink()
    run = generate_shards(again, tmp_path / "run").run
    assert [one["batch_size"] for one in run.environments()] == [64, 3]


def test_a_run_is_extended_and_keeps_its_shards(model_folder, tmp_path, whole):
    folder = tmp_path / "run"
    generate_shards(recipe_for(model_folder, samples=7), folder, shard_rows=4)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("rows-*")}
    extended = generate_shards(recipe_for(model_folder), folder, shard_rows=10)
    assert extended.drawn == 13
    assert rows(folder) == whole
    assert [shard.start for shard in extended.run.shards] == [0, 4, 7, 17]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_run_without_shards_may_be_restarted_with_other_settings(model_folder, tmp_path):
    unfit = recipe_for(model_folder, controls=[{"length": {"words": 99}}])
    with pytest.raises(UserError, match="99 words"):
        generate_shards(unfit, tmp_path / "run")
    generate_shards(recipe_for(model_folder, samples=2), tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 2


def test_a_folder_with_other_files_is_left_alone(model_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for part in (None, Part(1, 2)):
        with pytest.raises(UserError, match="holds other files"):  # before a large model is loaded, or looked for
            generate_shards(recipe_for("no-such-model"), tmp_path, part=part)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match=r"notes.txt: cannot lock the run"):
        generate_shards(recipe_for(model_folder), tmp_path / "notes.txt")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "manifest.json").write_text("[]")
    (tmp_path / "odd" / "rows-000000000.jsonl").write_text("")
    with pytest.raises(UserError, match="no manifest of a run"):
        generate_shards(recipe_for(model_folder), tmp_path / "odd")


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_two_commands_do_not_work_on_one_run(model_folder, tmp_path):
    from dlmctl.generation.shards import lock_run

    with lock_run(tmp_path), pytest.raises(UserError, match="another process is at work"):
        generate_shards(recipe_for(model_folder), tmp_path)
    generate_shards(recipe_for(model_folder, samples=1), tmp_path)


def test_a_damaged_shard_is_named(model_folder, tmp_path):
    run = generate_shards(recipe_for(model_folder), tmp_path, shard_rows=8).run
    path = tmp_path / "rows-000000008.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match=r"rows-000000008.jsonl: does not hold the rows 8 to 15"):
        list(run.records())
    for damage in ("{", "[" * 200_000):
        path.write_text(damage)
        with pytest.raises(UserError, match=r"rows-000000008.jsonl: cannot be read.*Delete it"):
            list(run.records())
    for damage in ("null\n" * 8, "".join(f'{{"index": {number}}}\n' for number in range(8, 16))):
        path.write_text(damage)
        with pytest.raises(UserError, match=r"rows-000000008.jsonl: does not hold the rows 8 to 15"):
            list(run.records())
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"rows-000000008.jsonl: cannot be read: it is a pipe"):
        list(run.records())


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no more", None])
def test_damaged_latents_are_named(model_folder, tmp_path, damage):
    run = generate_shards(recipe_for(model_folder), tmp_path, shard_rows=8, latents=True).run
    path = tmp_path / "rows-000000008.npz"
    path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
    with pytest.raises(UserError, match=r"rows-000000008.npz: cannot be read.*Delete it and the .jsonl next to it"):
        list(run.chunks())


def test_a_manifest_is_read_within_bounds(model_folder, tmp_path):
    generate_shards(recipe_for(model_folder), tmp_path, shard_rows=8)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for change in ({"environments": 3}, {"environments": None}):  # nothing depends on it
        (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **change}))
        assert generate_shards(recipe_for(model_folder), tmp_path).drawn == 0
    (tmp_path / ".manifest.json").unlink()
    for change in ({"settings": [[6, 0]]}, {"segments": [[20, 0]]}, {"segments": [[8, 4], [3, 1]]}, {"format": 9}):
        (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(UserError, match="is no manifest of a run"):
            generate_shards(recipe_for(model_folder), tmp_path)
    (tmp_path / "manifest.json").unlink()
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(UserError, match=r"is no manifest of a run .* it is a pipe"):
        generate_shards(recipe_for(model_folder), tmp_path)


@pytest.mark.parametrize("ending", ["txt", "jsonl", "npz"])
def test_a_file_merged_from_shards_equals_one_written_directly(model_folder, tmp_path, ending, monkeypatch):
    few = tmp_path / f"few.{ending}"
    arguments = ["generate", "--model", str(model_folder), "-n", "20", "--steps", "2", "--quiet", "--out"]
    assert CliRunner().invoke(app, [*arguments, str(few)]).exit_code == 0
    monkeypatch.setattr(bulk, "SHARD_ROWS", 8)
    many = tmp_path / f"many.{ending}"
    assert CliRunner().invoke(app, [*arguments, str(many)]).exit_code == 0
    if ending == "npz":
        with np.load(few) as a, np.load(many) as b:
            assert set(a) == set(b) == {"texts", "passed", "latents", "offsets"}
            for name in a:
                assert a[name].dtype == b[name].dtype
                np.testing.assert_array_equal(a[name], b[name])
    else:
        assert few.read_bytes() == many.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {few.name, many.name}


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_an_interruption_says_what_is_kept_and_the_same_command_continues(model_folder, tmp_path, monkeypatch, kind):
    recipe, target = recipe_for(model_folder), Destination(tmp_path / "x.jsonl.partial", tmp_path / "x.jsonl")
    calls, draw = [], RecipeSampler.draw

    def stop_at_the_third(work, numbers, **options):
        calls.append(numbers)
        if len(calls) == 3:
            raise kind
        return draw(work, numbers, **options)

    monkeypatch.setattr(RecipeSampler, "draw", stop_at_the_third)
    with pytest.raises(kind) as caught:
        generate_bulk(recipe, target, shard_rows=8)
    assert str(caught.value) == f"interrupted. 16 of 20 texts are kept in {target.folder}; the same command continues."
    outcome = generate_bulk(recipe, target, shard_rows=8)
    assert outcome.drawn == 4
    assert len(target.file.read_text().splitlines()) == 20
    assert not target.folder.exists()


def test_progress_is_over_the_whole_run(model_folder, tmp_path):
    updates = []
    generate_shards(recipe_for(model_folder), tmp_path, shard_rows=8, progress=lambda *update: updates.append(update))
    assert updates[0] == (0, 20)
    assert updates[-1] == (20, 20)
    assert [done for done, _ in updates] == sorted(done for done, _ in updates)
    assert {total for _, total in updates} == {20}


def test_the_command_prints_totals_not_texts(model_folder, tmp_path):
    arguments = ["generate", "--model", str(model_folder), "-n", "6", "--steps", "2", "--out", f"{tmp_path}/run/"]
    run = CliRunner().invoke(app, [*arguments, "--set", "controls=[{length: {words: 6}}]"])
    assert run.stdout == f"texts saved in {tmp_path}/run\n"
    assert "length: mean score 100.0%, 6 of 6 pass." in run.stderr
    again = CliRunner().invoke(app, [*arguments, "--set", "controls=[{length: {words: 6}}]", "--json"])
    figures = json.loads(again.stdout)
    assert (figures["samples"], figures["drawn"], figures["success"]) == (6, 0, 1.0)
    assert figures["controls"] == {"length": {"mean_score": 1.0, "passed": 1.0}}


def test_texts_for_a_file_are_kept_in_a_folder_next_to_it(tmp_path):
    assert read_destination(None) is None
    assert read_destination(str(tmp_path / "x.txt")) == Destination(tmp_path / "x.txt.partial", tmp_path / "x.txt")
    assert read_destination(f"{tmp_path}/new/") == Destination(tmp_path / "new", None)
    assert read_destination(str(tmp_path)) == Destination(tmp_path, None)
    with pytest.raises(UserError, match=r"--out: is empty\. Name a folder"):
        read_destination("")


def test_an_existing_file_is_replaced_only_with_force(tmp_path):
    (tmp_path / "x.txt").write_text("mine")
    with pytest.raises(UserError, match=r"already exists\. Name another file, or give --force"):
        read_destination(str(tmp_path / "x.txt"))
    assert (tmp_path / "x.txt").read_text() == "mine"
    assert read_destination(str(tmp_path / "x.txt"), force=True).file == tmp_path / "x.txt"


def test_a_file_that_another_command_wrote_meanwhile_is_kept(model_folder, tmp_path):
    target = read_destination(str(tmp_path / "x.txt"))
    target.file.write_text("theirs")
    with pytest.raises(UserError, match=r"x\.txt: already exists"):
        generate_bulk(recipe_for(model_folder), target)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.txt", "theirs")]
    generate_bulk(recipe_for(model_folder), read_destination(str(target.file), force=True))
    assert len(target.file.read_text().splitlines()) == 20


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_the_folder_is_locked_while_a_run_is_merged(model_folder, tmp_path, monkeypatch):
    target, seen, merge = read_destination(str(tmp_path / "x.txt")), [], bulk.merge

    def looked_at(*arguments, **options):
        with (
            pytest.raises(UserError, match="another process is at work"),
            run_lock(target.folder / ".lock", "run", tmp_path),
        ):
            pass
        seen.append(merge(*arguments, **options))

    monkeypatch.setattr(bulk, "merge", looked_at)
    generate_bulk(recipe_for(model_folder), target)
    assert (seen, [path.name for path in tmp_path.iterdir()]) == ([None], ["x.txt"])


def test_a_small_run_for_a_file_is_kept_batch_by_batch(model_folder, tmp_path, monkeypatch):
    recipe, target = recipe_for(model_folder, batch_size=8), read_destination(str(tmp_path / "x.txt"))
    draw = RecipeSampler.draw

    def stop_after_one(work, numbers, **options):
        if numbers.start:
            raise KeyboardInterrupt
        return draw(work, numbers, **options)

    monkeypatch.setattr(RecipeSampler, "draw", stop_after_one)
    with pytest.raises(KeyboardInterrupt, match="8 of 20 texts are kept in"):
        generate_bulk(recipe, target)
    monkeypatch.undo()
    assert generate_bulk(recipe, target).drawn == 12
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_progress_is_written_to_a_log(capsys, monkeypatch):
    from dlmctl.cli import render

    monkeypatch.setattr(render, "LOG_SECONDS", 0)
    for quiet in (True, False):
        with render.bulk_progress(quiet=quiet) as advance:
            advance(3.5, 20)
    assert capsys.readouterr().err == "3 of 20 texts\n"


def test_memory_does_not_grow_with_the_number_of_texts(model_folder, tmp_path):
    """Compare the peaks of Python's allocations for 40 and, twice, for 400 texts: what grows does so both times, and a
    thread that an earlier test has left adds its own at most once."""
    import tracemalloc

    generate_shards(recipe_for(model_folder, samples=40), tmp_path / "warm", shard_rows=20)
    peaks = []
    for number, samples in enumerate((40, 400, 400)):
        tracemalloc.start()
        run = generate_shards(
            recipe_for(model_folder, samples=samples, sampler={"steps": 1}), tmp_path / str(number), shard_rows=20
        ).run
        assert sum(1 for _ in run.records()) == samples
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks[1:]) < 1.5 * peaks[0]
