from collections import Counter

import pytest
import torch

from dlmctl.diffusion.layout import Layout, batch_layouts, lay_out, positions_for, special_bans
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError


@pytest.fixture
def config(pretrained):
    """Length 32; training sentences of 5 (1 of 11), 6 (4), 7 (4) and 8 (2) words."""
    return pretrained.model.config


def test_positions_come_in_eights_up_to_the_length():
    assert [positions_for(words, 32) for words in (1, 6, 7, 14, 15, 29, 30)] == [8, 8, 16, 16, 24, 32, 32]
    assert positions_for(25, 29) == 29


def test_free_texts_are_as_long_as_training_sentences(config):
    layouts = [lay_out(config, None, Draw(0, sample)) for sample in range(400)]
    assert {layout.words for layout in layouts} == {None}
    counts = Counter(layout.positions for layout in layouts)
    assert set(counts) == {8, 16}
    assert counts[8] / 400 == pytest.approx(5 / 11, abs=0.08)
    assert layouts[7] == lay_out(config, None, Draw(0, 7))


def test_a_range_is_settled_like_the_training_sentences(config):
    counts = Counter(lay_out(config, (7, 20), Draw(0, sample)).words for sample in range(300))
    assert set(counts) == {7, 8}
    assert counts[7] / 300 == pytest.approx(4 / 6, abs=0.08)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (7, 7, Layout(16, 7)),
        (20, 20, Layout(24, 20)),
        (20, 24, Layout(24, 22)),
        (20, 99, Layout(32, 25)),
        (0, 3, Layout(8, 1)),
    ],
)
def test_lengths_unseen_in_training(config, low, high, expected):
    assert lay_out(config, (low, high), Draw(0, 0)) == expected


def test_a_model_that_knows_no_lengths_uses_all_its_positions(config):
    assert lay_out(config.model_copy(update={"sentence_lengths": []}), None, Draw(0, 0)) == Layout(32, None)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(31, 31, "the target has 31 words, but the model holds at most 30. Shorten"), (9, 8, "contradict each other")],
)
def test_impossible_lengths_are_reported(config, low, high, message):
    with pytest.raises(RecipeError, match=message) as error:
        lay_out(config, (low, high), Draw(0, 4))
    assert "sample 4" in str(error.value)


def test_special_tokens_are_placed_by_the_word_count(pretrained):
    tokenizer = pretrained.tokenizer
    layouts = batch_layouts([Layout(8, 2), Layout(8, 6), Layout(8, None)], torch.device("cpu"))
    assert layouts.mask is None
    allowed = ~special_bans(layouts, tokenizer, len(tokenizer))
    start, end, pad = tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id
    for row, expected in ((0, {0: start, 3: end, 4: pad, 7: pad}), (1, {0: start, 7: end})):
        assert {at: allowed[row, at].nonzero().flatten().tolist() for at in expected} == {
            at: [token] for at, token in expected.items()
        }
    assert not allowed[0, 1, [tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id]].any()
    assert allowed[0, 1].sum() == len(tokenizer) - 3
    assert allowed[2].all()


def test_positions_beyond_a_shorter_text_are_padding(pretrained):
    tokenizer = pretrained.tokenizer
    layouts = batch_layouts([Layout(8, None), Layout(16, None)], torch.device("cpu"))
    assert layouts.mask is not None
    assert layouts.mask.sum(1).tolist() == [8, 16]
    allowed = ~special_bans(layouts, tokenizer, len(tokenizer))
    assert allowed[0, 8:].sum(-1).tolist() == [1] * 8
    assert allowed[0, 8:, tokenizer.pad_id].all()
    assert allowed[0, :8].all()
    assert allowed[1].all()
