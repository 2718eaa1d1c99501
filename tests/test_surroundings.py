"""What a program around a run has set of torch: it changes no text, and a run changes nothing of it."""

from __future__ import annotations

import json
import os
import pickle
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Barrier, Thread

import pytest
import torch

import dlmctl
from controls import Classifier, Pos
from dlmctl.annotators.scorer import load_scorer, token_nats
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.resolve import resolve
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.generation.generate import generate
from dlmctl.generation.generator import Generator
from dlmctl.generation.identity import weights_digest
from dlmctl.recipe.settings import SamplerSettings
from tests.diffusion.tiny_masked import TOKENIZER, tiny_masked

TAGS = Pos(tags=["DET", "NOUN", "VERB"])
SHORT = SamplerSettings(steps=4, precision="fp32")


def words(model, control=TAGS, sampler=SHORT):
    drawn = generate(control, model=model, samples=2, seed=1, sampler=sampler, device="cpu")
    return [(sample.words, sample.fluency) for sample in drawn]


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def wanted():
    return words(from_pretrained("e2e"))


@pytest.mark.parametrize(
    "mode",
    [
        torch.inference_mode,
        torch.no_grad,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: default_dtype(torch.float64),
        lambda: default_dtype(torch.bfloat16),
        lambda: torch.device("meta"),
    ],
    ids=["inference", "no_grad", "autocast", "float64", "bfloat16", "device"],
)
def test_a_mode_around_a_run_changes_no_text(wanted, mode):
    with mode():
        model = from_pretrained("e2e")
        assert words(model) == wanted
    assert words(model) == wanted


@pytest.mark.parametrize(
    "mode",
    [lambda: default_dtype(torch.float64), lambda: default_dtype(torch.bfloat16), torch.inference_mode,
     lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["float64", "bfloat16", "inference", "autocast"],
)  # fmt: skip
def test_a_scorer_is_loaded_and_asked_in_float32(mode):
    """What is loaded is kept for later runs, so it must not depend on the modes at that time."""

    def scored():
        load_scorer.cache_clear()
        return token_nats(*load_scorer(folder), [["the", "dog", "sleeps", "."]])

    folder = resolve("e2e") / "scorer"
    wanted = scored()
    with mode():
        assert scored() == wanted
    weights = list(load_scorer(folder)[0].parameters())
    assert all(weight.dtype == torch.float32 and not weight.is_inference() for weight in weights)


def test_a_generator_under_another_default_dtype_returns_the_same():
    recipe = {
        "model": "everyday",
        "samples": 1,
        "sampler": {"precision": "fp32"},
        "controls": [{"contains": ["{word}"]}],
    }
    rows = {"word": ["window"], "index": [0]}
    with default_dtype(torch.float64):
        drawn = Generator(recipe)(rows)  # loads the model and its judges
    assert drawn == Generator(recipe)(rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"controls": [{"pattern": "a b"}, {"contains": ["c"]}]},
        {"controls": [{"contains": ["{word}"]}], "targets": [{"word": "dog"}, {"word": "qqqzzz"}]},
    ],
    ids=["recipe", "table"],
)
def test_what_is_impossible_is_said_under_another_default_device(settings, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps({"samples": 1, **settings}))

    def reasons():
        try:
            return [sample.unmet for sample in dlmctl.run(recipe)]
        except dlmctl.UserError as error:
            return str(error)

    with torch.device("meta"):
        under_another = reasons()
    assert under_another == reasons()


def test_the_default_dtype_is_set_back_by_the_last_thread_that_leaves():
    seen, both_in, one_out = [], Barrier(2), Barrier(2)

    def leave_first():
        with own_modes():
            both_in.wait(10)
        one_out.wait(10)

    with default_dtype(torch.float64):
        thread = Thread(target=leave_first)
        thread.start()
        with own_modes():
            both_in.wait(10)
            one_out.wait(10)
            seen.append(torch.get_default_dtype())
        thread.join()
    assert seen == [torch.float32]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_process_forked_after_use_computes_with_one_thread():
    """With more, it would wait forever for OpenMP's threads, which stay behind."""
    threads = torch.get_num_threads()
    with own_modes():
        torch.set_num_threads(2)
    child = os.fork()
    if child == 0:
        with own_modes():
            os._exit(torch.get_num_threads())
    torch.set_num_threads(threads)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("is_inside", [False, True])
def test_a_process_forked_while_a_thread_computes_gets_the_default_dtype_back(is_inside):
    """The thread stays behind, so it cannot set it back; the one that forks may be inside, too."""
    inside, done = Barrier(2), Barrier(2)

    def compute():
        with own_modes():
            inside.wait(10)
            done.wait(10)

    with default_dtype(torch.float64):
        thread = Thread(target=compute)
        thread.start()
        inside.wait(10)
        with own_modes() if is_inside else nullcontext():
            child = os.fork()
            if child == 0:
                during = torch.get_default_dtype()
                if not is_inside:
                    with own_modes():
                        during = torch.get_default_dtype() if during == torch.float64 else None
                    os._exit((during, torch.get_default_dtype()) != (torch.float32, torch.float64))
        if child == 0:
            os._exit((during, torch.get_default_dtype()) != (torch.float32, torch.float64))
        done.wait(10)
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("model", "control"), [("e2e", TAGS), ("everyday", Classifier(label="positive", name="sentiment"))]
)
def test_random_numbers_of_the_program_are_left_alone(model, control):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    words(from_pretrained(model), control, SamplerSettings(steps=4, precision="fp32"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_masked_model_can_be_sent_to_another_process():
    model = tiny_masked()
    sent = pickle.loads(pickle.dumps(model))
    ids = torch.tensor([[0, len(TOKENIZER), 4, 1]])
    assert torch.equal(sent.logits(ids), model.logits(ids))
    assert sent.state_dict().keys() == model.state_dict().keys()


def test_weights_are_hashed_once_and_again_when_they_change(monkeypatch):
    """For billions of weights it takes seconds, and each call of ``dlmctl.run`` in a server asks for the digest."""
    pretrained = dlmctl.Model(tiny_masked(), TOKENIZER, Path())
    first = weights_digest(pretrained)
    with monkeypatch.context() as patched:
        patched.setattr("dlmctl.generation.identity.hashlib", None)
        assert weights_digest(pretrained) == first
    weights = next(pretrained.model.parameters())
    with torch.no_grad():
        weights.add_(1)
    changed = weights_digest(pretrained)
    assert changed != first
    with torch.no_grad():
        weights.copy_(weights - 1)
        weights.round_(decimals=3)
    assert weights_digest(pretrained) not in (first, changed)


def test_what_a_callback_raises_ends_the_call_and_leaves_the_model_usable():
    """As docs/scale.md says of services that cancel requests."""
    model = dlmctl.Model(tiny_masked(), TOKENIZER, Path())
    before = words(model, None)
    stop = TimeoutError("too late")

    def cancel(*_):
        raise stop

    for callback in ("progress", "on_step", "watch"):
        with pytest.raises(TimeoutError) as caught:
            model.generate(samples=2, sampler=SHORT, device="cpu", **{callback: cancel})
        assert caught.value is stop
    assert words(model, None) == before
