"""Published checkpoints of LLaDA and Dream: loaded without their code, and equal to a plain forward pass."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from typer.testing import CliRunner

import dlmctl
from controls import Contains, Length
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.cli import app
from dlmctl.diffusion.masked_base import Context
from dlmctl.errors import ModelError, RecipeError, UserError
from tests.checkpoint.tiny_diffu import plain_gpt2, write_diffugpt, write_diffullama
from tests.checkpoint.tiny_uniform import write_duo
from tests.checkpoint.tiny_vendors import (
    bytes_tokenizer,
    plain_logits,
    plain_mdlm,
    write_a2d,
    write_dream,
    write_llada,
    write_mdlm,
    write_sedd,
)

WRITERS = {"LLaDA": write_llada, "Dream": write_dream, "A2D": write_a2d, "MDLM": write_mdlm, "SEDD": write_sedd}
WRITERS |= {"DiffuGPT": write_diffugpt, "DiffuLLaMA": write_diffullama}
SHIFTED = ("Dream", "DiffuGPT", "DiffuLLaMA")
DECODERS = ["LLaDA", "Dream"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("vendors")
    return {name: writes(root / name) for name, writes in WRITERS.items()}


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: dlmctl.load(folder) for name, folder in folders.items()}


@pytest.fixture(params=WRITERS)
def name(request):
    return request.param


def texts(model, prompt=None, **changes):
    sampler = {"new_tokens": 12, "precision": "fp32", **changes.pop("sampler", {})}
    return list(model.generate(prompt=prompt, sampler=sampler, device="cpu", **{"samples": 4, **changes}))


def plain(folder, ids, *, shifted):
    state, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    state = {name: tensor.double() for name, tensor in state.items()}
    if config.get("model_type") == "gpt2":
        logits = plain_gpt2(state, ids)
    elif "graph" in config or config["model_type"] == "mdlm":
        takes_level = "graph" in config or config["time_conditioning"]
        mask_id = state[next(name for name in state if name.endswith("output_layer.linear.bias"))].shape[0] - 1
        logits = plain_mdlm(state, ids, level(ids == mask_id) if takes_level else None)
    else:
        logits = plain_logits(state, config, ids)
    return torch.cat([logits[:, :1], logits[:, :-1]], 1) if shifted else logits


def level(is_mask):
    """The noise level of each row at which this share of masks is expected, within those of training."""
    share = is_mask.double().mean(1).clamp(0.999e-3, 0.999)
    return (1 / (1 - share)).log()


@pytest.mark.parametrize("with_prompt", [False, True])
def test_logits_are_those_of_a_plain_forward_pass_with_full_attention(name, folders, loaded, with_prompt):
    model, size = from_pretrained(folders[name]).model.double(), len(loaded[name].tokenizer)
    ids = torch.randint(0, size, (3, 14), generator=torch.Generator().manual_seed(1))
    wanted = plain(folders[name], ids, shifted=name in SHIFTED)[..., :size]
    if model.mask_id < size:
        wanted[..., model.mask_id] = -torch.inf
    if with_prompt:  # its last token stands in the place of START, whatever the canvas has there
        canvas = torch.cat([torch.full((3, 1), 7), ids[:, 6:]], 1)
        logits = model.logits(canvas, context=Context(ids[:, :6], ids[:, :6] >= 0))
        wanted = wanted[:, 5:]
    else:
        logits = model.logits(ids)
    assert torch.allclose(logits, wanted, atol=1e-5)


@pytest.mark.parametrize("write_one", [write_sedd, partial(write_mdlm, time_conditioning=True)], ids=["SEDD", "MDLM"])
def test_the_noise_level_is_that_of_the_share_of_masks(tmp_path, write_one):
    """With a prompt and padding on its left: the log probabilities at masks are those of the plain forward pass, with
    a noise level of each row, without MASK."""
    folder = write_one(tmp_path / "m")
    model = from_pretrained(folder).model.double()
    mask, (long, short) = model.mask_id, ([9, 8, 7, 6, 5], [5, 6])
    canvas = torch.tensor([[7, mask, 20, mask, mask], [7, mask, mask, mask, mask], [7, 21, 22, 23, 24]])
    prompts = [long, short, long]
    ids = torch.tensor([[0] * (5 - len(prompt)) + prompt for prompt in prompts])
    attended = torch.arange(5) >= torch.tensor([5 - len(prompt) for prompt in prompts])[:, None]
    found = model.logits(canvas, context=Context(ids, attended)).log_softmax(-1)
    state = {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}
    for row, prompt in enumerate(prompts):
        whole = torch.tensor([prompt + canvas[row, 1:].tolist()])
        wanted = plain_mdlm(state, whole, level(whole == mask))[0, len(prompt) - 1 :, :mask].log_softmax(-1)
        assert torch.allclose(found[row, :, :mask], wanted, atol=1e-5)
        other = plain_mdlm(state, whole)[0, len(prompt) - 1 :, :mask].log_softmax(-1)
        assert not torch.allclose(other, wanted, atol=1e-3) or row == 2  # without masks the level is close to 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph": {"type": "uniform"}}, "graph.type"),
        ({"noise": {"type": "geometric"}}, "noise.type"),
        ({"noise": None}, "noise"),
        ({"tokens": 10**9}, "tokens"),
        ({"tokens": 100}, "different checkpoints"),
        ({"tokens": "many"}, "tokens"),
        ({"model": {"hidden_size": 32}}, "model.n_blocks"),
        ({"model": []}, "config.json"),
        ({"graph": 5}, "config.json"),
    ],
)
def test_settings_that_no_sedd_has(tmp_path, changes, message):
    assert message in fault(write_sedd(tmp_path / "m", **changes))


def test_dream_predicts_the_next_position_and_llada_its_own(folders, loaded):
    for name, offset in (("LLaDA", 0), ("Dream", 1)):
        ids = torch.arange(10, 20)[None]
        raw = plain(folders[name], ids, shifted=False)[0]
        logits = loaded[name].model.logits(ids)[0].double()
        size = loaded[name].model.mask_id  # the last id of these
        assert torch.allclose(logits[5, :size], raw[5 - offset, :size], atol=1e-4)


def test_prompts_of_other_lengths_beside_it_change_nothing(name, loaded):
    model = loaded[name].model
    canvas = torch.tensor([[7, 20, model.mask_id, 21]] * 2)
    short, long = [5, 6], [9, 8, 7, 6, 5]
    ids = torch.tensor([[0, 0, 0, *short], long])
    mask = torch.tensor([[False] * 3 + [True] * 2, [True] * 5])
    together = model.logits(canvas, context=Context(ids, mask))[0]
    alone = model.logits(canvas[:1], context=Context(torch.tensor([short]), torch.ones(1, 2, dtype=torch.bool)))[0]
    assert torch.allclose(together, alone, atol=1e-4)


def test_no_code_of_a_folder_is_run(name, folders, loaded):
    texts(loaded[name], "the red boat", samples=1)
    texts(loaded[name], samples=1)
    result = CliRunner().invoke(app, ["info", str(folders[name])], input="y\n" * 20)
    assert result.exit_code == 0, result.output
    assert not (folders[name].parent / "it ran").exists()


def test_weights_stay_as_they_are_stored(tmp_path, name):
    folder = WRITERS[name](tmp_path / "half", dtype=torch.bfloat16)
    model = from_pretrained(folder).model
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in model.parameters())
    assert model.logits(torch.tensor([[1, 2, 3]])).dtype == torch.float32
    assert texts(dlmctl.load(folder), samples=1)[0].nats > 0


@pytest.mark.parametrize("name", DECODERS)
def test_tied_embeddings_are_read_once(tmp_path, name):
    folder = WRITERS[name](tmp_path / "tied")
    whole = load((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    head, table, key = (
        ("model.transformer.ff_out.weight", "model.transformer.wte.weight", "weight_tying")
        if name == "LLaDA"
        else ("lm_head.weight", "model.embed_tokens.weight", "tie_word_embeddings")
    )
    del whole[head]
    save_file(whole, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config, key: True}))
    model, ids = from_pretrained(folder).model, torch.tensor([[4, 5, 6, 7]])
    wanted = plain_logits({**whole, head: whole[table]}, config, ids)
    wanted = torch.cat([wanted[:, :1], wanted[:, :-1]], 1) if name == "Dream" else wanted
    size = model.mask_id
    assert torch.allclose(model.logits(ids)[..., :size], wanted[..., :size], atol=1e-4, rtol=1e-4)


def test_diffucoder_is_a_dream_with_roles_of_its_own(tmp_path):
    """DiffuCoder (Gong et al. 2025): the class, names and shift of Dream, and one more token, PAD."""
    folder = write_dream(tmp_path / "coder", pad="<|dlm_pad|>")
    model = dlmctl.load(folder)
    assert model.tokenizer.token(model.tokenizer.pad_id) == "<|dlm_pad|>"
    assert model.tokenizer.pad_id > model.model.mask_id
    ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(2))
    size = model.model.mask_id
    wanted = plain(folder, ids, shifted=True)[..., :size]
    assert torch.allclose(model.model.logits(ids)[..., :size].double(), wanted, atol=1e-4)
    (text,) = texts(model, "the red boat", samples=1)
    assert "<|" not in text.text


@pytest.mark.parametrize("name", ["CoDA", "Open-dCoder"])
def test_models_that_are_as_dream(tmp_path, name):
    if name == "CoDA":  # its output layer is its own, although its configuration says otherwise
        mask, last = "<|mask|>", len(bytes_tokenizer([]).get_vocab()) + 3
        folder = write_a2d(tmp_path / "m", model_type="CoDA", mask_token_id=last)
        path = folder / "model.safetensors"
        state = load(path.read_bytes())
        save_file({**state, "lm_head.weight": state["model.embed_tokens.weight"].flip(0)}, path)
        config = {"tie_word_embeddings": False}
    else:  # no file says that MASK is <M>
        folder, config, mask = write_dream(tmp_path / "m", model_type="qwen2", mask_token_id=None), {}, "<M>"
        for path in folder.glob("*.json"):
            path.write_text(path.read_text().replace('"mask_token": "<|mask|>", ', "").replace("<|mask|>", "<M>"))
    pretrained, ids = from_pretrained(folder), torch.randint(0, 250, (2, 9))
    model = pretrained.model
    assert pretrained.tokenizer.token(model.mask_id) == mask
    state = load((folder / "model.safetensors").read_bytes())
    wanted = plain_logits(state, {**json.loads((folder / "config.json").read_text()), **config}, ids)
    wanted = torch.cat([wanted[:, :1], wanted[:, :-1]], 1)
    assert model.config.kind == name
    assert torch.allclose(model.logits(ids)[..., :250], wanted[..., :250], atol=1e-4, rtol=1e-4)


# Texts.


def test_a_row_alone_is_the_row_in_a_batch(name, folders):
    model = dlmctl.load(folders[name])
    model.model.double()
    prompts = ["the red boat", "a river near the red boat sinks .", "the"]
    together = texts(model, prompts, samples=6, batch_size=6)
    for number in range(6):
        alone = texts(model, prompts, samples=[number])[0]
        assert alone.words == together[number].words
        assert abs(alone.nats - together[number].nats) < 1e-5


@pytest.mark.parametrize(
    ("write_one", "settings"),
    [
        (write_llada, {"steps": 5}),
        (write_llada, {"particles": 2, "temperature": 1.0}),
        (write_sedd, {}),
        (write_duo, {"steps": 5}),
    ],
    ids=["steps", "particles", "random places", "uniform noise"],
)
def test_a_text_of_settled_length_is_the_same_in_a_batch_with_others(tmp_path, write_one, settings):
    """Some have fewer places than steps and some more; SEDD writes a random number of words at a step."""
    model = dlmctl.load(write_one(tmp_path / "m"))
    model.model.double()
    control = Length.each([{"words": words} for words in (2, 3, 5, 6, 4, 7)]) & Contains(words=["boat"])
    sampler = {"new_tokens": 20, **settings}
    together = texts(model, control=control, samples=6, batch_size=6, sampler=sampler)
    for number in range(6):
        alone = texts(model, control=control, samples=[number], sampler=sampler)[0]
        assert alone.words == together[number].words


def test_a_token_that_stands_stays_and_no_mask_is_left(name, loaded):
    seen = []
    texts(loaded[name], "the red boat", on_step=lambda step: seen.append(step.x.clone()))
    mask = loaded[name].model.mask_id
    for before, after in pairwise(seen):
        stands = before != mask
        assert torch.equal(before[stands], after[stands])
    assert not (seen[-1] == mask).any()


def test_blocks_are_written_from_left_to_right(loaded):
    seen = []
    texts(loaded["LLaDA"], sampler={"block": 5, "steps": 6}, on_step=lambda step: seen.append(step.x[:, 1:].clone()))
    mask = loaded["LLaDA"].model.mask_id
    assert len(seen) == 6
    ends = {1: 5, 4: 10, 5: 12}  # steps by the places of the blocks: two, three and one
    for number, x in enumerate(seen):
        behind = next(end for last, end in ends.items() if number <= last)
        assert (x[:, behind:] == mask).all()
        if number in ends:
            assert not (x[:, :behind] == mask).any()
    with pytest.raises(RecipeError, match="3 blocks need at least as many steps"):
        texts(loaded["LLaDA"], sampler={"block": 5, "steps": 2})


def test_a_text_ends_before_the_first_control_token(loaded):
    tokenizer = loaded["LLaDA"].tokenizer
    turn = tokenizer.inner.convert_tokens_to_ids("<|turn|>")
    red = tokenizer.inner.encode("red boat", add_special_tokens=False)
    for end in (turn, tokenizer.end_id):
        assert tokenizer.text(tokenizer.words([tokenizer.start_id, *red, end, *red])) == "red boat"


@pytest.mark.parametrize("sampler", [{}, {"block": 4}, {"name": "random"}])
def test_more_steps_than_tokens_take_no_longer(loaded, sampler):
    steps = []
    many = texts(loaded["LLaDA"], samples=2, sampler={"steps": 64, **sampler}, on_step=steps.append)
    assert {step.steps for step in steps} == {12}
    one_each = texts(loaded["LLaDA"], samples=2, sampler={"steps": None, **sampler})
    assert [one.text for one in many] == [one.text for one in one_each]


def test_samplers_that_write_by_chance_have_all_their_steps(loaded):
    steps = []
    texts(loaded["LLaDA"], samples=1, sampler={"steps": 20, "name": "ancestral"}, on_step=steps.append)
    assert {step.steps for step in steps} == {20}


# Prompts.


@pytest.mark.parametrize("name", DECODERS)
def test_a_prompt_is_a_turn_where_the_model_has_a_template(name, loaded, monkeypatch):
    tokenizer = loaded[name].tokenizer
    contexts, model = [], loaded[name].model
    plainly = model.scores_of

    def seen(canvas, *, context=None, **more):
        contexts.append(context)
        return plainly(canvas, context=context, **more)

    monkeypatch.setattr(model, "scores_of", seen)
    for prompt in ("the boat", {"text": "the boat", "chat": False}, {"text": "the boat", "system": "a river"}):
        texts(loaded[name], prompt, samples=1, sampler={"new_tokens": 1})
    prompts = [tokenizer.inner.decode(context.ids[0]) for context in contexts]
    assert prompts[1] == f"{tokenizer.inner.bos_token}the boat"
    assert prompts[0].endswith("<|role|>assistant\n")
    assert "<|role|>user\nthe boat" in prompts[0]
    assert "system" not in prompts[0]
    assert prompts[2].index("a river") < prompts[2].index("the boat")


def test_prompts_are_dealt_out_in_turn(loaded):
    model, prompts = loaded["LLaDA"], ["the", "a river"]
    alone = [texts(model, prompt, samples=[number])[0].text for number, prompt in enumerate(prompts)]
    assert [sample.text for sample in texts(model, prompts, samples=2)] == alone


def test_prompts_that_cannot_be(tmp_path, loaded, model_folder):
    bare = dlmctl.load(write_llada(tmp_path / "base", chat=False))
    assert len(texts(bare, "the red", samples=1)) == 1  # goes on from it
    for prompt, message in (
        ({"text": "the", "chat": True}, "no chat template"),
        ({"text": "the", "system": "a"}, "needs a chat template"),
        ({"txt": "the"}, "text: Field required"),
        ({"text": 5}, "text"),
        (5, "prompt"),
        ("the " * 200, "more than the model's 128"),
        ("the " * 200, "Shorten the prompt or set sampler.new_tokens"),
    ):
        with pytest.raises(RecipeError, match=message):
            texts(bare, prompt)
    with pytest.raises(RecipeError, match=r"START and 200 new ones are .* 128\. Set sampler.new_tokens"):
        texts(bare, sampler={"new_tokens": 200})
    with pytest.raises(RecipeError, match="takes no prompt"):
        dlmctl.load(model_folder).generate(prompt="the", samples=1)
    with pytest.raises(RecipeError, match="takes no label"):
        bare.generate(label="glad")


def test_texts_have_room_without_a_setting(loaded):
    model = loaded["LLaDA"]  # 128 positions
    (sample,) = model.generate(samples=1, sampler={"steps": 2}, device="cpu")
    assert sample.text


def test_a_template_that_fails_is_one_message(tmp_path):
    folder = write_llada(tmp_path / "m")
    for template in ("{{ raise_exception('no') }}", "{% if %}", "{{ ''.__class__.__mro__ }}"):
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
        with pytest.raises(RecipeError, match="chat template fails"):
            texts(dlmctl.load(folder), "the")


# What users run.


def test_commands(tmp_path, folders):
    def run(*arguments):
        result = CliRunner().invoke(app, [str(part) for part in arguments])
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        return result.output

    output = run("info", folders["Dream"])
    assert "a checkpoint of Dream" in output
    assert "the next position" in output
    few = ["--set", "sampler.new_tokens=6", "--samples", 2]
    made = json.loads(run("generate", "--model", folders["LLaDA"], "--prompt", "the boat", "--json", *few))
    assert made["recipe"]["prompt"] == "the boat"
    assert made["recipe"]["sampler"]["steps"] is None  # the preset of models over tokens
    assert len(made["samples"]) == 2
    two = json.loads(run("generate", "--model", folders["LLaDA"], "--prompt", "a", "--prompt", "b", "--json", *few))
    assert two["recipe"]["prompt"] == ["a", "b"]
    run("generate", "--model", folders["Dream"], "--sampler", "margin", "--out", f"{tmp_path}/out/", *few)
    (tmp_path / "texts.txt").write_text("the red boat sinks .\na river .\n")
    figures = json.loads(run("nll", folders["LLaDA"], tmp_path / "texts.txt", "--json"))
    assert figures["unit"] == "token"
    assert figures["nats_given_length"] > 0


def test_a_checkpoint_of_others_is_not_saved_as_ours(tmp_path, loaded):
    with pytest.raises(UserError, match="copy its folder"):
        loaded["LLaDA"].save(tmp_path / "copy")


def test_a_tokenizer_that_is_not_there_is_asked_of_the_hub(tmp_path, monkeypatch):
    folder = write_mdlm(tmp_path / "m")
    asked, elsewhere = [], tmp_path / "gpt2"
    elsewhere.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(elsewhere / name)
    monkeypatch.setattr(
        "dlmctl.checkpoint.vendors.load.hub_files", lambda *arguments: asked.append(arguments) or elsewhere
    )
    assert from_pretrained(folder).tokenizer.split("a red") == ["a", "red"]
    assert asked[0][0] == "openai-community/gpt2"


# Folders that are damaged or meant to do harm.


def fault(folder):
    started = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        from_pretrained(folder)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    assert "trust_remote_code" not in message
    assert "'network." not in message  # tensors have the names of transformers or of their file
    assert time.perf_counter() - started < 20  # no waiting, no counting to a billion
    return message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "gidd", "which cannot be read"),
        ("model_type", "\x1b[31m" * 50, "which cannot be read"),
        ("d_model", 10**9, "d_model"),
        ("d_model", "wide", "d_model"),
        ("d_model", 1_048_576, "has the shape"),
        ("d_model", 33, "does not divide"),
        ("n_heads", 0, "n_heads"),
        ("n_kv_heads", 3, "does not divide"),
        ("n_layers", 10**6, "n_layers"),
        ("n_layers", 100, "is missing"),
        ("n_layers", 1, "has no place"),
        ("embedding_size", 10**12, "embedding_size"),
        ("embedding_size", 100, "different checkpoints"),
        ("mask_token_id", 10**5, "different checkpoints"),
        ("mask_token_id", -1, "mask_token_id"),
        ("mask_token_id", None, "which token is MASK"),
        ("clip_qkv", 0.01, "clip_qkv"),
        ("rope_scaling", {"type": "linear", "factor": 8.0}, "rope_scaling"),
        ("rope_parameters", {"rope_type": "yarn", "factor": 4.0}, "rope_parameters.rope_type"),
        ("rope_parameters", {"full_attention": {"rope_theta": 1e4}}, "rope_parameters.full_attention"),
        ("quantization_config", {"quant_method": "fp8"}, "quantised weights cannot be read"),
        ("rms_norm_eps", float("nan"), "rms_norm_eps"),
        ("rope_theta", "far", "rope_theta"),
        ("block_type", "sequential", "block_type"),
        ("include_bias", True, "include_bias"),
        ("alibi", True, "alibi"),
        ("max_sequence_length", 10**18, "max_sequence_length"),
    ],
)
def test_configurations_that_no_checkpoint_has(tmp_path, key, value, message):
    folder = write_llada(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    assert message in fault(folder)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
@pytest.mark.parametrize("name", DECODERS)
def test_quantised_weights_are_refused(tmp_path, name, dtype):
    folder = WRITERS[name](tmp_path / "m")
    state = load((folder / "model.safetensors").read_bytes())
    key = next(key for key in state if "q_proj" in key)
    save_file({**state, key: state[key].to(dtype)}, folder / "model.safetensors")
    assert f"the tensor {key!r} is {str(dtype)[6:]}, and quantised weights cannot be read" in fault(folder)


@pytest.mark.parametrize("name", DECODERS)
def test_the_base_of_the_positions_stands_where_transformers_5_writes_it(tmp_path, name):
    folder = WRITERS[name](tmp_path / "m")
    path, ids = folder / "config.json", torch.arange(5, 17)[None]
    config = json.loads(path.read_text())
    own = from_pretrained(folder).model.logits(ids)
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}
    path.write_text(json.dumps({**{key: config[key] for key in config if key != "rope_theta"}, **rope}))
    logits = from_pretrained(folder).model.logits(ids)
    path.write_text(json.dumps({**config, "rope_theta": 100.0}))
    assert torch.equal(logits, from_pretrained(folder).model.logits(ids))
    assert not torch.allclose(logits, own, atol=1e-3)


def test_a_mask_that_ends_texts_is_refused(tmp_path):
    folder = write_llada(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "mask_token_id": config["eos_token_id"]}))
    assert "MASK and END are the same token" in fault(folder)


def test_heads_that_do_not_divide_the_width(tmp_path):
    assert "even parts" in fault(write_mdlm(tmp_path / "n", n_heads=5))


TOKENIZERS = ["no tokenizer", "cut short", "no object", "a pipe", "deep", "other roles", "huge id", "huge added id"]


@pytest.mark.parametrize("change", TOKENIZERS)
def test_tokenizers_that_are_none(tmp_path, change):
    folder = write_llada(tmp_path / "m")
    whole, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    message = "no tokenizer could be read"
    if change == "no tokenizer":
        whole.unlink()
        message = "tokenizer.json is missing"
    elif change == "cut short":
        whole.write_text(whole.read_text()[:500])
        message = "cannot be read"
    elif change == "no object":
        whole.write_text("[]")
        message = "must hold a JSON object"
    elif change == "a pipe":
        whole.unlink()
        os.mkfifo(whole)
        message = "it is a pipe"
    elif change == "deep":
        whole.write_text('{"a":' * 200_000)
        message = "cannot be read"
    elif change == "other roles":
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token": "<nowhere>"}))
        message = "is not among its tokens"
    else:
        content = json.loads(whole.read_text())
        if change == "huge id":
            content["model"]["vocab"]["zzz"] = 2**31
        else:
            content["added_tokens"][0]["id"] = 2**31
        whole.write_text(json.dumps(content))
        message = "no vocabulary is that large"
    assert message in fault(folder)


@pytest.mark.parametrize("change", ["gap", "no id", "no merges", "merges of others"])
def test_tokenizers_in_two_files_that_are_none(tmp_path, change):
    folder = write_dream(tmp_path / "m")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    message = "no tokenizer could be read"
    if change == "gap":
        settings["added_tokens_decoder"]["9999"] = {"content": "<far>", "special": True}
        message = "would have the id"
    elif change == "no id":
        settings["added_tokens_decoder"]["x"] = {"content": "<far>"}
        message = "id to token"
    elif change == "no merges":
        (folder / "merges.txt").unlink()
        message = "merges.txt: is missing"
    else:
        (folder / "merges.txt").write_text("zz qq\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert message in fault(folder)


@pytest.mark.parametrize("change", ["NaN", "a tensor less", "another shape", "a pickle", "cut short"])
def test_weights_that_are_none(tmp_path, name, change):
    folder = WRITERS[name](tmp_path / "m")
    path = folder / "model.safetensors"
    state = load(path.read_bytes())
    last = next(key for key in state if key.endswith(("ln_f.weight", "model.norm.weight", "norm_final.weight")))
    if change == "NaN":
        state[last][0] = float("nan")
    elif change == "a tensor less":
        del state[last]
    elif change == "another shape":
        state[last] = torch.ones(7)
    message = {"NaN": "not finite", "a tensor less": "is missing", "another shape": "has the shape"}
    if change == "a pickle":
        path.unlink()
        torch.save(state, folder / "pytorch_model.bin")
        if name in ("MDLM", "SEDD", "DiffuGPT"):  # as for encoders, numbers are read
            table = state[next(key for key in state if "vocab_embed" in key or "embed_tokens" in key)]
            assert torch.equal(from_pretrained(folder).model.network.table, table)
        else:
            assert "the weights are missing" in fault(folder)
    elif change == "cut short":
        path.write_bytes(path.read_bytes()[:1000])
        assert "is damaged" in fault(folder)
    else:
        save_file(state, path)
        assert message[change] in fault(folder)
