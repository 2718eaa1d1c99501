"""Texts from sources against references, on an untrained model: what is compared with what, not how good it is."""

import json

import pytest
import torch
from typer.testing import CliRunner

from dlmctl.checkpoint.pretrained import save_pretrained
from dlmctl.cli import app
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import DataError
from dlmctl.evaluation.source import read_tasks
from dlmctl.metrics.overlap import overlap
from dlmctl.metrics.text_files import mteval_words, read_hypotheses
from dlmctl.text.tokenizer import WordTokenizer
from tests.conftest import tiny_config

TEXTS = [
    {"text": "the small bakery sells warm bread .", "kind": "bakery", "town": "Ely", "id": 1},
    {"text": "Anna paints the old bridge near a river .", "kind": "bridge", "town": "Ely", "id": 2},
    {"text": "the bakery sells bread .", "town": "Ely", "kind": "bakery", "id": 3},
]
STORIES = {
    "a-1": {"obs1": "Anna left.", "obs2": "It was cold.", "gold_labels": ["She ran.", "It snowed."]},
    "b-1": {"obs1": "The bakery closed.", "obs2": "Anna left.", "gold_labels": ["A cat sat."]},
}


def source_model(folder, tokenizer, fields, known=()):
    """An untrained model that knows no word of its sources, or only these."""
    words = WordTokenizer.from_corpus([list(known)], min_count=1)
    torch.manual_seed(0)
    source = {"source": {"fields": fields, "layers": 1}, "source_vocab_size": len(words), "source_closed": fields[:1]}
    config = tiny_config(len(tokenizer), **source)
    save_pretrained(DiffusionLM(config), tokenizer, folder, source_tokenizer=words)
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", "source", *map(str, arguments), "--set", "sampler.steps=3"])


@pytest.fixture
def data(tmp_path, tokenizer):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TEXTS), "utf-8")
    prepare(path, path, tmp_path / "data", tokenizer=tokenizer, length=32)
    return tmp_path / "data"


def test_equal_sources_share_their_references(data):
    first, second = read_tasks(data, "valid", ["kind", "town"])
    assert first.source == {"kind": "bakery", "town": "Ely"}
    assert first.references == ["the small bakery sells warm bread.", "the bakery sells bread."]
    assert (second.source["kind"], len(second.references)) == ("bridge", 1)


def test_figures_are_those_of_the_written_texts(data, tmp_path, tokenizer):
    model = source_model(tmp_path / "model", tokenizer, ["kind", "town"])
    result = run(model, "--data", data, "-k", 2, "--json", "--out", tmp_path / "texts.txt")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["sources"], figures["references"]) == (2, 1.5)
    references = [[mteval_words(text) for text in task.references] for task in read_tasks(data, "valid", ["kind"])]
    scores = overlap(read_hypotheses(tmp_path / "texts.txt"), references)
    assert {name: figures[name] for name in scores._fields} == pytest.approx(scores._asdict())


def test_observations_of_anlg_are_what_is_before_and_after(tmp_path, tokenizer):
    path = tmp_path / "anlg.json"
    path.write_text(json.dumps(STORIES), "utf-8")
    tasks = read_tasks(path, "valid", ["before", "after"])
    assert tasks[0].source == {"before": "Anna left.", "after": "It was cold."}
    assert [task.references for task in tasks] == [["She ran.", "It snowed."], ["A cat sat."]]
    result = run(source_model(tmp_path / "model", tokenizer, ["before", "after"]), "--data", path, "--limit", 1)
    assert result.exit_code == 0, result.output
    assert "references                   2.0000" in result.stdout


E2E = ["name[The Mill], eatType[pub]", "name[The Mill], eatType[inn]", "name[The Mill], eatType[pub]"]


def test_the_test_set_of_e2e_is_a_text_for_each_row_and_a_score_only_with_references(tmp_path, tokenizer):
    bare, full = tmp_path / "testset.csv", tmp_path / "testset_w_refs.csv"
    bare.write_text("MR\n" + "".join(f'"{mr}"\n' for mr in E2E), "utf-8")
    full.write_text("mr,ref\n" + "".join(f'"{mr}",the bakery sells bread .\n' for mr in E2E), "utf-8")
    model = source_model(tmp_path / "model", tokenizer, ["name", "Type"], known=["name:", "The", "Mill"])
    for data, scored in ((bare, False), (full, True)):
        result = run(model, "--data", data, "--json")
        assert result.exit_code == 0, result.output
        figures = json.loads(result.stdout)
        assert (figures["sources"], "bleu" in figures) == (2, scored)
    arguments = ["generate", "--model", str(model), "--steps", "2", "--set", f"source=@{bare}"]
    drawn = CliRunner().invoke(app, [*arguments, "--json"])
    assert drawn.exit_code == 0, drawn.output
    found = json.loads(drawn.stdout)
    assert [source["Type"] for source in found["recipe"]["source"]] == ["pub", "inn", "pub"]
    assert len(found["samples"]) == 3
    assert len(CliRunner().invoke(app, [*arguments, "-n", "1", "--seed", "3"]).stdout.splitlines()) == 1
    missing = CliRunner().invoke(app, [*arguments[:-1], "source=@nowhere.csv"])
    assert (missing.exit_code, "command line: nowhere.csv: no such file." in missing.stderr) == (2, True)


def test_what_cannot_be_is_said(tmp_path, data, model_folder, tokenizer):
    assert "takes no source" in run(model_folder, "--data", data).output
    (tmp_path / "x.json").write_text('{"a": {"obs1": "One."}}', "utf-8")
    with pytest.raises(DataError, match="is not in the format of the aNLG release"):
        read_tasks(tmp_path / "x.json", "valid", ["before"])
    with pytest.raises(DataError, match="none of the fields colour"):
        read_tasks(data, "valid", ["colour"])
