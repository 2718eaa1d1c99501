import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaConfig as HubConfig
from transformers import LlamaForCausalLM

from dlmctl.models.llama import LlamaConfig, LlamaDenoiser

SIZES = LlamaConfig(hidden=24, layers=2, heads=3, inner=40, max_length=12)
WORDS = 19


def hub_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = HubConfig(
        vocab_size=WORDS,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        max_position_embeddings=12,
        tie_word_embeddings=True,
        initializer_range=0.4,
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():  # norms of 1 would hide errors
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def denoiser(tags: int = 0) -> LlamaDenoiser:
    torch.manual_seed(1)
    return LlamaDenoiser(SIZES, WORDS, tags).eval()


def from_hub(model: LlamaForCausalLM) -> LlamaDenoiser:
    native = denoiser()
    native.load_state_dict({name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"})
    return native


@torch.no_grad()
def test_logits_are_those_of_transformers_with_full_attention():
    hub, ids = hub_model(), torch.randint(WORDS, (3, 9))
    native = from_hub(hub)
    expected = hub(input_ids=ids, attention_mask=torch.zeros(3, 1, 9, 9), use_cache=False).logits
    torch.testing.assert_close(native.logits(native(ids)), expected, atol=1e-5, rtol=1e-5)
    causal = hub(input_ids=ids, use_cache=False).logits
    assert (causal - expected).abs().max() > 0.1


@torch.no_grad()
def test_logits_are_those_of_transformers_with_padding():
    hub, ids = hub_model(), torch.randint(WORDS, (2, 8))
    native = from_hub(hub)
    is_text = torch.arange(8) < torch.tensor([[8], [5]])
    additive = torch.zeros(2, 1, 8, 8).masked_fill(~is_text[:, None, None], -torch.inf)
    expected = hub(input_ids=ids, attention_mask=additive, use_cache=False).logits
    logits = native.logits(native(ids, attention_mask=is_text))
    torch.testing.assert_close(logits[is_text], expected[is_text], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_transformers_reads_our_state_dict():
    native, hub = denoiser(), hub_model()
    hub.load_state_dict({**native.state_dict(), "lm_head.weight": native.model.embed_tokens.weight})
    ids = torch.randint(WORDS, (2, 7))
    expected = hub(input_ids=ids, attention_mask=torch.zeros(2, 1, 7, 7), use_cache=False).logits
    torch.testing.assert_close(native.logits(native(ids)), expected, atol=1e-5, rtol=1e-5)


def test_the_state_dict_round_trips_and_a_missing_part_is_named():
    saved, loaded = denoiser(tags=4), LlamaDenoiser(SIZES, WORDS, 4).eval()
    state = saved.state_dict()
    loaded.load_state_dict(state)
    ids = torch.randint(WORDS, (2, 5))
    assert torch.equal(saved(ids), loaded(ids))
    del state["model.layers.1.self_attn.k_proj.weight"]
    with pytest.raises(RuntimeError, match=r"layers\.1\.self_attn"):
        loaded.load_state_dict(state)


@torch.no_grad()
def test_padding_changes_nothing():
    model = denoiser().double()
    ids = torch.randint(WORDS, (3, 5))
    padded = torch.cat([ids, torch.full((3, 4), 3)], 1)
    is_text = (torch.arange(9) < 5).expand(3, 9)
    torch.testing.assert_close(model(padded, attention_mask=is_text)[:, :5], model(ids), atol=1e-12, rtol=0)


@torch.no_grad()
def test_embeddings_in_place_of_ids():
    model, ids = denoiser(), torch.randint(WORDS, (2, 6))
    assert torch.equal(model(ids), model(inputs_embeds=model.model.embed_tokens(ids)))
    with pytest.raises(ValueError, match="either"):
        model(ids, inputs_embeds=model.model.embed_tokens(ids))


@torch.no_grad()
def test_logits_of_some_positions():
    model, ids = denoiser(), torch.randint(WORDS, (2, 6))
    hidden = model(ids)
    positions = torch.tensor([[1, 3], [6, 11]])
    torch.testing.assert_close(model.logits(hidden, positions), model.logits(hidden).flatten(0, 1)[positions])


@torch.no_grad()
def test_a_label_changes_the_output_where_it_is_given():
    model, ids = denoiser(tags=4), torch.randint(WORDS, (1, 6))
    no_labels = torch.zeros(1, 6, dtype=torch.long)
    assert torch.equal(model(ids), model(ids, aligned=no_labels))
    labels = no_labels.clone()
    labels[0, 2] = 3
    assert not torch.allclose(model(ids), model(ids, aligned=labels))


def test_the_embedding_of_no_label_stays_zero():
    model = denoiser(tags=4).train()
    labels = torch.tensor([[0, 1, 2]])
    model.logits(model(torch.tensor([[1, 2, 3]]), aligned=labels)).square().sum().backward()
    assert not model.tag_embed.weight.grad[0].any()
    assert model.tag_embed.weight.grad[1].any()


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="max_length 12"):
        denoiser()(torch.zeros(1, 13, dtype=torch.long))
    with pytest.raises(ValueError, match="no labels"):
        denoiser()(torch.zeros(1, 3, dtype=torch.long), aligned=torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValidationError, match="even widths"):
        LlamaConfig(hidden=30, heads=6)
    with pytest.raises(ValidationError):
        LlamaConfig(layers=10_000)
