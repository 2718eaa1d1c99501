import pytest
import torch

from controls import Pos
from controls.pos import PosParams
from dlmctl.diffusion.layout import lay_out
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import build_control, generate
from dlmctl.recipe.recipe import read_recipe
from dlmctl.recipe.settings import Guidance, SamplerSettings

TAGS = ["DET", "NOUN", "VERB", "ADJ", "NOUN"]
QUICK = SamplerSettings(steps=4)
# Strong guidance of an untrained model leaves the noise nothing to decide.
GENTLE = Guidance(scale=1.0, updates=1)


def texts(result):
    return [sample.text for sample in result]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("control", [None, Pos(tags=TAGS)])
def test_same_seed_same_texts_at_any_batch_size(pretrained, control):
    runs = [
        texts(generate(control, model=pretrained, samples=6, seed=3, sampler=QUICK, guidance=GENTLE, batch_size=size))
        for size in (1, 4, 6)
    ]
    assert runs[0] == runs[1] == runs[2]
    assert texts(generate(control, model=pretrained, samples=6, seed=4, sampler=QUICK, guidance=GENTLE)) != runs[0]


@pytest.mark.usefixtures("float64")
def test_more_samples_begin_with_the_same_texts(pretrained):
    few = texts(generate(model=pretrained, samples=3, sampler=QUICK))
    assert texts(generate(model=pretrained, samples=7, sampler=QUICK))[:3] == few


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("method", ["words", "latent", "langevin"])
def test_a_pos_target_fixes_the_length(pretrained, name, method):
    sampler = SamplerSettings(name=name, steps=4)
    result = generate(
        Pos(tags=TAGS), model=pretrained, samples=4, sampler=sampler, guidance=Guidance(method=method, updates=2)
    )
    assert {len(sample.words) for sample in result} == {len(TAGS)}


def test_guidance_lowers_the_energy(pretrained):
    """The classifier is untrained here, but its energy is what guidance is to lower."""
    from dlmctl.control.state import ControlState, Setting
    from dlmctl.diffusion.layout import Layout

    control = Pos(tags=TAGS).only(range(8))
    energies = {}
    for scale in (0.0, 4.0):
        result = generate(
            control, model=pretrained, samples=8, sampler=QUICK, guidance=Guidance(scale=scale, updates=3)
        )
        x = torch.stack([torch.from_numpy(sample.latent) for sample in result])
        draws, layouts = [Draw(0, i) for i in range(8)], [Layout(x.shape[1], len(TAGS))] * 8
        control.prepare(Setting(pretrained.model, pretrained.tokenizer, pretrained.folder, draws, layouts))
        state = ControlState(
            x,
            torch.zeros(8),
            tokenizer=pretrained.tokenizer,
            embeddings=pretrained.model.embeddings,
            x0=lambda x=x: x,
            word_log_probs=lambda x=x: pretrained.model.rounding_logits(x).log_softmax(-1),
        )
        energies[scale] = control.energy(state).mean().item()
    assert energies[4.0] < energies[0.0]


def test_each_sample_has_its_own_target(pretrained):
    control = Pos.each([PosParams(tags=["NOUN"] * n) for n in (3, 5, 12)])
    result = generate(control, model=pretrained, samples=6, sampler=QUICK)
    assert [len(sample.words) for sample in result] == [3, 5, 12, 3, 5, 12]


def test_no_unknown_words_and_no_structure_tokens(pretrained):
    for sample in generate(model=pretrained, samples=8, sampler=QUICK):
        assert not {"UNK", "START", "END", "PAD"} & set(sample.words)


def test_canvases_follow_the_training_lengths(pretrained):
    config = pretrained.model.config
    canvases = {lay_out(config, None, Draw(0, sample)).canvas for sample in range(50)}
    assert canvases == {8, 16}  # sentences of 5 to 8 words, START and END, in multiples of 8


def test_a_target_longer_than_the_model_is_refused_before_sampling(pretrained):
    with pytest.raises(RecipeError, match="40 words, but the model holds at most 30"):
        generate(Pos(tags=["NOUN"] * 40), model=pretrained, samples=1)


def test_contradicting_lengths_are_refused(pretrained):
    with pytest.raises(RecipeError, match="contradict"):
        generate(Pos(tags=["NOUN"]) & Pos(tags=["NOUN"] * 3), model=pretrained, samples=1)


def test_missing_weights_name_the_command_that_makes_them(pretrained, tmp_path):
    from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained

    save_pretrained(pretrained.model, pretrained.tokenizer, tmp_path / "bare")
    with pytest.raises(UserError, match="dlmctl train control pos"):
        generate(Pos(tags=TAGS), model=from_pretrained(tmp_path / "bare"), samples=1)


def test_an_unknown_device_is_refused(pretrained):
    with pytest.raises(UserError, match="device 'toaster'"):
        generate(model=pretrained, device="toaster")


def test_every_step_of_every_batch_is_seen(pretrained):
    seen, told = [], []
    generate(
        model=pretrained,
        samples=5,
        sampler=QUICK,
        batch_size=2,
        on_step=lambda step: seen.append(step.number),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1][0] == told[-1][1] == len(seen)
    assert seen[:4] == [0, 1, 2, 3]


def test_a_recipe_builds_the_control_it_describes():
    recipe, _ = read_recipe(
        "controls:\n"
        "  - any: [{pos: {tags: [DET]}}, {pos: {tags: [NOUN]}, weight: 2}]\n"
        "  - not: {pos: {tags: [VERB]}}\n",
        "mine.yaml",
    )
    control = build_control(recipe.control_specs())
    assert control.name == "all"
    assert [part.name for part in control.parts] == ["any", "not"]
    assert [part.weight for part in control.parts[0].parts] == [1.0, 2]
