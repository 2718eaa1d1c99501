"""Controls inside other samplers: Dream's loop with its hook, and generate of transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList

from controls import Contains, Length, Pattern, Pos
from dlmctl import LogitsControl, UserError
from dlmctl.checkpoint.pretrained import from_pretrained
from tests.checkpoint.tiny_gemma import tiny_gemma
from tests.checkpoint.tiny_vendors import bytes_tokenizer, write_dream
from tests.sampling.token_controls import Likes, Only, Reads


@pytest.fixture(scope="module")
def dream(tmp_path_factory):
    return from_pretrained(write_dream(tmp_path_factory.mktemp("dream") / "m"))


def diffused(dream, prompt, new, steps, hook=None):
    """Dream's loop: shifted logits, the hook, then the surest places, a share of them per step (temperature 0)."""
    mask = dream.model.mask_id
    x = torch.cat([prompt, torch.full((len(prompt), new), mask)], 1)
    for step in range(steps):
        logits = dream.model.logits(x)
        if hook is not None:
            logits = hook(step, x, logits)
        surest, tokens = logits.softmax(-1).max(-1)
        is_open = x == mask
        count = -(-int(is_open[0].sum()) // (steps - step))
        places = surest.masked_fill(~is_open, -1).topk(count, 1).indices
        x = x.scatter(1, places, tokens.gather(1, places))
    return x[:, prompt.shape[1] :]


def test_dream_with_a_hook_satisfies_an_exact_control(dream):
    prompt = torch.tensor([[dream.tokenizer.start_id, 5, 6], [dream.tokenizer.start_id, 7, 8]])
    free = diffused(dream, prompt, 8, 4)
    assert not set(free.flatten().tolist()) <= {20, 21, 22}
    control = LogitsControl(Only(tokens=[20, 21, 22]), dream.tokenizer.inner)
    for steps in (8, 3):
        assert set(diffused(dream, prompt, 8, steps, control.hook).flatten().tolist()) <= {20, 21, 22}
    # Another call with another number of tokens and rows begins anew.
    assert diffused(dream, prompt[:1], 5, 5, control.hook).shape == (1, 5)


def test_a_required_word_is_not_always_at_its_likeliest_place(dream):
    prompt = torch.tensor([[dream.tokenizer.start_id, 5, 6]] * 12)

    def places(seed):
        hook = LogitsControl(Contains("boat"), dream.tokenizer.inner, seed=seed).hook
        texts = [dream.tokenizer.words(row) for row in diffused(dream, prompt, 8, 4, hook).tolist()]
        return [words.index("boat") for words in texts]

    assert len(set(places(0))) > 2
    assert places(0) == places(0)
    assert places(0) != places(1)


def test_an_energy_guides_dream(dream):
    prompt = torch.tensor([[dream.tokenizer.start_id, 5, 6]])
    wanted = [20, 21]
    free = diffused(dream, prompt, 8, 8)
    guided = diffused(dream, prompt, 8, 8, LogitsControl(Likes(tokens=wanted), dream.tokenizer.inner).hook)
    of = lambda found: sum(token in wanted for token in found[0].tolist())  # noqa: E731
    assert of(guided) > of(free)
    off = LogitsControl(Likes(tokens=wanted), dream.tokenizer.inner, guidance={"scale": 0.0})
    assert torch.equal(diffused(dream, prompt, 8, 8, off.hook), free)


def test_written_tokens_and_the_prompt_stay(dream):
    hook = LogitsControl(Only(tokens=[20, 21]), dream.tokenizer.inner).hook
    mask = dream.model.mask_id
    x = torch.tensor([[5, 6, mask, mask, mask]])
    logits = dream.model.logits(x)
    moved = hook(0, x, logits)
    assert torch.equal(moved[:, :2], logits[:, :2])
    x[0, 3] = 20
    assert hook(1, x, logits).softmax(-1)[0, 3, 20] == 1


def ends(dream, control, written=(), places=12, seed=0):
    """Where a text of Dream's loop may end: the probability of its end token at each place, in the first step."""
    hook, inner = LogitsControl(control, dream.tokenizer.inner, seed=seed).hook, dream.tokenizer
    x = torch.tensor([[5, 6, *[dream.model.mask_id] * places]])
    for place in written:
        x[0, place] = 20
    logits = torch.randn(1, x.shape[1], len(inner), generator=torch.Generator().manual_seed(0))
    return hook(0, x, logits).softmax(-1)[0, 2:, inner.end_id]


def test_the_number_of_tokens_is_settled_where_a_control_limits_the_size_of_the_text(dream):
    counts = set()
    for seed in range(12):
        end = ends(dream, Length(4), seed=seed)
        assert set(end.tolist()) <= {0.0, 1.0}
        assert float(end.max()) == 1
        counts.add(int(end.argmax()))
    assert len(counts) > 2
    # What is written may be anywhere in the text, which may take all places.
    assert any(float(ends(dream, Length(4), written=[8], seed=seed).max()) < 1 for seed in range(12))


def test_a_text_may_take_all_places(dream):
    (letter,) = dream.tokenizer.encode_text("z")[1:-1]
    x = torch.full((1, 3), dream.model.mask_id)
    found = LogitsControl(Pattern("zzz"), dream.tokenizer.inner).hook(0, x, torch.zeros(1, 3, 400))
    assert (found.argmax(-1) == letter).all()


@pytest.mark.parametrize("canvases", [1, 2])
def test_diffusion_gemma_satisfies_an_exact_control(canvases):
    gemma, tokenizer = tiny_gemma()
    prompt = torch.tensor([[tokenizer.bos_token_id, 5, 6], [tokenizer.bos_token_id, 7, 8]])
    control = LogitsControl(Only(tokens=[20, 21, 22]), tokenizer)
    size = gemma.config.canvas_length
    settings = {"max_new_tokens": canvases * size, "max_denoising_steps": 4}
    for rows in (2, 1):  # again, for other rows
        torch.manual_seed(0)
        found = gemma.generate(prompt[:rows], logits_processor=LogitsProcessorList([control]), **settings).sequences
        assert set(found[:, 3 : 3 + size].flatten().tolist()) <= {20, 21, 22}
        if canvases == 2:
            assert not set(found[:, 3 + size :].flatten().tolist()) <= {20, 21, 22}


def test_a_prompt_with_a_finished_answer_is_a_new_one():
    _, tokenizer = tiny_gemma()
    prompt, scores = torch.tensor([[tokenizer.bos_token_id, 5, 6]]), torch.zeros(1, 8, len(tokenizer))
    answer = torch.tensor([[20, 21, 22, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * 4]])
    cut = torch.tensor([[20, 21] * 4])
    for behind, steps, inside in ((cut, 4, False), (answer, 4, True), (cut, 5, True)):
        control = LogitsControl(Only(tokens=[20, 21, 22]), tokenizer)
        for step in (4, 3, 2, 1):
            control(prompt, scores, step)
        found = control(torch.cat([prompt, behind], 1), scores, steps)
        assert bool(found[..., 23].isneginf().all()) == inside


def test_nothing_is_read_from_the_current_folder(dream, tmp_path, monkeypatch):
    (tmp_path / "controls" / "pos").mkdir(parents=True)
    (tmp_path / "controls" / "pos" / "model.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    control = LogitsControl(Pos("DET NOUN"), dream.tokenizer.inner)
    with pytest.raises(UserError, match=r"^LogitsControl: controls are not trained for this kind of model"):
        control(torch.tensor([[1, 2]]), torch.zeros(1, 4, 400), 3)


def test_an_energy_guides_diffusion_gemma():
    gemma, tokenizer = tiny_gemma()
    prompt = torch.tensor([[tokenizer.bos_token_id, 5, 6]])
    settings = {"max_new_tokens": gemma.config.canvas_length, "max_denoising_steps": 4}
    counts = []
    for scale in (0.0, 4.0):
        control = LogitsControl(Likes(tokens=[20, 21]), tokenizer, guidance={"scale": scale})
        torch.manual_seed(0)
        found = gemma.generate(prompt, logits_processor=LogitsProcessorList([control]), **settings).sequences[0, 3:]
        counts.append(sum(token in (20, 21) for token in found.tolist()))
    assert counts[1] > counts[0]


@pytest.mark.parametrize(
    "mode",
    [torch.inference_mode, lambda: torch.device("meta"), lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["inference", "device", "autocast"],
)
def test_a_mode_of_the_program_around_it_changes_nothing(dream, mode):
    """Guidance needs gradients, and its own tensors on the device of the logits."""
    mask, inner, table = dream.model.mask_id, dream.tokenizer.inner, dream.model.embeddings
    x, logits = torch.tensor([[5, 6, mask, mask, mask]]), torch.randn(1, 5, 400, generator=torch.manual_seed(0))

    def steered():
        own = torch.empty_like(logits, device="cpu").copy_(logits)  # made in the mode, as a model's are
        reads = LogitsControl(Reads(tokens=[]), inner, embeddings=torch.empty_like(table).copy_(table))
        likes = LogitsControl(Likes(tokens=[20, 21]), inner)
        outside = [likes(x[:, :2], own[:, 2:], step) for step in (3, 2)]
        return [torch.cat([logits[:, :2], moved], 1) for moved in outside] + [reads.hook(0, x, own)]

    expected = steered()
    with mode():
        found = steered()
    assert torch.get_default_device() == torch.device("cpu")
    for tensor, same in zip(found, expected, strict=True):
        assert torch.equal(tensor, same)
        assert not torch.equal(tensor[:, 2:], logits[:, 2:])


def test_impossible_arguments(dream):
    inner = dream.tokenizer.inner
    with pytest.raises(UserError, match="not a control"):
        LogitsControl("contains", inner)
    with pytest.raises(UserError, match="fast tokenizer"):
        LogitsControl(Only(tokens=[3]), bytes_tokenizer([]))
    control = LogitsControl(Only(tokens=[3]), inner)
    with pytest.raises(UserError, match="of one position"):
        control(torch.tensor([[1, 2]]), torch.zeros(1, 400), 3)
    with pytest.raises(UserError, match="no token is MASK"):
        control.hook(0, torch.tensor([[1, 2]]), torch.zeros(1, 2, 400))
    with pytest.raises(UserError, match="the tokenizer of the model"):
        control(torch.tensor([[1, 2]]), torch.zeros(1, 4, 100), 3)
    with pytest.raises(UserError, match="reads the embeddings"):
        LogitsControl(Reads(tokens=[]), inner)(torch.tensor([[1, 2]]), torch.zeros(1, 4, 400), 3)
    given = LogitsControl(Reads(tokens=[]), inner, embeddings=dream.model.embeddings)
    assert given(torch.tensor([[1, 2]]), torch.randn(1, 4, 400), 3).shape == (1, 4, 400)


@pytest.mark.parametrize("guidance", [{"scal": 1}, {"scale": "x"}, 3])
def test_invalid_guidance_is_one_message(dream, guidance):
    with pytest.raises(UserError, match="guidance"):
        LogitsControl(Only(tokens=[20]), dream.tokenizer.inner, guidance=guidance)
