"""Evidence counted for masked models by `train control`, and texts under it."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from controls import Pos, Semantic
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.cli import app
from dlmctl.control.catalogue import find_plugin
from dlmctl.control.evidence.table import load_table
from dlmctl.datasets.dataset import load_vocabulary
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.errors import DataError, UserError
from dlmctl.generation.generate import generate
from dlmctl.models.llama import LlamaConfig
from dlmctl.recipe.settings import Guidance
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig

LOOP = LoopConfig(steps=1)
# Twenty times each, as words and tags.
SENTENCES = [("the cat sleeps .", "DET NOUN VERB PUNCT"), ("a dog barks .", "DET NOUN VERB PUNCT")]
TONES = [("My {} is broken.", "complaint"), ("I love this {}.", "praise")]
NOUNS = (
    "phone lamp coat car book clock table chair bed house door shirt dress bike boat bag hat ring watch radio".split()
)


def conllu(sentences):
    rows = []
    for words, tags in sentences:
        pairs = zip(words.split(), tags.split(), strict=True)
        cells = [(str(at), word, word, tag, *"______") for at, (word, tag) in enumerate(pairs, start=1)]
        rows.append("\n".join("\t".join(row) for row in cells))
    return "\n\n".join(rows) + "\n\n"


@pytest.fixture
def data(tmp_path):
    for name in ("train", "valid"):
        (tmp_path / f"{name}.conllu").write_text(conllu(SENTENCES * 20))
    train, valid, out = (str(tmp_path / name) for name in ("train.conllu", "valid.conllu", "set"))
    prepare(train, valid, out, min_count=1, length=8)
    return tmp_path / "set"


@pytest.fixture
def model(tmp_path, data):
    torch.manual_seed(0)
    vocabulary = load_vocabulary(data)
    denoiser = LlamaConfig(hidden=16, layers=1, heads=2, inner=16, max_length=8)
    lengths = [0, 0, 0, 0, 1]
    network = MaskedLM(MaskedConfig(length=8, denoiser=denoiser, vocab_size=len(vocabulary), sentence_lengths=lengths))
    save_pretrained(network, vocabulary, tmp_path / "model")
    return from_pretrained(tmp_path / "model")


def test_words_are_counted_between_the_tags_of_their_neighbours_and_steer(model, data):
    # Where nothing is trained, there is no run to give a folder to.
    with pytest.raises(UserError, match=r"train control pos --model .* --data DATA`"):
        generate(Pos(tags=["NOUN"]), model=model, samples=1, device="cpu")
    folder = train_control(Pos, model, LOOP, str(data), None)
    assert folder == model.folder / "controls" / "pos"
    table = load_table(folder / "tags.safetensors")
    words = model.tokenizer.vocabulary
    assert table.word_totals[[words["cat"], words["barks"], words["."]]].tolist() == [20, 20, 40]
    tags = table.axes[1]
    assert table.marginal(1)[words["cat"], tags.index("NOUN")] == 20
    drawn = generate(Pos(tags=["DET", "NOUN", "VERB", "PUNCT"]), model=model, samples=4, device="cpu")
    allowed = [{"the", "a"}, {"cat", "dog"}, {"sleeps", "barks"}, {"."}]  # the network itself knows nothing yet
    assert all(word in some for sample in drawn for word, some in zip(sample.words, allowed, strict=True))


def test_a_folder_of_a_run_that_is_not_needed_is_said(model, data, tmp_path, capsys):
    train_control(Pos, model, LOOP, data, None)
    assert capsys.readouterr().err == ""
    train_control(Pos, model, LOOP, data, tmp_path / "run", resume=True)
    assert "nothing is trained: --out, --resume and training settings are not used" in capsys.readouterr().err
    with pytest.raises(UserError, match="--resume: needs the folder of the run to continue"):
        train_control(Pos, model, LOOP, data, None, resume=True)


def test_what_cannot_be_counted_is_said(model, data, tmp_path):
    with pytest.raises(UserError, match="needs a folder for the run"):  # what cannot be counted is learned
        train_control(Semantic, model, LOOP, data, None)
    with pytest.raises(UserError, match="--name: the weights of 'pos' cannot be named"):
        train_control(Pos, model, LOOP, data, None, name="mine")
    with pytest.raises(DataError, match="no such folder"):
        train_control(Pos, model, LOOP, tmp_path / "nowhere", None)
    shutil.rmtree(data)
    prepare(tmp_path / "train.conllu", tmp_path / "valid.conllu", data, min_count=30, length=8)
    with pytest.raises(DataError, match="a vocabulary other than the model's"):
        train_control(Pos, model, LOOP, data, None)


def test_what_cannot_be_counted_is_learned_from_the_models_own_estimates(model, tmp_path):
    lines = [json.dumps({"text": f"{what} .", "kind": what.split()[1]}) for what in ("the cat sleeps", "a dog barks")]
    (tmp_path / "kinds.jsonl").write_text("\n".join(lines * 20))
    prepare(tmp_path / "kinds.jsonl", tmp_path / "kinds.jsonl", tmp_path / "kinds", tokenizer=model.tokenizer, length=8)
    loop = LoopConfig(steps=40, batch_positions=64, optimizer="muon", lr=1e-2, ema=0.5)
    with torch.no_grad():  # a network without any training has embeddings of next to nothing
        model.model.denoiser.model.embed_tokens.weight.mul_(40.0)
    folder = train_control(Semantic, model, loop, tmp_path / "kinds", tmp_path / "run")
    figures = json.loads((folder / "card.json").read_text())["validation"]
    # A model that knows nothing expects the same of both texts where all is masked.
    assert figures["accuracy_x0_0"] == 1.0 > figures["accuracy_x0_0.95"]
    assert not any("x_t" in name for name in figures)
    free, guided = (
        generate(Semantic(kind="cat"), model=model, samples=8, device="cpu", guidance=guidance).texts
        for guidance in (Guidance(scale=0.0), Guidance(scale=1000.0, clip=1e6))
    )
    assert free != guided


def test_where_there_is_no_room_no_folder_is_left(model, data, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlmctl.training.counting.save_evidence", full)
    with pytest.raises(UserError, match=r"pos: cannot be written: .*No space left"):
        train_control(Pos, model, LOOP, data, None)
    assert not (model.folder / "controls" / "pos").exists()


def test_a_bundled_model_is_not_written_into(data):
    with pytest.raises(UserError, match="Copy the model's folder"):
        train_control(Pos, from_pretrained("everyday"), LOOP, data, None)


def test_a_classifier_needs_a_folder_for_its_run(pretrained, data):
    with pytest.raises(UserError, match=r"--out: training for the model 'tiny' needs a folder for the run.*--model"):
        train_control(Pos, pretrained, LOOP, data, None)


def test_the_command_says_how_good_the_judge_is_and_how_a_recipe_names_the_label(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    rows = [{"text": text.format(n), "tone": tone} for text, tone in TONES for n in NOUNS]
    (tmp_path / "tones.jsonl").write_text("".join(map("{}\n".format, map(json.dumps, rows))))
    prepare = ["data", "prepare", tmp_path / "tones.jsonl", "--vocabulary", "everyday", "--out", tmp_path / "tones"]
    train = ["train", "control", "classifier", "--data", tmp_path / "tones", "--label", "tone", "--name", "tone"]
    for command in (prepare, [*train, "--model", "everyday"]):
        run = CliRunner().invoke(app, list(map(str, command)))
        assert run.exit_code == 0, run.stderr
    assert "its judge is right on 100% of 1 held-out texts with a label: 'praise' 100% of 1" in run.stdout
    assert "in a recipe: classifier: {label: praise, name: tone}" in run.stdout
    assert "note: with --out RUN this command also trains hints" in run.stderr


def test_what_would_not_be_found_is_not_trained(pretrained, data, tmp_path):
    """`e2e` comes with weights of `pos`, which are read in place of any in the user's own folder."""
    with pytest.raises(UserError, match="Copy the model's folder"):
        train_control(Pos, from_pretrained("e2e"), LOOP, data, tmp_path / "run")
    notes = find_plugin("pos").training_notes("everyday")
    assert notes[1].startswith("They came with the model and stay. To train others copy its folder: dlmctl train")
    assert find_plugin("pos").training_notes(str(pretrained.folder))[1].startswith("Train them with: dlmctl train")


def test_a_classifier_takes_no_name_that_nothing_could_ask_for_and_no_number_of_sentences(pretrained, data, tmp_path):
    with pytest.raises(UserError, match="--name: the weights of 'pos' cannot be named"):
        train_control(Pos, pretrained, LOOP, data, tmp_path / "run", name="mine")
    with pytest.raises(UserError, match="--sentences: 'pos' is not counted for this model"):
        train_control(Pos, pretrained, LOOP, data, tmp_path / "run", sentences=10)
    assert not (tmp_path / "run").exists()
