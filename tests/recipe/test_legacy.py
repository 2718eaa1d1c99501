"""Recipes of earlier versions."""

import logging

import pytest

from dlmctl.recipe.legacy import renew
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.yaml_file import parse


@pytest.mark.parametrize(
    ("text", "overrides", "where"),
    [
        ("samples: 1\nguidance:\n  method: words\n", [], "old.yaml:3"),
        ("samples: 1\n", ["guidance.method=words"], "command line"),
    ],
)
def test_the_method_words_is_now_logits(caplog, text, overrides, where):
    with caplog.at_level(logging.WARNING, "dlmctl"):
        recipe, _ = read_recipe(text, "old.yaml", overrides)
    assert recipe.guidance.method == "logits"
    assert [record.getMessage() for record in caplog.records] == [
        f"dlmctl: {where}: guidance.method: `words` is now called `logits`."
    ]


@pytest.mark.parametrize(
    ("text", "overrides", "where"),
    [
        ("guidance: {scale: 2.0,\n schedule: rising}\n", [], "old.yaml:2"),
        ("", ["guidance.schedule=falling"], "command line"),
    ],
)
def test_the_schedule_of_guidance_is_gone(caplog, text, overrides, where):
    with caplog.at_level(logging.WARNING, "dlmctl"):
        recipe, _ = read_recipe(text, "old.yaml", overrides)
    assert "schedule" not in recipe.guidance.model_dump()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"dlmctl: {where}: `guidance.schedule` is gone and changes nothing")


def test_a_renamed_key_keeps_its_line_and_never_replaces_the_new_one(caplog):
    names = {("sampler", "strides"): "spacing", ("tries",): "candidates"}
    value, file = parse("tries: 2\nsampler:\n  strides: 1\n", "old.yaml")
    renew(value, file, keys=names, values={})
    assert value == {"candidates": 2, "sampler": {"spacing": 1}}
    assert file.where(("sampler", "spacing")) == "old.yaml:3"
    assert len(caplog.records) == 2
    both, file = parse("tries: 2\ncandidates: 3\nsampler: 7\n", "old.yaml")
    renew(both, file, keys=names, values={})
    assert both == {"tries": 2, "candidates": 3, "sampler": 7}
