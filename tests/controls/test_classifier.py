import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from controls import Contains, Semantic
from controls.bridge import BridgedClassifier, entropy_share
from controls.classifier import Classifier, ClassifierParams
from controls.huggingface import WordClassifier, load_outside
from controls.judged_labels import JudgedLabels, verdict_of
from controls.ngrams import NgramJudge, features
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.control.labels import LabelledText
from dlmctl.control.training_command import training_command
from dlmctl.datasets.conditions import label_numbers
from dlmctl.datasets.dataset import load_vocabulary
from dlmctl.datasets.prepare import prepare
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import DataError, ModelError, RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.classifier import train_control
from dlmctl.training.config import LoopConfig
from tests.checkpoint.tiny_vendors import write_llada
from tests.conftest import batch_of, state_of, tiny_config
from tests.tokens.tokenizers_of_all_kinds import model_of, tokenizer_of

CORPUS = Path(__file__).resolve().parents[2] / "data" / "restaurants" / "corpus.jsonl"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Pretrained:
    """A tiny model with two classifiers: one of the sentiment, without a name, and one of the type, with a name."""
    folder = tmp_path_factory.mktemp("models") / "restaurants"
    data = tmp_path_factory.mktemp("data") / "restaurants"
    prepare(CORPUS, None, data, length=32)
    tokenizer = load_vocabulary(data)
    torch.manual_seed(0)
    save_pretrained(DiffusionLM(tiny_config(len(tokenizer))), tokenizer, folder)
    pretrained, loop = from_pretrained(folder), LoopConfig(steps=2, batch_positions=512)
    train_control(Classifier, pretrained, loop, data, tmp_path_factory.mktemp("a"), label="sentiment")
    train_control(Classifier, pretrained, loop, data, tmp_path_factory.mktemp("b"), label="type", name="kind")
    return pretrained


def prepared(control, pretrained, batch=1):
    control.attach(pretrained)
    return control.ready(batch_of(pretrained, batch, Layout(16, None)))


def test_the_card_has_the_accuracy_of_the_judge_on_held_out_text(trained):
    card = json.loads((trained.folder / "controls" / "classifier" / "card.json").read_text("utf-8"))
    assert card["validation"]["judge_accuracy"] > 0.8
    assert 0 <= card["validation"]["accuracy_x_t_0"] <= 1
    labels = JudgedLabels({"mood": ["glad", "sad"]})
    assert labels.commonest_accuracy([[0], [0], [1], [2]]) == 0.5 != card["validation"]["accuracy_commonest"]


def test_classifiers_coexist_under_names(trained):
    first = prepared(Classifier(label="Positive"), trained)
    second = prepared(Classifier(label="tavern", name="kind"), trained)
    x = torch.randn(1, 16, trained.model.config.embed_dim)
    assert float(first.energy(state_of(trained, x))) != float(second.energy(state_of(trained, x)))
    with pytest.raises(RecipeError, match="Did you mean 'positive'"):
        Classifier(label="positve").attach(trained)
    with pytest.raises(ModelError, match=r"There are weights named kind: .* such as `name: kind`") as caught:
        Classifier(label="positive", name="kin").attach(trained)
    assert caught.value.setting == "name"
    with pytest.raises(ModelError, match=r"'tavern' is a label of: kind\. Write `name: kind`\.") as caught:
        Classifier(label="tavern", name="kin").attach(trained)
    assert caught.value.setting == "name"


@pytest.mark.parametrize("source", ["clsf", "no/where/clsf"])
def test_a_folder_that_is_not_there_is_said_without_the_network(trained, tmp_path, source, monkeypatch):
    """transformers would look up a misspelled folder on the hub, for minutes if there is no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: pytest.fail("was asked for"))
    network = "transformers.AutoModelForSequenceClassification.from_pretrained"
    monkeypatch.setattr(network, lambda *_, **__: pytest.fail("was asked for"))
    (tmp_path / "clf").mkdir()
    (tmp_path / "clf" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=f"{source}: there is no such model"):
        load_outside(source, trained.tokenizer)


def test_the_command_that_trains_missing_weights_says_label_and_name(pretrained):
    with pytest.raises(ModelError, match="--data DATA --label FIELD --name mood --out RUN`"):
        Classifier(label="positive", name="mood").attach(pretrained)
    assert "--label" not in training_command(Semantic, pretrained.folder)  # it learns every field


def test_lengths_are_those_of_texts_with_the_label_that_the_model_writes():
    texts = [["w"] * count + ["."] for count in (2, 2, 3, 8)] + [["v"] * 5 + ["."]] * 2
    data = LabelledText(texts, [{"size": label} for label in ("small",) * 4 + ("large",) * 2], label="size")
    labels = JudgedLabels.from_json(json.loads(json.dumps(JudgedLabels.from_data(data).to_json())))
    own = [0, 0, 10, 10, 10, 0, 20]
    small, large = (labels.lengths_of(label, own, 6) for label in ("small", "large"))
    # 50 texts as the model's own beside those of the label; none of nine words, which it does not write.
    assert small == [0, 0, 10, 12, 11, 0, 20]
    assert large == [0, 0, 10, 10, 10, 0, 22]
    assert not any(labels.lengths_of("small", [], 6))


def test_hard_texts_are_longer_than_easy_ones():
    """Over the lengths that the bundled model writes."""
    control = Classifier.each([ClassifierParams(label=label, name="level") for label in ("easy", "hard")])
    control.attach(from_pretrained("everyday"))
    weights = [torch.tensor(control.lengths_of(sample, 30)) for sample in range(2)]
    easy, hard = ((one * torch.arange(len(one))).sum() / one.sum() for one in weights)
    assert easy + 0.5 < hard < 12


def test_each_sample_has_its_own_label_and_classifier(trained):
    params = [
        ClassifierParams(label="positive"),
        ClassifierParams(label="tavern", name="kind"),
        ClassifierParams(label="negative"),
    ]
    x = torch.randn(3, 16, trained.model.config.embed_dim)
    together = prepared(Classifier.each(params), trained, 3).energy(state_of(trained, x))
    alone = [
        prepared(Classifier.each([one]), trained).energy(state_of(trained, x[at : at + 1]))[0]
        for at, one in enumerate(params)
    ]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-5)
    # Two labels in all: their probabilities and that of no label make 1.
    p = sum(
        prepared(Classifier(label=label), trained).energy(state_of(trained, x[:1])).neg().exp()
        for label in ("positive", "negative")
    )
    assert 0 < float(p) < 1


def test_the_check_is_the_judge(trained):
    control = Classifier(label="positive")
    control.attach(trained)
    praise, blame = control.verdicts(
        [0, 1],
        [
            "The Lantern is a charming bistro , and it has friendly staff .".split(),
            "The Lantern is a bistro , but it has careless staff .".split(),
        ],
    )
    assert praise.score > blame.score
    assert not blame.passed
    assert "'negative'" in blame.why


def halved(monkeypatch, guide, judge):
    """Labelled text whose first rows are for the guide and the others for the judge; a label None is no label."""
    monkeypatch.setattr("dlmctl.control.labels.is_guide_half", lambda words: words[0] == "guide")
    rows = [("guide", label) for label in guide] + [("judge", label) for label in judge]
    texts = [[half, f"w{at % 3}", str(label)] for at, (half, label) in enumerate(rows)]
    return LabelledText(texts, [{"mood": label} if label else {} for _, label in rows], label="mood")


@pytest.mark.parametrize(
    ("guide", "judge"),
    [([None] * 4, ["a", "b"] * 2), (["a", "b"] * 2, [None] * 4), (["a"] * 4, ["a", "b"]), (["a", "b"], [])],
)
def test_labels_of_one_half_alone_are_said(monkeypatch, guide, judge):
    words = WordTokenizer.from_corpus([["guide", "judge", "w0", "w1", "w2"]], 1)
    with pytest.raises(DataError, match="need different texts of two labels or more, but there are too few"):
        JudgedLabels.counted(halved(monkeypatch, guide, judge), words)


def test_a_label_that_one_half_lacks_is_left_out(monkeypatch, caplog):
    words = WordTokenizer.from_corpus([["guide", "judge", "w0", "w1", "w2", "a", "b", "c", "d"]], 1)
    labels, files = JudgedLabels.counted(halved(monkeypatch, ["a", "b", "c"] * 3, ["a", "b", "d"] * 3), words)
    assert labels.known == ["a", "b"] == list(files["bag.safetensors"].labels)
    assert "left out, as too few different texts have them for a guide and a judge: 'c', 'd'." in caplog.text


def test_texts_without_a_label_teach_the_judge_what_none_looks_like():
    kinds = {"positive": "what a {} day", "negative": "an awful {} day", None: "the {} bus stops"}
    rows = [(line.format(word).split(), label) for label, line in kinds.items() for word in ("long", "red", "late") * 8]
    fields = [{"mood": label} if label else {} for _, label in rows]
    data = LabelledText([words for words, _ in rows], fields, label="mood")
    labels = JudgedLabels.from_json(json.loads(json.dumps(JudgedLabels.from_data(data).to_json())))
    assert labels.known == ["negative", "positive"]
    assert labels.verdict("negative", "an awful bus".split()).passed
    for label in labels.known:
        said = labels.verdict(label, "the red bus stops".split())
        assert not said.passed
        assert said.score < 0.4
        assert said.where
        assert "no label" in said.why
    figures, of_judge = labels.held_out(data), {"judge_accuracy", "judge_recall", "judge_texts"}
    assert set(figures) == of_judge | {"judge_passes", "judge_passes_unlabelled"}
    # Without such texts a label must be the likeliest, and files of before are such.
    told = data.some([at for at, row in enumerate(fields) if row])
    before = JudgedLabels.from_data(told)
    assert any(before.verdict(label, "the red bus stops".split()).passed for label in before.known)
    assert set(before.held_out(data)) == of_judge


def test_how_good_a_judge_is_is_told_of_each_label_and_where_few_texts_say_so(caplog):
    """If nearly all texts have one label, a judge that knows no other is nearly always right."""
    kinds = ["common" if at < 390 else "rare" for at in range(400)]
    data, learned = (
        LabelledText(
            [[words[kind], f"w{at}"] for at, kind in enumerate(kinds)], [{"kind": kind} for kind in kinds], "kind"
        )
        for words in ({"common": "plain", "rare": "plain"}, {"common": "plain", "rare": "odd"})
    )
    figures = JudgedLabels.from_data(learned).held_out(data)
    assert figures["judge_accuracy"] > 0.95
    assert figures["judge_recall"] == {"common": 1.0, "rare": 0.0}
    assert sum(figures["judge_texts"].values()) == len(data.halves()[1].sentences)
    count = figures["judge_texts"]["rare"]
    assert 0 < count < 10
    assert (
        f"as few held-out texts have them: 'rare' ({count}). `dlmctl data prepare --valid-share`" in caplog.messages[0]
    )
    nothing = JudgedLabels.from_data(data).held_out(data.some([]))
    assert nothing == {"judge_texts": {"common": 0, "rare": 0}}
    assert "'common' (0), 'rare' (0)" in caplog.messages[-1]


def test_rare_labels_count_as_much_as_common_ones_for_the_judge():
    """A judge of nearly only one label would let any text pass as that one, and hardly any as another."""
    draw, words = random.Random(0), {"common": [f"c{at}" for at in range(80)], "rare": [f"r{at}" for at in range(80)]}

    def text(label: str) -> list[str]:
        own = draw.choices(words[label], k=2)
        return draw.sample([*own, *draw.choices([*words["common"], *words["rare"]], k=6)], 8)

    labels = ["common"] * 600 + ["rare"] * 60
    data = LabelledText([text(label) for label in labels], [{"kind": label} for label in labels], label="kind")
    judge = JudgedLabels.from_data(data)
    for label in ("common", "rare"):
        assert sum(judge.verdict(label, text(label)).passed for _ in range(100)) > 50
    plain = NgramJudge.fit(data.sentences, [number for (number,) in judge.labels(data)], 2)
    assert plain.accuracy([(text("rare"), 1) for _ in range(100)]) < 0.4


def test_texts_with_several_labels_are_told(caplog):
    texts = [["Hi", "there", "."]] * 3 + [["Bye", "."]]
    JudgedLabels.from_data(LabelledText(texts, [{"kind": label} for label in "abab"], label="kind"))
    told = "1 of 2 different texts have several labels, and are learned as examples of each: 'Hi there.' is 'a', 'b'."
    assert f"dlmctl: {told}" in caplog.messages


def test_texts_count_alike_where_labels_have_about_as_many():
    texts = [[word, f"w{at}"] for word, count in (("good", 20), ("bad", 26)) for at in range(count)]
    data = LabelledText(texts, [{"kind": words[0]} for words in texts], label="kind")
    labels = JudgedLabels.from_data(data)
    assert labels.judge == NgramJudge.fit(texts, [number for (number,) in labels.labels(data)], 2)


def test_labels_that_differ_in_case_alone_are_one():
    """Recipes name them in any case, so the texts of the first that matched were the only ones with the label."""
    spellings = ["Angry", "angry", "angry ", "ANGRY", "glad", "glad"]
    fields = [{"mood": label} for label in spellings]
    data = LabelledText([["w", str(at)] for at in range(len(spellings))], fields, label="mood")
    labels = JudgedLabels.from_data(data)
    assert labels.known == ["angry", "glad"]
    assert [number for (number,) in labels.labels(data)] == [0, 0, 0, 0, 1, 1]
    assert label_numbers(["angry", "glad"], ["ANGRY", "glad", ""]) == [0, 1, 2]


@pytest.mark.parametrize("spellings", [("False", "True"), ("off", "on"), ("no", "yes")])
def test_true_and_false_of_yaml_are_found_in_any_spelling(spellings):
    labels = JudgedLabels({"late": list(spellings)})
    assert [labels.number(value) for value in (False, True)] == [0, 1]


def test_a_field_that_holds_no_labels_is_named_with_its_values():
    texts = [[str(at)] for at in range(600)]
    data = LabelledText(texts, [{"one": "a", "many": f"n{at}"} for at in range(600)])
    for field, count in (("one", "1 value"), ("many", "600 values")):
        with pytest.raises(DataError, match=f"--label: the field '{field}' has {count}, but labels need 2 to 500."):
            JudgedLabels.from_data(replace(data, label=field))
    with pytest.raises(DataError, match=r"learn from. Fields that it has: one \(1 value\), many \(600 values\)."):
        JudgedLabels.from_data(replace(data, label="other"))
    with pytest.raises(DataError, match=r"no field of 2 to 500 values to learn from. Prepare"):
        JudgedLabels.from_data(replace(data, fields=None))
    lists = replace(data, fields=[{"tags": ["a", "b"]}] * 600, label="tags")
    with pytest.raises(DataError, match=r"--label: the values of the field 'tags' are lists or objects\. A label is"):
        JudgedLabels.from_data(lists)
    two = [{**row, "two": at % 2} for at, row in enumerate(data.fields)]
    with pytest.raises(DataError, match=r"labels need 2 to 500. Fields that have: two."):
        JudgedLabels.from_data(replace(data, fields=two, label="one"))


def test_texts_without_a_label_are_no_more_than_those_of_the_commonest():
    data = LabelledText(
        [[str(at)] for at in range(100)], [{"n": "ab"[at % 2]} if at < 9 else {} for at in range(100)], "n"
    )
    unlabelled = JudgedLabels.from_data(data).without_label(data, 5)
    assert len(unlabelled) == 5
    assert {number for _, number in unlabelled} == {2}
    assert len(JudgedLabels.from_data(data).without_label(data, 80)) == 80  # of 91, and not every second one


@pytest.mark.parametrize("text", ["What is their phone number ?", "We are going to the station ."])
@pytest.mark.parametrize("label", ["positive", "negative"])
def test_plain_sentences_have_no_sentiment(label, text):
    control = Classifier(label=label, name="sentiment")
    control.attach(from_pretrained("everyday"))
    assert not control.verdicts([0], [text.split()])[0].passed


def test_generation_checks_every_sample(trained):
    control = Classifier(label="positive") & Classifier(label="tavern", name="kind")
    result = generate(control, model=trained, samples=2, sampler=SamplerSettings(steps=2))
    assert [len(sample.checks) for sample in result] == [2, 2]


def test_the_field_of_the_labels_must_be_named():
    rows = [{"mood": "good"}, {"mood": "bad"}]
    with pytest.raises(DataError, match="Known: mood"):
        JudgedLabels.from_data(LabelledText([["a"], ["b"]], rows))


@pytest.mark.parametrize("params", [{}, {"label": None}, {"label": "a", "model": "b", "name": "c"}])
def test_bad_parameters_are_refused(params):
    with pytest.raises(UserError):
        Classifier(**params)


def test_the_judge_learns_words_and_pairs():
    assert features("Not good".split()) == {"not", "good", "not good"}
    texts = [line.split() for line in ("it is good", "it is not good", "so good", "so not good") * 5]
    judge = NgramJudge.fit(texts, [1, 0] * 10, 2)
    assert judge.accuracy([("rather good".split(), 1), ("rather not good".split(), 0)]) == 1.0
    again = NgramJudge.from_json(json.loads(json.dumps(judge.to_json())))
    assert again.probabilities(["good"]) == judge.probabilities(["good"])
    assert sum(judge.probabilities(["good"])) == pytest.approx(1)


def test_the_judge_learns_how_rare_the_rarest_words_are():
    ranks = {"the": 5, "cat": 300, "sat": 700, "feline": 9000, "reclined": 12000, ".": 4}
    assert features("The cat sat .".split(), ranks) - features("The cat sat .".split()) == {
        "rarest 0 10",
        "rarest 1 9",
        "rarest 2 3",
    }
    common, rare = "the cat sat .".split(), "the feline reclined .".split()
    judge = NgramJudge.fit([common, rare] * 5, [0, 1] * 5, 2, ranks)
    ranks |= {"dog": 310, "slept": 650, "canine": 8500, "slumbered": 13000}
    assert judge.accuracy([("dog slept".split(), 0), ("canine slumbered".split(), 1)]) == 1.0
    judge = replace(judge, ranks={})
    assert judge.accuracy([("dog slept".split(), 0), ("canine slumbered".split(), 1)]) == 0.5  # it knows no such word


@pytest.mark.parametrize(
    ("chances", "least", "passed"),
    [((0.6, 0.4), None, True), ((0.6, 0.4), 0.7, False), ((0.3, 0.7), 0.3, True), ((0.45, 0.3, 0.25), None, False)],
)
def test_a_label_passes_where_it_is_likely_enough(chances, least, passed):
    check = verdict_of("glad", ["glad", "sad"], chances, "a judge", least)
    assert check.passed is passed
    if least == 0.7:
        assert "at least 0.7, it is 0.60" in check.why
    near = verdict_of("glad", ["glad", "sad"], (0.94962, 0.05038), "a judge", 0.95)
    assert near.why.endswith("at least 0.95, it is 0.9496")


@pytest.fixture(scope="module")
def foreign(trained, tmp_path_factory):
    """A Hugging Face classifier with the model's vocabulary, and one that lacks a word of it; random weights."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = [trained.tokenizer.words([index])[0] for index in range(4, len(trained.tokenizer))]
    folders = []
    for kept in (words, words[1:]):
        folder = tmp_path_factory.mktemp("foreign")
        vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *reversed(kept)])}
        PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="[UNK]")),
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
        ).save_pretrained(folder)
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = BertConfig(vocab_size=len(vocabulary), id2label={0: "NEGATIVE", 1: "POSITIVE"}, **sizes)
        BertForSequenceClassification(config).save_pretrained(folder)
        folders.append(str(folder))
    return folders


def test_a_hugging_face_classifier_reads_expected_words(trained, foreign):
    network = load_outside(foreign[0], trained.tokenizer)
    assert network.labels == ["NEGATIVE", "POSITIVE"]
    ids = torch.tensor(trained.tokenizer.encode("The Lantern is a cheap bistro .".split()))[None]
    certain = torch.nn.functional.one_hot(ids, len(trained.tokenizer)).float()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(foreign[0])
    tokens = ["[CLS]", *"The Lantern is a cheap bistro .".split(), "[SEP]"]
    expected = AutoModelForSequenceClassification.from_pretrained(foreign[0]).eval()(
        input_ids=torch.tensor([theirs.convert_tokens_to_ids(tokens)])
    )
    torch.testing.assert_close(network(certain), expected.logits, rtol=1e-4, atol=1e-5)
    # What stands behind END makes no difference.
    pad = torch.nn.functional.one_hot(torch.full((1, 3), trained.tokenizer.pad_id), len(trained.tokenizer)).float()
    torch.testing.assert_close(network(torch.cat([certain, pad], 1)), expected.logits, rtol=1e-4, atol=1e-5)
    sharp = copy.deepcopy(network)
    for weight in sharp.network.parameters():  # as it is made, it makes nearly the same of every text
        weight.normal_(std=0.5)
    more = torch.cat([certain, certain[:, 1:]], 1)  # words, and another END
    torch.testing.assert_close(sharp(more), sharp(certain), rtol=1e-4, atol=1e-5)


def test_a_hugging_face_classifier_guides(trained, foreign):
    control = Classifier(label="positive", huggingface=foreign[0])
    x = torch.randn(1, 16, trained.model.config.embed_dim, requires_grad=True)
    prepared(control, trained).energy(state_of(trained, x)).sum().backward()
    assert float(x.grad.abs().sum()) > 0
    (sample,) = generate(control, model=trained, samples=1, sampler=SamplerSettings(steps=2))
    assert 0 <= sample.checks["classifier"].score <= 1


def test_other_vocabularies_are_bridged_and_other_folders_refused(trained, foreign, tmp_path):
    assert type(load_outside(foreign[0], trained.tokenizer)) is WordClassifier
    assert type(load_outside(foreign[1], trained.tokenizer)) is BridgedClassifier
    with pytest.raises(ModelError, match="no sequence classifier"):
        load_outside(str(tmp_path), trained.tokenizer)


def bert(folder, kind):
    """A tiny BERT with random weights and a tokenizer of the given kind."""
    from transformers import BertConfig, BertForSequenceClassification

    theirs = tokenizer_of(kind).inner
    theirs.save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {0: "negative", 1: "positive"}
    config = BertConfig(vocab_size=len(theirs), id2label=labels, max_position_embeddings=64, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    return bert(tmp_path_factory.mktemp("bert"), "word pieces")


def probabilities_of(tokenizer, text, sharp):
    ids = torch.tensor([tokenizer.encode_text(text)])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, ids.shape[1], len(tokenizer), generator=generator, dtype=torch.float64)
    return (logits + sharp * torch.nn.functional.one_hot(ids, len(tokenizer))).softmax(-1)


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_a_bridged_classifier_reads_the_text_as_its_own_tokens(trained, pieces, kind):
    tokenizer = trained.tokenizer if kind == "words" else tokenizer_of(kind)
    network = load_outside(pieces, tokenizer)
    assert type(network) is BridgedClassifier
    text = "The Lantern is a café in the old town."
    certain = probabilities_of(tokenizer, text, 400.0)
    shown = tokenizer.decode(tokenizer.encode_text(text))
    wanted = network.label_probabilities([shown])
    torch.testing.assert_close(network(certain.float()).softmax(-1), wanted, rtol=1e-4, atol=1e-5)
    # Undecided, it reads the same hard tokens, but for a part that is soft.
    assert 0 < float(entropy_share(probabilities_of(tokenizer, text, 8.0)).mean()) < 1


@pytest.mark.parametrize("kind", ["bytes", "words", "the same words"])
def test_the_gradient_of_a_classifier_of_others_is_that_of_differences(trained, pieces, foreign, monkeypatch, kind):
    # With no part of the value taken from the hard tokens, the energy over the bridge is smooth.
    monkeypatch.setattr("controls.bridge.entropy_share", lambda probabilities: torch.zeros(probabilities.shape[:-1]))
    tokenizer = tokenizer_of(kind) if kind == "bytes" else trained.tokenizer
    network = load_outside(foreign[0] if kind == "the same words" else pieces, tokenizer)
    assert type(network) is (WordClassifier if kind == "the same words" else BridgedClassifier)
    p = probabilities_of(tokenizer, "The cheap pub", 6.0).float().requires_grad_()
    energy = lambda at: -network(at).log_softmax(-1)[0, 1]  # noqa: E731
    (gradient,) = torch.autograd.grad(energy(p), p)
    assert float(gradient.abs().max()) > 0
    stream, step = torch.Generator().manual_seed(3), 1e-2
    for _ in range(4):
        towards = torch.randn(p.shape, generator=stream)
        towards /= towards.norm()
        with torch.no_grad():
            slope = float(energy(p + step * towards) - energy(p - step * towards)) / (2 * step)
        assert slope == pytest.approx(float((gradient * towards).sum()), abs=2e-4, rel=2e-2)


def test_a_bridged_classifier_reads_up_to_the_end_of_a_turn(decided, tmp_path):
    tokenizer = from_pretrained(write_llada(tmp_path / "m")).tokenizer
    network = load_outside(decided, tokenizer)
    turn = tokenizer.inner.convert_tokens_to_ids("<|turn|>")
    red, more = (tokenizer.inner.encode(text, add_special_tokens=False) for text in ("red boat", " sinks near"))
    for end in (turn, tokenizer.end_id):
        ids = torch.tensor([[tokenizer.start_id, *red, end, *more]])
        certain = torch.nn.functional.one_hot(ids, len(tokenizer)).float()
        probabilities = network(certain).softmax(-1)
        torch.testing.assert_close(probabilities, network.label_probabilities(["red boat"]), rtol=1e-4, atol=1e-5)


def test_a_classifier_of_others_checks_the_text_as_it_is_written(decided, tmp_path):
    model = from_pretrained(write_llada(tmp_path / "m"))
    control = Classifier(label="positive", model=decided)
    sampler = SamplerSettings(new_tokens=12, precision="fp32")
    result = generate(control, model=model, samples=4, sampler=sampler, guidance=Guidance(scale=0.0))
    assert any(model.tokenizer.text(sample.words) != sample.text for sample in result)
    wanted = load_outside(decided, model.tokenizer).label_probabilities(result.texts)[:, 1].tolist()
    assert [sample.checks["classifier"].score for sample in result] == pytest.approx(wanted, abs=1e-4)


def test_a_classifier_of_others_guides_and_checks_alone(pretrained, pieces):
    control = Classifier(label="Positive", model=pieces)
    (sample,) = generate(control, model=pretrained, samples=1, sampler=SamplerSettings(steps=2))
    assert "by the classifier that guided" in sample.checks["classifier"].why
    masked = model_of("bytes", 24)
    (sample,) = generate(control & Contains("pub"), model=masked, samples=1)
    assert sample.checks["contains"].passed
    with pytest.raises(RecipeError, match="no label 'happy'"):
        generate(Classifier(label="happy", model=pieces), model=pretrained, samples=1)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A tiny GPT-2 as a classifier without a padding token, as most are published."""
    from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

    folder, inner = tmp_path_factory.mktemp("gpt2"), tokenizer_of("bytes").inner
    core = inner.backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token=inner.eos_token).save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": len(inner)}
    roles = {"bos_token_id": inner.eos_token_id, "eos_token_id": inner.eos_token_id}
    config = GPT2Config(id2label={0: "negative", 1: "positive"}, initializer_range=0.5, **sizes, **roles)
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


def test_a_classifier_that_reads_the_last_token_reads_each_text_to_its_end(trained, gpt2, pieces, capfd):
    load_outside.cache_clear()
    tokenizer = trained.tokenizer
    network = load_outside(gpt2, tokenizer)
    assert type(network) is BridgedClassifier
    assert (network.reads_last, load_outside(pieces, tokenizer).reads_last) == (True, False)
    assert "Loading weights" not in capfd.readouterr().err
    rows = [tokenizer.encode_text(text) for text in ("The Lantern is a café in the old town.", "A cheap pub.")]
    texts = [tokenizer.decode(row) for row in rows]
    theirs = [network.theirs(text, return_tensors="pt")["input_ids"] for text in texts]
    expected = torch.cat([network.network(input_ids=ids).logits.softmax(-1) for ids in theirs])
    torch.testing.assert_close(network.label_probabilities(texts), expected, rtol=1e-4, atol=1e-6)
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[tokenizer.pad_id] * (width - len(row))] for row in rows])
    certain = torch.nn.functional.one_hot(ids, len(tokenizer)).float()
    torch.testing.assert_close(network(certain).softmax(-1), expected, rtol=1e-4, atol=1e-6)
    result = generate(Classifier(label="positive", model=gpt2), model=model_of("word pieces", 24), samples=2)
    assert all("by the classifier that guided" in sample.checks["classifier"].why for sample in result)


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """A tiny BERT with large random weights, so that its verdicts differ between texts."""
    from transformers import BertForSequenceClassification

    folder = bert(tmp_path_factory.mktemp("decided"), "word pieces")
    network = BertForSequenceClassification.from_pretrained(folder)
    for weight in network.parameters():
        weight.data.mul_(25.0 if weight.dim() == 2 else 1.0)
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("reward", ["energy", "score"])
def test_a_classifier_of_others_is_a_reward_for_particles_without_any_gradient(decided, reward, monkeypatch):
    """Guidance is off, and the third-party classifier supports no gradients."""
    forward = BridgedClassifier.forward
    monkeypatch.setattr(BridgedClassifier, "forward", lambda self, at: forward(self, at.detach()).detach())
    chances = []
    for particles in (1, 8):
        rewarded = {"reward": reward, "reward_scale": 100.0} if particles > 1 else {}
        sampler = SamplerSettings(steps=None, particles=particles, **rewarded)
        control = Classifier(label="positive", model=decided)  # the rarer one
        options = {"samples": 16, "seed": 1, "sampler": sampler, "guidance": Guidance(scale=0.0), "device": "cpu"}
        texts = generate(control, model=model_of("bytes", 16), **options)
        chances.append(sum(text.checks["classifier"].score for text in texts) / len(texts))
    assert chances[1] > chances[0] + 0.1


@pytest.mark.parametrize(
    ("one", "other", "clashes"),
    [
        ({"label": "a"}, {"label": "b"}, True),
        ({"label": "a"}, {"label": "A"}, False),
        ({"label": "a", "name": "kind"}, {"label": "b", "name": "mood"}, False),
        ({"label": "a", "name": "kind"}, {"label": "b", "name": "kind", "pass_at": 0.9}, True),
        ({"label": "a", "name": "kind"}, {"label": "b", "name": "kind", "pass_at": 0.2}, False),
        ({"label": "a", "pass_at": 0.7}, {"label": "b", "pass_at": 0.4}, True),
        ({"label": "a", "pass_at": 0.5}, {"label": "b", "pass_at": 0.4}, False),
        ({"label": "a", "model": "m"}, {"label": "b", "model": "m"}, True),
    ],
)
def test_a_text_has_one_label_of_a_classifier(one, other, clashes):
    control = Classifier(**one)
    why = control.clash_of(Classifier(**other), 0)
    assert (why is not None) == clashes
    assert why is None or "'a' and 'b'" in why
