from itertools import combinations

import pytest
import torch
from pydantic import ValidationError

from dlmctl.diffusion.masked import (
    MaskedConfig,
    Noise,
    attended,
    length_nats,
    maskable_places,
)
from dlmctl.diffusion.masked_base import masked_nats, noised
from dlmctl.diffusion.masking import MASKINGS, mask_by_count, mask_by_time, max_masked_count, shares
from tests.diffusion.tiny_masked import MASK, PLACES, TEXTS, TOKENIZER, Enumerated, one_by_one, tiny_masked

TEXT = (4, 6, 5)


@pytest.fixture(scope="module")
def model():
    return tiny_masked().double()


@pytest.fixture(scope="module")
def bound(model):
    """The any-order bound of ``TEXT`` by definition: the nats word by word, averaged over all orders."""
    tiny = Enumerated(model)
    # The table excludes special tokens, as sampling does; the bound does not.
    with torch.no_grad():
        tiny.log_probs = model.logits(tiny.canvases).log_softmax(-1)
    total = 0.0
    for order in one_by_one():
        places = [group[0] for group in order]
        total += sum(tiny.nats(TEXT, tuple(places[:at]), place) for at, place in enumerate(places))
    return total / len(one_by_one())


def subsets():
    return [chosen for size in (1, 2, 3) for chosen in combinations(PLACES, size)]


@torch.no_grad()
def test_the_objective_is_the_bound_of_any_order_models(model, bound):
    ids = torch.tensor([TEXT] * len(subsets()))
    masked = torch.tensor([[place in chosen for place in PLACES] for chosen in subsets()])
    counts = masked.sum(1)
    nats = masked_nats(model, ids, masked, 3 / counts)
    # Each count has probability 1/3, divided equally among its subsets.
    probability = 1 / 3 / torch.tensor([3.0, 3.0, 1.0]).double()[counts - 1]
    assert float((nats * probability).sum()) == pytest.approx(bound, abs=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("masking", [mask_by_count, mask_by_time])
def test_both_maskings_estimate_the_bound(model, bound, masking):
    rows = 12_000
    ids = torch.tensor([TEXT] * rows)
    offset, order = Noise.drawn(ids, torch.Generator().manual_seed(0))
    masked, weights = masking(torch.ones_like(ids, dtype=torch.bool), shares(rows, offset), order)
    nats = masked_nats(model, ids, masked, weights)
    # Within five standard errors; the weights 1/t have the higher variance.
    assert abs(float(nats.mean()) - bound) < 5 * float(nats.std()) / rows**0.5


def test_the_bound_is_above_the_likelihood_and_near_its_definition(model, bound):
    tiny = Enumerated(model)
    with torch.no_grad():
        tiny.log_probs = model.logits(tiny.canvases).log_softmax(-1)
    words = TEXTS.index(TEXT)
    assert -float(tiny.drawn_in(one_by_one())[words].log()) < bound
    ids = torch.tensor([[0, *TEXT, 1]] * 1200)[:, 1:-1]
    offset, order = Noise.drawn(ids, torch.Generator().manual_seed(1))
    with torch.no_grad():
        nats = model.bound_nats(ids, torch.ones(1200, 3, dtype=torch.bool), shares(1200, offset), order)
    assert nats.shape == (1200,)
    assert abs(float(nats.mean()) - bound) < 5 * float(nats.std()) / 1200**0.5


def test_the_bound_spreads_counts_over_the_rows():
    offset = torch.tensor(0.37, dtype=torch.float64)
    counts = mask_by_count(torch.ones(20, 5, dtype=torch.bool), shares(20, offset), torch.rand(20, 5))[0].sum(1)
    assert counts.sort().values.tolist() == [k for k in (1, 2, 3, 4, 5) for _ in range(4)]


def test_masking_by_count_takes_words_only():
    places = torch.tensor([[False, True, True, True, False], [False, True, False, False, False]])
    order = torch.tensor([[0.0, 0.3, 0.1, 0.2, 0.0]] * 2)
    masked, weights = mask_by_count(places, torch.tensor([0.5, 0.9]), order)
    assert masked.tolist() == [[False, False, True, True, False], [False, True, False, False, False]]
    assert weights.tolist() == [1.5, 1.0]


def test_a_row_without_places_counts_nothing(model):
    masked, weights = mask_by_count(torch.zeros(1, 3, dtype=torch.bool), torch.tensor([0.5]), torch.rand(1, 3))
    assert masked_nats(model, torch.tensor([TEXT]), masked, weights).tolist() == [0.0]


def test_masking_by_time_never_divides_by_nothing():
    places = torch.ones(1, 3, dtype=torch.bool)
    masked, weights = mask_by_time(places, torch.zeros(1), torch.tensor([[0.0, 0.5, 0.9]]))
    assert masked.tolist() == [[True, False, False]]
    assert weights.tolist() == pytest.approx([1000.0])


def test_which_places_can_be_masked():
    ids = torch.tensor([[0, 4, 2, 5, 1, 3, 3]])
    assert maskable_places(ids, TOKENIZER).tolist() == [[False, True, False, True, False, False, False]]
    assert maskable_places(ids, TOKENIZER, "model").tolist() == [[False, True, False, True, True, True, True]]
    assert attended(ids, TOKENIZER).tolist() == [[True] * 5 + [False] * 2]
    assert attended(ids, TOKENIZER, "model") is None


def test_noise_writes_mask():
    masked = torch.tensor([[False, True, False]])
    assert noised(torch.tensor([TEXT]), masked, MASK).tolist() == [[4, MASK, 5]]


@torch.no_grad()
def test_a_known_count_of_places_changes_nothing(model):
    ids = torch.tensor([[0, 4, 5, 6, 1], [0, 6, 5, 1, 3]])
    masked = torch.tensor([[False, True, False, True, False], [False, False, True, False, False]])
    inputs = {"attention_mask": attended(ids, TOKENIZER)}
    weights = torch.tensor([1.5, 2.0])
    exact = masked_nats(model, ids, masked, weights, **inputs)
    torch.testing.assert_close(masked_nats(model, ids, masked, weights, most=7, **inputs), exact)


@torch.no_grad()
def test_padding_changes_no_bound(model):
    ids = torch.tensor([[0, 4, 5, 6, 1]])
    padded = torch.cat([ids, torch.full((1, 3), TOKENIZER.pad_id)], 1)
    masked = torch.tensor([[False, True, False, True, False]])
    unpadded_nats = masked_nats(model, ids, masked, torch.ones(1))
    padded_nats = masked_nats(
        model,
        padded,
        torch.cat([masked, torch.zeros(1, 3, dtype=torch.bool)], 1),
        torch.ones(1),
        attention_mask=attended(padded, TOKENIZER),
    )
    torch.testing.assert_close(unpadded_nats, padded_nats, atol=1e-12, rtol=0)


def test_mask_is_not_a_word_and_has_no_embedding():
    model = tiny_masked()
    assert model.logits(torch.tensor([[0, MASK, 1]])).shape == (1, 3, MASK)
    assert model.embeddings.shape == (MASK, 16)
    one_hot = torch.eye(MASK)[[4, 6]]
    torch.testing.assert_close(model.soft(one_hot), model.embed(torch.tensor([4, 6])))


def test_weights_have_the_names_of_llama():
    model = tiny_masked(tags=["NOUN", "VERB"])
    names = set(model.state_dict())
    assert {"model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight", "tag_embed.weight"} <= names
    assert not [name for name in names if "denoiser" in name or "qkv" in name]
    other = tiny_masked(tags=["NOUN", "VERB"])
    with torch.no_grad():
        other.embeddings.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.embeddings, model.embeddings)


@torch.no_grad()
def test_labels_of_positions_count():
    model = tiny_masked(tags=["NOUN", "VERB"])
    canvas = torch.tensor([[0, MASK, MASK, 1]])
    labelled = model.logits(canvas, aligned=torch.tensor([[0, 1, 2, 0]]))
    assert not torch.allclose(labelled, model.logits(canvas))


def test_training_on_the_objective_lowers_it():
    model = tiny_masked().train()
    ids = torch.tensor([[0, *TEXT, 1]] * 6)
    places, generator = maskable_places(ids, TOKENIZER), torch.Generator().manual_seed(0)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=0.02), []
    for _ in range(40):
        offset, order = Noise.drawn(ids, generator)
        nats = masked_nats(model, ids, *mask_by_count(places, shares(6, offset), order)).mean()
        optimizer.zero_grad()
        nats.backward()
        optimizer.step()
        losses.append(float(nats.detach()))
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])


def test_nats_of_the_length():
    config = MaskedConfig(vocab_size=MASK, sentence_lengths=[0, 1, 3])
    assert length_nats(config, torch.tensor([1, 2])).exp().tolist() == pytest.approx([4, 4 / 3])
    assert length_nats(config, torch.tensor([7])).tolist() == [float("inf")]
    with pytest.raises(ValueError, match="sentence_lengths"):
        length_nats(MaskedConfig(vocab_size=MASK), torch.tensor([1]))


@pytest.mark.parametrize("changes", [{"length": 65}, {"vocab_size": 4}, {"lengths": "any"}, {"steps": 3}])
def test_settings_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValidationError):
        MaskedConfig.model_validate({"vocab_size": MASK, **changes})


@pytest.mark.parametrize("objective", ["count", "time"])
def test_the_number_of_masked_places_is_bounded_in_advance(objective):
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(40, 12, generator=generator) < 0.7
    words = places.sum(1).numpy()
    for _ in range(50):
        offset, order = Noise.drawn(places, generator)
        share = shares(len(places), offset)
        masked, _ = MASKINGS[objective](places, share, order)
        most = max_masked_count(words, share.numpy(), objective)
        assert int(masked.sum()) == most if objective == "count" else int(masked.sum()) <= most < places.sum()
