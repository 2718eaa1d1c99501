"""Recipes of every shape: each gives texts, or one short message with a place, in bounded time.

The short form runs with the suite and is the same every time. ``DLMCTL_FUZZ=10000 pytest tests/recipe/test_fuzz.py``
draws that many recipes at random.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dlmctl.errors import UserError
from dlmctl.generation.results import Generation
from dlmctl.generation.run import run_recipe
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.recipe import Recipe
from tests.conftest import SENTENCES
from tests.recipe.fuzzing import fuzzed

# Seconds for one recipe of two steps; far more than any takes on a busy machine.
DEADLINE = 60

WORDS = sorted({word for sentence in SENTENCES for word in sentence})

odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "*", "no", "1e3", "~", "0x", "2026-02-30", "___{", "(", "\x1b[31m", "\u202e", "x" * 700]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=4,
)


def mostly(good: st.SearchStrategy[Any], other: st.SearchStrategy[Any] = odd) -> st.SearchStrategy[Any]:
    """What belongs there, and now and then something else."""
    return st.integers(0, 39).flatmap(lambda die: good if die else other)


def mapping(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Some of the fields, now and then with a key or a value that does not belong there."""
    return mostly(st.fixed_dictionaries({}, optional={name: mostly(field) for name, field in fields.items()}))


counts = mostly(st.integers(1, 9), st.sampled_from([0, -1, 30, 31, 40, 100_000, 10**9, 2**63, True]))
shares = mostly(st.floats(0, 1) | st.sampled_from([0, 1]), st.sampled_from([-0.1, 2, math.inf, math.nan]))
words = mostly(
    st.sampled_from([*WORDS, "the small", "grey cats"]), st.sampled_from(["unicorn", "", " ", "_", "\u0301"])
)
phrases = st.lists(mostly(words), min_size=1, max_size=4)
tags = st.lists(
    mostly(st.sampled_from(["DET", "NOUN", "VERB", "*", "ADJ|NOUN", "PUNCT", "|", "noun"])), min_size=1, max_size=6
)
blanks = st.sampled_from(
    ["___", "___{2}", "___{1,3}", "___{3,1}", "___{0}", "___{", "__", "___{1000,1000}", "{}", "_____"]
)
templates = st.lists(words | blanks, max_size=5).map(" ".join)
patterns = st.lists(
    words
    | st.sampled_from(
        ["<any>", "<word>*", "<number>?", "(the|a)", "(the a)+", "<any>{1,3}", "<nonsense>", "(", "|", "\\", "*"]
    ),
    max_size=6,
).map(" ".join)
bounds = mostly(st.lists(st.none() | st.integers(0, 9), min_size=2, max_size=2), counts)
where = mapping(tag=st.sampled_from(["NOUN", "NOUN|VERB", "nonsense"]), place=counts)
trees = st.sampled_from(
    ["(S (NP (DT a) (NN pub)))", "(NP (NN pub))", "(S", ")", "()", "(S ())", "x", "(X", "", "(S S)"]
)
spans = st.lists(
    mapping(label=st.sampled_from(["NP", "S::NP", ""]), start=counts, end=counts),
    max_size=3,
)
texts = st.lists(mostly(st.sampled_from(WORDS)), max_size=8).map(lambda words: " ".join(map(str, words)))
nats = mostly(st.sampled_from([[None, 3], [2, None], [0, 5.5], [1, 1]]), bounds)
# Nothing that could be the name of a model on the hub, which would be asked for it.
scorers = mostly(st.none(), st.sampled_from(["", ".", "/", "\0", "./none", "x" * 700]))


def several(params: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return params | mostly(st.lists(params, min_size=1, max_size=3), st.just([]))


leaves = st.one_of(
    st.fixed_dictionaries({"length": several(mapping(words=counts, tolerance=counts))}),
    st.fixed_dictionaries({"contains": several(mapping(words=phrases))}),
    st.fixed_dictionaries({"avoid": several(mapping(words=phrases))}),
    st.fixed_dictionaries({"infill": several(mapping(template=templates))}),
    st.fixed_dictionaries({"pattern": several(mapping(match=patterns))}),
    st.fixed_dictionaries({"lexicon": several(mapping(words=phrases, letters=bounds, frequency=bounds, where=where))}),
    st.fixed_dictionaries({"pos": several(mapping(tags=tags, pass_at=shares))}),
    st.fixed_dictionaries({"syntax_tree": several(mapping(tree=trees, spans=spans, pass_at=shares))}),
    st.fixed_dictionaries({"syllables": several(mapping(number=counts, tolerance=counts))}),
    st.fixed_dictionaries({"characters": several(mapping(number=counts | st.integers(10, 60), tolerance=counts))}),
    st.fixed_dictionaries({"edit": several(mapping(text=texts, changes=counts, tolerance=counts))}),
    st.fixed_dictionaries({"rhyme": several(mapping(word=words | st.sampled_from(["night", "orange", "June"])))}),
    st.fixed_dictionaries({"surprisal": several(mapping(word=words, where=where, nats=nats, scorer=scorers))}),
    mostly(
        st.just({"length": {"words": 5, "tolerance": 2}}),
        st.fixed_dictionaries({"semantic": several(mapping(food=st.sampled_from(["x", True, 3]), match=words))})
        | st.fixed_dictionaries({"classifier": several(mapping(label=words, name=words))})
        | odd,
    ),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    )


def weighted(entry: Any, weight: Any) -> Any:
    return {**entry, "weight": weight} if isinstance(entry, dict) else entry


holes = st.sampled_from(
    ["{word}", "{n}", "{none}", "a {word} .", "{}", "{ word}", "{word", {"word": None}, {"n": None}]
)
rows = st.lists(
    mostly(
        st.dictionaries(
            st.sampled_from(["word", "n", "other"]), mostly(words | counts | st.sampled_from(["4", "4.0", "a; b", ""]))
        )
    ),
    min_size=1,
    max_size=4,
)
filled_leaves = st.one_of(
    st.fixed_dictionaries({"length": mapping(words=holes | counts, tolerance=holes)}),
    st.fixed_dictionaries({"contains": holes | mapping(words=holes | st.lists(holes | words, max_size=3))}),
    st.fixed_dictionaries({"infill": mapping(template=holes | templates)}),
    st.fixed_dictionaries({"pos": holes | mapping(tags=holes | tags, pass_at=holes)}),
    st.fixed_dictionaries({"not": st.fixed_dictionaries({"avoid": mapping(words=st.lists(holes, max_size=2))})}),
)
short_leaves = st.one_of(
    st.fixed_dictionaries({"length": counts | st.lists(counts, max_size=2)}),
    st.fixed_dictionaries({"contains": words | phrases}),
    st.fixed_dictionaries({"check": odd | st.sampled_from(["none.py:f", "x:y", ".py:f"])}),
    st.fixed_dictionaries({"none.py:Control": odd}),
)
controls = st.recursive(leaves | filled_leaves | short_leaves, nested, max_leaves=4)
entries = controls | st.builds(weighted, controls, mostly(st.floats(0, 10)))
recipes = mapping(
    description=words,
    samples=counts,
    seed=counts,
    targets=mostly(st.none() | rows, st.sampled_from(["none.csv", "none", "", "."]) | odd),
    quota=mostly(st.none(), mapping(attempts=counts)),
    unique=st.booleans(),
    label=mostly(st.none(), words | phrases),
    source=mostly(st.none(), words | st.dictionaries(words, words, max_size=2)),
    controls=st.lists(entries, max_size=3),
    preset=st.sampled_from(["fast", "balanced", "quality", "paper"]),
    sampler=mapping(
        name=st.sampled_from(["auto", "ddim", "ancestral", "dpmpp_2m", "random", "remasking"]),
        steps=counts,
        eta=shares,
        last=shares,
        spacing=st.floats(0.1, 10),
        temperature=st.floats(0.1, 3),
        patience=shares,
        canvas=st.sampled_from(["fitted", "full"]),
        compile=st.booleans(),
        clamp=st.booleans(),
        top_p=st.floats(0.1, 3),
        condition_scale=shares,
        particles=st.integers(1, 3),
        reward=st.sampled_from(["energy", "score", "lm_score"]),
        reward_scale=shares,
        resample_every=counts,
        rounding=st.sampled_from(["dot", "l2", "cosine"]),
    ),
    guidance=mapping(
        method=st.sampled_from(["logits", "words", "latent", "denoiser", "langevin"]),
        scale=shares,
        schedule=st.sampled_from(["constant", "rising", "falling"]),  # of version 0.1
        clip=st.floats(0.1, 1e6),
        updates=st.integers(1, 3),
        since=shares,
        until=shares,
    ),
    until=mapping(
        satisfied=st.sampled_from(["all", "any"]) | shares,
        max_rounds=counts,
        repair=st.booleans(),
        lm_score=mostly(st.none(), shares),
        worst_word=mostly(st.none(), shares),
        acceptability=mostly(st.none(), shares),
    ),
    candidates=st.integers(1, 2),
    rank_by=st.lists(mostly(st.sampled_from(["satisfaction", "mbr"]), st.just("lm_score")), min_size=1, max_size=2),
    batch_size=counts,
    device=mostly(st.sampled_from(["cpu", "auto"]), st.sampled_from(["hpu", "xla", "meta", "cuda:99"])),
)


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """A recipe's text with some characters replaced, doubled or left out."""
    text = yaml.safe_dump(draw(recipes), allow_unicode=True, default_flow_style=draw(st.booleans()))
    scraps = [
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!!set ",
        "!x ",
        "? ",
        "- ",
        "[",
        "}",
        ": ",
        "\t",
        "'",
        '"',
        "%",
        "@",
        "\0",
    ]
    for _ in range(draw(st.integers(1, 4))):
        at, size = draw(st.integers(0, len(text))), draw(st.integers(0, 4))
        text = text[:at] + draw(st.sampled_from(scraps) | st.text(max_size=3)) + text[at + size :]
    return text


@contextmanager
def deadline() -> Iterator[None]:
    """A recipe that hangs ends as an error, from wherever it hangs."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {DEADLINE} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(DEADLINE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def smaller(recipe: Recipe) -> Recipe:
    """The same with few texts in few steps."""
    sampler = recipe.sampler.model_copy(update={"steps": min(recipe.sampler.steps or 2, 2)})
    until = recipe.until and recipe.until.model_copy(update={"max_rounds": min(recipe.until.max_rounds, 2)})
    quota = recipe.quota and recipe.quota.model_copy(update={"attempts": min(recipe.quota.attempts, 2)})
    fewer = {"samples": min(recipe.samples, 3), "sampler": sampler, "until": until, "quota": quota}
    return recipe.model_copy(update=fewer)


def outcome(text: str, pretrained: Any) -> Generation | UserError:
    with deadline():
        try:
            recipe, file = read_recipe(text, "fuzz.yaml", [f"model={pretrained.folder}"])
            return run_recipe(smaller(recipe), model=pretrained, origin=file)
        except UserError as error:
            return error


def check(text: str, pretrained: Any) -> None:
    found = outcome(text, pretrained)
    if isinstance(found, UserError):
        assert len(str(found)) < 600
        assert str(found).isprintable()
        assert found.where
        assert found.where.startswith("fuzz.yaml"), found
        assert " fails on these parameters" not in str(found)
        assert "(controls." not in str(found)  # an exception of a control that ships, caught from the outside
    else:
        assert len(found) > 0


fuzz = fuzzed(100)
needs_alarm = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")


@needs_alarm
@fuzz
@given(recipe=recipes)
def test_any_recipe_gives_texts_or_one_message(recipe, pretrained):
    check(yaml.safe_dump(recipe), pretrained)


@needs_alarm
@fuzz
@given(text=mangled())
def test_any_text_gives_texts_or_one_message(text, pretrained):
    check(text, pretrained)
