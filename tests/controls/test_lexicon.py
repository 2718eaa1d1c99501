import json
from collections import Counter

import pytest
import torch
from pydantic import ValidationError

from controls import Length, Lexicon, Pos
from controls.function_words import is_function_word
from controls.lexicon import LexiconParams
from controls.word_lists import read_table
from dlmctl.annotators.tagging import UPOS_TAGS, upos_tagger
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.control.evidence.table import fingerprint, save_table
from dlmctl.control.evidence.tags import count_tags
from dlmctl.control.properties import hold_exchanged
from dlmctl.control.state import ControlState
from dlmctl.diffusion.layout import Layout
from dlmctl.errors import DataError, ModelError, RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.cells import fill_params, read_params
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.text.syllables import syllables
from dlmctl.text.word_counts import FILE, WordCounts, load_counts, save_counts
from tests.conftest import SENTENCES, batch_of

QUICK = SamplerSettings(steps=4)
NORMS = (
    "Word;Concreteness;Level\r\n"
    "bakery;4,8;A2\r\nBREAD;4,9;A1\r\nbridge;4,97;A1\r\n"
    'garden;"4,7";A2\r\ncats;NA;A1\r\nriver;3,1;B1\r\nzebra;5;B2\r\n'
)
NOUNS = {"bakery", "bread", "garden", "cats", "bridge", "river"}
CONTENT = {word for words in SENTENCES for word in words if not is_function_word(word)}


@pytest.fixture
def norms(tmp_path):
    path = tmp_path / "norms.csv"
    path.write_bytes(NORMS.encode("utf-8-sig"))
    return str(path)


@pytest.fixture
def tagged(pretrained, tmp_path):
    """The tiny model with counts of its words and of their tags in its folder."""
    folder = tmp_path / "tagged"
    save_pretrained(pretrained.model, pretrained.tokenizer, folder)
    vocabulary = pretrained.tokenizer
    words = sorted(vocabulary.vocabulary, key=vocabulary.vocabulary.__getitem__)
    tags = [[UPOS_TAGS.index(tag) for tag in found] for found in upos_tagger()(SENTENCES)]
    ids = [vocabulary.encode(sentence)[1:-1] for sentence in SENTENCES]
    table = count_tags(zip(ids, tags, strict=True), UPOS_TAGS, len(vocabulary), fingerprint(words))
    save_table(table, folder / "controls" / "pos" / "tags.safetensors")
    save_counts(
        WordCounts(sum(map(len, SENTENCES)), Counter(word for words in SENTENCES for word in words if word in CONTENT)),
        vocabulary,
        folder,
    )
    return from_pretrained(folder)


def content(sample):
    return {word for word in sample.words if not is_function_word(word)}


def test_only_words_of_the_list_and_function_words(pretrained, tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeff# first unit\r\nBakery\r\nwarm\r\n\r\nanna\r\n".encode())
    for given in ({"words": ["bakery", "Warm", "anna"]}, {"file": str(tmp_path / "list.txt")}):
        result = generate(Lexicon(**given), model=pretrained, samples=12, sampler=QUICK)
        assert result.success == 1.0
        assert set().union(*map(content, result)) <= {"bakery", "warm", "Anna"}
        assert any(is_function_word(word) for sample in result for word in sample.words)
        alone = generate(Lexicon(**given, function_words=False), model=pretrained, samples=6, sampler=QUICK)
        assert {word for sample in alone for word in sample.words} <= {"bakery", "warm", "Anna"}


def test_properties_of_a_table_with_decimal_commas_and_empty_cells(pretrained, norms):
    fitting = {"bakery", "bread", "bridge", "garden"}
    result = generate(
        Lexicon(table=norms, word="Word", Concreteness=[4, 5], function_words=False),
        model=pretrained,
        samples=12,
        sampler=QUICK,
    )
    assert result.success == 1.0
    assert set().union(*(sample.words for sample in result)) <= fitting
    named = Lexicon(table=norms, word="Word", Level=["A1", "b1"], letters=[5, None])
    result = generate(named, model=pretrained, samples=12, sampler=QUICK)
    assert set().union(*map(content, result)) <= {"bread", "bridge", "river"}


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["4,125", "3,5", "4,5"], [4.125, 3.5, 4.5]),  # a comma that is decimal once is so in the whole column
        (["0,125", "4,125", "12"], [0.125, 4.125, 12]),
        (["4,125", "35", "1,204,500"], [4125, 35, 1204500]),
        (["4,125", "1,200.5", ""], [4125, 1200.5, None]),
        (["3,5", "1,200.5"], [3.5, 1200.5]),  # which cannot be read otherwise
    ],
)
def test_commas_mean_the_same_in_all_of_a_column(tmp_path, cells, numbers):
    rows = [f'w{at}\t{cell}\t"1,234"\n' for at, cell in enumerate(cells)]
    (tmp_path / "norms.tsv").write_text("word\tconc\tcount\n" + "".join(rows).replace('"', ""), "utf-8")
    table = read_table(str(tmp_path / "norms.tsv"), "word", ["conc", "count"], [])
    assert [row["conc"] for row in table.rows.values()] == numbers
    assert {row["count"] for row in table.rows.values()} == {1234}


def test_bounds_from_the_cells_of_a_spreadsheet_are_numbers_or_names():
    def bounds(value, **row):
        params = read_params(LexiconParams, fill_params(LexiconParams, {"table": "norms.csv", **value}, row))
        assert isinstance(params, LexiconParams)
        return params.bounds

    assert bounds({"letters": ["{lo}", "{hi}"]}, lo="3", hi="5") == {"letters": (3.0, 5.0)}
    assert bounds({"letters": "{len}", "Conc": ["{lo}", None]}, len="4", lo="2.5") == {
        "letters": (4.0, 4.0),
        "Conc": (2.5, None),
    }
    assert (
        bounds({"Conc": "{span}"}, span="2.5; 5") == bounds({"Conc": "{span}"}, span="[2.5, 5]") == {"Conc": (2.5, 5.0)}
    )
    assert bounds({"level": "{level}"}, level="A1; B2") == {"level": frozenset(["a1", "b2"])}
    assert bounds({"letters": ["{lo}", "{hi}"], "level": ["{a}", "{b}"]}, hi="5", a="A1") == {
        "letters": (None, 5.0),
        "level": frozenset(["a1"]),
    }
    assert bounds({"letters": ["{lo}", "{hi}"], "level": "A1"}) == {"level": frozenset(["a1"])}


def test_a_row_loses_a_lexicon_only_where_all_that_it_asks_is_empty():
    written = {"where": {"place": "{at}"}, "letters": "{l}", "frequency": ["{lo}", "{hi}"]}

    def read(**row):
        return read_params(LexiconParams, fill_params(LexiconParams, written, row))

    assert read() is read(at="2") is None
    assert read(at="2", lo="10").bounds == {"frequency": (10.0, None)}
    for row in ({"l": "4-6", "lo": "10"}, {"l": "99;2"}):
        with pytest.raises(ValidationError, match="bounds"):
            read(at="2", **row)


def test_semicolons_between_cells_make_commas_decimal(tmp_path):
    cells = {"a": "4,125", "b": "1,610", "c": "1,204,500", "d": "7"}
    (tmp_path / "norms.csv").write_text("word;conc\n" + "".join(f"{word};{cell}\n" for word, cell in cells.items()))
    table = read_table(str(tmp_path / "norms.csv"), "word", ["conc"], [])
    assert [row["conc"] for row in table.rows.values()] == [4.125, 1.61, 1204500, 7]


def test_places_from_both_ends_hold_words_that_fit(pretrained):
    control = Lexicon(where={"place": [1, -2]}, letters=[6, 6]) & Length(7, 2)
    result = generate(control, model=pretrained, samples=12, sampler=QUICK)
    six = {word for word in CONTENT if len(word) == 6}
    assert result.success == 1.0
    assert all({sample.words[0], sample.words[-2]} <= six for sample in result)
    assert any(len(word) != 6 for sample in result for word in sample.words[1:-2])


@pytest.mark.parametrize("place", [2, -2])
def test_under_not_the_word_at_a_place_does_not_fit(pretrained, place):
    fitting = sorted(CONTENT - {"bread", "warm"})
    control = ~Lexicon(where={"place": place}, words=fitting, function_words=True) & Length(7, 2)
    # Without guidance only what is exact still holds.
    result = generate(control, model=pretrained, samples=12, sampler=QUICK, guidance=Guidance(scale=0))
    at = place - 1 if place > 0 else place
    assert {sample.words[at] for sample in result} == {"bread", "warm"}
    assert result.success == 1.0


def test_under_not_a_text_without_the_place_holds(pretrained):
    control = ~Lexicon(where={"place": 6}, words=sorted(CONTENT), function_words=True) & Length(5)
    assert generate(control, model=pretrained, samples=4, sampler=QUICK).success == 1.0


def test_each_sample_its_own_bounds(pretrained):
    sets = [LexiconParams(words=["bread"]), LexiconParams(where={"place": 1}, words=["old", "two"])]
    result = generate(Lexicon.each(sets), model=pretrained, samples=8, sampler=QUICK)
    assert all(content(sample) <= {"bread"} for sample in result.samples[::2])
    assert all(sample.words[0] in ("old", "two") for sample in result.samples[1::2])


def test_words_of_a_tag_fit_and_those_of_others_are_free(tagged):
    batch = batch_of(tagged, 1, Layout(8, 6))
    logits = (
        Lexicon(where={"tag": "NOUN"}, letters=[6, 6]).ready(batch).restrict(torch.zeros(1, 8, len(tagged.tokenizer)))
    )
    left = {word for word in CONTENT if logits[0, 3, tagged.tokenizer.encode([word])[1]] == 0}
    assert left == {"bakery", "bridge", "garden", *(CONTENT - NOUNS)}
    long, short = {"bakery", "bridge", "garden"}, {"bread", "cats", "river"}
    free, held_long, held_short = (
        {word for sample in generate(control, model=tagged, samples=24, sampler=QUICK) for word in sample.words}
        for control in (None, *(Lexicon(where={"tag": "NOUN"}, letters=letters) for letters in ([6, 6], [1, 5])))
    )
    assert free & NOUNS  # of either kind, one of the two controls has something to forbid
    assert not held_long & short
    assert not held_short & long


def test_places_exchanged_are_held_to_the_list_whatever_tag_a_word_mostly_has(tagged):
    control = Lexicon.each([{"where": {"tag": "NOUN"}, "words": ["bread"]}])
    batch = batch_of(tagged, 1, Layout(8, 6))
    control.attach(tagged)

    def left(place):
        allowed = control.ready(batch).restrict(torch.zeros(1, 8, len(tagged.tokenizer)))[0, place + 1] == 0
        return {tagged.tokenizer.token(at) for at in allowed.nonzero()[:, 0].tolist()}

    for tags, held in ((["NOUN"], True), (["NOUN", "VERB"], False), ([], False)):
        hold_exchanged(control & Length(6), {0: [3]}, frozenset(tags))
        assert (left(3) == {"bread"}) is held
        assert {"bread", "sells"} <= left(2)


def test_a_text_with_too_few_words_to_judge_fails_if_some_are_asked_for():
    nouns = {"where": {"tag": "NOUN"}, "words": ["cats", "garden"]}
    without, one = "It was very old .".split(), "The old cats are here .".split()
    assert Lexicon(**nouns)(without).passed
    asked = [Lexicon(**nouns, min_words=2)(words) for words in (without, one, "The cats like the garden .".split())]
    assert [(check.score, check.passed) for check in asked] == [(0.0, False), (0.5, False), (1.0, True)]
    assert asked[1].why == "1 of at least 2 words to judge"
    assert Lexicon(**nouns, min_words=7).range_of(0)[0] == 7
    with pytest.raises(UserError, match="min_words"):
        Lexicon(**nouns, min_words=-1)


def test_the_check_asks_the_tagger_and_names_places():
    control = Lexicon(where={"tag": "NOUN"}, letters=[5, 9])
    check = control(["The", "dog", "saw", "the", "garden", "."])
    assert (check.score, check.passed, check.where) == (0.5, False, (1,))
    assert check.why == "'dog' has letters 3"
    assert control(["He", "slept", "."]).passed
    assert not Lexicon(where={"place": 5}, letters=3)(["the", "dog"]).passed
    words = Lexicon(words=["dog"])(["The", "dog", "barked", ",", "twice", "."])
    assert (round(words.score, 3), words.where) == (round(1 / 3, 3), (2, 4))


def test_function_words_of_a_tag_must_fit_unless_they_are_let_pass(tagged):
    words = ["The", "ones", "are", "very", "friendly", "."]
    asked = {"where": {"tag": "NOUN"}, "words": ["dog"]}
    assert "NOUN" in upos_tagger()([words])[0][1]
    assert Lexicon(**asked)(words).where == (1,)
    assert Lexicon(**asked, function_words=True)(words).passed


def test_names_that_are_written_like_function_words_are_none():
    control = Lexicon(words=["cat", "dog"])
    check = control("The US cat and AI dog in May .".split())
    assert [check.where, check.why] == [
        (1, 4, 7),
        "'US' is not in the list, 'AI' is not in the list, 'May' is not in the list",
    ]
    assert control("May I and the dog ? Will we ?".split()).passed
    assert not any(map(is_function_word, ["US", "AI", "May", "Will", "Don"]))
    assert all(map(is_function_word, ["I", "The", "may", "us", ",", "n't"]))


def test_frequency_is_that_of_the_training_text(tagged, pretrained):
    counts = load_counts(tagged.folder)
    assert counts.tokens == sum(map(len, SENTENCES))
    assert counts.per_million("BREAD") == pytest.approx(1e6 / counts.tokens)
    assert counts.per_million("the") == 0  # not among the words that were kept
    assert generate(Lexicon(frequency=[1, None]), model=tagged, samples=4, sampler=QUICK).success == 1.0
    with pytest.raises(RecipeError, match="the model has no counts of its training text"):
        generate(Lexicon(frequency=[1, None]), model=pretrained, samples=1)


def test_words_have_as_many_syllables_as_bounds_say(pretrained):
    control = Lexicon(syllables=[2, None], function_words=False)
    samples = generate(control, model=pretrained, samples=8, sampler=QUICK)
    assert min(syllables(word) for sample in samples for word in sample.words) >= 2
    check = Lexicon(syllables=[1, 3], function_words=False)(["in", "2014"])
    assert (check.passed, check.where) == (False, (1,))  # of which the number is unknown


def test_zipf_is_the_logarithm_per_billion_words_with_every_count_raised(tagged, pretrained):
    counts = WordCounts(999_990, {"the": 99_999, "The": 0, "bread": 9, **dict.fromkeys("abcdefgh", 1)})
    assert [counts.zipf(word) for word in ("The", "bread", "unseen")] == pytest.approx([8.0, 4.0, 3.0])
    # `bread` was counted once, `the` is not among the words that were kept.
    between = sum(load_counts(tagged.folder).zipf(word) for word in ("bread", "the")) / 2
    sample = generate(Lexicon(zipf=[between, None]), model=tagged, samples=1, sampler=QUICK)[0]
    assert sample.passed
    assert not Lexicon(zipf=[between, None], function_words=False).for_model(tagged)(["the"]).passed
    with pytest.raises(RecipeError, match="from which `zipf` is computed"):
        generate(Lexicon(zipf=[1, None]), model=pretrained, samples=1)


def test_counts_with_the_words_named_are_read_as_before(tagged):
    counts = load_counts(tagged.folder)
    named = {"format": 1, "tokens": counts.tokens, "counts": dict(counts.counts)}
    (tagged.folder / FILE).write_text(json.dumps(named))
    assert load_counts(tagged.folder) == counts


def test_counts_that_are_damaged_are_one_message(tagged):
    length = len(tagged.tokenizer)
    for value in (
        {"format": 9},
        {"format": 1, "tokens": 3, "counts": {"a": -1}},
        {"format": 1, "tokens": True},
        {"format": 2, "tokens": 3, "counts": [1]},
        {"format": 2, "tokens": 3, "counts": {"a": 1}},
        {"format": 2, "tokens": 3, "counts": [0] * (length - 1) + [-1]},
    ):
        (tagged.folder / FILE).write_text(json.dumps(value))
        with pytest.raises(ModelError, match=FILE):
            generate(Lexicon(letters=3), model=tagged, samples=1)


def test_too_few_words_are_refused_with_numbers(pretrained, tagged, norms):
    asked = {"table": norms, "word": "Word", "Concreteness": [1, 2]}
    with pytest.raises(RecipeError) as caught:
        generate(Lexicon(**asked), model=pretrained, samples=1)
    said = str(caught.value)
    assert "6 of them are among the 7 of norms.csv" in said
    assert "0 have Concreteness 1 to 2 (there are 3.1 to 4.97)" in said
    with pytest.raises(RecipeError, match="0 of them are among the 2 of the list"):
        generate(Lexicon(words=["zebra", "lion"]), model=pretrained, samples=1)
    with pytest.raises(RecipeError, match="no counts of words by tag"):
        generate(Lexicon(where={"tag": "NOUN"}, letters=6), model=pretrained, samples=1)
    with pytest.raises(RecipeError, match="no word is left"):
        generate(Lexicon(where={"tag": "NOUN"}, words=["sells"]), model=tagged, samples=1)


def test_what_of_a_list_can_stand_nowhere_is_said_once(pretrained, caplog):
    words = ["bread", "XQZzy", "ice cream", "zy", "zz", "zzz"]
    for _ in range(2):
        generate(Lexicon(words=words), model=pretrained, samples=1, sampler=QUICK)
    (record,) = caplog.records
    assert record.getMessage() == (
        "dlmctl: lexicon: of the 6 words of the list the model knows 1; it does not know 'XQZzy', 'zy', 'zz' "
        "and 1 more; 'ice cream' is more than one word to it."
    )
    generate(Lexicon(words=["bread", "zy"]), model=pretrained, samples=1, sampler=QUICK)
    assert caplog.messages[1].endswith("the model knows 1; it does not know 'zy'.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"lemma,concreteness\ndog,4\n", "norms.csv has no column 'word'"),
        (b"word,concretness\ndog,4\n", "Did you mean 'concretness'"),
        (b"word,concreteness\ndog,four\n", r"norms.csv:2: 'four' in the column 'concreteness' is not a number"),
        ("word,concreteness\ncafé,4\n".encode("latin1"), "is not UTF-8"),
        ("word\tconcreteness\ndog\t4\n".encode("utf-16"), "is UTF-16"),
        (b"word,concreteness\n", "has no rows with a word"),
        (b'word,concreteness\n"dog,4\n', "A closing quote may be missing"),
    ],
)
def test_tables_that_cannot_be_read_are_one_message(pretrained, tmp_path, text, said):
    (tmp_path / "norms.csv").write_bytes(text)
    control = Lexicon(table=str(tmp_path / "norms.csv"), concreteness=[4, 5])
    with pytest.raises((RecipeError, DataError), match=said):
        generate(control, model=pretrained, samples=1)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "give `words`, a `file`, or bounds"),
        ({"leters": [3, 4]}, "Did you mean 'letters'"),
        ({"letters": [5, 3]}, "go from 5 down to 3"),
        ({"letters": [None, None]}, "the bounds of 'letters' are given as"),
        ({"letters": True}, "the bounds of 'letters' are given as"),
        ({"letters": [3, float("inf")]}, "the bounds of 'letters' are given as"),
        ({"letters": ["3", "5"]}, "'letters' is a number"),
        ({"frequency": "high"}, "'frequency' is a number"),
        ({"words": ["dog"], "file": "list.txt"}, "both list words"),
        ({"table": "norms.csv"}, "needs bounds"),
        ({"words": ["unit3.txt"]}, "a list in a file is given as `file: unit3.txt`"),
        ({"letters": 3, "where": {"tag": "NUON"}}, "Did you mean 'NOUN'"),
        ({"letters": 3, "where": {"tag": "NOUN", "place": 1}}, "either `tag` or `place`"),
        ({"letters": 3, "where": {"place": 0}}, "counted from 1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params, said):
    with pytest.raises(UserError, match=said):
        Lexicon(**params)


def test_a_file_that_is_missing_says_where_it_was_looked_for(pretrained):
    with pytest.raises(DataError, match=r"nowhere.txt: is missing. A path in a recipe is relative to"):
        generate(Lexicon(file="nowhere.txt"), model=pretrained, samples=1)


def test_a_text_that_goes_its_way_under_any_has_its_words_alone(pretrained):
    lexicon = Lexicon(words=["bakery", "bread", "warm"])
    other = Pos(tags=["X"] * 8)
    result = generate((lexicon | other) & Length(8), model=pretrained, samples=16, sampler=QUICK)
    assert 4 <= sum(lexicon(sample.words).passed for sample in result) < 16


def test_the_energy_is_minus_log_p_of_words_that_fit(pretrained):
    batch = batch_of(pretrained, 1, Layout(8, 6))
    prepared = Lexicon(where={"place": 2}, words=["bread", "warm"]).ready(batch)
    log_probs = torch.randn(1, 8, len(pretrained.tokenizer)).log_softmax(-1)
    ids = [*range(4), *pretrained.tokenizer.encode(["bread", "warm"])[1:-1]]  # the special tokens are others' business
    state = ControlState(
        torch.zeros(1, 8, 8),
        torch.zeros(1),
        vocabulary=pretrained.tokenizer,
        embeddings=pretrained.model.embeddings,
        x0=lambda: torch.zeros(1),
        word_log_probs=lambda: log_probs,
    )
    assert prepared.energy(state).item() == pytest.approx(-log_probs[0, 2, ids].exp().sum().log().item(), rel=1e-4)
