"""A control's classifier from labels to weights, on a control of the test's own: which word comes first."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from controls import Pos
from dlmctl.checkpoint import bundled, control_weights
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.user_weights import available_weights
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.classifier import labels_of, load_classifier, load_labels
from dlmctl.control.labels import LabelledText, Labels
from dlmctl.datasets.dataset import write_split
from dlmctl.diffusion.layout import Layout
from dlmctl.errors import DataError, ModelError, UserError
from dlmctl.generation.generate import generate
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training import classifier
from dlmctl.training.classifier import ControlTask, train_control
from dlmctl.training.config import LoopConfig
from tests.checkpoint.tiny_gemma import tiny_gemma
from tests.checkpoint.tiny_vendors import write_llada
from tests.conftest import batch_of

FIRST = ["the", "a", "Anna"]
SENTENCES = [
    f"{first} paints a {what} bridge .".split() for first in FIRST for what in ("small", "noisy", "old", "warm")
]


class FirstWord(Labels):
    def build_classifier(self, config, vocabulary):
        return nn.Linear(config.embed_dim, len(FIRST))

    def labels(self, data):
        return [FIRST.index(words[0]) for words in data.sentences]

    def classifier_loss(self, classifier, x, t, labels):
        logits, target = classifier(x[:, 1]), torch.tensor(labels)
        return F.cross_entropy(logits, target, reduction="none"), (logits.argmax(-1) == target).float()


class StartsWithParams(ControlParams):
    name: str | None = None


class StartsWith(Control):
    name = "starts_with"
    Params = StartsWithParams
    Labels = FirstWord


@pytest.fixture
def model(model_folder, tmp_path):
    """A copy, because training writes beside the model."""
    return from_pretrained(shutil.copytree(model_folder, tmp_path / "model"))


@pytest.fixture
def data(tmp_path, tokenizer):
    folder = tmp_path / "data"
    folder.mkdir()
    tokenizer.save(folder)
    rows = [tokenizer.encode(words) for words in SENTENCES]
    write_split(folder, "train", rows * 4)
    write_split(folder, "valid", rows)
    return folder


def config(**changes):
    settings = {
        "steps": 60,
        "batch_positions": 512,
        "lr": 5e-2,
        "ema": 0.9,
        "validate_every": 60,
        "checkpoint_every": 60,
    }
    return LoopConfig(**{**settings, **changes})


def batch(model):
    return batch_of(model, 1, Layout(8, None))


def test_a_trained_classifier_lies_beside_the_model_and_knows_the_labels(model, data, tmp_path):
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    folder = train_control(StartsWith, model, config(), data, tmp_path / "run")
    assert folder == model.folder / "controls" / "starts_with"
    card = json.loads((folder / "card.json").read_text())
    assert card["control"] == "starts_with"
    assert card["training"]["steps"] == 60
    figures = card["validation"]
    assert figures["accuracy_x_t_0"] == 1
    assert figures["accuracy_x_t_0.2"] > figures["accuracy_x_t_0.95"]
    classifier = load_classifier(StartsWith, batch(model))
    assert not classifier.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    ids = torch.tensor([model.tokenizer.encode(words) for words in SENTENCES])
    assert classifier(model.model.embed(ids)[:, 1]).argmax(-1).tolist() == FirstWord().labels(LabelledText(SENTENCES))
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())  # it stays frozen


def test_half_of_a_batch_is_the_models_own_estimates_at_no_noise(model, data):
    task = ControlTask(StartsWith, model, config(), data, None)
    seen = {}

    class Recording(FirstWord):
        def classifier_loss(self, classifier, x, t, labels):
            seen.update(x=x, t=t, labels=labels)
            return super().classifier_loss(classifier, x, t, labels)

    task.learned = Recording()
    ids, labels = next(task.batches(0, 0, 1))
    task.loss(task.model, (ids, labels))
    half = len(ids) // 2
    assert half > 4
    assert (seen["t"][:half] == 0).all()
    assert (seen["t"][half:] > 0).all()
    assert seen["labels"] == labels
    # An x_0 estimate is a mixture of embeddings, which all have one norm; x_t is not bound to that.
    assert seen["x"][:half].norm(dim=-1).max() <= 8**0.5 + 1e-4
    assert seen["x"][half:].norm(dim=-1).max() > 8**0.5


def test_validation_rows_are_spread_over_all(model, data, monkeypatch):
    task, seen = ControlTask(StartsWith, model, config(), data, None), []
    monkeypatch.setattr(classifier, "VALIDATION_ROWS", 3)

    class Recording(FirstWord):
        def classifier_loss(self, classifier, x, t, labels):
            seen.append(set(labels))
            return super().classifier_loss(classifier, x, t, labels)

    task.learned = Recording()
    task.validate(task.model)
    assert {0, 2} < seen[0]  # they are sorted by their labels


def test_a_run_is_kept_out_of_the_model_and_knows_it_again(model, data, tmp_path):
    with pytest.raises(UserError, match="is the model's folder"):
        train_control(StartsWith, model, config(steps=1), data, model.folder)
    train_control(StartsWith, model, config(steps=1), data, tmp_path / "run")
    with torch.no_grad():  # its embeddings stay as they are
        next(iter(model.model.denoiser.parameters())).add_(1)
    with pytest.raises(UserError, match="belongs to another run: weights of the model was"):
        train_control(StartsWith, model, config(steps=1), data, tmp_path / "run", resume=True)


def test_data_of_another_vocabulary_is_refused(model, data):
    WordTokenizer.from_corpus([["other", "words"]], min_count=1).save(data)
    with pytest.raises(DataError, match=r"a vocabulary other than.*--vocabulary MODEL"):
        ControlTask(StartsWith, model, config(), data, None)
    (data / "vocab.json").write_text("{")
    with pytest.raises(UserError, match=r"vocab.json: cannot be read"):
        ControlTask(StartsWith, model, config(), data, None)


def test_missing_and_foreign_weights_are_said(model, data, tmp_path):
    with pytest.raises(ModelError, match=r"'starts_with' has no weights .*dlmctl train control starts_with"):
        load_classifier(StartsWith, batch(model))
    train_control(StartsWith, model, config(steps=1), data, tmp_path / "run")

    class MoreWords(FirstWord):
        def build_classifier(self, config, vocabulary):
            return nn.Linear(config.embed_dim, 9)

    class Wider(StartsWith):
        Labels = MoreWords

    with pytest.raises(ModelError, match=r"'weight' has the shape \[3, 8\], not \[9, 8\]"):
        load_classifier(Wider, batch(model))


def test_a_control_without_a_classifier_cannot_be_trained():
    class Plain(Control):
        name = "plain"
        Params = ControlParams

    assert labels_of(StartsWith) is FirstWord
    with pytest.raises(UserError, match="'plain' has no classifier"):
        labels_of(Plain)


def test_training_for_a_bundled_model_writes_nothing_into_it(model_folder, data, tmp_path, monkeypatch):
    folder = shutil.copytree(model_folder, tmp_path / "checkout" / "data" / "tiny")
    monkeypatch.setattr(bundled, "PACKAGE", tmp_path / "checkout" / "dlmctl")
    monkeypatch.setattr("platformdirs.user_data_path", lambda name, **_: tmp_path / "home" / name)
    before = sorted(tmp_path.glob("checkout/**/*"))
    model = from_pretrained("tiny")
    assert model.folder.samefile(folder)
    assert available_weights(folder, "starts_with") == (False, [])
    saved = train_control(StartsWith, model, config(steps=1), data, tmp_path / "run")
    named = train_control(StartsWith, model, config(steps=1), data, tmp_path / "run2", name="mine")
    assert sorted(tmp_path.glob("checkout/**/*")) == before
    assert saved.is_relative_to(tmp_path / "home")
    assert named == saved / "mine"
    assert available_weights(folder, "starts_with") == (True, ["mine"])
    for name in (None, "mine"):  # found again by name
        assert not load_classifier(StartsWith, batch(from_pretrained("tiny")), name).training
    with pytest.raises(ModelError, match="There are weights named mine"):
        load_classifier(StartsWith, batch(model), "yours")


def test_weights_in_the_users_folder_are_looked_for_once(model_folder, data, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_path", lambda name, **_: tmp_path / "home" / name)
    monkeypatch.setattr("os.access", lambda *_: False)
    model = from_pretrained(shutil.copytree(model_folder, tmp_path / "readonly"))
    train_control(StartsWith, model, config(steps=1), data, tmp_path / "run")
    load_labels(FirstWord, StartsWith, model)
    first = load_classifier(StartsWith, batch(model))
    monkeypatch.setattr(control_weights, "embedding_digest", lambda _: pytest.fail("the table is digested again"))
    load_labels(FirstWord, StartsWith, batch(model))
    assert load_classifier(StartsWith, batch(model)) is first


def test_weights_trained_anew_are_those_that_guide(model, data, tmp_path):
    train_control(StartsWith, model, config(steps=1), data, tmp_path / "run")
    before = load_classifier(StartsWith, batch(model))
    train_control(StartsWith, model, config(steps=1, seed=1), data, tmp_path / "other")
    assert not torch.equal(load_classifier(StartsWith, batch(model)).weight, before.weight)


def test_a_judge_is_for_labels_that_come_from_one(model, data):
    with pytest.raises(UserError, match=r"--judge: .*no tagger or parser"):
        ControlTask(StartsWith, model, config(), data, None, "stanza:en")


def test_there_is_none_for_diffusion_gemma(tmp_path):
    network, tokenizer = tiny_gemma()
    network.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    model, said = from_pretrained(tmp_path / "m"), "not trained for this kind of model, so 'pos' has no weights"
    with pytest.raises(ModelError, match=said):
        train_control(Pos, model, LoopConfig(steps=1), tmp_path / "data", tmp_path / "run")
    with pytest.raises(ModelError, match=said):
        generate(Pos("DET NOUN"), model=model, samples=1)


def test_a_checkpoint_without_weights_says_how_to_train_them(tmp_path):
    model = from_pretrained(write_llada(tmp_path / "m"))
    with pytest.raises(ModelError, match="dlmctl train control pos --model"):
        generate(Pos("DET NOUN"), model=model, samples=1, sampler={"new_tokens": 8})
