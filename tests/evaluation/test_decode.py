import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from dlmctl.annotators.scorer import load_scorer, token_nats
from dlmctl.cli import app
from dlmctl.datasets.dataset import write_split
from dlmctl.errors import DataError
from dlmctl.evaluation.decode import decode
from dlmctl.evaluation.samples import text_figures
from dlmctl.generation.run import run_recipe
from dlmctl.metrics.diversity import mean_bleu_to, novelty
from dlmctl.metrics.lm_score import lm_score, mean_nats
from dlmctl.recipe.recipe import Recipe

TEXTS = ["The small bakery sells bread.", "A bakery paints the bridge.", "Anna hides."] * 2


def recipe_for(model_folder, samples=10):
    return Recipe(model=str(model_folder), samples=samples, seed=2, sampler={"steps": 2, "deterministic": True})


def test_texts_latents_and_figures_are_those_of_one_run(model_folder, scorer, tmp_path):
    references = tmp_path / "references.txt"
    references.write_text("\n".join(TEXTS))
    made = decode(
        recipe_for(model_folder), tmp_path / "out", references=references, scorer=scorer, measured=6, shard_rows=4
    )
    samples = run_recipe(recipe_for(model_folder)).samples
    assert (tmp_path / "out" / "samples.txt").read_text().splitlines() == [sample.text for sample in samples]
    lines = (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["words"] for line in lines] == [sample.words for sample in samples]
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        for at, sample in enumerate(samples):
            found = arrays["latents"][slice(*arrays["offsets"][at : at + 2])]
            np.testing.assert_allclose(found, sample.latent, atol=1e-6)
    words = [sample.words for sample in samples[:6]]
    judge = load_scorer(scorer)
    nats = mean_nats(lm_score(*judge, words), words)
    assert made.samples["lm_score"] == pytest.approx(nats)
    assert made.samples["perplexity"] == pytest.approx(math.exp(nats))
    assert made.samples["measured"] == made.references["measured"] == 6
    assert made.samples["novelty"] == 1  # an untrained model copies nothing
    split = ["The small bakery sells bread .".split(), "A bakery paints the bridge .".split(), "Anna hides .".split()]
    assert made.samples["bleu_to_references"] == pytest.approx(mean_bleu_to(words, split * 2))
    assert made.references["distinct_1"] == pytest.approx(12 / 30)
    kept = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (kept["rows"], kept["samples"], kept["references"]) == (10, made.samples, made.references)


def test_texts_longer_than_the_scorer_reads_are_scored_by_their_first_words(scorer):
    judge = load_scorer(scorer)
    most = judge[0].config.n_positions - 1
    long, short = ["bread", "the"] * most, "Anna hides .".split()
    found = text_figures([long, short], judge)
    with pytest.raises(DataError, match="this scorer reads up to"):
        token_nats(*judge, [long])
    (first,) = token_nats(*judge, [long], cut=True)
    assert first[:most] == pytest.approx(token_nats(*judge, [long[:most]])[0][:-1])
    nats = [*first, *token_nats(*judge, [short])[0]]
    assert found["lm_score"] == pytest.approx(sum(nats) / len(nats))
    assert found["cut"] == 1
    assert "cut" not in text_figures([short], judge)


def test_a_cut_off_run_continues_and_a_longer_one_extends(model_folder, scorer, tmp_path):
    first = decode(recipe_for(model_folder), tmp_path, scorer=scorer, shard_rows=4)
    before = (tmp_path / "samples.txt").read_text()
    (tmp_path / "shards" / "rows-000000004.jsonl").unlink()
    again = decode(recipe_for(model_folder), tmp_path, scorer=scorer, shard_rows=4)
    assert (first.drawn, again.drawn, again.samples) == (10, 4, first.samples)
    assert (tmp_path / "samples.txt").read_text() == before
    assert decode(recipe_for(model_folder, 12), tmp_path, scorer=scorer, shard_rows=4).drawn == 2
    assert (tmp_path / "samples.txt").read_text().startswith(before)


def test_references_may_be_a_prepared_set(model_folder, scorer, tmp_path, tokenizer):
    data = tmp_path / "data"
    data.mkdir()
    tokenizer.save(data)
    samples = run_recipe(recipe_for(model_folder)).samples
    write_split(data, "valid", [tokenizer.encode(sample.words) for sample in samples])
    made = decode(recipe_for(model_folder), tmp_path / "out", references=data, scorer=scorer)
    assert made.samples["novelty"] == 0
    assert made.samples["bleu_to_references"] == pytest.approx(1)
    assert made.references == {name: made.samples[name] for name in made.references}


def test_what_cannot_be_read_is_said_before_sampling(model_folder, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        decode(recipe_for(model_folder), tmp_path / "out", references=tmp_path / "none.txt")
    assert not (tmp_path / "out").exists()


def test_bleu_to_references_is_that_of_the_nearest_words():
    samples = [["a", "b", "c", "d"], ["x", "y", "z", "w"]]
    assert mean_bleu_to(samples, [["a", "b", "c", "d"], ["e", "f", "g", "h"]]) == pytest.approx(0.5, abs=0.1)
    assert novelty(samples, [["a", "b", "c", "d"]]) == 0.5
    with pytest.raises(DataError):
        mean_bleu_to(samples, [])


def test_the_command_prints_one_table(model_folder, scorer, tmp_path):
    (tmp_path / "references.txt").write_text("\n".join(TEXTS))
    options = ["-n", "6", "--steps", "2", "--seed", "2", "--references", f"{tmp_path}/references.txt"]
    command = ["decode", str(model_folder), "--out", f"{tmp_path}/out", *options]
    run = CliRunner().invoke(app, [*command, "--scorer", str(scorer)])
    assert run.exit_code == 0, run.stderr
    table = [line.split("\t") for line in run.stdout.splitlines()]
    assert table[0] == ["", "samples", "references"]
    assert {row[0] for row in table} >= {"perplexity", "distinct_4", "self_bleu", "novelty", "bleu_to_references"}
    assert "6 texts in" in run.stderr
    without = CliRunner().invoke(app, command)
    assert "perplexity" not in without.stdout
    assert "The model has no scorer" in without.stderr
    figures = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (figures["rows"], figures["drawn"]) == (6, 0)
