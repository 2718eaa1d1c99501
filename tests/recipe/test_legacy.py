"""Recipes of earlier versions."""

import logging

import pytest

from dlmctl.recipe.load import read_recipe


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
    assert record.getMessage().startswith(f"dlmctl: {where}: `guidance.schedule` was removed and has no effect")
