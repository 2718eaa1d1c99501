import re

import pytest
import torch

from controls import Avoid, Contains, Infill, Length
from controls.pattern import Pattern, PatternParams
from controls.phrases import ANY_NUMBER
from dlmctl.control.automata import Demand, ExactWords, alphabet_of, avoiding, merged
from dlmctl.control.prepared import Part, Prepared
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.text.penn import split_penn

QUICK = SamplerSettings(steps=4)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpmpp_2m"])
def test_every_text_matches_whatever_samples(pretrained, name):
    control = Pattern("(the|a) <lowercase>{1,2} (bakery|garden) <any>* near <any>+ .")
    result = generate(control, model=pretrained, samples=12, sampler=SamplerSettings(name=name, steps=4))
    assert result.success == 1.0
    for sample in result:
        text = " ".join(sample.words)
        assert re.fullmatch(r"(the|a)( [a-z]+){1,2} (bakery|garden)( \S+)* near( \S+)+ \.", text), text


def test_each_sample_its_own_pattern_beside_a_length(pretrained):
    control = Pattern.each([PatternParams(match="Anna <any>+ ."), PatternParams(match="(old <any>)+")]) & Length(6)
    result = generate(control, model=pretrained, samples=6, sampler=QUICK)
    assert result.success == 1.0
    assert [sample.words[0] for sample in result] == ["Anna", "old"] * 3


@pytest.mark.parametrize("match", ["^The <any>+ .", "The <any>+ .$", "^The <any>+$"])
def test_anchors_of_other_regular_expressions_are_said_to_be_needless(match):
    with pytest.raises(UserError, match=r"the pattern always matches the whole text, so leave out \^ and \$"):
        Pattern(match)
    for plain in (r"\^The", "^ <any>+", "5 $", r"The .\$"):
        Pattern(plain)


def test_impossible_patterns_are_refused_before_the_first_step(pretrained):
    with pytest.raises(RecipeError, match=r"pattern: the word 'brige' .* Did you mean 'bridge'"):
        generate(Pattern("the brige"), model=pretrained, samples=1)
    with pytest.raises(RecipeError, match="no text of words that the model knows"):
        generate(Pattern("<number>"), model=pretrained, samples=1)
    with pytest.raises(RecipeError, match=r"pattern: no text of 7 words.*possible are 2, 4, 6, 8"):
        generate(Pattern("(old <any>)+") & Length(7), model=pretrained, samples=1)
    with pytest.raises(RecipeError, match="holds at most 30"):
        generate(Pattern("<any>{40}"), model=pretrained, samples=1)
    with pytest.raises(UserError, match="at character 5"):
        Pattern("the (old")


def test_the_check_says_where_a_text_leaves_the_pattern():
    control = Pattern("the (small|old) bakery .")
    assert control("the old bakery .".split()).passed
    check = control("the old garden .".split())
    assert (check.score, check.passed, check.where) == (0.5, False, (2,))
    assert "'garden' does not fit as word 3" in check.why
    assert control("the old bakery".split()).why == "the text ends before the pattern does"
    assert not control("the old bakery . .".split()).passed
    assert not control([]).passed


def test_targets_from_sentences():
    (params,) = Pattern.from_words(["a ( b ?".split()])
    assert params.match == r"a <any>* \?"
    assert Pattern.each([params])("a ( b ?".split()).passed


@pytest.fixture
def batch(pretrained):
    """Two rows: one of seven words, and one for which the model chooses the number of words."""
    rows = [Draw(0, sample, 0) for sample in range(2)]
    layouts = [Layout(12, 7), Layout(12, None)]
    return BatchContext(pretrained.model, pretrained.tokenizer, pretrained.folder, rows, layouts)


def constrained(prepared, batch, seed):
    torch.manual_seed(seed)
    logits = torch.randn(2, 12, len(batch.vocabulary))
    logits[..., batch.vocabulary.unk_id] = -torch.inf
    prepared.verify(torch.zeros_like(logits))
    ids = prepared.constrain(logits, torch.zeros(2)).argmax(-1)
    ids[0, 8:] = batch.vocabulary.end_id  # pinned by the layout
    ids[:, 0] = batch.vocabulary.start_id
    return [batch.vocabulary.words(row) for row in ids.tolist()]


def test_several_controls_are_held_by_one_automaton(batch):
    alphabet = alphabet_of(batch.vocabulary)
    cats, old = ([alphabet.ids[word] for word in phrase.split()] for phrase in ("grey cats", "old"))
    held = [
        ExactWords(batch, [[demand]] * 2)
        for demand in (Demand("contains", phrases=(tuple(cats),)), Demand("avoid", avoiding(alphabet, [old])))
    ]
    pattern = Pattern("<any>* Anna <any>* .")
    own = BatchContext(**{**vars(batch), "params": list(pattern.sets) * 2})
    other = Part("other", 1.0, Prepared())
    parts = merged([other, *(Part("part", 1.0, one) for one in held), Part("pattern", 1.0, pattern.prepare(own))])
    assert [part.name for part in parts] == ["other", "part and part and pattern"]
    for seed in range(5):
        for words in constrained(parts[1].prepared, batch, seed):
            assert "grey cats" in " ".join(words)
            assert "old" not in words
            assert pattern(words).passed


def test_the_contrary_is_held_as_exactly(batch):
    pattern = Pattern("<any>* (the|a|old|two) <any>*")
    own = BatchContext(**{**vars(batch), "params": list(pattern.sets) * 2})
    prepared = pattern.prepare(own)
    for seed in range(5):
        assert all(pattern(words).passed for words in constrained(prepared, batch, seed))
        texts = constrained(prepared.negated(), batch, seed)
        assert not any(pattern(words).passed for words in texts)
        assert len(texts[0]) == 7
    every = BatchContext(**{**vars(batch), "params": [PatternParams(match="<any>*")] * 2})
    nothing = pattern.prepare(every).negated()
    with pytest.raises(RecipeError, match="not pattern: no text of 7 words"):
        constrained(nothing, batch, 0)


def test_an_abbreviation_before_other_words_keeps_its_point():
    words = split_penn("Mr. Smith met Mrs. Jones etc.")
    assert Pattern("Mr. <any> met (Mrs.|Dr.) <any> etc.")(words).passed
    assert Infill("Mr. ___ met ___{2} etc.")(words).passed
    assert Contains("Mr.", "Mrs. Jones")(words).passed
    assert Contains("etc.")(words).passed
    assert not Avoid("Mr.")(words).passed
    assert not Avoid("etc.")(words).passed


@pytest.mark.parametrize(
    ("match", "text"),
    [("<any>+ (yes .|No.)", "I said No."), ("I said No. (<any>+ .)?", "I said No."), ("(<word> (No.)?)*", "So No.")],
)
def test_an_abbreviation_that_may_end_a_text_is_two_words_there(match, text):
    pattern = Pattern(match)
    pattern.splits = (split_penn,)
    assert pattern(split_penn(text)).passed
    assert not pattern(split_penn(f"{text} ?")).passed


def test_an_abbreviation_to_be_written_is_one_word(pretrained):
    pretrained.tokenizer.splitting, splitting = "penn", pretrained.tokenizer.splitting
    try:
        contains, avoid, pattern = Contains("Mr."), Avoid("Mr."), Pattern("(Mr.|Mrs.) <any>+")
        for control in (contains, avoid, pattern):
            control.attach(pretrained)
        assert contains.word_range(contains.sets[0]) == (1, ANY_NUMBER)
        assert avoid._requirement(avoid.sets[0]).key == (("Mr.",), ("Mr", "."))
        assert pattern.word_range(pattern.sets[0])[0] == 2
    finally:
        pretrained.tokenizer.splitting = splitting
