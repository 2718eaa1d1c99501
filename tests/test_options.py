"""The options of ``Model.generate`` are shown by name, and an unknown one is refused with the place of its setting."""

from __future__ import annotations

import inspect

import pytest

from dlmctl.errors import ArgumentNameError
from dlmctl.generation.model import Model


@pytest.mark.parametrize("method", [Model.generate, Model.stream])
def test_every_option_is_in_the_signature_with_its_default(method):
    parameters = inspect.signature(method).parameters
    assert parameters["preset"].default == "balanced"
    assert parameters["rank_by"].default == ("satisfaction",)
    assert "options" not in parameters
    assert not {"model", "given", "groups"} & parameters.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("steps", r"there is no argument 'steps'\. It is a setting: sampler=\{\"steps\": \.\.\.\}\."),
        ("scale", r"It is a setting: guidance=\{\"scale\": \.\.\.\}\."),
        ("sample", "Did you mean 'samples'"),
        ("groups", "there is no argument 'groups'"),
    ],
)
def test_an_unknown_option_is_refused(pretrained, name, message):
    model = Model(pretrained.model, pretrained.tokenizer, pretrained.folder)
    for method in (model.generate, model.stream):
        with pytest.raises(ArgumentNameError, match=message):
            method(**{name: 4})
