"""Words as expected or unexpected as asked, judged by a language model that reads the words before."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import dlmctl
from controls import Length, Pattern, Surprisal
from controls.surprisal import WEIGHT, Expected
from dlmctl.annotators.causal import CausalLM
from dlmctl.annotators.reader import load_word_reader
from dlmctl.annotators.scorer import scorer_of, token_nats
from dlmctl.annotators.surprisal import surprisals
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.checkpoint.scorer import save_scorer
from dlmctl.errors import ModelError, RecipeError, UserError
from dlmctl.generation.flat import Columns
from dlmctl.generation.generate import generate
from dlmctl.generation.matched import run_matched
from dlmctl.generation.matched_table import columns_of, rows_of
from dlmctl.recipe.cells import fill_params, read_params
from dlmctl.recipe.load import load_matched
from dlmctl.training.scorer import ScorerSizes, build_scorer
from tests.tokens.tokenizers_of_all_kinds import model_of

GLASS = Pattern("<any>{3,7} umbrella .")


@pytest.fixture(scope="module")
def everyday():
    return from_pretrained("everyday")


def nats_of(everyday, words, place):
    return token_nats(*scorer_of(everyday.folder), [words])[0][place]


@pytest.mark.parametrize("nats", [[None, 1.0], [4, 7]])
def test_a_word_is_as_expected_as_asked(everyday, nats):
    control = GLASS & Surprisal(word="umbrella", nats=nats)
    result = generate(control, model=everyday, samples=4, candidates=4)
    assert result.success == 1.0
    for sample in result:
        measured = nats_of(everyday, sample.words, sample.words.index("umbrella"))
        assert (nats[0] or 0) <= measured <= nats[1]
        assert sample.checks["surprisal"].values["nats"] == pytest.approx(measured, abs=1e-3)


def test_words_at_places_are_guided(everyday):
    """First drafts, guided or not: the share that fits."""
    control = Length(8) & Surprisal(where={"place": -2}, nats=[6, 9])
    asked = {"model": everyday, "samples": 32, "until": {"max_rounds": 1}}
    guided, free = (generate(control, **asked, guidance={"scale": scale}).success for scale in (1, 0))
    assert guided > free + 0.2


@pytest.mark.parametrize(("where", "least"), [({"place": 5}, 5), ({"place": [2, -6]}, 6), ({"tag": "NOUN"}, None)])
def test_texts_have_room_for_the_places(where, least):
    control = Surprisal(where=where, nats=[1, None])
    words = control.word_range(control.sets[0])
    assert (words and words[0]) == least


def test_words_far_from_the_bounds_lose_what_they_are_beyond():
    selected = torch.zeros(2, 4, dtype=torch.bool)
    selected[1, 2] = True
    prepared = Expected(selected, torch.tensor([[0.0, math.inf], [1.0, 2.0]]), torch.device("cpu"))
    probabilities = torch.full((2, 4, 4), 0.25)
    probabilities[1, 2] = torch.tensor([math.exp(-0.5), math.exp(-1.5), math.exp(-4.0), 0.0])
    evidence = prepared.evidence_given(probabilities)
    assert evidence[1, 2, :3].tolist() == pytest.approx([-WEIGHT * 0.5, 0, -WEIGHT * 2.0])
    assert math.isfinite(evidence[1, 2, 3])
    assert evidence.count_nonzero() == 3
    rest = prepared.of_rows(torch.tensor([1]), 3).evidence_given(probabilities[1:, :3])
    assert torch.equal(rest, evidence[1:, :3])


def test_matched_sets_have_an_expected_and_an_unexpected_word(everyday):
    recipe, _ = load_matched("predictability", ["samples=2", "candidates=2"])
    sets = run_matched(recipe)
    assert any(item.passed for item in sets.items)
    columns = columns_of(sets)
    assert columns.index("expected_surprisal_nats") < columns.index("unexpected_word")
    for item, row in zip(sets.items, rows_of(sets), strict=True):
        for condition, sample in item.texts.items():
            measured = nats_of(everyday, sample.words, 6)
            assert float(row[f"{condition}_surprisal_nats"]) == pytest.approx(measured, abs=1e-3)
            if item.passed:
                assert measured <= 1.5 if condition == "expected" else measured >= 6


def test_tables_have_a_column_with_the_numbers(everyday):
    result = generate(GLASS & Surprisal(word="umbrella", nats=[None, 9]), model=everyday, samples=2)
    columns = Columns.of(result.to_dicts())
    assert [columns.row(record)["surprisal_nats"] for record in result.to_dicts()] == [
        sample.checks["surprisal"].values["nats"] for sample in result
    ]


def test_the_columns_of_a_generator_do_not_depend_on_the_batch(everyday):
    judged = {"surprisal": {"word": "rain", "nats": [None, 20]}}
    recipe = {
        "model": "everyday",
        "samples": 1,
        "sampler": {"steps": 3},
        "controls": [{"pattern": "<any>{3} {word} ."}, judged, {"not": judged}],
    }
    generator = dlmctl.Generator(recipe)
    with_it, without = (generator({"index": [0], "word": [word]}) for word in ("rain", "snow"))
    assert list(with_it) == list(without)
    assert math.isfinite(with_it["surprisal_nats"][0])
    assert math.isnan(without["surprisal_nats"][0])
    assert math.isnan(without["not_nats"][0])


class Letters:
    """A causal model whose tokens are letters, each with as many nats as its place in the text."""

    bos_token_id: int | None = 0
    eos_token_id = None

    def __call__(self, text, **options):
        return {"offset_mapping": [(at, at + 1) for at in range(len(text))]}


def test_pieces_of_words_are_summed(monkeypatch):
    letters = Letters()
    reader = CausalLM(SimpleNamespace(), letters)

    def nats(count):
        monkeypatch.setattr(CausalLM, "token_nats", lambda *args, **kinds: [[float(at) for at in range(count)]])

    nats(10)
    assert surprisals(reader, [["We", "did", "n't", "."]], ["We didn't."]) == [[0 + 1, 3 + 4 + 5, 6 + 7 + 8, 9]]
    # Without a start token there is no probability of the first letter, nor of the word that begins with it.
    letters.bos_token_id = None
    nats(9)
    assert surprisals(reader, [["We", "did", "n't", "."]], ["We didn't."]) == [[None, 2 + 3 + 4, 5 + 6 + 7, 8]]


def test_words_beyond_what_the_reader_reads_are_unknown(monkeypatch):
    reader = CausalLM(SimpleNamespace(), Letters())
    monkeypatch.setattr(CausalLM, "token_nats", lambda self, texts, cut: [[1.0] * 7] if cut else None)
    assert surprisals(reader, [["We", "did", "n't", "."]], ["We didn't."]) == [[2, 3, None, None]]


SMALL_GPT2 = GPT2Config(n_positions=16, n_embd=16, n_layer=2, n_head=2, initializer_range=1.0)
SMALL_LLAMA = LlamaConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=16,
    initializer_range=1.0,
)


@pytest.fixture(params=["gpt2", "llama", "no start"])
def small_causal_model(request, tmp_path):
    """The folder of a causal model with random weights that reads 16 tokens, each a letter."""
    inner = Tokenizer(
        WordLevel({letter: at for at, letter in enumerate(["<s>", *" .'Wabcdefginorstu"])}, unk_token="<s>")
    )
    inner.pre_tokenizer = Split("", "isolated")
    special = {} if request.param == "no start" else {"bos_token": "<s>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(tmp_path)
    torch.manual_seed(0)
    kind, config = (LlamaForCausalLM, SMALL_LLAMA) if request.param == "llama" else (GPT2LMHeadModel, SMALL_GPT2)
    config.vocab_size = inner.get_vocab_size()
    kind(config).save_pretrained(tmp_path)
    return tmp_path


def test_texts_that_a_causal_model_reads_together_have_the_surprisals_that_each_has_alone(small_causal_model):
    reader = load_word_reader(str(small_causal_model))
    written = ["We didn't.", "a", "", "We are good at it and so are cats.", "no dog, no cat", "got it."]
    texts = [["We", "did", "n't", "."], ["a"], [], *(text.split() for text in written[3:])]
    together = surprisals(reader, texts, written)
    alone = [surprisals(reader, [words], [text])[0] for words, text in zip(texts, written, strict=True)]
    assert together == [[value and pytest.approx(value, abs=1e-4) for value in row] for row in alone]
    assert len({value for row in alone for value in row}) > 10
    assert together[3][-1] is None  # further than it reads
    assert (together[0][0] is None) == (reader.start is None)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_causal_model_reads_texts_together_unless_they_are_deterministic(
    everyday, small_causal_model, monkeypatch, deterministic
):
    sizes, token_nats_of = [], CausalLM.token_nats

    def counted(self, texts, *rest, **kinds):
        sizes.append(len(texts))
        return token_nats_of(self, texts, *rest, **kinds)

    monkeypatch.setattr(CausalLM, "token_nats", counted)
    control = Length(4) & Surprisal(where={"place": 2}, nats=[0, None], scorer=str(small_causal_model))
    sampler = {"steps": 2, "deterministic": deterministic}
    generate(control, model=everyday, samples=3, until={"max_rounds": 1}, sampler=sampler)
    assert sizes == ([1, 1, 1] if deterministic else [3])


def test_a_scorer_over_pieces_of_words_judges_whole_words(tmp_path):
    model = replace(model_of("bytes"), folder=tmp_path)
    scorer = build_scorer(ScorerSizes(length=12, hidden=16, layers=1, heads=2), model.tokenizer)
    save_scorer(scorer, model.tokenizer, tmp_path / "scorer")
    control = Surprisal(where={"place": [1, 2]}, nats=[None, 99]).for_model(model)
    words = "Gardens are n't near the old Stone Oven .".split()
    nats = token_nats(*scorer_of(tmp_path), [words], cut=True)[0]
    pieces = [model.tokenizer.token(token) for token in model.tokenizer.encode(words)[1:-1]]
    first = next(at for at, piece in enumerate(pieces) if piece.startswith("Ġ"))
    read = surprisals(scorer_of(tmp_path), [words], [""])[0]
    assert first > 1
    assert read[0] == pytest.approx(sum(nats[:first]))
    assert read[-1] is None  # further than it reads
    assert None not in read[:3]
    assert control(words).marks[0].label == f"{read[0]:.2f}"
    assert Surprisal(word="Gardens", nats=[None, 99]).for_model(model)(words).passed


def test_verdicts(everyday):
    control = Surprisal(word="rain", nats=[None, 1]).for_model(everyday)
    check = control(["It", "began", "to", "rain", "."])
    assert check.passed
    assert check.why.startswith("rain 0.")
    check = control(["They", "ate", "some", "rain", "."])
    assert not check.passed
    assert 0 < check.score < 0.5
    assert check.where == ()
    assert check.marks[0].start == 3
    assert not check.marks[0].met
    assert control(["It", "began", "."]).why == "without 'rain'"
    places = Surprisal(where={"place": [1, 3, 4]}, nats=[None, 5]).for_model(everyday)
    check = places(["They", "ate", "some", "rain", "."])
    assert check.where == (3,)
    assert check.values["nats"] == pytest.approx(nats_of(everyday, ["They", "ate", "some", "rain", "."], 3), abs=1e-3)
    everywhere = Surprisal(where={"tag": "NOUN"}, nats=[3, None]).for_model(everyday)
    assert everywhere(["It", "began", "to", "rain", "."]).why == "no word to judge"


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"nats": [1, 2]}, "either `word` or `where`"),
        ({"word": "rain", "where": {"place": 1}, "nats": [1, 2]}, "either `word` or `where`"),
        ({"word": "rain"}, "nats"),
        ({"word": "rain", "nats": [None, None]}, "the bounds of 'nats' are given as `nats: .least, most.`"),
        ({"word": "rain", "nats": [2, 1]}, "the bounds of 'nats' go from 2 down to 1; the lower one comes first"),
        ({"word": "rain", "nats": [-1, 1]}, "nats"),
        ({"word": "rain", "nats": [None, math.nan]}, "nats"),
        ({"word": "rain", "nats": [math.inf, math.inf]}, "nats"),
        ({"word": "rain", "nats": [1]}, "nats"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(params, why):
    with pytest.raises(UserError, match=why):
        Surprisal(**params)


def test_a_model_whose_tokens_cannot_be_placed_is_refused(monkeypatch):
    slow = CausalLM(None, SimpleNamespace(is_fast=False))
    monkeypatch.setattr("dlmctl.annotators.reader.load_reader", lambda source: slow)
    with pytest.raises(ModelError, match="mine: its tokeniser does not tell where in a text a token is"):
        load_word_reader("mine")


def test_an_empty_cell_leaves_an_end_open():
    written = {"word": "{word}", "nats": ["{least}", "{most}"]}

    def read(**cells):
        return read_params(Surprisal.Params, fill_params(Surprisal.Params, written, cells))

    assert read(word="rain", least=None, most="1.5").nats == [None, 1.5]
    assert read(word="rain", least="6", most=None).nats == [6, None]
    assert read(word="rain") is None
    assert fill_params(Surprisal.Params, {"where": {"place": ["{a}", "{b}"]}}, {"a": 3}).value == {
        "where": {"place": [3]}
    }


def test_what_cannot_be_is_said(everyday, pretrained):
    with pytest.raises(RecipeError, match="'old house' is not one word to the model"):
        generate(Surprisal(word="old house", nats=[None, 1]), model=everyday, samples=1)
    with pytest.raises(RecipeError, match="surprisal: the word 'zorbles' is not among"):
        generate(Surprisal(word="zorbles", nats=[None, 1]), model=everyday, samples=1)
    with pytest.raises(RecipeError, match="surprisal: the word 'umbrella' is not among"):  # its scorer knows it
        generate(
            Surprisal(word="umbrella", nats=[None, 1], scorer=str(everyday.folder / "scorer")),
            model=pretrained,
            samples=1,
        )
    with pytest.raises(RecipeError, match=r"has no scorer.*scorer: openai-community/gpt2"):
        generate(Surprisal(word="cats", nats=[None, 1]), model=pretrained, samples=1)
    with pytest.raises(ModelError, match="no such model"):
        generate(Surprisal(word="cats", nats=[None, 1], scorer="no-such-folder"), model=pretrained, samples=1)
    with pytest.raises(ModelError, match="no such model"):
        generate(Surprisal(word="cats", nats=[None, 1], scorer="x" * 700), model=pretrained, samples=1)


def test_a_model_with_a_scorer_may_be_named_for_it(everyday):
    for source in ("everyday", str(everyday.folder), str(everyday.folder / "scorer")):
        assert load_word_reader(source) is scorer_of(everyday.folder)
