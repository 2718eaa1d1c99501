import pytest

from controls import Infill, Length
from controls.infill import InfillParams, parse_template
from dlmctl.control import warn_once
from dlmctl.control.automata.syntax import Literal, Repeat, WordClass
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance, SamplerSettings

QUICK = SamplerSettings(steps=4)
TEMPLATE = "Anna ___ two grey cats near ___{1,3}."


def test_words_and_blanks_of_a_template():
    pieces = parse_template("a non-smoking ___{2} is ___{0,3}.")
    words = [piece.word if isinstance(piece, Literal) else None for piece in pieces]
    assert words == ["a", "non", "-", "smoking", None, "is", None, "."]
    assert pieces[4] == Repeat(WordClass("any"), 2, 2)
    assert pieces[6] == Repeat(WordClass("any"), 0, 3)
    assert parse_template("___ bread ____")[0] == parse_template("___{1} bread")[0]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no blanks here", "has no blank"),
        ("a __ bridge", "'__' is not a blank"),
        ("a ___{x} bridge", "is not a blank"),
        ("a ___{3,1} bridge", "'___{3,1}' goes from 3 down to 1 words"),
        ("a ___{0} bridge", "'___{0}' holds no words"),
    ],
)
def test_a_malformed_template_is_refused(template, message):
    with pytest.raises(UserError, match=message.replace("{", r"\{")):
        Infill(template)


@pytest.mark.parametrize("method", ["logits", "latent", "langevin"])
@pytest.mark.parametrize("template", [TEMPLATE, "___{2,9} bread.", "the old ___{3,12}", "___ ___{0,2} old ___"])
def test_the_words_are_kept(pretrained, method, template):
    result = generate(
        Infill(template), model=pretrained, samples=12, sampler=QUICK, guidance=Guidance(method=method, updates=2)
    )
    assert result.success == 1.0
    fixed = [piece.word for piece in parse_template(template) if isinstance(piece, Literal)]
    assert all(set(fixed) <= set(sample.words) for sample in result)


def test_the_words_are_kept_at_every_step(pretrained):
    ids = pretrained.tokenizer.encode(["the", "old"])[1:-1]
    seen = []
    generate(
        Infill("the old ___{4}"),
        model=pretrained,
        samples=2,
        sampler=QUICK,
        on_step=lambda step: seen.append(step.estimate.x0[:, 1:3] - pretrained.model.embeddings[ids]),
    )
    assert len(seen) == 4
    assert max(difference.abs().max().item() for difference in seen) < 1e-5


@pytest.mark.usefixtures("float64")
def test_blanks_differ_in_size_and_do_not_hang_on_the_batch(pretrained):
    control = Infill("___{1,4} old ___{1,4}")
    runs = [
        [sample.words for sample in generate(control, model=pretrained, samples=24, sampler=QUICK, batch_size=size)]
        for size in (5, 24)
    ]
    assert runs[0] == runs[1]
    assert {words.index("old") for words in runs[0]} >= {2, 3, 4}


def test_the_blanks_fill_up_to_the_length_asked_for(pretrained):
    result = generate(Infill("the ___{1,4} old ___{1,20}") & Length(17), model=pretrained, samples=6, sampler=QUICK)
    assert result.success == 1.0
    assert {len(sample.words) for sample in result} == {17}


def test_a_length_outside_the_template_is_refused(pretrained):
    with pytest.raises(RecipeError, match="at least 8 words, another at most 5"):
        generate(Infill("the ___ old ___{1,2}") & Length(8), model=pretrained, samples=1)


def test_each_sample_its_own_template(pretrained):
    control = Infill.each([InfillParams(template="the ___"), InfillParams(template="___{5} river ___")])
    result = generate(control, model=pretrained, samples=4, sampler=QUICK)
    assert [len(sample.words) for sample in result] == [2, 7, 2, 7]
    assert result.success == 1.0


def test_a_word_outside_the_vocabulary_is_refused_with_the_nearest(pretrained):
    with pytest.raises(RecipeError, match=r"infill: the word 'rivr' .* Did you mean 'river'\?"):
        generate(Infill("the rivr ___"), model=pretrained, samples=1)
    with pytest.raises(RecipeError, match="Did you mean 'Anna'"):
        generate(Infill("anna ___"), model=pretrained, samples=1)


def test_contradicting_templates_are_explained(pretrained):
    with pytest.raises(RecipeError, match=r"word 2. infill wants 'old' there; infill 2 wants 'grey' there"):
        generate(Infill("the old ___") & Infill("___ grey ___"), model=pretrained, samples=1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Anna paints two grey cats near the old bridge .", "the template is met"),
        ("Anna paints two grey cats near bread .", "the template is met"),
        ("Anna two grey cats near bread .", "'two' is not where it should be"),
        ("Anna paints two grey cats near .", "'.' is not where it should be"),
        ("Anna paints two grey cats near bread . bread .", "the template is met"),
        ("Anna paints two grey cats near a b c d .", "'.' is not where it should be"),
        ("Anna paints two grey cats near bread . a b", "the text goes on after the template"),
        ("Anna paints two grey cats near", "the text ends too early"),
    ],
)
def test_the_check_matches_the_template(text, why):
    check = Infill(TEMPLATE)(text.split())
    assert check.why == why
    assert check.passed == (check.score == 1.0) == (why == "the template is met")


def test_a_sentence_satisfies_its_own_target():
    sentences = ["Anna paints the old bridge near a river .".split(), ["a", "b"], ["a"]]
    params = Infill.from_words(sentences)
    assert params[0].template == "Anna paints the ___{3} a river ."
    assert all(check.passed for check in Infill.each(params).verdicts(range(3), sentences))


@pytest.mark.parametrize(
    ("template", "warns"),
    [("the old ___", True), ("the old ___.", False), ("___ is old", False), ("the old ___{1,3}", False)],
)
def test_a_last_blank_that_the_full_stop_fills_is_pointed_out(pretrained, template, warns, caplog):
    warn_once._warn.cache_clear()
    Infill(template).attach(pretrained)
    said = "dlmctl: infill: the full stop fills the last blank of 'the old ___'; write `the old ___.` for a word."
    assert [record.getMessage() for record in caplog.records] == [said] * warns
