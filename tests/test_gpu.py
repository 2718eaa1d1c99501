"""On a GPU the same texts as on the CPU in float32, whatever shares their batch, recorded or not.

Run by ``pytest -m gpu``, as ``benchmarks/gpu.sh`` does. Where there is none the bodies run on the CPU, which holds them
to be right.
"""

from __future__ import annotations

import warnings

import pytest
import torch

from controls import Length, Pos
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.diffusion.noise import Draw
from dlmctl.recipe.presets import settings_of
from dlmctl.sampling.draw import draw_texts
from dlmctl.sampling.graphs import Recorded, recordable
from dlmctl.sampling.plan import Plan

TAGS = ["DET", "ADJ", "NOUN", "VERB", "DET", "NOUN", "PUNCT"]
CONTROLS = {"pos": Pos(tags=TAGS), "length": Length(6)}
TEXTS = 4
# Products of matrices add up in another order on another device, and guidance makes the difference grow from step to
# step, so that of a few texts one may come to have another word.
ALIKE = TEXTS - 1

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
on_each = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])])
on_gpu = [pytest.mark.gpu, no_gpu]


@pytest.fixture(scope="module", params=["e2e", "everyday"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def on(name):
    """The model on a device, loaded once for each."""
    loaded = {}

    def model(device):
        if device not in loaded:
            loaded[device] = from_pretrained(name, device)
        return loaded[device]

    return model


def drawn(pretrained, control, *, batch=TEXTS, seen=None, **changes):
    """The words of each text, in order."""
    chosen = settings_of("fast", pretrained.model.family)
    steps = {} if pretrained.model.family == "masked" else {"steps": 8}
    sampler = chosen.sampler.model_copy(update={"precision": "fp32", **steps, **changes})
    plan = Plan(pretrained, control, sampler, chosen.guidance, batch)
    keep = None if seen is None else lambda step: seen.append(step.estimate.x0.detach().cpu())
    found = draw_texts(plan, [Draw(0, sample) for sample in range(TEXTS)], on_step=keep)
    return [one.words for one in sorted(found, key=lambda one: one.draw.sample)]


def alike(texts, others):
    return sum(one == other for one, other in zip(texts, others, strict=True))


@on_each
@pytest.mark.parametrize("control", CONTROLS)
def test_texts_are_those_of_the_cpu(on, device, control):
    here, there = [], []
    texts = drawn(on(device), CONTROLS[control], seen=here)
    others = drawn(on("cpu"), CONTROLS[control], seen=there)
    assert alike(texts, others) >= (TEXTS if device == "cpu" else ALIKE)
    assert torch.allclose(here[0], there[0], atol=1e-3)


@on_each
def test_a_text_is_the_same_in_any_company(on, device):
    together, alone = (drawn(on(device), CONTROLS["pos"], batch=batch) for batch in (TEXTS, 1))
    assert alike(together, alone) >= ALIKE


@on_each
def test_recorded_steps_write_the_same_texts(on, device):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what cannot be recorded says so
        found = [drawn(on(device), CONTROLS["pos"], compile=recorded) for recorded in (True, False)]
    assert alike(*found) == TEXTS


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_what_cannot_be_recorded_is_called_as_it_is_and_spoils_nothing(device):
    """A wait breaks the recording off; the next one, in memory of its own, works."""

    def waits(x):
        return (x * float(x.sum()),)

    x = torch.ones(2, device=device)
    with recordable(x.device):
        broken, sound = Recorded(True), Recorded(True)
        with pytest.warns(UserWarning, match="not recorded"):
            found = [broken(None, waits, x * number)[0].tolist() for number in range(4)]
        assert found == [[0.0, 0.0], [2.0, 2.0], [8.0, 8.0], [18.0, 18.0]]
        assert not broken.enabled
        again = [sound(None, lambda x: (x + 1,), x * number)[0].tolist() for number in range(4)]
        assert again == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]]
        assert len(sound.graphs) == 1
