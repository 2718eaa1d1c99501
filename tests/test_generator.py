"""Recipes as functions on batches: the texts of one process, whatever the batches and workers, also if workers die."""

from __future__ import annotations

import math
import os
import pickle
import signal
from types import SimpleNamespace

import numpy as np
import pytest

import dlmctl
from dlmctl import Generator, UserError

ROWS = [{"n": 4 + i % 3, "word": ["bread", None, "garden"][i % 3], "text": f"row {i}"} for i in range(12)]


def recipe_of(folder, **settings):
    controls = [{"length": {"words": "{n}"}}, {"contains": ["{word}"]}]
    sampler = {"steps": 2, "deterministic": True}
    return {"model": str(folder), "samples": 2, "sampler": sampler, "controls": controls, **settings}


def columns_of(rows, **more):
    return {name: [row[name] for row in rows] for name in rows[0]} | more


def test_texts_depend_on_a_row_and_its_place_not_on_its_batch(model_folder):
    recipe = recipe_of(model_folder)
    whole = dlmctl.run(recipe, targets=ROWS)
    generator = Generator(recipe)
    first = generator(columns_of(ROWS[:5], index=range(5)))
    sent = pickle.dumps(generator)
    assert len(sent) < 10_000  # without the model that it has loaded by now
    rest = list(range(5, 12))[::-1]
    cells = {name: np.array(cells, object) for name, cells in columns_of([ROWS[at] for at in rest]).items()}
    second = pickle.loads(sent)(cells, rest)
    texts = dict(zip([*first["index"], *second["index"]], [*first["text"], *second["text"]], strict=True))
    assert [texts[number] for number in range(24)] == whole.texts
    assert second["index"][:4] == [22, 23, 20, 21]
    assert second["row"][:3] == [12, 12, 11]
    assert list(second["word"][:3]) == ["garden", "garden", None]
    # The user's column with a name that is taken is renamed.
    assert list(second["target_text"][:2]) == ["row 11", "row 11"]


def test_every_batch_has_the_same_columns_of_the_same_types(model_folder):
    generator = Generator(recipe_of(model_folder), index="id", samples=1)
    results = [
        generator({"id": np.array([at]), "n": [n], "word": [word], "picture": [object()]})
        for at, (n, word) in enumerate([(4, "bread"), (5, None), (5, "unicorn")])
    ]
    assert results[0].keys() == results[1].keys() == results[2].keys()
    assert {"id", "picture", "index", "contains_score", "problem", "recipe_digest"} < results[0].keys()
    for name in results[0].keys() - {"id", "picture", "word"}:
        assert len({type(result[name][0]) for result in results}) == 1, name
    met, left_out, unmet = results
    assert met["contains_why"] == ["all there"]
    assert math.isnan(left_out["contains_score"][0])
    assert left_out["contains_passed"] == left_out["passed"] == [True]
    assert unmet["contains_passed"] == unmet["passed"] == [False]
    assert unmet["problem"][0].startswith("id=2: column 'word': contains: the word 'unicorn'")


class Frame:
    """A data frame of pandas, as far as it matters here."""

    def __init__(self, **columns):
        self.columns, self.cells = list(columns), columns

    def __getitem__(self, name):
        return self.cells[name]

    def __or__(self, other):
        self.columns += other.columns
        return self

    def to_dict(self, orient):
        assert orient == "records"
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self.cells.values(), strict=True)]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (5, "the batch: must be a dict of columns or a data frame, with names as strings, not 5."),
        ([{"n": 4}], "A list of rows: pandas.DataFrame(rows)."),
        (Frame(n=[4]) | Frame(n=[5]), "the batch: has the column 'n' twice."),
        (5, "datasets: map(..., batched=True), and no with_format"),
        ({"index": []}, "the batch has no column 'n'. Its columns are index."),
        ({"n": 4}, "the batch: the column 'n' must be a list or an array of cells, not 4"),
        ({"n": [4], "word": []}, "the batch: the column 'word' has 0 cells and 'n' has 1"),
        ({"n": [4], "word": ["bread"]}, "the batch: has no column 'index'"),
        ({"n": [4]}, "has no column 'index'"),
        ({"n": [4], "index": [0]}, "controls.1.contains.0: the batch has no column 'word'"),
        ({"n": [4], "word": ["bread"], "index": ["3"]}, "row 1 of the batch: the column 'index' must hold"),
        ({"n": [4], "word": ["bread"], "index": [-1]}, "a whole number from 0, not -1"),
        ({"n": [4], "word": ["bread"], "index": [2**63]}, "a whole number from 0, not 9223372036854775808"),
        ({"n": [4, 4], "word": ["a", "b"], "index": [7, 7]}, "index=7: is the place of two rows of a batch, 1 and 2"),
        ({"n": ["four"], "word": ["a"], "index": [7]}, "index=7: column 'n': controls.0.length.words: input should be"),
        ({"n": [4], "word": ["unicorn"], "index": [7]}, "index=7: column 'word': contains: the word 'unicorn'"),
    ],
)
def test_a_bad_batch_or_row_is_refused_with_one_message(model_folder, batch, message):
    with pytest.raises(UserError) as caught:
        Generator(recipe_of(model_folder), strict=True)(batch)
    assert message in str(caught.value)


class Labelled(list):
    """Cells that are looked up by labels, like those of a pandas Series."""

    def __init__(self, cells, labels):
        super().__init__(cells)
        self.labels = list(labels)

    def __getitem__(self, label):
        return super().__getitem__(self.labels.index(label))


class Arrow:
    """Cells that are not plain values, like those of PyArrow."""

    def __init__(self, cells):
        self.cells = list(cells)

    def __len__(self):
        return len(self.cells)

    def __iter__(self):
        return iter([object() for _ in self.cells])

    def to_pylist(self):
        return self.cells


@pytest.mark.parametrize("kind", [lambda cells: Labelled(cells, [5, 9, 0, 1, 2]), Arrow])
def test_cells_are_read_by_their_order_not_by_labels(model_folder, kind):
    generator, columns = Generator(recipe_of(model_folder)), columns_of(ROWS[:5], index=range(5))
    plain = generator(columns)
    result = generator({name: kind(cells) for name, cells in columns.items()})
    assert result["text"] == plain["text"]
    assert list(result["word"]) == list(plain["word"])


def test_a_model_already_loaded_is_used_and_left_behind_when_pickled(model_folder, monkeypatch):
    loaded, columns = dlmctl.load(model_folder), columns_of(ROWS[:2], index=range(2))
    generator = Generator(recipe_of("e2e"), model=loaded)
    sent = pickle.dumps(generator)
    assert len(sent) < 10_000
    texts = pickle.loads(sent)(columns)["text"]
    monkeypatch.setattr("dlmctl.generation.diagnose.from_pretrained", None)
    assert generator(columns)["text"] == texts
    scored = Generator(recipe_of("e2e", scorer="everyday"), model=loaded)(columns)  # in place of none
    assert all(score > 0 for score in scored["lm_score"])


def test_a_batch_may_be_a_data_frame(model_folder):
    generator, columns = Generator(recipe_of(model_folder)), columns_of(ROWS[:3], index=range(3))
    assert generator(Frame(**columns))["text"] == generator(columns)["text"]


@pytest.mark.parametrize("kind", [list, lambda rows: Frame(**columns_of(rows)), "to_dicts", "to_pylist"])
def test_a_row_without_any_cell_keeps_its_place(model_folder, kind):
    """Results line up with the rows of a data frame, and are those of a ``Generator``."""
    recipe, rows = recipe_of(model_folder, samples=1), [{"n": 4, "word": "bread"}, {"n": None, "word": None}, ROWS[2]]
    table = SimpleNamespace(**{kind: lambda: rows}) if isinstance(kind, str) else kind(rows)
    result = dlmctl.run(recipe, targets=table)
    assert [sample.target.number for sample in result] == [1, 2, 3]
    assert result.texts == Generator(recipe)(columns_of([{"text": "", **row} for row in rows], index=range(3)))["text"]


def test_recipes_of_matched_sets_and_empty_batches(model_folder):
    with pytest.raises(UserError, match="matched sets take no targets"):
        Generator({"conditions": {}, "frames": []})
    with pytest.raises(UserError, match="It has no columns at all"):
        Generator(recipe_of(model_folder))({}, indices=[])


def test_uniqueness_across_workers_is_refused_before_any_starts(model_folder):
    said = r"unique: several processes do not see each other's texts\. .*`overrides=\[\"unique=false\"\]`"
    with pytest.raises(UserError, match=said):
        Generator(recipe_of(model_folder, unique=True))
    assert Generator("infill", overrides=["unique=false"]).recipe.unique is False
    with pytest.raises(UserError, match=r"must be a whole number of 1 or more, not 0"):
        Generator(recipe_of(model_folder), samples=0)
    generator = Generator(recipe_of(model_folder, quota={"attempts": 20}), samples=3)
    columns = generator({"index": [9], "n": [5], "word": ["garden"]})
    assert len(set(columns["text"])) == 3
    assert columns["unique_passed"] == [True] * 3


def test_datasets_map_accepts_a_generator(model_folder):
    datasets = pytest.importorskip("datasets")
    table, generator = datasets.Dataset.from_list(ROWS), Generator(recipe_of(model_folder))
    columns = table.map(generator, batched=True, with_indices=True, batch_size=5)
    assert list(columns["text"]) == dlmctl.run(recipe_of(model_folder), targets=ROWS).texts
    assert columns["target_text"][:2] == ["row 0"] * 2


class Killed(Generator):
    """Kills its own process the first time that it receives a certain row."""

    def __call__(self, batch, indices=None):
        mark = os.environ["DLMCTL_TEST_MARK"]
        if 1000 in list(batch["id"]) and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        columns = super().__call__(batch, indices)
        return columns | {"process": [os.getpid()] * len(columns["text"])}


def test_ray_neither_loses_nor_repeats_rows_if_an_actor_dies(model_folder, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    data = pytest.importorskip("ray.data")
    monkeypatch.setenv("DLMCTL_TEST_MARK", str(tmp_path / "killed"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    recipe = {
        "model": str(model_folder),
        "samples": 1,
        "sampler": {"steps": 1},
        "controls": [{"length": {"words": "{n}"}}],
    }
    rows = [{"id": at, "n": 4 + at % 5} for at in range(2000)]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        table = data.from_items(rows, override_num_blocks=20).map_batches(
            Killed,
            fn_constructor_args=(recipe,),
            fn_constructor_kwargs={"index": "id"},
            batch_size=64,
            compute=data.ActorPoolStrategy(size=2),
        )
        results = sorted(table.take_all(), key=lambda row: row["id"])
    finally:
        ray.shutdown()
    assert (tmp_path / "killed").exists()
    assert [row["id"] for row in results] == list(range(2000))
    assert all(row["passed"] and row["length_score"] == 1 for row in results)
    assert len({row["process"] for row in results}) > 1
    texts = [row["text"] for row in results]
    expected = dlmctl.run(recipe, targets=rows).texts
    # Except for rounding in other batches.
    assert sum(text == other for text, other in zip(texts, expected, strict=True)) > 1950
