import json
import shutil

import pytest
import torch

from dlmctl.annotators.scorer import load_scorer
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.scorer import save_scorer
from dlmctl.datasets.dataset import write_split
from dlmctl.errors import DataError, ModelError
from dlmctl.metrics.lm_score import lm_score, mean_nats
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.config import LoopConfig, read_config, shipped_configs
from dlmctl.training.initial_scorer import initial_folder, start_scorer_from
from dlmctl.training.scorer import ScorerConfig, ScorerSizes, ScorerTask, build_scorer, train_scorer

ANIMALS, PLACES = "cat dog hen owl fox".split(), "barn field lane wood".split()
SENTENCES = [f"the {animal} sleeps in the {place} .".split() for animal in ANIMALS for place in PLACES]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    tokenizer = WordTokenizer.from_corpus(SENTENCES, min_count=1)
    tokenizer.save(folder)
    rows = [tokenizer.encode(words) for words in SENTENCES]
    write_split(folder, "train", [row for at, row in enumerate(rows) if at % 5])
    write_split(folder, "valid", rows[::5])
    return folder


def tiny(**loop):
    settings = {"steps": 60, "batch_positions": 128, "full_share": 0.0, "lr": 1e-2, "ema": 0.5, "validate_every": 30}
    return ScorerConfig(
        model=ScorerSizes(length=12, hidden=32, layers=1, heads=2, dropout=0.0),
        loop=LoopConfig(**{**settings, "checkpoint_every": 10, "log_every": 10, **loop}),
    )


def test_training_learns_the_corpus_and_saves_what_it_learned(data, tmp_path):
    out = tmp_path / "run"
    scorer = train_scorer(tiny(), data, out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["valid_loss"] for line in lines if "valid_loss" in line]
    assert losses[-1] < 1.0  # of a vocabulary of 19, knowing nothing costs 2.9 nats
    loaded, tokenizer = load_scorer(out / "scorer")
    valid = SENTENCES[::5]
    assert mean_nats(lm_score(loaded, tokenizer, valid), valid) == pytest.approx(losses[-1], abs=2e-3)
    shuffled = ["barn the . in sleeps the cat".split()]
    assert lm_score(scorer, tokenizer, shuffled)[0] > 2 * lm_score(scorer, tokenizer, valid)[0]


def test_a_resumed_run_ends_with_the_same_weights(data, tmp_path):
    whole = train_scorer(tiny(steps=20), data, tmp_path / "whole", quiet=True)
    part = tiny(steps=20)
    task = ScorerTask(part, data)
    interrupted = ScorerTask.loss

    calls = 0

    def stop(self, model, batch):
        nonlocal calls
        calls += 1
        if calls == 14:
            raise KeyboardInterrupt
        return interrupted(self, model, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScorerTask, "loss", stop)
        with pytest.raises(KeyboardInterrupt):
            train_scorer(part, data, tmp_path / "part", quiet=True)
    resumed = train_scorer(part, data, tmp_path / "part", resume=True, quiet=True)
    assert type(resumed) is type(task.model)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_loss_counts_words_and_end_but_not_padding(data):
    task = ScorerTask(tiny(), data)
    task.model.eval()
    ids = torch.tensor([task.tokenizer.encode(SENTENCES[0])])
    padded = torch.nn.functional.pad(ids, (0, 3), value=task.tokenizer.pad_id)
    assert task.loss(task.model, padded)[0].item() == pytest.approx(task.loss(task.model, ids)[0].item(), abs=1e-6)
    assert task.loss(task.model, padded)[1] == padded.numel()


def test_samples_are_the_same_every_time_and_leave_the_random_state_alone(data):
    task = ScorerTask(tiny(), data)
    task.model.eval()
    state = torch.get_rng_state()
    first = task.samples(task.model)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first) == 4
    assert task.samples(task.model) == first


def test_the_shipped_configuration_is_read():
    assert "scorer-e2e" in shipped_configs()
    config = read_config("scorer-e2e", ScorerConfig)
    assert config.model.length == 64


# Starting from another scorer.

OLD = WordTokenizer.from_corpus(SENTENCES, min_count=1)
NEW_ROWS = [["the", "hen", "wakes", "in", "the", "barn", "."], ["the", "owl", "barking", "."]]
NEW = WordTokenizer.from_corpus(NEW_ROWS, min_count=1)
SIZES = {"length": 12, "hidden": 32, "layers": 1, "heads": 2}


def random_scorer(tokenizer, *, seed, **changes):
    torch.manual_seed(seed)
    made = build_scorer(ScorerSizes(**{**SIZES, **changes}), tokenizer)
    for parameter in made.parameters():  # no tensor is left at a value that another start would also have
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.fixture
def saved(tmp_path):
    """A model's folder with a scorer, whose vocabulary is that of the model."""
    folder = tmp_path / "source"
    save_scorer(random_scorer(OLD, seed=1), OLD, folder / "scorer")
    OLD.save(folder)
    (folder / "config.json").write_text("{}")
    (folder / "scorer" / "vocab.json").unlink()
    config = folder / "scorer" / "config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "digests"}))
    return folder


def logits(scorer, tokenizer):
    """Logits of words that both vocabularies have."""
    shared = [tokenizer.vocabulary[word] for word in ("the", "hen", "in", "barn", ".")]
    with torch.no_grad():
        return scorer(input_ids=torch.tensor([tokenizer.encode("the hen in the barn .".split())])).logits[..., shared]


@pytest.mark.parametrize("changes", [{}, {"layers": 3}, {"length": 9}, {"length": 20}])
@pytest.mark.parametrize("name", ["source", "source/scorer"])
def test_it_starts_as_the_same_function_whatever_its_words_depth_and_length(saved, changes, name):
    made = random_scorer(NEW, seed=2, **changes)
    start_scorer_from(made, NEW, initial_folder(str(saved.parent / name)))
    torch.testing.assert_close(logits(made, NEW), logits(load_scorer(saved / "scorer")[0], OLD))


def test_a_new_word_of_a_scorer_starts_like_those_that_end_alike(tmp_path):
    known = [f"{stem}ing" for stem in ("walk", "talk", "jump", "look", "cook")]
    old, new = (WordTokenizer.from_corpus([[*known, *more]], 1) for more in ([], ["humming", "zzz"]))
    made = random_scorer(new, seed=2)
    save_scorer(random_scorer(old, seed=1), old, tmp_path / "scorer")
    start_scorer_from(made, new, tmp_path / "scorer")
    rows, before = made.transformer.wte.weight, load_scorer(tmp_path / "scorer")[0].transformer["wte"].weight
    similar = torch.stack([before[old.vocabulary[word]] for word in known])
    torch.testing.assert_close(rows[new.vocabulary["humming"]], similar.mean(0))
    untouched = random_scorer(new, seed=2).transformer.wte.weight
    assert torch.equal(rows[new.vocabulary["zzz"]], untouched[new.vocabulary["zzz"]])


def last_loss(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return [line["valid_loss"] for line in lines if "valid_loss" in line][-1]


def test_training_goes_on_from_what_a_scorer_has_learned(data, tmp_path):
    train_scorer(tiny(), data, tmp_path / "run")
    barely = tiny(steps=1, lr=1e-6).model_copy(update={"init": str(tmp_path / "run" / "scorer")})
    train_scorer(barely, data, tmp_path / "more")
    assert last_loss(tmp_path / "more") == pytest.approx(last_loss(tmp_path / "run"), abs=1e-2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden": 64}, "hidden is 32 there and 64 in this configuration"),
        ({"heads": 4}, "heads is 2 there and 4 in this configuration"),
    ],
)
def test_what_does_not_fit_a_scorer_is_said(saved, changes, said):
    with pytest.raises(ModelError, match=said):
        start_scorer_from(random_scorer(NEW, seed=2, **changes), NEW, saved / "scorer")


def test_a_model_without_a_scorer_is_said(saved):
    shutil.rmtree(saved / "scorer")
    with pytest.raises(ModelError, match="source: has no scorer"):
        initial_folder(str(saved))


def test_the_configuration_that_goes_on_fits_the_scorer_of_everyday():
    config = read_config("scorer-finetune", ScorerConfig)
    words = from_pretrained("everyday").tokenizer
    start_scorer_from(build_scorer(config.model, words), words, initial_folder(config.init))


def test_a_folder_without_data_is_said(tmp_path):
    with pytest.raises(DataError):
        train_scorer(tiny(), tmp_path, tmp_path / "run")
