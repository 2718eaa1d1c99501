import json
import math
from itertools import permutations

import pytest
import torch
from typer.testing import CliRunner

from dlmctl.checkpoint.pretrained import Pretrained, save_pretrained
from dlmctl.cli import app
from dlmctl.diffusion import masked_base
from dlmctl.errors import DataError, UserError
from dlmctl.evaluation import masked_nll
from dlmctl.evaluation.masked_nll import bound_of_texts, masked_likelihood
from dlmctl.evaluation.nll import Texts, count_words
from tests.diffusion.tiny_masked import MASK, TOKENIZER, tiny_masked
from tests.tokens.tokenizers_of_all_kinds import model_of

OAK, ELM, ASH = 4, 5, 6
ROW = [TOKENIZER.start_id, OAK, ASH, ELM, TOKENIZER.end_id]
LENGTHS = [0, 0, 1, 3, 0]


@pytest.fixture
def pretrained(tmp_path):
    return Pretrained(tiny_masked(sentence_lengths=LENGTHS).double(), TOKENIZER, tmp_path)


@torch.no_grad()
def enumerated(model, row):
    """The any-order bound of a row by its definition: the mean over all orders of the nats word by word."""
    places, total = range(1, len(row) - 1), 0.0
    for order in permutations(places):
        canvas = torch.tensor([[MASK if at in places else word for at, word in enumerate(row)]])
        for place in order:
            total -= float(model.logits(canvas)[0, place].log_softmax(-1)[row[place]])
            canvas[0, place] = row[place]
    return total / math.factorial(len(places))


@pytest.mark.parametrize("repeats", [1, 3, 7])
def test_it_is_the_bound_by_enumeration(pretrained, repeats):
    """Estimates of 600 copies of a text lie around its bound as their standard error says."""
    exact = enumerated(pretrained.model, ROW)
    found = masked_likelihood(pretrained, [ROW] * 600, repeats=repeats, seed=4)
    assert found.standard_error > 0
    assert abs(found.nats_given_length - exact / 3) < 5 * found.standard_error
    assert found.standard_error < 0.15 * exact / 3
    assert found.nats_with_length == pytest.approx(found.nats_given_length + math.log(4 / 3) / 3)
    assert sum(part.nats for part in found.parts) == pytest.approx(found.nats_given_length)
    assert (found.sentences, found.word_count, found.repeats, found.unknown) == (600, 1800, repeats, 0)


def test_with_as_many_repeats_as_words_each_number_of_masks_occurs_once(pretrained, monkeypatch):
    seen, count = [], masked_base.mask_by_count

    def watched(places, share, order):
        places, weights = count(places, share, order)
        seen.append(places.sum(1))
        return places, weights

    monkeypatch.setattr(masked_base, "mask_by_count", watched)
    masked_likelihood(pretrained, [ROW] * 50, repeats=3)
    assert torch.stack(seen, 1).sort(1).values.tolist() == [[1, 2, 3]] * 50


def test_a_text_costs_the_same_in_any_company(pretrained, monkeypatch):
    rows = [ROW, [0, ELM, ELM, 1], [0, ASH, OAK, OAK, 1], [0, OAK, ELM, 1]]
    together = masked_likelihood(pretrained, rows, repeats=4)
    monkeypatch.setattr(masked_nll, "BATCH_POSITIONS", 1)
    alone = masked_likelihood(pretrained, rows, repeats=4)
    assert alone.nats_given_length == pytest.approx(together.nats_given_length, rel=1e-9)
    assert alone.nats_given_length != masked_likelihood(pretrained, rows, repeats=4, seed=1).nats_given_length


def test_unknown_words_are_context_and_lengths_never_seen_have_no_bound(pretrained):
    found = masked_likelihood(pretrained, [ROW, [0, OAK, TOKENIZER.unk_id, ELM, ELM, 1]], repeats=2)
    assert (found.word_count, found.unknown) == (6, pytest.approx(1 / 7))
    assert (found.nats_with_length, found.unseen_lengths) == (None, 1)
    json.dumps(found.figures(), allow_nan=False)
    with pytest.raises(DataError, match="no word of the texts"):
        masked_likelihood(pretrained, [[0, TOKENIZER.unk_id, 1]])


def test_a_model_that_chooses_the_length_pays_for_it_in_its_words(tmp_path):
    pretrained = Pretrained(tiny_masked(lengths="model"), TOKENIZER, tmp_path)
    found = masked_likelihood(pretrained, [ROW] * 4, repeats=8)
    assert found.nats_given_length is None
    assert found.nats_with_length == pytest.approx(sum(part.nats for part in found.parts))
    assert found.word_count == 12


def test_steps_are_refused(pretrained):
    with pytest.raises(UserError, match="no steps"):
        bound_of_texts(pretrained, Texts([ROW]), steps=10)


def test_the_command_prints_a_table_and_json(tmp_path):
    save_pretrained(tiny_masked(sentence_lengths=LENGTHS), TOKENIZER, tmp_path / "model")
    (tmp_path / "texts.txt").write_text("oak ash elm\nelm fir\n")
    command = ["nll", f"{tmp_path}/model", f"{tmp_path}/texts.txt", "--draws", "3"]
    run = CliRunner().invoke(app, [*command, "--plot", f"{tmp_path}/parts.png"])
    assert run.exit_code == 0, run.stderr
    table = dict(line.split("\t")[:2] for line in run.stdout.splitlines())
    assert "2 texts, 4 words; 3 masked canvases drawn for each; 20.0% of the words are unknown" in run.stderr
    assert (tmp_path / "parts.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert figures["nats_given_length"] == pytest.approx(float(table["per word, given the length"]), abs=1e-4)
    assert figures["bits_given_length"] == pytest.approx(figures["nats_given_length"] / math.log(2))
    assert figures["nats_per_text"] == pytest.approx(2 * figures["nats_with_length"])
    refused = CliRunner().invoke(app, [*command, "--steps", "9"])
    assert (refused.exit_code, "--steps: the bound of a masked model has no steps" in refused.stderr) == (2, True)


def test_tokens_are_called_tokens_and_counted_in_words_too(tmp_path):
    model, tokenizer = model_of("word pieces").model, model_of("word pieces").tokenizer
    save_pretrained(model, tokenizer, tmp_path / "model")
    (tmp_path / "texts.txt").write_text("Anna sat by the riverside.\n")
    command = ["nll", f"{tmp_path}/model", f"{tmp_path}/texts.txt", "--draws", "2"]
    run = CliRunner().invoke(app, command)
    tokens = len(tokenizer.encode_text("Anna sat by the riverside.")) - 2
    assert f"1 texts, {tokens} tokens in 6 words; " in run.stderr
    table = dict(line.split("\t")[:2] for line in run.stdout.splitlines())
    shown = CliRunner().invoke(app, [*command, "--json"]).stdout
    figures = json.loads(shown, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert figures["standard_error"] is None  # of a single text
    assert (figures["unit"], figures["written"], figures["word_count"]) == ("token", 6, tokens)
    assert figures["nats_per_word"] == pytest.approx(figures["nats_with_length"] * tokens / 6)
    assert float(table["per word"]) == pytest.approx(figures["nats_per_word"], abs=1e-3)
    assert float(table["per token, with the length"]) == pytest.approx(figures["nats_with_length"], abs=1e-3)
    (tmp_path / "texts.txt").write_text("river " * 50)
    refused = CliRunner().invoke(app, command)
    assert "tokens; the model holds up to 38" in refused.stderr
    assert "tokens" in CliRunner().invoke(app, ["info", f"{tmp_path}/model"]).stdout


def test_words_of_rows_of_several_texts_are_all_counted():
    tokenizer = model_of("bytes").tokenizer
    one, two = tokenizer.encode_text("the river"), tokenizer.encode_text("a cat sat .")
    assert count_words([[*one, *two[1:]], [*two, tokenizer.pad_id]], tokenizer) == 2 + 4 + 4
