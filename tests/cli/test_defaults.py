"""Options have the defaults of the functions behind them, which stand twice: the command line must start without heavy
imports, and the functions work without it."""

import inspect
from enum import Enum

import pytest

from dlmctl.cli import bench, data, evaluate, nll, train
from dlmctl.datasets.prepare import prepare
from dlmctl.evaluation.masked_nll import bound_of_texts
from dlmctl.evaluation.samples import evaluate_samples
from dlmctl.evaluation.source import evaluate_source
from dlmctl.evaluation.speed import compare
from dlmctl.training.tagger import train_tagger


@pytest.mark.parametrize(
    ("command", "function", "least"),
    [
        (train.tagger, train_tagger, 4),
        (data.prepare, prepare, 10),
        (nll.nll, bound_of_texts, 3),
        (bench.bench, compare, 2),
        (evaluate.samples, evaluate_samples, 2),
        (evaluate.source, evaluate_source, 2),
    ],
)
def test_an_option_and_its_function_have_the_same_default(command, function, least):
    of_function = inspect.signature(function).parameters
    options = {
        name: (parameter.default.value if isinstance(parameter.default, Enum) else parameter.default)
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.default is not parameter.empty and name in of_function
    }
    defaults = {name: of_function[name].default for name in options}
    with_default = {name for name, default in defaults.items() if default is not inspect.Parameter.empty}
    assert len(with_default) >= least
    assert {name: options[name] for name in with_default} == {name: defaults[name] for name in with_default}
