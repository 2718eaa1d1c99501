"""Training a masked model on from another one: what it starts as, and which controls it takes over."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from controls import Classifier, Pos, SyntaxTree
from dlmctl.checkpoint.control_weights import EMBEDDINGS, check_control_files, embedding_digest, save_control_files
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.control.evidence.bag import load_bag
from dlmctl.control.evidence.table import load_table, save_table
from dlmctl.datasets.known_texts import known_texts
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.uniform import UniformConfig, UniformLM
from dlmctl.errors import ModelError
from dlmctl.generation.generate import generate
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.text.word_counts import load_counts
from dlmctl.training.carried_controls import carry_controls
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig
from dlmctl.training.initial_masked import start_masked_from
from dlmctl.training.lm import train_lm
from dlmctl.training.masked import MaskedTrainingConfig

OLD_ROWS = [[a, b, c, "."] for a in ("dogs", "cats", "hens") for b in ("eat", "see", "hear") for c in ("rice", "tea")]
NEW_ROWS = [[a, b, c, "."] for a in ("cats", "lutes") for b in ("eat", "hear") for c in ("Dogs", "lutes")]
OLD = WordTokenizer.from_corpus(OLD_ROWS, 1, "penn")
NEW = WordTokenizer.from_corpus(NEW_ROWS, 1, "penn")
SIZES = {"hidden": 32, "layers": 2, "heads": 2, "inner": 48, "max_length": 16}


def model(tokenizer=OLD, *, seed=0, sizes=(), tags=(), kind=(MaskedLM, MaskedConfig), **changes):
    torch.manual_seed(seed)
    network, config = kind
    made = network(
        config(length=16, denoiser={**SIZES, **dict(sizes)}, vocab_size=len(tokenizer), tags=list(tags), **changes)
    )
    for parameter in made.parameters():  # no tensor is left at a value that another start would also have
        torch.nn.init.normal_(parameter, std=0.3)
    if made.denoiser.tag_embed is not None:
        torch.nn.init.zeros_(made.denoiser.tag_embed.weight[0])
    return made.eval()


def scores(made, tokenizer, words, *, tags=None):
    """Scores of the old words that the new vocabulary has, too, with the second word of a text masked."""
    ids = torch.tensor([tokenizer.encode(words)])
    ids[0, 2] = made.mask_id
    aligned = None if tags is None else torch.tensor([[0, *(made.config.tags.index(tag) + 1 for tag in tags), 0]])
    shared = [tokenizer.vocabulary[word] for word in ("cats", "hear", "eat", ".")]
    with torch.no_grad():
        return made.logits(ids, aligned=aligned)[..., shared]


@pytest.mark.parametrize("layers", [2, 6])
def test_it_starts_as_the_same_function_whatever_its_vocabulary_and_depth(layers):
    source, made = model(seed=1), model(NEW, seed=2, sizes={"layers": layers})
    start_masked_from(made, NEW, Pretrained(source, OLD, None))
    words = ["cats", "see", "eat", "."]  # the second is masked
    torch.testing.assert_close(scores(made, NEW, ["cats", "hear", "eat", "."]), scores(source, OLD, words))


def test_a_new_word_starts_like_those_that_end_alike():
    endings = [[f"{stem}ing", f"{stem}ed"] for stem in ("walk", "talk", "jump", "look", "cook")]
    old = WordTokenizer.from_corpus(endings, 1)
    new = WordTokenizer.from_corpus([*endings, ["humming", "Humming", "zzz"]], 1)
    source, made = model(old, seed=1), model(new, seed=2)
    before = made.embeddings.clone()
    start_masked_from(made, new, Pretrained(source, old, None))
    similar = torch.stack([source.embeddings[old.vocabulary[row[0]]] for row in endings])
    torch.testing.assert_close(made.embeddings[new.vocabulary["humming"]], similar.mean(0))
    for word in ("Humming", "zzz"):
        index = new.vocabulary[word]
        assert torch.equal(made.embeddings[index], before[index])


def test_tags_are_matched_by_name_and_have_no_effect_if_the_source_takes_none():
    words, source = ["cats", "hear", "eat", "."], model(seed=1, tags=["NOUN", "PUNCT", "VERB"])
    tags = ["NOUN", "VERB", "NOUN", "PUNCT"]
    made = model(NEW, seed=2, tags=["ADJ", "NOUN", "PUNCT", "VERB"])
    start_masked_from(made, NEW, Pretrained(source, OLD, None))
    torch.testing.assert_close(scores(made, NEW, words, tags=tags), scores(source, OLD, words, tags=tags))
    untagged = model(seed=1)
    start_masked_from(made, NEW, Pretrained(untagged, OLD, None))
    torch.testing.assert_close(scores(made, NEW, words, tags=tags), scores(untagged, OLD, words))


def test_a_uniform_model_can_be_trained_on_too():
    kind = UniformLM, UniformConfig
    special = {"special": [0, 1, 2, 3], "family": "uniform"}
    source, made = (model(seed=seed, kind=kind, **special) for seed in (1, 2))
    start_masked_from(made, OLD, Pretrained(source, OLD, None))
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in made.state_dict().items())
    with pytest.raises(ModelError, match="family is 'uniform' there and 'masked' in this configuration"):
        start_masked_from(model(), OLD, Pretrained(source, OLD, None))


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"hidden": 64}, "denoiser.hidden is 32 there and 64 in this configuration"),
        ({"inner": 40}, "denoiser.inner is 48 there and 40"),
        ({"layers": 3}, r"has 2 blocks, and 3 is not a multiple of that. Set denoiser.layers = 4"),
    ],
)
def test_what_does_not_fit_is_said(sizes, said):
    with pytest.raises(ModelError, match=said):
        start_masked_from(model(sizes=sizes), OLD, Pretrained(model(), OLD, None))


def test_only_a_masked_model_can_be_trained_on(pretrained):
    with pytest.raises(ModelError, match="is not a masked or uniform model that dlmctl trained"):
        start_masked_from(model(), OLD, pretrained)


# Training, and the controls of the source.

UPOS = ["NOUN", "VERB", "NOUN", "PUNCT"]
TREE = "(ROOT (S (NP (NNS {})) (VP (VBP {}) (NP (NN {}))) (. .)))"


def prepared(folder, rows, *, vocabulary=None, add_words=None):
    folder.mkdir()
    lines = [
        {"text": " ".join(words), "upos": UPOS, "tree": TREE.format(*words), "kind": "cat" if "cats" in words else "no"}
        for words in rows * 8
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"tokenizer": vocabulary, "add_words": add_words, "length": 16}
    settings |= {} if vocabulary else {"min_count": 1}
    splitting = None if vocabulary else "penn"
    prepare(folder / "texts.jsonl", folder / "texts.jsonl", folder / "set", splitting=splitting, **settings)
    return folder / "set"


def config(steps=20, **changes):
    loop = {"steps": steps, "batch_positions": 256, "lr": 1e-2, "bucket": 1, "log_every": 1, "validate_every": steps}
    settings = {"family": "masked", "length": 16, "denoiser": SIZES}
    return MaskedTrainingConfig(model=settings, tags="upos", loop={**loop, "checkpoint_every": steps}, **changes)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A trained model with evidence and hints."""
    folder = tmp_path_factory.mktemp("source")
    data = prepared(folder / "data", OLD_ROWS)
    trained = from_pretrained(train_lm(config(), data, folder / "run"))
    loop = LoopConfig(steps=3, batch_positions=256, bucket=1, full_share=0.0, lr=0.01)
    train_control(Pos, trained, loop, data, None)
    train_control(SyntaxTree, trained, loop, data, folder / "hints")
    train_control(Classifier, trained, loop, data, None, label="kind", name="kind")
    for name in ("acceptability", "semantic"):  # learned from the states of this network
        folder = trained.folder / "controls" / name
        folder.mkdir()
        (folder / "card.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
    return trained


@pytest.fixture(scope="module")
def tuned(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    data = prepared(folder / "data", NEW_ROWS, vocabulary=source.tokenizer, add_words=8)
    return from_pretrained(train_lm(config(init=str(source.folder)), data, folder / "run"))


def first_loss(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return next(line["loss"] for line in lines if "loss" in line)


def test_new_words_follow_those_of_the_source(source, tuned):
    assert list(tuned.tokenizer.vocabulary)[: len(source.tokenizer)] == list(source.tokenizer.vocabulary)
    assert list(tuned.tokenizer.vocabulary)[len(source.tokenizer) :] == ["lutes", "Dogs"]


def test_training_goes_on_from_what_was_learned(source, tmp_path):
    data = prepared(tmp_path / "data", OLD_ROWS)
    train_lm(config(2), data, tmp_path / "scratch")
    train_lm(config(2, init=str(source.folder)), data, tmp_path / "tuned")
    assert first_loss(tmp_path / "tuned") < first_loss(tmp_path / "scratch") - 0.5


def test_the_text_of_the_source_counts_as_text_of_the_model(source, tuned):
    counts, before = load_counts(tuned.folder), load_counts(source.folder)
    assert counts.tokens == before.tokens + 64 * 4
    assert counts.counts["cats"] == before.counts["cats"] + 32
    assert counts.counts["tea"] == before.counts["tea"]
    assert all(" ".join(words[:-1]) + "." in known_texts(tuned.folder) for words in [*OLD_ROWS, *NEW_ROWS])


def test_evidence_is_taken_over_by_word(source, tuned):
    ours, theirs = tuned.folder / "controls", source.folder / "controls"
    table, before = (load_table(folder / "pos" / "tags.safetensors") for folder in (ours, theirs))
    assert table.words == len(tuned.tokenizer)
    assert table.word_totals[: before.words].tolist() == before.word_totals.tolist()
    assert table.word_totals[before.words :].tolist() == [0, 0]
    bag, old = (load_bag(folder / "classifier" / "kind" / "bag.safetensors") for folder in (ours, theirs))
    assert torch.equal(bag.weights[: len(old.weights)], old.weights)
    assert not bag.weights[len(old.weights) :].any()


def test_hints_fit_the_new_network_and_what_reads_its_states_is_left_out(source, tuned):
    ours, theirs = tuned.folder / "controls", source.folder / "controls"
    names = ["syntax_tree/hints.safetensors", "syntax_tree/hints.json", "classifier/kind/labels.json"]
    assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in names)
    card = json.loads((ours / "syntax_tree" / "card.json").read_text())
    assert card[EMBEDDINGS] == embedding_digest(tuned.model)
    assert not (ours / "acceptability").exists()
    assert not (ours / "semantic").exists()
    for control in (Pos(tags=UPOS), SyntaxTree(tree=TREE.format("x", "x", "x")), Classifier(name="kind", label="cat")):
        texts = generate(control, model=tuned, samples=2, device="cpu")
        assert all(text.words for text in texts)


def test_hints_of_fewer_blocks_are_left_out(source, tmp_path, capsys):
    data = prepared(tmp_path / "data", OLD_ROWS)
    deep = config(2, init=str(source.folder)).model_copy(deep=True)
    deep.model.denoiser = deep.model.denoiser.model_copy(update={"layers": 4})
    folder = train_lm(deep, data, tmp_path / "run")
    assert not list(folder.glob("controls/*/hints*"))
    assert (folder / "controls" / "syntax_tree" / "leaves.safetensors").is_file()
    assert "hints of syntax_tree\n" in capsys.readouterr().err


def test_what_is_taken_over_is_said_and_damage_to_it_loses_nothing(source, tmp_path, capsys, caplog):
    data = prepared(tmp_path / "data", OLD_ROWS)
    own = tmp_path / "own"
    save_pretrained(source.model, source.tokenizer, own)
    copy_controls(source, own, "pos", "classifier")
    train_lm(config(2, init=str(own)), data, tmp_path / "run")
    assert f"note: taken over from {own}: classifier/kind, pos\n" in capsys.readouterr().err
    train_lm(config(2, init=str(own)), data, tmp_path / "run", resume=True)
    said = capsys.readouterr().err
    assert "note: kept as this model has it: classifier/kind, pos\n" in said
    assert "taken over" not in said
    (own / "controls" / "classifier" / "kind" / "bag.safetensors").write_bytes(b"damage")
    folder = train_lm(config(2, init=str(own)), data, tmp_path / "again")
    assert f"classifier/kind of {own} could not be taken over" in caplog.text
    said = capsys.readouterr().err
    assert f"note: taken over from {own}: pos\n" in said
    assert "note: to be trained anew for this model: classifier/kind\n" in said
    assert (folder / "controls" / "pos" / "tags.safetensors").is_file()


def copy_controls(source, folder, *names):
    for name in names:
        shutil.copytree(source.folder / "controls" / name, folder / "controls" / name)


@pytest.fixture
def pair(source, tmp_path):
    """A copy of the source with evidence and a scorer, and a model made from it."""
    folders = tmp_path / "own", tmp_path / "made"
    for folder in folders:
        save_pretrained(source.model, source.tokenizer, folder)
    copy_controls(source, folders[0], "pos", "syntax_tree")
    (folders[0] / "scorer").mkdir()
    for name in ("config.json", "vocab.json", "model.safetensors"):
        (folders[0] / "scorer" / name).write_text("{}")
    return [from_pretrained(folder) for folder in folders]


def test_evidence_of_another_number_of_words_is_left_out(pair, caplog):
    own, made = pair
    place = own.folder / "controls" / "pos"
    table = load_table(place / "tags.safetensors")
    cells = table.starts[5]
    short = replace(table, starts=table.starts[:6], classes=table.classes[:cells], counts=table.counts[:cells])
    save_control_files(lambda staging: save_table(short, staging / "tags.safetensors"), place, {"control": "pos"})
    assert carry_controls(own, made) == (["syntax_tree", "scorer"], [], ["pos"])
    assert f"the evidence is about 5 words, and the model has {len(own.tokenizer)}" in caplog.text


def test_evidence_with_metadata_nested_too_deep_is_no_crash(pair):
    own, made = pair
    place, deep = own.folder / "controls" / "pos", {"evidence": "[" * 100_000}
    save_control_files(
        lambda staging: save_file({"x": np.zeros(1)}, staging / "x.safetensors", deep), place, {"control": "pos"}
    )
    assert "pos" in carry_controls(own, made)[0]


def test_a_full_disk_costs_only_what_is_taken_over(pair, monkeypatch, caplog):
    def copytree(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    own, made = pair
    monkeypatch.setattr("dlmctl.training.carried_controls.shutil.copytree", copytree)
    assert carry_controls(own, made) == (["pos", "syntax_tree"], [], ["scorer"])
    assert "scorer of" in caplog.text
    assert "No space left on device" in caplog.text
    assert not (made.folder / "scorer").exists()


def test_without_the_scorer_that_it_weighs_acceptability_is_left_out(pair):
    own, made = pair
    (own.folder / "controls" / "acceptability").mkdir()
    (own.folder / "controls" / "acceptability" / "model.safetensors").write_bytes(b"")
    (made.folder / "scorer").mkdir()  # of the user
    assert carry_controls(own, made) == (["pos", "syntax_tree"], ["scorer"], ["acceptability"])
    shutil.rmtree(made.folder / "scorer")
    assert carry_controls(own, made) == (["scorer", "acceptability"], ["pos", "syntax_tree"], [])
    assert carry_controls(own, made) == ([], ["pos", "syntax_tree", "scorer", "acceptability"], [])


def test_what_a_resumed_run_finds_in_its_folder_is_kept(pair):
    own, made = pair
    carry_controls(own, made)
    place = made.folder / "controls" / "pos"
    table = load_table(place / "tags.safetensors")
    save_control_files(lambda staging: save_table(table.plus(table), staging / "tags.safetensors"), place, {"mine": 1})
    (made.folder / "scorer" / "model.safetensors").write_text("mine")
    with torch.no_grad():
        made.model.embeddings.mul_(2)  # hints are kept for the network as it was trained further
    carry_controls(own, made)
    assert load_table(place / "tags.safetensors").counts.sum() == 2 * table.counts.sum()
    assert json.loads((place / "card.json").read_text())["mine"] == 1
    assert (made.folder / "scorer" / "model.safetensors").read_text() == "mine"
    hints = made.folder / "controls" / "syntax_tree"
    assert check_control_files(hints)[EMBEDDINGS] == embedding_digest(made.model)
    assert (hints / "hints.safetensors").is_file()
    (place / "tags.safetensors").write_bytes(b"damage")  # what is damaged is not
    carry_controls(own, made)
    assert load_table(place / "tags.safetensors").counts.sum() == table.counts.sum()


def test_only_controls_are_taken_over(pair):
    own, made = pair
    controls = own.folder / "controls"
    shutil.copytree(controls / "pos", controls / "run" / "model" / "controls" / "pos")
    shutil.copytree(controls / "pos", controls / "pos" / ".partial")  # left by a killed run
    assert carry_controls(own, made)[0] == ["pos", "syntax_tree", "scorer"]
