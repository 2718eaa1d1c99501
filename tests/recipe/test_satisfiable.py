"""Recipes that a known text satisfies: each is drawn, and every text passes.

A text of random words comes first, then controls that it meets. So a refusal or a failed check is an error of ours.
``DLMCTL_FUZZ=10000 pytest tests/recipe/test_satisfiable.py`` is the long form.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.control.automata.regex import escaped
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.generation.model import run
from dlmctl.models.llama import LlamaConfig
from dlmctl.text.tokenizer import WordTokenizer
from tests.conftest import tiny_config
from tests.recipe.fuzzing import fuzzed

# Names of word classes, an abbreviation, a clitic, marks, and characters that mean something in a pattern.
WORDS = "the any word number Mr. do n't 7 cats Anna , . ? ( | *".split()
UNUSED = "old grey river".split()
MOST_WORDS = 8


@pytest.fixture(scope="module", params=["masked", "latent"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    """An untrained model whose texts are split like ``everyday``."""
    tokenizer = WordTokenizer.from_corpus([WORDS, UNUSED], min_count=1, splitting="penn")
    folder = tmp_path_factory.mktemp(request.param) / "tiny"
    torch.manual_seed(0)
    if request.param == "latent":
        save_pretrained(DiffusionLM(tiny_config(len(tokenizer))), tokenizer, folder)
    else:
        sizes = LlamaConfig(hidden=16, layers=1, heads=2, inner=32, max_length=32)
        lengths = [0, *range(2, MOST_WORDS + 4)]
        config = MaskedConfig(length=24, denoiser=sizes, vocab_size=len(tokenizer), sentence_lengths=lengths)
        save_pretrained(MaskedLM(config), tokenizer, folder)
    return from_pretrained(folder)


def pattern_for(draw: st.DrawFn, words: list[str]) -> str:
    """A pattern that the words match."""
    items, at = [], 0
    while at < len(words):
        literal = escaped(words[at])
        item = draw(
            st.sampled_from([literal, "<any>", f"({literal}|{escaped(draw(st.sampled_from(WORDS)))})", "<any>*"])
        )
        items.append(item)
        at += draw(st.integers(0, 3)) if item == "<any>*" else 1
    return " ".join(items)


def template_for(draw: st.DrawFn, words: list[str]) -> str:
    """A template that the words match; its first and last blank may hold more than they do."""
    start = draw(st.integers(0, len(words) - 1))
    end = draw(st.integers(start + 1, len(words)))
    blank = f"___{{{draw(st.integers(0, end - start))},{end - start + draw(st.integers(0, 2))}}}"
    return " ".join([*words[:start], blank, *words[end:]])


def leaf(draw: st.DrawFn, kind: str, words: list[str]) -> dict[str, Any]:
    """A control of this kind that the words meet."""
    count = len(words)
    match kind:
        case "length":
            tolerance = draw(st.integers(0, 2))
            return {
                "length": {"words": max(1, count + draw(st.integers(-tolerance, tolerance))), "tolerance": tolerance}
            }
        case "contains":
            at = draw(st.integers(0, count - 1))
            return {"contains": {"words": [" ".join(words[at : at + draw(st.integers(1, 2))])]}}
        case "avoid":
            return {"avoid": {"words": draw(st.lists(st.sampled_from(UNUSED), min_size=1, max_size=2))}}
        case "pattern":
            return {"pattern": {"match": pattern_for(draw, words)}}
        case "infill":
            return {"infill": {"template": template_for(draw, words)}}
        case "not":
            unmet = [{"contains": UNUSED[0]}, {"length": count + 3}, {"pattern": f"{UNUSED[1]} <any>*"}]
            return {"not": draw(st.sampled_from(unmet))}
        case _:
            unmet = [{"length": 40}, {"contains": UNUSED[2]}, {"pattern": f"{UNUSED[1]} {UNUSED[2]}"}]
            met = leaf(draw, draw(st.sampled_from(["length", "contains", "pattern", "infill"])), words)
            return {"any": draw(st.permutations([met, draw(st.sampled_from(unmet))]))}


KINDS = ["length", "contains", "avoid", "pattern", "infill", "not", "any"]


@st.composite
def satisfiable(draw: st.DrawFn) -> list[dict[str, Any]]:
    # At the end of a text `Mr.` would be two words.
    texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=MOST_WORDS).filter(lambda text: text[-1] != "Mr.")
    words = draw(texts)
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4, unique=True))
    return [leaf(draw, kind, words) for kind in kinds]


@fuzzed(60)
@given(
    controls=satisfiable(), sampler=st.sampled_from([{"steps": 2}, {"name": "ancestral", "steps": 3}, {"steps": None}])
)
def test_what_a_text_satisfies_is_drawn(controls, sampler, model):
    if isinstance(model.model, DiffusionLM):
        sampler = {"steps": 2}
    result = run({"controls": controls, "samples": 2, "sampler": sampler}, model=model)
    assert result.success == 1.0, [(sample.words, sample.checks) for sample in result if not sample.passed]
    avoided = {word for control in controls for word in control.get("avoid", {}).get("words", [])}
    assert not any(avoided & set(sample.words) for sample in result)
