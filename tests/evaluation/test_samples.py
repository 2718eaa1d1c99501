import pytest
from typer.testing import CliRunner

from dlmctl.annotators.scorer import load_scorer
from dlmctl.datasets.dataset import load_split, write_split
from dlmctl.errors import DataError, UserError
from dlmctl.evaluation import samples
from dlmctl.evaluation.samples import evaluate_samples, sentences_of
from dlmctl.generation.generate import generate
from dlmctl.metrics.lm_score import lm_score, mean_nats
from dlmctl.recipe.presets import settings_of
from dlmctl.recipe.settings import SamplerSettings
from tests.checkpoint.tiny_vendors import write_dream

SENTENCES = [
    "the small bakery sells bread .".split(),
    "a bakery paints the bridge .".split(),
    "Anna hides .".split(),
] * 4
QUICK = SamplerSettings(steps=2)


@pytest.fixture
def data(tmp_path, tokenizer):
    folder = tmp_path / "data"
    folder.mkdir()
    tokenizer.save(folder)
    write_split(folder, "train", [tokenizer.encode(words) for words in SENTENCES])
    write_split(folder, "valid", [tokenizer.encode(words) for words in SENTENCES[:5]])
    return folder


def test_figures_of_samples_are_those_of_the_texts(pretrained, data, scorer, tokenizer):
    figures = evaluate_samples(pretrained, data, samples=6, seed=3, sampler=QUICK, scorer=scorer)
    texts = [sample.words for sample in generate(model=pretrained, samples=6, seed=3, sampler=QUICK)]
    judge, words = load_scorer(scorer)
    assert figures["lm_score"] == pytest.approx(mean_nats(lm_score(judge, words, texts), texts))
    assert figures["valid_lm_score"] == pytest.approx(mean_nats(lm_score(judge, words, SENTENCES[:5]), SENTENCES[:5]))
    flat = [word for text in texts for word in text]
    assert figures["distinct_1"] == pytest.approx(len(set(flat)) / len(flat))
    assert (figures["novelty"], figures["valid_novelty"]) == (1, 0)  # an untrained model copies nothing
    assert figures["seconds_per_sample"] > 0


def test_rows_come_back_as_words(data, tokenizer):
    assert sentences_of(load_split(data, "valid"), tokenizer) == SENTENCES[:5]


def test_a_missing_scorer_or_data_set_is_said(pretrained, data, scorer, tmp_path):
    with pytest.raises(UserError, match=r"scorer: no scorer here.*dlmctl train scorer"):
        evaluate_samples(pretrained, data, samples=1)
    with pytest.raises(DataError, match="no such folder"):
        evaluate_samples(pretrained, tmp_path / "none", samples=1, scorer=scorer)


def test_samples_are_drawn_with_the_preset_of_their_model(data, monkeypatch, tmp_path):
    from dlmctl.cli import app

    drawn = []
    monkeypatch.setattr(samples, "evaluate_samples", lambda *_, sampler, **__: drawn.append(sampler) or {})
    for model in ("e2e", str(write_dream(tmp_path / "m"))):
        command = ["evaluate", "samples", "--data", str(data), "--model", model, "--set", "sampler.steps=3"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    wanted = [settings_of("balanced", family).sampler for family in ("gaussian", "tokens")]
    assert drawn == [each.model_copy(update={"steps": 3}) for each in wanted]
