import json
from pathlib import Path

import pytest
import torch

from controls.classifier import Classifier
from controls.field_judge import FieldJudge
from controls.semantic import Semantic, SemanticParams
from controls.wordings import Wordings, contradiction, read_wordings
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.control.classifier import load_classifier, load_labels
from dlmctl.control.field_labels import FieldLabels
from dlmctl.control.labels import LabelledText
from dlmctl.datasets.dataset import load_vocabulary
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import DataError, RecipeError, UserError
from dlmctl.evaluation.control_success import read_targets
from dlmctl.generation.generate import generate
from dlmctl.models.pooled import PooledClassifier
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.text.fields import value_words
from dlmctl.training.classifier import ControlTask, train_control
from dlmctl.training.config import LoopConfig
from tests.conftest import batch_of, state_of, tiny_config

CORPUS = Path(__file__).resolve().parents[2] / "data" / "restaurants" / "corpus.jsonl"
E2E = read_wordings(CORPUS.parents[1] / "e2e" / "controls" / "semantic")
LOOP = LoopConfig(steps=3, batch_positions=512, lr=1e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "restaurants"
    prepare(CORPUS, None, folder, length=32)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Pretrained:
    """A tiny model with its semantic classifier, trained for three steps."""
    folder = tmp_path_factory.mktemp("models") / "restaurants"
    tokenizer = load_vocabulary(data)
    torch.manual_seed(0)
    save_pretrained(DiffusionLM(tiny_config(len(tokenizer))), tokenizer, folder)
    pretrained = from_pretrained(folder)
    train_control(Semantic, pretrained, LOOP, data, tmp_path_factory.mktemp("run"))
    return pretrained


def labels_of(pretrained: Pretrained) -> FieldLabels:
    return load_labels(FieldLabels, Semantic, pretrained)


def test_the_inventory_comes_from_the_data_and_lies_beside_the_weights(trained):
    folder = trained.folder / "controls" / "semantic"
    values = json.loads((folder / "labels.json").read_text("utf-8"))["values"]
    assert set(values) == {"name", "type", "food", "area", "near", "price", "sentiment"}
    assert values["price"] == ["affordable", "cheap", "expensive", "moderately priced"]
    assert "accuracy_x0_0" in json.loads((folder / "card.json").read_text("utf-8"))["validation"]


def test_labels_are_the_values_and_absent(trained):
    labels = FieldLabels({"food": ["Greek", "Thai"], "open": ["no", "yes"]})
    assert labels.labels(LabelledText([["a"], ["b"]], [{"food": "Thai", "open": True}, {"near": "park"}])) == [
        [1, 1],
        [2, 2],
    ]


def test_a_field_that_identifies_texts_is_no_label():
    rows = [{"id": number, "food": "Thai" if number % 2 else "Greek", "tags": ["a"]} for number in range(600)]
    assert FieldLabels.from_data(LabelledText([["a"]] * 600, rows)).values == {"food": ["Greek", "Thai"]}
    with pytest.raises(DataError, match="no field of"):
        FieldLabels.from_data(LabelledText([["a"]]))
    with pytest.raises(DataError, match="Did you mean 'food'"):
        FieldLabels.from_data(LabelledText([["a"]] * 600, rows, "foot"))


def test_the_classifier_learns_to_tell_values(data, trained):
    task = ControlTask(Semantic, trained, LOOP.model_copy(update={"seed": 1}), data, "sentiment")
    torch.manual_seed(0)
    optimizer, losses = torch.optim.Adam(task.model.parameters(), 3e-3), []
    for _, (ids, labels) in zip(range(60), task.batches(0, 0, 1), strict=False):
        x = trained.model.embed(ids)
        loss = task.learned.classifier_loss(task.model, x, torch.zeros(len(x)), labels)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_energy_is_minus_log_p_summed_over_the_fields(trained):
    wanted = [{"food": "Thai", "price": "cheap"}, {"FOOD": "greek"}]
    control = Semantic.each([SemanticParams.model_validate(params) for params in wanted])
    batch = batch_of(trained, 2, Layout(16, None))
    x = torch.randn(2, 16, trained.model.config.embed_dim)
    classifier, values = load_classifier(Semantic, batch), labels_of(trained).values
    logits = dict(zip(values, classifier(x, torch.zeros(2)), strict=True))
    log_p = {field: found.log_softmax(-1) for field, found in logits.items()}
    food, price = values["food"], values["price"]
    first = log_p["food"][0, food.index("Thai")] + log_p["price"][0, price.index("cheap")]
    second = log_p["food"][1, food.index("Greek")]
    torch.testing.assert_close(control.ready(batch).energy(state_of(trained, x)), -torch.stack([first, second]))


def test_the_classifier_sees_each_field_by_a_weighting_of_its_own():
    classifier = PooledClassifier(8, 16, [3, 5]).eval()
    found = classifier(torch.randn(2, 16, 8), torch.zeros(2))
    assert [tuple(logits.shape) for logits in found] == [(2, 3), (2, 5)]
    classifier.attention.weight.data[0] += 1.0
    again = classifier(torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(2))
    assert not torch.equal(found[0], again[0])


@pytest.mark.parametrize(
    ("params", "hint"),
    [
        ({"foot": "Thai"}, "Did you mean 'food'?"),
        ({"food": "Tai"}, "Did you mean 'Thai'?"),
        ({"food": "chep", "price": "chep"}, "is never 'chep'"),
        ({"price": 5}, "is never '5'"),
    ],
)
def test_unknown_fields_and_values_name_the_nearest(trained, params, hint):
    with pytest.raises(RecipeError) as caught:
        Semantic(**params).ready(batch_of(trained, 1, Layout(16, None)))
    assert hint in str(caught.value)


def test_missing_weights_say_how_to_train(pretrained):
    with pytest.raises(UserError, match="dlmctl train control semantic"):
        Semantic(food="Thai").ready(batch_of(pretrained, 1, Layout(16, None)))


def test_spellings_of_fields_and_values():
    labels = FieldLabels({"Type": ["pub"], "price": ["high", "£ 20 - 25"], "family friendly": ["no", "yes"]})
    assert labels.column("eat type", "Pub") == 0
    assert labels.column("priceRange", "£20-25") == 3
    assert labels.column("family_friendly", True) == 6
    assert value_words(False) == "no"


@pytest.mark.parametrize("params", [{}, {"match": "exact"}, {"food": None}, {"food": ["Thai"]}, {"food": " "}])
def test_bad_parameters_are_refused(params):
    with pytest.raises(UserError):
        Semantic(**params)


def test_the_check_reads_the_words():
    control = Semantic(food="Thai", price="cheap")
    control.judge = FieldJudge(E2E, {})
    both, one, none = control.verdicts(
        range(3), ["A cheap Thai bar .".split(), "An inexpensive bar .".split(), "A bar .".split()]
    )
    assert both.passed
    assert both.score == 1.0
    assert (one.score, one.passed) == (0.5, False)
    assert "food is Thai: not stated" in one.why
    assert "'inexpensive'" in one.why
    assert none.score == 0.0
    exact = Semantic(price="cheap", match="exact")
    exact.judge = control.judge
    assert not exact("An inexpensive bar .".split()).passed


@pytest.mark.parametrize(
    "control", [Semantic(food="Thai"), ~Semantic(food="Thai"), Classifier("good"), Classifier("good", model="mine")]
)
def test_without_a_model_there_is_no_verdict(control):
    with pytest.raises(
        UserError, match=r"judges by what was learned for a model, but no model is attached\. First call"
    ):
        control("A Thai bar .".split())


def test_targets_of_the_paper_and_of_a_data_set(tmp_path):
    path = tmp_path / "targets.jsonl"
    path.write_text('["customer", "rating", ":", "1", "out", "of", "5"]\n{"food": "Thai", "match": "exact"}\n')
    control, count = read_targets("semantic", path)
    assert count == 2
    assert control.dealt(0).fields == {"customer rating": "1 out of 5"}
    assert control.dealt(1).fields == {"food": "Thai"}
    control, _ = read_targets("semantic", path, params={"match": "exact"})
    assert control.dealt(0).match == "exact"
    assert control.dealt(0).fields == {"customer rating": "1 out of 5"}


@pytest.mark.parametrize("line", ["[]", "3", '["food", "Thai"]', '{"food": null}', "nonsense"])
def test_a_line_that_is_no_target_is_named(tmp_path, line):
    path = tmp_path / "targets.jsonl"
    path.write_text(f'["food", ":", "Thai"]\n{line}\n')
    with pytest.raises(DataError, match=r"targets\.jsonl:2"):
        read_targets("semantic", path)


def test_a_recipe_takes_any_field_and_refuses_none():
    recipe, _ = read_recipe("controls: [semantic: {food: Thai, family friendly: yes}]", "r.yaml")
    assert recipe.control_specs()[0].params == [{"food": "Thai", "family friendly": True}]
    with pytest.raises(RecipeError, match=r"r\.yaml:1"):
        read_recipe("controls: [semantic: {}]", "r.yaml")


def test_guided_generation_runs_and_checks(trained):
    result = generate(
        Semantic(food="Thai") & ~Semantic(price="cheap"), model=trained, samples=2, sampler=SamplerSettings(steps=3)
    )
    assert [set(sample.checks) for sample in result] == [{"semantic", "not"}] * 2


def knowing(**params):
    """The control attached to a model that was trained on such fields."""
    control = Semantic(**params)
    values = {
        "food": ["French", "Indian"],
        "price": ["cheap", "high", "less than £ 20"],
        "area": AREAS,
        "near": ["Old Indian Palace"],
        "type": ["pub", "restaurant"],
    }
    control.judge = FieldJudge(E2E, values)
    return control


AREAS = ["city centre", "riverside"]


@pytest.mark.parametrize(
    ("params", "text", "passed"),
    [
        ({"food": "Indian"}, "It is an Indian pub .", True),
        ({"food": "Indian"}, "It is an Indian French pub .", False),
        ({"price": "cheap"}, "It is cheap and expensive .", False),
        ({"price": "cheap"}, "It is cheap , under £ 20 , and not expensive .", True),  # true together; denied
        ({"price": "cheap"}, "It is cheap with a high rating .", True),  # high, but not of its price
        ({"food": "French"}, "It is a French pub near Old Indian Palace .", True),  # a name, not what it serves
        ({"type": "pub"}, "The pub is a restaurant .", True),
        ({"type": "restaurant"}, "The restaurant is a pub .", False),
        ({"area": "riverside"}, "It is near the river , in the city centre .", False),
        ({"area": "riverside"}, "It is near the river , north of the city centre .", True),
        ({"food": "Indian", "match": "exact"}, "It is an Indian French pub .", True),
        ({"food": "Indian", "match": "exact", "exclusive": True}, "It is an Indian French pub .", False),
        ({"food": "Indian", "exclusive": False}, "It is an Indian French pub .", True),
    ],
)
def test_another_value_of_a_field_contradicts(params, text, passed):
    check = knowing(**params)(text.split())
    assert check.passed == passed
    assert passed or "the text also states" in check.why


def test_a_value_within_the_wanted_one_is_no_other_value():
    assert contradiction(Wordings(), "style", "new york diner", ["york", "diner"], "A new york diner .".split()) is None
    assert contradiction(Wordings(), "style", "diner", ["new york diner"], "A new york diner .".split()) is not None


def test_under_not_a_value_is_unwanted_whatever_stands_beside_it():
    assert not (~knowing(food="Indian"))("It is an Indian French pub .".split()).passed
    assert (~knowing(food="Indian"))("It is a French pub .".split()).passed


def test_the_values_of_a_field_are_known_from_beside_the_model(trained):
    control = Semantic(food="Thai")
    control.load_from(trained)
    others = [value for value in labels_of(trained).values["food"] if value != "Thai"]
    assert not control(f"A Thai and {others[0]} bar .".split()).passed
    assert control("A Thai bar .".split()).passed
