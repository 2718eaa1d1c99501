"""Checkpoints that attend by blocks or have experts: equal to a plain forward pass, and written as their authors do."""

from __future__ import annotations

import json
from itertools import count, pairwise
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file

import dlmctl
from controls import Contains, Length, Pattern
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.diffusion.masked_base import Context
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import ModelError, RecipeError
from tests.checkpoint.tiny_blocks import (
    plain_block_logits,
    write_fast_dllm,
    write_llada2,
    write_llada_moe,
    write_rnd1,
    write_sdar,
    write_sdar_moe,
)
from tests.checkpoint.tiny_vendors import plain_mdlm, write_bd3lm

WRITERS = {
    "SDAR": write_sdar,
    "Fast-dLLM v2": write_fast_dllm,
    "SDAR-MoE": write_sdar_moe,
    "LLaDA-MoE": write_llada_moe,
    "LLaDA 2": write_llada2,
    "RND1": write_rnd1,
    "BD3LM": write_bd3lm,
}
BLOCKS = {"SDAR": 4, "Fast-dLLM v2": 8, "SDAR-MoE": 8, "LLaDA-MoE": None, "LLaDA 2": 8, "RND1": None, "BD3LM": 4}
BY_BLOCKS = [name for name, block in BLOCKS.items() if block]
PROMPTS = ["the red boat", "a river near the boat sinks", "a"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("blocks")
    return {name: writes(root / name) for name, writes in WRITERS.items()}


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: dlmctl.load(folder) for name, folder in folders.items()}


def texts(model, *controls, prompt=None, **changes):
    sampler = {"new_tokens": 21, "precision": "fp32", **changes.pop("sampler", {})}
    return list(model.generate(*controls, prompt=prompt, sampler=sampler, device="cpu", **{"samples": 4, **changes}))


def plain(folder, ids, block):
    state, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    if config["model_type"] == "bd3lm":
        return plain_mdlm(state, ids, block=block)
    logits = plain_block_logits(state, config, ids, block)
    shifted = config["model_type"] in ("Fast_dLLM_Qwen", "rnd1")
    return torch.cat([logits[:, :1], logits[:, :-1]], 1) if shifted else logits


@pytest.mark.parametrize("with_prompt", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_logits_are_those_of_a_plain_forward_pass(name, folders, loaded, with_prompt):
    model, size = loaded[name].model, len(loaded[name].tokenizer)
    assert model.config.block == BLOCKS[name]
    ids = torch.randint(0, size - 1, (3, 22), generator=torch.Generator().manual_seed(1))
    wanted = plain(folders[name], ids, BLOCKS[name])[..., :size]
    wanted[..., model.never] = -torch.inf
    if with_prompt:
        canvas = torch.cat([torch.full((3, 1), 7), ids[:, 6:]], 1)
        logits, wanted = model.logits(canvas, context=Context(ids[:, :6], ids[:, :6] >= 0)), wanted[:, 5:]
    else:
        logits = model.logits(ids)
    assert torch.allclose(logits, wanted, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in BY_BLOCKS if name != "BD3LM"])
def test_a_text_is_what_the_authors_procedure_writes(name, folders, loaded):
    """The surest token first, block by block from the beginning of the prompt, until one has the end of the text."""
    model, block = loaded[name], BLOCKS[name]
    tokenizer, mask = model.tokenizer, model.model.mask_id
    for prompt in PROMPTS:
        ids = tokenizer.turn_ids([{"role": "user", "content": prompt}])
        x = torch.tensor([[*ids, *[mask] * 21]])
        for start in range(len(ids) // block * block, x.shape[1], block):
            window = x[:, : start + block]
            while (window[:, start:] == mask).any():
                logits = plain(folders[name], window, block)[:, start:, : len(tokenizer)]
                logits[..., mask] = -torch.inf
                best = logits.softmax(-1).max(-1)
                place = best.values.masked_fill(window[:, start:] != mask, -1).argmax()
                window[0, start + place] = best.indices[0, place]
            if tokenizer.stop_ids & set(x[0, len(ids) : start + block].tolist()):
                break
        wanted = tokenizer.inner.decode(tokenizer.inside([tokenizer.start_id, *x[0, len(ids) :].tolist()]))
        (text,) = texts(model, prompt=prompt, samples=1, sampler={"temperature": 0.001, "min_p": 0.999})
        assert text.text.split() == wanted.split()


@pytest.mark.parametrize("changes", [{}, {"adaln": False}, {"block_size": 1}, {"cross_attn": False}], ids=str)
def test_logits_of_a_bd3lm_to_more_digits(tmp_path, changes):
    """With a prompt and without one, and after a shorter one that is padded on the left."""
    model = from_pretrained(folder := write_bd3lm(tmp_path / "model", **changes)).model.double()
    block, mask = model.config.block, model.mask_id
    assert block == {"cross_attn": None, "block_size": 1}.get("".join(changes), 4)
    state = {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}
    ids = torch.randint(0, mask + 1, (2, 15), generator=torch.Generator().manual_seed(3))
    prompts, canvas = ids[:, :6], torch.cat([torch.full((2, 1), 7), ids[:, 6:]], 1)
    assert torch.allclose(model.logits(ids)[..., :mask], plain_mdlm(state, ids, block=block)[..., :mask], atol=1e-5)
    attended = torch.tensor([[True] * 6, [False] * 3 + [True] * 3])
    found = model.logits(canvas, context=Context(prompts, attended))[..., :mask]
    for row, start in enumerate((0, 3)):
        wanted = plain_mdlm(state, ids[row : row + 1, start:], block=block)[0, 5 - start :, :mask]
        assert torch.allclose(found[row], wanted, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"adaln": False}, {"cross_attn": False}, {"block_size": 64}], ids=str)
def test_a_bd3lm_writes_as_its_authors_do(tmp_path, changes):
    """One token at a time, at any masked place of the first block that has one: the likeliest of that place."""
    model = dlmctl.load(folder := write_bd3lm(tmp_path / "model", **changes))
    block, mask = 4 if set(changes) <= {"adaln"} else None, model.model.mask_id
    assert model.model.config.block == block
    assert model.model.config.sampler == "random"
    orders = []
    for prompt in PROMPTS:
        steps, ids = [], model.tokenizer.prompt_ids(prompt)
        texts(model, prompt=prompt, samples=1, sampler={"temperature": 0.001, "min_p": 0.999}, on_step=steps.append)
        states = [torch.tensor([mask] * 21), *(step.x[0, 1:] for step in steps)]
        for before, after in pairwise(states):
            (place,) = (before != after).nonzero()[:, 0].tolist()
            places = [at for at in range(21) if before[at] == mask]
            current = (len(ids) + places[0]) // (block or 64)
            assert (len(ids) + place) // (block or 64) == current
            end = len(ids) + 21 if block is None else min((current + 1) * block, len(ids) + 21)
            whole = torch.tensor([[*ids, *before.tolist()]])[:, :end]
            wanted = plain(folder, whole, block)[0, len(ids) + place, :mask]
            assert after[place] == wanted.argmax()
            orders.append(place == places[0])
    assert not all(orders)


@pytest.mark.parametrize(
    ("sampler", "control"),
    [({}, None), ({"block": 2}, None), ({"threshold": 0.3}, Contains(["red boat"]) & Length(6))],
    ids=["own", "smaller", "threshold, controlled"],
)
@pytest.mark.parametrize("name", BY_BLOCKS)
def test_what_is_kept_of_finished_blocks_changes_nothing(name, loaded, sampler, control):
    by_window, calls = TokenLM._hidden_by_blocks, count()

    def both(model, ids, mask, prompt, window):
        if window is None:
            return by_window(model, ids, mask, prompt, None)
        whole, part = by_window(model, ids, mask, prompt, None), by_window(model, ids, mask, prompt, window)
        needed = slice(max(0, prompt + window.first - (model.config.predicts == "next")), prompt + window.end)
        attended = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        assert torch.allclose(whole[:, needed][attended[:, needed]], part[:, needed][attended[:, needed]], atol=1e-3)
        next(calls)
        return part

    with patch.object(TokenLM, "_hidden_by_blocks", both):
        texts(loaded[name], *([] if control is None else [control]), prompt=PROMPTS, samples=6, sampler=sampler)
        texts(loaded[name], *([] if control is None else [control]), samples=2, sampler=sampler)
    assert next(calls) > 4


def test_only_the_places_that_are_needed_are_computed(loaded):
    """Of 24 free tokens in blocks of 4: the prompt once, then at most two blocks at a time."""
    network, sizes = loaded["SDAR"].model.network, []
    forward = network.network.model.forward

    def seen(**arguments):
        sizes.append(arguments["inputs_embeds"].shape[1])
        return forward(**arguments)

    with patch.object(network.network.model, "forward", seen):
        texts(loaded["SDAR"], prompt=PROMPTS[1], samples=1, sampler={"new_tokens": 24})
    assert sizes[0] > 8
    assert max(sizes[1:]) <= 8
    assert sorted(sizes)[len(sizes) // 2] == 4


@pytest.mark.parametrize("name", BY_BLOCKS)
def test_a_text_does_not_depend_on_the_prompts_beside_it(name, loaded):
    together = texts(loaded[name], prompt=PROMPTS, samples=3)
    alone = texts(loaded[name], prompt=PROMPTS, samples=3, deterministic=True)
    assert [text.text for text in together] == [text.text for text in alone]


@pytest.mark.parametrize("prompt", ["red", "the red boat", "the red boat sinks"])
def test_blocks_are_counted_from_the_beginning_of_the_prompt(loaded, prompt):
    model, steps = loaded["SDAR"], []
    texts(model, prompt={"text": prompt, "chat": False}, samples=1, on_step=steps.append)
    prompt_tokens = len(model.tokenizer.prompt_ids(prompt))
    starts = [1, *(place for place in range(2, 22) if (prompt_tokens - 1 + place) % 4 == 0), 22]
    for step in steps:
        is_open = step.x[0] == model.model.mask_id
        complete = [not is_open[start:end].any() for start, end in pairwise(starts)]
        untouched = [bool(is_open[start:end].all()) for start, end in pairwise(starts)]
        current = complete.index(False) if False in complete else len(complete)
        assert all(untouched[current + 1 :])


@pytest.mark.parametrize("name", WRITERS)
def test_controls_hold_exactly(name, loaded):
    for control in (Contains(["red boat"]) & Length(6), Pattern("the <any>{2,4} river .")):
        for sampler in ({}, {"threshold": 0.2}, {"steps": 6}):
            for text in texts(loaded[name], control, prompt=PROMPTS, samples=3, sampler=sampler):
                assert text.passed, (control, sampler, text.text)


@pytest.fixture
def ends_early(loaded):
    """A LLaDA 2 that writes END often."""
    model, scores = loaded["LLaDA 2"], TokenLM._scores

    def ending(network, hidden, positions):
        found = scores(network, hidden, positions)
        found[..., model.tokenizer.end_id] += 3
        return found

    with patch.object(TokenLM, "_scores", ending):
        yield model


def test_what_follows_the_end_of_a_text_is_not_written(ends_early):
    """A text that ends early takes fewer steps, and is the one that all steps would have written."""
    short = texts(ends_early, sampler={"new_tokens": 40}, on_step=(steps := []).append)
    with patch("dlmctl.sampling.masked_draw._stops", return_value=None):
        whole = texts(ends_early, sampler={"new_tokens": 40}, on_step=(all_steps := []).append)
    assert len(steps) < len(all_steps) == 40
    assert [text.text for text in short] == [text.text for text in whole]
    assert any(text.text for text in short)


def test_nats_do_not_depend_on_when_the_other_texts_end(ends_early):
    """Candidates are ranked by them, so what a batch writes behind the end of a text must not count."""
    settings = {"prompt": "a", "samples": 6, "sampler": {"new_tokens": 40}}
    together, alone = texts(ends_early, **settings), texts(ends_early, **settings, deterministic=True)
    assert [text.nats for text in together] == pytest.approx([text.nats for text in alone], rel=1e-4)


def test_particles_are_resampled_until_the_last_step(ends_early):
    sampler = {"new_tokens": 40, "particles": 3, "reward": "score"}
    texts(ends_early, Contains(["red"]), samples=2, sampler=sampler, on_step=(steps := []).append)
    assert len(steps) == 40


def test_a_trace_has_no_words_in_blocks_that_are_not_read_yet(loaded):
    (text,) = texts(loaded["LLaDA 2"], samples=1, trace=1, sampler={"new_tokens": 24})
    assert 0 < len(text.trace[0].words) <= 8
    assert len(text.trace[-2].words) > 8


def test_a_threshold_writes_sure_words_at_once(loaded):
    one_each, several = [], []
    texts(loaded["LLaDA 2"], samples=2, on_step=one_each.append)
    texts(loaded["LLaDA 2"], samples=2, sampler={"threshold": 0.05}, on_step=several.append)
    assert len(several) < len(one_each)
    before = None
    for step in several:  # a step writes the surest word, and others only if they are sure
        if before is not None:
            written = (before.x == 302) & (step.x != 302)
            assert written.any()
        before = step


@pytest.mark.parametrize(("settings", "message"), [
    ({"threshold": 0.5, "name": "entropy"}, "needs a sampler that writes the words of the highest probability first"),
    ({"threshold": 0.5, "particles": 2}, "without particles"),
    ({"steps": 2}, r"sampler\.steps: . blocks need .* Give more steps: the model attends by blocks of 8"),
])  # fmt: skip
def test_settings_that_cannot_be(loaded, settings, message):
    with pytest.raises(RecipeError, match=message):
        texts(loaded["LLaDA 2"], Contains(["red"]), sampler=settings)


@pytest.mark.parametrize(("asked", "taken"), [(32, 4), (3, 2)])
def test_a_block_that_is_no_part_of_the_models_is_the_next_smaller_one_that_is(loaded, asked, taken):
    found, wanted = (texts(loaded["SDAR"], samples=2, sampler={"block": size}) for size in (asked, taken))
    assert [text.text for text in found] == [text.text for text in wanted]


def test_no_preset_refuses_a_model_with_blocks(tmp_path):
    model = dlmctl.load(write_sdar(tmp_path / "SDAR", block_size=48))
    for preset in ("fast", "balanced", "quality", "paper"):
        assert len(texts(model, samples=1, preset=preset)) == 1


@pytest.mark.parametrize(("name", "block"), [("SDAR-8B-Chat-b32", 32), ("SDAR-1.7B-Chat", 4)])
def test_the_blocks_of_an_sdar_are_in_its_name(tmp_path, name, block):
    assert from_pretrained(write_sdar(tmp_path / name)).model.config.block == block
    snapshot = write_sdar(tmp_path / f"models--JetLM--{name}" / "snapshots" / "abc")
    assert from_pretrained(snapshot).model.config.block == block
    assert from_pretrained(write_sdar(tmp_path / "said" / name, block_size=16)).model.config.block == 16
    assert from_pretrained(write_sdar(tmp_path / "run-b8" / "models" / name)).model.config.block == block


@pytest.mark.parametrize("write_one", [write_sdar, write_bd3lm])
def test_the_bound_of_a_model_with_blocks_is_the_sum_of_those_of_its_blocks(tmp_path, write_one):
    """With blocks of one position it is -log p itself, which the plain forward pass gives."""
    folder = write_one(tmp_path / "single", block_size=1)
    model = from_pretrained(folder).model
    ids = torch.randint(0, 300, (1, 7), generator=torch.Generator().manual_seed(2))
    places = torch.arange(7)[None] > 0
    wanted = 0.0
    for place in range(1, 7):
        masked = ids.clone()
        masked[0, place] = model.mask_id
        logits = plain(folder, masked[:, : place + 1], 1)[0, place, : len(model.embeddings)]
        logits[model.never] = -torch.inf
        wanted -= logits.log_softmax(-1)[ids[0, place]]
    shares = (torch.arange(6, dtype=torch.float64) + 0.5) / 6
    rows = [tensor.expand(6, -1) for tensor in (ids, places, torch.zeros(1, 7, dtype=torch.float64))]
    assert torch.allclose(model.bound_nats(rows[0], rows[1], shares, rows[2]).mean().float(), wanted, atol=1e-3)


def test_the_shares_of_noise_are_those_in_a_block(loaded):
    places = torch.arange(9)[None].expand(4, 9) > 0  # three blocks of a SDAR, and START in the first one
    shares = torch.tensor([0.1, 0.4, 0.5, 0.9], dtype=torch.float64)
    assert loaded["SDAR"].model.noise_share(places, shares).tolist() == pytest.approx([0.3, 0.2, 0.5, 0.7])
    assert loaded["LLaDA-MoE"].model.noise_share(places, shares).tolist() == shares.tolist()


def write_as(folder, kinds):
    """Write the weights again in the precision that ``kinds`` gives to their names."""
    state = load_file(folder / "model.safetensors")
    save_file({name: tensor.to(kinds(name)) for name, tensor in state.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["SDAR", "SDAR-MoE", "LLaDA-MoE", "LLaDA 2"])
def test_weights_of_several_precisions(tmp_path, name, precision):
    """As published, the bias of a LLaDA 2's experts is in float32; norms and routers of others may be."""
    folder, kinds = WRITERS[name](tmp_path / "model"), {True: torch.float32, False: torch.bfloat16}
    model = dlmctl.load(write_as(folder, lambda weight: kinds["norm" in weight or "gate." in weight]))
    assert all(texts(model, samples=2, sampler={"new_tokens": 9, "precision": precision}))
    routers = {weight.dtype for key, weight in model.model.state_dict().items() if "e_score_correction" in key}
    assert routers <= {torch.float32}
    texts(dlmctl.load(write_as(folder, lambda _: torch.float64)), samples=1, sampler={"new_tokens": 2})


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_rotations_as_transformers_5_writes_them(tmp_path, factor):
    flat = from_pretrained(write_llada2(tmp_path / "flat", partial_rotary_factor=factor)).model
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": factor}
    folder = write_llada2(tmp_path / "nested", rope_parameters=rope)
    config = json.loads((folder / "config.json").read_text())
    del config["rope_theta"], config["partial_rotary_factor"]
    (folder / "config.json").write_text(json.dumps(config))
    ids = torch.arange(20)[None]
    assert torch.equal(from_pretrained(folder).model.logits(ids), flat.logits(ids))


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state.update({name: tensor[0, 0].clone() for name, tensor in state.items() if ".experts." in name}),
     "'model.layers.1.mlp.experts.0.down_proj.weight' is not a matrix"),
    (lambda state: state.update({name: tensor.T.contiguous() for name, tensor in state.items() if ".up_" in name}),
     "'model.layers.1.mlp.experts.0.gate_proj.weight' and '...up_proj.weight' differ in shape"),
    (lambda state: state.update({"model.layers.1.mlp.experts.03.up_proj.weight": torch.zeros(20, 32)}),
     "'model.layers.1.mlp.experts.03.up_proj.weight' has no place in this model"),
    (lambda state: state.update({"model.layers.1.attention.query_key_value.weight": torch.zeros(())}), "is missing"),
    (lambda state: state.pop("model.layers.1.mlp.experts.3.up_proj.weight"),
     "the tensor 'model.layers.1.mlp.experts.3.up_proj.weight' is missing"),
    (lambda state: state.update({"model.layers.1.mlp.experts.3.up_proj.weight": torch.zeros(4, 32)}),
     "'model.layers.1.mlp.experts.3.up_proj.weight' has another shape than that of expert 0"),
    (lambda state: state.update({"model.layers.1.mlp.experts.8.up_proj.weight": torch.zeros(20, 32)}),
     "'model.layers.1.mlp.experts.8.up_proj.weight' has no place among 8 experts"),
    (lambda state: state.update({"model.layers.1.attention.query_key_value.weight": torch.zeros(7, 32)}),
     "is missing|has no place"),
])  # fmt: skip
def test_weights_of_experts_that_do_not_fit(tmp_path, change, message):
    folder = write_llada2(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        from_pretrained(folder)


@pytest.mark.parametrize(("changes", "message"), [
    ({"n_group": 3}, "the experts cannot be split into groups"),
    ({"n_group": 8}, "the experts cannot be split into groups"),
    ({"num_experts_per_tok": 7}, "fewer experts than each token takes"),
    ({"use_bias": True}, "use_bias"),
    ({"score_function": "softmax"}, "score_function"),
    ({"block_size": 0}, "block_size"),
    ({"block_size": None}, "block_size"),
    ({"first_k_dense_replace": -1}, "first_k_dense_replace: Input should be greater than or equal to 0"),
])  # fmt: skip
def test_sizes_of_experts_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message):
        from_pretrained(write_llada2(tmp_path / "model", **changes))


@pytest.mark.parametrize("changes", [
    {"time_conditioning": True}, {"causal": True}, {"block_size": 0}, {"block_size": None}, {"n_heads": 0},
    {"hidden_dim": 10**9}, {"cond_dim": "wide"},
], ids=str)  # fmt: skip
def test_settings_that_no_bd3lm_has(tmp_path, changes):
    with pytest.raises(ModelError, match=next(iter(changes))):
        from_pretrained(write_bd3lm(tmp_path / "model", **changes))


def test_a_mask_that_nothing_names_is_asked_for(tmp_path):
    folder = write_sdar(tmp_path / "model")
    content = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(content.replace("<|MASK|>", "<|other|>"))
    with pytest.raises(ModelError, match="which token is MASK"):
        from_pretrained(folder)
