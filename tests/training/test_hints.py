"""Telling a frozen masked model what is wanted of each place: trained beside the counted evidence, and what it does."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
import torch

from controls import Classifier, SyntaxTree
from controls.syntax_evidence import features_of
from dlmctl.annotators.trees import labelled_spans, read_tree
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.checkpoint.weights import save_weights
from dlmctl.control.hints import load_hints
from dlmctl.control.prepared import Part, Prepared, PreparedAll
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import DataError, ModelError, UserError
from dlmctl.generation.generate import generate
from dlmctl.models.hints import Hints, HintsConfig
from dlmctl.sampling.masked_draw import hints_of
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig

MOODS = {"warm": ["the warm bread is good .", "a warm day is good ."], "cold": ["the cold tea is bad ."]}
SHAPES = [
    "(S (NP (DT the) (JJ {}) (NN {})) (VP (VBZ is) (ADJP (JJ good))) (. .))",
    "(S (NP (NN {1})) (VP (VBZ is) (NP (DT a) (JJ {0}) (NN day))) (. .))",
]
FILLED = [("warm", "bread"), ("cold", "tea"), ("good", "day"), ("bad", "bread"), ("warm", "tea"), ("cold", "day")]
TREES = [shape.format(*words) for shape in SHAPES for words in FILLED]


def words_of(tree: str) -> str:
    return " ".join(leaf.word for leaf in read_tree(tree).leaves())


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    texts = [text.split() for texts in MOODS.values() for text in texts] + [words_of(tree).split() for tree in TREES]
    words = WordTokenizer.from_corpus(texts, 1, "penn")
    sizes = {"hidden": 32, "layers": 2, "heads": 2, "inner": 48, "max_length": 16}
    config = MaskedConfig(length=16, denoiser=sizes, vocab_size=len(words), sentence_lengths=[0] * 6 + [1])
    network = MaskedLM(config)
    with torch.no_grad():  # as of an untrained network, words would be all alike to it whatever it is told
        network.denoiser.model.embed_tokens.weight.mul_(40)
    save_pretrained(network, words, tmp_path / "model")
    return from_pretrained(tmp_path / "model")


def prepared(tmp_path, model, rows):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    prepare(tmp_path / "rows.jsonl", None, tmp_path / "set", tokenizer=model.tokenizer, length=16, valid_share=0.1)
    return tmp_path / "set"


def mood_rows(times):
    return [
        {"text": f"{text[:-2]} {'day ' * also}.", "mood": mood}
        for mood, texts in MOODS.items()
        for text in texts
        for also in range(4)
        for _ in range(times)
    ]


def loop(**settings):
    return LoopConfig(steps=60, batch_positions=512, lr=0.03, ema=0.5, bucket=1, validate_every=60, **settings)


def split_by_length(monkeypatch):
    """Texts of an even number of words guide."""
    for module in ("controls.judged_labels", "dlmctl.control.labels"):
        monkeypatch.setattr(f"{module}.is_guide_half", lambda words: len(words) % 2 == 0)


def test_a_tree_is_told_by_its_leaves_and_where_constituents_begin_and_end() -> None:
    tree = read_tree("(S (NP (DT the) (NN day)) (VP (VBZ ends)))")
    first, second, third = features_of(3, labelled_spans(tree), tree)
    assert {"tag DT", "parent NP", "next NN", "tree first S", "tree first NP", "tree first 2"} <= set(first)
    assert {"tag NN", "next -", "tree last NP"} <= set(second)
    assert {"tree last S", "tree only VP"} <= set(third)
    spans = [span for span in labelled_spans(tree) if span.label == "NP"]
    inside, _, after = features_of(3, spans, None)
    assert inside == ["span first NP", "span first 2"]
    assert after == ["span after NP", "span after 2"]


def test_what_was_trained_follows_its_model_and_goes_with_it(model) -> None:
    folder = model.folder / "controls" / "classifier"
    config = HintsConfig(features=["mood warm"], width=8, blocks=0)
    network = Hints(config, model.model.config.denoiser)
    folder.mkdir(parents=True)
    save_weights(network.state_dict(), folder, "hints")
    (folder / "hints.json").write_text(config.model_dump_json(), "utf-8")
    own = from_pretrained(model.folder).model
    loaded, numbers = load_hints(folder, own)
    assert numbers == {"mood warm": 1}
    assert load_hints(folder, own)[0] is loaded
    moved, _ = load_hints(folder, own.to("meta"))
    assert {weight.device.type for weight in moved.parameters()} == {"meta"}
    gone = weakref.ref(own)
    del own
    gc.collect()
    assert gone() is None


def test_hints_are_nothing_before_training_and_where_nothing_is_asked() -> None:
    torch.manual_seed(0)
    config = HintsConfig(features=["a", "b"], width=32, blocks=1)
    sizes = {"hidden": 32, "layers": 2, "heads": 2, "inner": 48, "max_length": 16}
    network = Hints(config, MaskedConfig(length=16, denoiser=sizes, vocab_size=9).denoiser)
    features = torch.tensor([[[0, 0], [1, 2], [2, 0]], [[0, 0], [0, 0], [0, 0]]])
    assert network(features).shape == (2, 2, 3, 32)
    assert not network(features).any()
    torch.nn.init.normal_(network.out.weight)
    found = network(features)
    assert found[:, 0].any()
    assert not found[:, 1].any()
    # What stands behind a text does not matter to it.
    longer = torch.cat([features[:1], torch.ones(1, 2, 2, dtype=torch.long)], 1)
    mask = torch.arange(5)[None] < 3
    assert torch.allclose(network(longer, mask)[:, :, :3], network(features[:1]), atol=1e-5)


def test_several_controls_are_told_by_their_weights() -> None:
    first, second, silent = Prepared(), Prepared(), Prepared()
    first.hints, second.hints = torch.ones(2, 1, 3, 4), 2 * torch.ones(2, 1, 3, 4)
    parts = [Part("a", 1.0, first), Part("b", 0.5, second), Part("c", 1.0, silent)]
    found = hints_of(PreparedAll(parts))
    assert found is not None
    assert found.eq(2).all()
    assert hints_of(PreparedAll(parts[2:])) is None


def test_a_model_learns_to_be_told_trees(model, tmp_path) -> None:
    rows = [{"text": words_of(tree), "tree": tree} for tree in TREES for _ in range(15)]
    data = prepared(tmp_path, model, rows)
    folder = train_control(SyntaxTree, model, loop(), data, tmp_path / "run")
    card = json.loads((folder / "card.json").read_text("utf-8"))
    # Of six words each shape leaves two open, of six choices in all.
    assert card["validation"]["nats_1"] < 1.2
    assert {"hints.safetensors", "hints.json"} <= set(card["digests"])
    generate(SyntaxTree(tree=TREES[0]), model=model, samples=2, device="cpu")
    # Of another model they are refused.
    other = from_pretrained(model.folder)
    with torch.no_grad():
        other.model.embeddings[5] += 1
    with pytest.raises(ModelError, match="word embeddings other than"):
        generate(SyntaxTree(tree=TREES[0]), model=other, samples=2, device="cpu")


def test_a_model_learns_to_be_told_labels(model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("dlmctl.control.text_labels.BAG_WEIGHT", 0.0)
    split_by_length(monkeypatch)
    data = prepared(tmp_path, model, mood_rows(15))
    train_control(Classifier, model, loop(), data, tmp_path / "run", label="mood", name="mood")
    told = {
        mood: [word for sample in generate(Classifier(label=mood, name="mood"), model=model, samples=30, device="cpu")
               for word in sample.words]
        for mood in MOODS
    }  # fmt: skip
    assert told["warm"].count("good") > told["cold"].count("good")
    assert told["cold"].count("bad") > told["warm"].count("bad")


def test_data_without_anything_to_be_told_of_is_refused(model, tmp_path, monkeypatch) -> None:
    rows = mood_rows(5)
    data, asked = prepared(tmp_path, model, rows), {"label": "mood", "name": "mood"}
    monkeypatch.setattr("dlmctl.control.labels.is_guide_half", lambda words: True)
    with pytest.raises(DataError, match="a guide and a judge need different texts"):
        train_control(Classifier, model, loop(), data, tmp_path / "run", **asked)
    split_by_length(monkeypatch)
    monkeypatch.setattr("dlmctl.training.hints.MIN_COUNT", 10_000)
    with pytest.raises(DataError, match="no feature occurs at least 10000 times"):
        train_control(Classifier, model, loop(), data, tmp_path / "run", **asked)


def test_an_occupied_folder_is_refused_before_the_text_is_read(model, tmp_path, monkeypatch) -> None:
    data = prepared(tmp_path, model, mood_rows(5))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "earlier" / "model").mkdir(parents=True)
    (tmp_path / "earlier" / "model" / "config.json").write_text("{}")
    monkeypatch.setattr("dlmctl.training.counting.load_split", lambda *_: pytest.fail("the text was read"))
    for out, resume, message in (
        ("file", False, "file: cannot be written: File exists"),
        ("file/run", False, "file: cannot be written: File exists"),
        ("earlier", False, "earlier: holds model, which a new run would replace"),
        ("none", True, "none: nothing to resume here"),
    ):
        with pytest.raises(UserError, match=message):
            train_control(Classifier, model, loop(), data, tmp_path / out, label="mood", name="mood", resume=resume)
    assert not (tmp_path / "none").exists()


def test_a_run_goes_on_with_its_model_its_data_and_its_labels_alone(model, tmp_path, monkeypatch) -> None:
    split_by_length(monkeypatch)
    rows = mood_rows(5)
    data, short = prepared(tmp_path, model, rows), loop().model_copy(update={"steps": 1})
    asked = {"label": "mood", "name": "mood"}
    train_control(Classifier, model, short, data, tmp_path / "run", **asked)
    with pytest.raises(UserError, match="name was mood and is now other"):
        train_control(Classifier, model, short, data, tmp_path / "run", resume=True, **{**asked, "name": "other"})
    turned = [{**row, "mood": other["mood"]} for row, other in zip(rows, reversed(rows), strict=True)]
    (tmp_path / "turned").mkdir()
    other = prepared(tmp_path / "turned", model, turned)
    with pytest.raises(UserError, match="the data has changed"):
        train_control(Classifier, model, short, other, tmp_path / "run", resume=True, **asked)
    train_control(Classifier, model, short, data, tmp_path / "run", resume=True, **asked)
    with torch.no_grad():
        model.model.denoiser.model.layers[0].mlp.down_proj.weight.mul_(2)
    with pytest.raises(UserError, match="weights of the model was"):
        train_control(Classifier, model, short, data, tmp_path / "run", resume=True, **asked)
