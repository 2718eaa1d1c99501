"""Models with a label or a source: what they learn, their recipes, and controls."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from controls import Length, Pos
from controls.pos import TagLabels
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.checkpoint.weights import save_weights
from dlmctl.datasets.conditions import source_words
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.model import DiffusionLM, ModelConfig, SourceSettings
from dlmctl.diffusion.samplers import ddim
from dlmctl.errors import DataError, RecipeError
from dlmctl.evaluation.nll import likelihood, read_texts
from dlmctl.generation.bulk import generate_shards
from dlmctl.generation.flat import Columns
from dlmctl.generation.generate import generate
from dlmctl.generation.model import run
from dlmctl.generation.prompts import joined, read_prompt
from dlmctl.generation.run import run_recipe
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.recipe import Recipe
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.prompted import ClassifierFree, Prompt, length_weights
from dlmctl.training.initial import start_from
from dlmctl.training.lm import LanguageModelConfig, train_lm

SIZES = {"hidden": 32, "layers": 2, "heads": 2, "dropout": 0.0, "max_length": 16, "time_channels": 16}
LOOP = {"batch_positions": 256, "bucket": 16, "full_share": 0.0, "optimizer": "muon", "lr": 1e-2, "ema": 0.9}
SHARP = SamplerSettings(steps=8, temperature=0.3)


def trained(folder, rows, steps, **model):
    """A tiny model of a few texts, trained like a user's model."""
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    prepare(source, source, folder / "data", min_count=1, length=16)
    intervals = {"log_every": steps, "validate_every": steps, "checkpoint_every": steps}
    config = LanguageModelConfig(
        model={"length": 16, "embed_dim": 16, "denoiser": SIZES, **model},
        loop={**LOOP, "steps": steps, "warmup": 10, **intervals},
    )
    return from_pretrained(train_lm(config, folder / "data", folder / "run"))


COLOURS = {
    "warm": ["the old red lamp glows .", "an orange fire burns in the hall ."],
    "cold": ["a blue lake lies still .", "white snow covers the small town ."],
}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    rows = [{"text": text, "mood": mood} for mood, texts in COLOURS.items() for text in texts] * 4
    return trained(tmp_path_factory.mktemp("labelled"), rows, 120, label={"field": "mood"})


NAMES, PLACES = ["Ada", "Bruno", "Clara", "Dmitri"], ["park", "river", "market", "harbour"]
PAIRS = [
    ({"name": name, "place": place}, f"{name} {verb} the {place} .")
    for name, verb in zip(NAMES, ["left", "crossed slowly", "saw", "never liked"], strict=True)
    for place in PLACES
]


@pytest.fixture(scope="module")
def sourced(tmp_path_factory):
    rows = [{"text": text, **record} for record, text in PAIRS]
    return trained(tmp_path_factory.mktemp("sourced"), rows, 170, source={"length": 8, "layers": 1})


def test_the_label_decides_the_text(labelled):
    assert labelled.model.config.labels == ["cold", "warm"]
    result = generate(model=labelled, label=["warm", "cold"], samples=16, sampler=SHARP)
    vocabularies = [set(" ".join(COLOURS[label]).split()) for label in ("warm", "cold")]
    right = [set(sample.words) <= vocabularies[sample.index % 2] for sample in result]
    assert sum(right) >= 12, [sample.text for sample in result]
    free = {sample.text for sample in generate(model=labelled, samples=16, sampler=SHARP)}
    assert len(free) > 2  # both kinds: nothing was asked for


def test_results_name_the_label_of_a_list_that_a_text_is_for(labelled):
    result = generate(model=labelled, label=["warm", "cold"], samples=3, sampler=SHARP)
    assert [record["label"] for record in result.to_dicts()] == ["warm", "cold", "warm"]
    assert list(Columns.of(result.to_dicts()).kinds)[:3] == ["index", "label", "text"]
    single = generate(model=labelled, label="warm", samples=1, sampler=SHARP)
    assert "label" not in single.to_dicts()[0]


def test_a_list_is_dealt_out_to_the_texts_of_each_row(labelled):
    settings = {"model": str(labelled.folder), "label": ["{first}", "cold"], "sampler": SHARP.model_dump()}
    rows = [{"first": "warm"}, {"first": "cold"}]
    result = run(settings, model=labelled, targets=rows, samples=3)
    assert [sample.prompted["label"] for sample in result] == ["warm", "cold", "warm", "cold", "cold", "cold"]
    cold = set(" ".join(COLOURS["cold"]).split())
    assert set(result[1].words) <= cold
    assert not set(result[0].words) <= cold


def test_labels_that_are_numbers_of_numpy_are_written_as_json():
    network = SimpleNamespace(config=SimpleNamespace(label="stars", labels=["1", "2"], source=None))
    stars = SimpleNamespace(model=network, tokenizer=None, source_tokenizer=None, folder="stars")
    prompt = read_prompt(stars, list(np.array([2, 1])), None)
    assert json.dumps([prompt.entries(sample) for sample in range(2)]) == '[{"label": 2}, {"label": 1}]'


def test_long_lists_of_rows_take_an_entry_for_each_text():
    """The combinations of the lists of 64 rows would be 600,000 entries."""
    labels, sources = list(range(100)), [[word] for word in range(99)]
    prompt = joined([Prompt(labels, sources, listed={"label": labels})] * 64, {7: (0, 0), 9: (63, 99)})
    assert [(prompt.label(at), prompt.source(at), prompt.entries(at)) for at in (7, 9)] == [
        (0, [0], {"label": 0}),
        (99, [0], {"label": 99}),
    ]
    assert len(prompt.labels) == 2


def test_rows_of_sources_are_told_in_a_table(sourced):
    sources = [{"name": "Ada", "place": "park"}, "name[Clara], place[park]"]
    result = generate(model=sourced, source=sources, samples=2, sampler=SHARP)
    columns = Columns.of(records := result.to_dicts(), ["source"])
    assert records[0]["source"] == sources[0]
    assert [columns.row(record)["source"] for record in records] == [json.dumps(sources[0]), sources[1]]
    assert "target_source" in columns.kinds  # the user's own column


def test_the_source_decides_the_text(sourced):
    result = generate(model=sourced, source=[record for record, _ in PAIRS], samples=16, sampler=SHARP)
    right = sum(sample.words == text.split() for sample, (_, text) in zip(result, PAIRS, strict=True))
    assert right >= 10


def test_lengths_follow_the_source(sourced):
    prompt = read_prompt(sourced, None, [record for record, _ in PAIRS])
    weights = length_weights(sourced.model, prompt, range(16))
    likeliest = [max(range(16), key=weights[sample].__getitem__) for sample in range(16)]
    assert sum(found == len(text.split()) for found, (_, text) in zip(likeliest, PAIRS, strict=True)) >= 12


def test_condition_scale_1_leaves_the_model_unchanged(labelled, sourced):
    """Scale 1 is exactly the conditional model, 0 the unconditional one, and all scales lie on one line."""
    torch.manual_seed(0)
    x, t = torch.randn(3, 16, 16), torch.full((3,), 0.6, dtype=torch.float64)
    for pretrained, prompt in (
        (labelled, Prompt([1, 0, 1])),
        (sourced, Prompt([], [[0, 5, 6, 1], [0, 7, 1]])),
    ):
        model, logits = pretrained.model, {}
        for scale in (0.0, 1.0, 2.5):
            family = ClassifierFree(model, ddim(model.schedule), prompt, range(3), scale)
            with torch.no_grad():
                logits[scale] = family.predict(x, t, None, None).logits
        with torch.no_grad():
            given = model.condition(torch.tensor([1, 0, 1]), torch.tensor([[0, 5, 6, 1], [0, 7, 1, 3], [0, 5, 6, 1]]))
            assert torch.equal(logits[1.0], model.predict(x, t, None, given).logits)
            torch.testing.assert_close(logits[0.0], model.predict(x, t).logits, atol=1e-4, rtol=1e-4)
        line = logits[0.0] + 2.5 * (logits[1.0] - logits[0.0])
        torch.testing.assert_close(logits[2.5], line, atol=1e-3, rtol=1e-3)
        assert not torch.allclose(logits[0.0], logits[1.0], atol=0.1)


def test_latents_without_word_logits_are_contrasted_themselves(pretrained):
    given = {"objective": "paper", "label": {"field": "mood"}, "labels": ["warm", "cold"]}
    model = DiffusionLM(ModelConfig(**{**pretrained.model.config.model_dump(), **given})).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, t = torch.randn(2, 8, 8), torch.full((2,), 0.5, dtype=torch.float64)
    with torch.no_grad():
        none, one, more = (
            ClassifierFree(model, ddim(model.schedule), Prompt([0, 1]), range(2), scale).predict(x, t, None, None).x0
            for scale in (0.0, 1.0, 2.5)
        )
    assert not torch.allclose(none, one, atol=0.1)
    torch.testing.assert_close(more, none + 2.5 * (one - none), atol=1e-3, rtol=1e-3)


def test_padding_of_a_source_changes_nothing(sourced):
    torch.manual_seed(0)
    x, t = torch.randn(1, 16, 16), torch.full((1,), 0.5, dtype=torch.float64)
    alone, padded = (sourced.model.condition(None, torch.tensor([ids])) for ids in ([0, 5, 6, 1], [0, 5, 6, 1, 3, 3]))
    with torch.no_grad():
        left, right = (sourced.model.predict(x, t, None, given).logits for given in (alone, padded))
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_same_seed_same_texts_at_any_batch_size(sourced):
    """Sources of several lengths share a batch, or not."""
    records = [{"name": "Ada"}, {"name": "Bruno", "place": "river"}, {"place": "park"}]
    sampler = SHARP.model_copy(update={"condition_scale": 2.0})
    model = from_pretrained(sourced.folder)
    runs = [
        [sample.text for sample in generate(model=model, source=records, samples=6, sampler=sampler, batch_size=size)]
        for size in (1, 6)
    ]
    assert runs[0] == runs[1]


def test_shards_assign_sources_by_sample_number(sourced, tmp_path):
    sources = [record for record, _ in PAIRS[:5]]
    recipe = Recipe(
        model=str(sourced.folder), samples=8, source=sources, sampler={**SHARP.model_dump(), "deterministic": True}
    )
    run = generate_shards(recipe, tmp_path, shard_rows=3).run
    assert [row["words"] for row in run.records()] == [sample.words for sample in run_recipe(recipe)]


def bound(model, path, rows):
    path.write_text("".join(json.dumps({"text": text, **record}) + "\n" for record, text in rows), "utf-8")
    return likelihood(model, read_texts(path, model), steps=50, draws=50).nats


def test_texts_are_likelier_given_their_own_source(sourced, tmp_path):
    # The second name with the first one's texts, and so on.
    others = [(record, text) for (record, _), (_, text) in zip(PAIRS, PAIRS[4:] + PAIRS[:4], strict=True)]
    assert bound(sourced, tmp_path / "own.jsonl", PAIRS) < 0.5 * bound(sourced, tmp_path / "others.jsonl", others)


def test_texts_are_likelier_given_their_own_label(labelled, tmp_path):
    own = [({"mood": mood}, text) for mood, texts in COLOURS.items() for text in texts]
    others = [({"mood": "warm" if record["mood"] == "cold" else "cold"}, text) for record, text in own]
    unsaid = [({"mood": "warm"}, COLOURS["warm"][0]), ({}, COLOURS["cold"][0])]
    right = bound(labelled, tmp_path / "own.jsonl", own)
    assert right < 0.5 * bound(labelled, tmp_path / "others.jsonl", others)
    assert read_texts(tmp_path / "own.jsonl", labelled).prompt.labels == [1, 1, 0, 0]
    bound(labelled, tmp_path / "unsaid.jsonl", unsaid)
    assert read_texts(tmp_path / "unsaid.jsonl", labelled).prompt.labels == [1, 2]  # 2: none


def test_texts_without_the_label_or_source_are_refused(labelled, sourced, tmp_path):
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "Ada saw the park .", "colour": "red"}), "utf-8")
    with pytest.raises(DataError, match=r"texts\.jsonl: no text has the field 'mood', the model's label"):
        read_texts(tmp_path / "texts.jsonl", labelled)
    with pytest.raises(DataError, match=r"texts\.jsonl: no text has any of the fields name, place"):
        read_texts(tmp_path / "texts.jsonl", sourced)


def test_a_length_holds_on_a_source_model(sourced):
    result = generate(Length(words=7), model=sourced, source=PAIRS[0][0], samples=8, sampler=SHARP)
    assert all(len(sample.words) == 7 and sample.passed for sample in result)
    assert sum("Ada" in sample.words for sample in result) >= 5


def test_a_pos_pattern_guides_a_source_model(sourced, tmp_path):
    """The classifier is untrained, but its energy must also fall on the words of a source model."""
    folder = tmp_path / "model"
    save_pretrained(sourced.model, sourced.tokenizer, folder, source_tokenizer=sourced.source_tokenizer)
    torch.manual_seed(0)
    (folder / "controls" / "pos").mkdir(parents=True)
    save_weights(
        TagLabels().build_classifier(sourced.model.config, sourced.tokenizer).state_dict(), folder / "controls" / "pos"
    )
    control = Pos(tags=["PROPN", "VERB", "DET", "NOUN", "PUNCT"])
    result = generate(control, model=str(folder), source="name[Clara], place[park]", samples=3, sampler=SHARP)
    assert {len(sample.words) for sample in result} == {5}
    assert all("pos" in sample.checks for sample in result)
    again = from_pretrained(folder)
    assert again.model.config.source == SourceSettings(fields=["name", "place"], length=8, layers=1)


def test_candidates_by_minimum_bayes_risk_keep_each_source_to_its_own_texts(sourced):
    records = [record for record, _ in PAIRS[:6]]
    result = generate(model=sourced, source=records, samples=6, sampler=SHARP, candidates=3, rank_by=["mbr"])
    assert all(record["name"] in sample.words for sample, record in zip(result, records, strict=True))


def test_a_model_begins_as_the_one_without_label_and_source(pretrained):
    given = {"label": {"field": "mood"}, "labels": ["warm", "cold"], "source": {}, "source_vocab_size": 9}
    model = DiffusionLM(ModelConfig(**{**pretrained.model.config.model_dump(), **given})).eval()
    start_from(model, pretrained.tokenizer, pretrained)
    x, t = torch.randn(2, 8, 8), torch.full((2,), 0.5, dtype=torch.float64)
    conditioning = model.condition(torch.tensor([0, 2]), torch.tensor([[0, 5, 6, 1], [0, 7, 1, 3]]))
    with torch.no_grad():
        left, right = model.predict(x, t, None, conditioning), pretrained.model.predict(x, t)
    torch.testing.assert_close(left.logits, right.logits)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"label": {"field": "mod"}}, "model.label.field: the data has no field 'mod'. Did you mean 'mood'?"),
        ({"label": {"field": "id"}}, "model.label.field: the field 'id' has 501 values; a label has at most 500."),
        ({"source": {"fields": ["moods"]}}, "model.source.fields: the data has no field 'moods'."),
        ({"source": {"length": 3}}, "model.source.length: a source has 4 words, field names counted; 1 fit."),
    ],
)
def test_unsuitable_data_is_reported(tmp_path, model, said):
    rows = [{"text": f"a lamp glows {at} .", "mood": "warm", "id": at} for at in range(501)]
    rows[0]["mood"] = ""
    with pytest.raises(DataError) as caught:
        trained(tmp_path, rows, 1, **model)
    assert str(caught.value).startswith(said)


def test_a_configuration_without_its_labels_is_refused():
    with pytest.raises(ValidationError, match="label goes with the names of the labels"):
        ModelConfig(vocab_size=9, label={"field": "mood"})


def fault(text):
    recipe, origin = read_recipe(text, "mine.yaml")
    with pytest.raises(RecipeError) as caught:
        run_recipe(recipe, origin=origin)
    return str(caught.value)


@pytest.fixture
def faulty(labelled, sourced, pretrained, monkeypatch):
    """The models that recipes name are replaced by the three fixtures."""
    models = {"labelled": labelled, "sourced": sourced, "free": pretrained}
    monkeypatch.setattr("dlmctl.generation.diagnose.from_pretrained", models.__getitem__)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: free\nsamples: 2\nlabel: warm\n", "mine.yaml:3: the model"),
        ("model: free\nsource:\n  name: Ada\n", "mine.yaml:2: the model"),
        ("model: labelled\nsource: Ada\n", "mine.yaml:2: the model"),
        ("model: labelled\nlabel: wram\n", "mine.yaml:2: the model knows no label 'wram'. Did you mean 'warm'?"),
        ("model: labelled\nlabel:\n  - warm\n  - 7\n", "mine.yaml:4: the model knows no label '7'."),
        (
            "model: sourced\nsource:\n  name: Ada\n  plase: park\n",
            "mine.yaml:4: the model's sources have no field 'plase'. Did you mean 'place'?",
        ),
        ("model: sourced\nsource:\n  - {name: Ada}\n  - {name: Adda}\n", "mine.yaml:4: the word 'Adda'"),
        ("model: sourced\nsource: Ada in the park\n", "mine.yaml:2: this model's source has several fields"),
        ("model: sourced\nsource: {name: ''}\n", "mine.yaml:2: the source is empty."),
        ("model: sourced\nsource: {name: Ada Ada Ada Ada Ada Ada}\n", "mine.yaml:2: the source has 7 words"),
    ],
)
def test_faults_name_the_line(text, said):
    assert fault(text).startswith(said)


def test_labels_are_found_in_any_case(labelled, monkeypatch):
    monkeypatch.setitem(vars(labelled.model.config), "labels", ["Cold", "warm"])
    assert [read_prompt(labelled, label, None).labels for label in ("cold", "WARM")] == [[0], [1]]


def test_a_recipe_assigns_its_sources_in_turn():
    text = "samples: 4\nlabel: [yes, no]\nsource:\n  - {name: Ada, stars: 3}\n  - a text\n"
    recipe, _ = read_recipe(text, "mine.yaml")
    assert recipe.label == [True, False]
    assert recipe.source == [{"name": "Ada", "stars": 3}, "a text"]
    with pytest.raises(RecipeError, match=r"mine.yaml:2: "):
        read_recipe("samples: 2\nsource: 3.5\n", "mine.yaml")


def test_records_become_words_in_the_order_of_the_fields_however_they_are_spelled():
    record = {"priceRange": "£20-25", "name": "Blue Door", "familyFriendly": False, "near": "", "rank": None}
    fields = ["name", "price", "near", "family friendly", "rank"]
    assert source_words(fields, record) == [
        *("name:", "Blue", "Door", "price:", "£", "20", "-", "25"),
        *("family friendly:", "no"),
    ]
