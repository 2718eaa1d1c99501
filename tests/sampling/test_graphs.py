"""Recorded steps give the same texts; a recording fixes everything that Python decided during it."""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.calls import GPU_CONSTANTS
from controls import Characters, Contains, Infill, Length, Pos, Semantic, SyntaxTree
from dlmctl import Control, ControlParams, Energy, Prepared, UserError
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control import nan_checks
from dlmctl.control.automata import pairs
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.noise import Draw
from dlmctl.recipe.presets import settings_of
from dlmctl.sampling import graphs, latent_draw, masked_draw
from dlmctl.sampling.draw import draw_texts
from dlmctl.sampling.graphs import Recorded
from dlmctl.sampling.plan import Plan

NINE = Length(9)
CONTROLS = {
    "free": None,
    "pos": Pos(tags=["DET", "NOUN", "VERB|AUX", "*", "PUNCT"]),
    "tree": SyntaxTree(tree="(S (NP (DT a) (NN pub)) (VP (VBZ opens)) (. .))"),
    "semantic": Semantic(food="Italian") & NINE,
    "infill": Infill("The ___{2} is a ___ pub ."),
    "contains": Contains("riverside", "cheap pub") & NINE,
}


class Taped(TorchDispatchMode):
    """A fake CUDA graph: the calls of one run, with their numbers and addresses."""

    made = 0

    def __init__(self, function, inputs, pool):
        super().__init__()
        self.inputs = [None if one is None else one.clone() for one in inputs]
        self.calls = []
        with self:
            self.outputs = function(*self.inputs)
        Taped.made += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # Of times the host has its own copy; all else would have to be waited for.
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype != torch.float64:
            raise RuntimeError("a number is read back")
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found

    def __call__(self, inputs):
        for own, given in zip(self.inputs, inputs, strict=True):
            if own is not None:
                own.copy_(given)
        now = {}

        def put(one):
            return now.get(id(one), one) if isinstance(one, torch.Tensor) else one

        for func, args, kwargs, before in self.calls:
            after = func(*tree_map(put, args), **tree_map(put, kwargs))
            for one, other in zip(tree_leaves(before), tree_leaves(after), strict=True):
                if isinstance(one, torch.Tensor) and one is not other:
                    now[id(one)] = other
        return tree_map(put, self.outputs)


@pytest.fixture
def as_if_recorded(monkeypatch):
    monkeypatch.setattr(graphs, "_Graph", Taped)
    monkeypatch.setattr(graphs, "_SPARE", [SimpleNamespace(handle=None) for _ in range(50)])
    for module in (latent_draw, masked_draw):
        monkeypatch.setattr(module, "is_faster_recorded", lambda device, family, steps: True)
    monkeypatch.setattr(Taped, "made", 0)
    monkeypatch.setattr(nan_checks, "AT_ONCE_CPU", False)


@pytest.fixture(scope="module")
def e2e():
    return from_pretrained("e2e")


def drawn(pretrained, control, preset="fast", family="gaussian", **changes):
    chosen = settings_of(preset, family)
    sampler = chosen.sampler.model_copy(update={"precision": "fp32", **changes})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = Plan(pretrained, control, sampler, chosen.guidance, 3)
        return [(one.words, one.problem) for one in draw_texts(plan, [Draw(0, at) for at in range(3)])]


@pytest.mark.parametrize("name", CONTROLS)
def test_recorded_steps_give_the_same_texts(e2e, as_if_recorded, name):
    found = drawn(e2e, CONTROLS[name], steps=6)
    assert Taped.made > 0
    made = Taped.made
    assert drawn(e2e, CONTROLS[name], steps=6, compile=False) == found
    assert Taped.made == made


@pytest.mark.parametrize("most", [0, pairs.MOST], ids=["one by one", "two by two"])
def test_recorded_steps_that_read_words_one_after_the_other_give_the_same_texts(e2e, as_if_recorded, monkeypatch, most):
    for way in GPU_CONSTANTS:
        monkeypatch.setattr(*way)
    monkeypatch.setattr(pairs, "MOST_CPU", most)
    control = Characters(40) & NINE
    found = drawn(e2e, control, steps=4)
    assert Taped.made > 0
    assert drawn(e2e, control, steps=4, compile=False) == found


class Adds(Control[ControlParams]):
    """Adds a number to the word logits."""

    name, Params = "adds", ControlParams
    number = torch.zeros(())

    def prepare(self, batch):
        return type("Own", (Prepared,), {"restrict": lambda _, logits: logits + self.number})()


def test_nan_in_a_recorded_step_is_found(e2e, as_if_recorded):
    control, chosen = Adds(), settings_of("fast", "gaussian")
    sampler = chosen.sampler.model_copy(update={"precision": "fp32", "steps": 8, "patience": 1.0})
    control.number, made = torch.zeros(()), []

    def spoil(step):
        if step.number == 4:
            control.number.fill_(math.nan)
        made.append(Taped.made)

    with pytest.raises(UserError, match=r"control 'adds' .*: restrict must return numbers"):
        list(draw_texts(Plan(e2e, control, sampler, chosen.guidance, 3), [Draw(0, 0)], on_step=spoil))
    assert made[4] == made[-1] > 0  # the steps that went wrong were replayed
    assert len(made) == 8


def test_the_same_for_the_papers_procedure(e2e, as_if_recorded):
    assert drawn(e2e, CONTROLS["pos"], "paper", steps=6) == drawn(e2e, CONTROLS["pos"], "paper", steps=6, compile=False)
    assert Taped.made == 2  # the estimate, and the push after it


@pytest.mark.parametrize("control", [None, NINE])
def test_the_same_for_masked_models(tokenizer, as_if_recorded, control):
    sizes = {"hidden": 16, "layers": 1, "heads": 2, "inner": 16, "max_length": 16}
    config = MaskedConfig(vocab_size=len(tokenizer), length=16, denoiser=sizes, sentence_lengths=[0] * 8 + [1])
    torch.manual_seed(0)
    model = Pretrained(MaskedLM(config).eval(), tokenizer, from_pretrained("e2e").folder)
    found = drawn(model, control, family="masked")
    assert Taped.made > 0
    assert drawn(model, control, family="masked", compile=False) == found


def test_functions_that_read_values_back_are_called_directly(as_if_recorded):
    def looks(x):
        return (x * float(x.sum()),)

    recorded = Recorded(True)
    x = torch.ones(2)
    with pytest.warns(UserWarning, match="not recorded"):
        found = [recorded(None, looks, x * number)[0].tolist() for number in range(4)]
    assert found == [[0.0, 0.0], [2.0, 2.0], [8.0, 8.0], [18.0, 18.0]]
    assert not recorded.enabled
    spare = len(graphs._SPARE)
    del recorded
    assert len(graphs._SPARE) == spare  # memory of a failed recording is not reused


def test_memory_pools_are_reused(as_if_recorded):
    recorded, spare = Recorded(True), len(graphs._SPARE)
    for _ in range(3):
        recorded(None, lambda x: (x,), torch.ones(1))
    assert len(graphs._SPARE) == spare - 1
    del recorded
    assert len(graphs._SPARE) == spare


def test_a_control_that_declares_looks_is_called_at_every_step(e2e, as_if_recorded):
    class Looking(Pos):
        calls = 0

        def prepare(self, batch):
            inner = super().prepare(batch)

            def energy(state):
                Looking.calls += 1
                found = inner.energy(state)
                return found * (1.0 if float(found.detach().sum()) > -1e9 else 2.0)

            return Energy(energy, looks=True)

    looking = Looking(tags=CONTROLS["pos"].sets[0].tags)
    never = {"steps": 6, "patience": 1.0}
    found = drawn(e2e, looking, **never)
    assert Looking.calls == 6 * 3
    assert drawn(e2e, looking, **never, compile=False) == found


def test_graph_keys_are_recorded_separately(as_if_recorded):
    recorded = Recorded(True)
    for number in range(4):
        for times in (2, 3):
            (found,) = recorded(times, lambda x, times=times: (x * times,), torch.tensor([float(number)]))
            assert found.tolist() == [number * times]
    assert Taped.made == 2
