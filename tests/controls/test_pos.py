import json
import re

import pytest
import torch

from controls.pos import Pos, PosParams, TagLabels
from dlmctl.annotators.tagging import OTHER_TAGS, upos_tagger
from dlmctl.annotators.word_selection import Where
from dlmctl.control.labels import LabelledText, refuse_unused_options
from dlmctl.control.prepared import NO_ROOM
from dlmctl.diffusion.layout import Layout
from dlmctl.errors import UserError
from dlmctl.evaluation.control_success import read_targets
from dlmctl.recipe.cells import read_params
from dlmctl.recipe.placeholders import fill_placeholders
from tests.conftest import batch_of, state_of

WORDS = "The old baker sells warm bread .".split()

CLASSES = TagLabels.classes()


def tags_of(words):
    return upos_tagger()([words])[0]


def test_a_text_passes_its_own_tags():
    check = Pos.each(Pos.from_words([WORDS]))(WORDS)
    assert check.passed
    assert check.score == 1.0


def test_the_score_is_the_share_of_tags_met_and_says_which_is_not():
    tags = tags_of(WORDS)
    tags[1] = "INTJ"
    check = Pos(tags=tags)(WORDS)
    assert check.score == pytest.approx(6 / 7)
    assert not check.passed
    assert "word 2" in check.why
    assert "INTJ" in check.why
    assert check.where == (1,)


def test_a_word_too_few_and_words_too_many_are_misses():
    tags = tags_of(WORDS)
    short, long = Pos(tags=tags).verdicts([0, 1], [WORDS[:-1], [*WORDS, "Good", "."]])
    assert short.score == pytest.approx(6 / 7)
    assert (short.passed, short.why, short.where) == (False, "word 7 is missing", ())
    assert long.score == pytest.approx(7 / 9)
    assert (long.passed, long.why, long.where) == (False, "there are 9 words, not 7", (7, 8))


def test_alternatives_and_wildcards():
    tags = tags_of(WORDS)
    loose = ["*", f"INTJ|{tags[1]}", *tags[2:]]
    check = Pos(tags=loose)(WORDS)
    assert check.passed
    check = Pos(tags=["*"] * 9)(WORDS)
    assert check.score == pytest.approx(7 / 9)


def test_pass_at_lowers_the_bar():
    tags = tags_of(WORDS)
    tags[1] = "INTJ"
    assert Pos(tags=tags, pass_at=0.8)(WORDS).passed


@pytest.mark.parametrize("tags", [[], ["NUON"], ["DET|"], "NUON", 3])
def test_bad_tags_are_refused(tags):
    with pytest.raises(UserError):
        Pos(tags=tags)


def test_tags_may_be_in_lower_case():
    assert PosParams(tags="det noun|Propn * punct").tags == ["DET", "NOUN|PROPN", "*", "PUNCT"]
    assert Where(tag="noun|verb").tags == {"NOUN", "VERB"}


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("DT NN VBZ", "there is no UPOS tag 'DT'. In UPOS, 'DT' is DET, 'NN' is NOUN, 'VBZ' is AUX|VERB."),
        ("PRON VERB in NOUN .", "there is no UPOS tag 'in'. In UPOS, 'in' is ADP|SCONJ, '.' is PUNCT."),
        ("N V", "In UPOS, 'N' is NOUN, 'V' is VERB."),
        ("NUON", "Did you mean 'NOUN'?"),
    ],
)
def test_tags_of_the_penn_treebank_are_translated(tags, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PosParams(tags=tags)


def test_what_stands_for_tags_of_other_schemes_is_understood():
    assert all(PosParams(tags=tag).tags == [tag] for tag in OTHER_TAGS.values())


def test_labels_cover_start_to_end():
    (labels,) = TagLabels().labels(LabelledText([WORDS]))
    assert [CLASSES[label] for label in labels] == ["START", *tags_of(WORDS), "END"]


def test_classifier_loss_counts_the_sentence_only(pretrained):
    labels = TagLabels().labels(LabelledText([WORDS, WORDS[:3]]))
    classifier = TagLabels().build_classifier(pretrained.model.config, pretrained.tokenizer)

    class Oracle(torch.nn.Module):
        def forward(self, x, t):
            logits = torch.zeros(*x.shape[:2], len(CLASSES))
            for row, classes in enumerate(labels):
                logits[row, torch.arange(len(classes)), classes] = 50.0
            logits[:, :, CLASSES.index("PAD")] += 1.0  # PAD wherever nothing is said
            return logits

    x = torch.zeros(2, 16, pretrained.model.config.embed_dim)
    loss, accuracy = TagLabels().classifier_loss(Oracle(), x, torch.zeros(2), labels)
    assert torch.equal(accuracy, torch.ones(2))
    untrained, _ = TagLabels().classifier_loss(classifier, x, torch.zeros(2), labels)
    assert bool((untrained > loss).all())


@pytest.mark.parametrize("wrapped", [lambda one: ~one, lambda one: one | one])
def test_tags_beyond_the_positions_of_a_text_count_as_missed(pretrained, wrapped):
    batch = batch_of(pretrained, 2, Layout(8, None))
    few, many = Pos(tags=["NOUN"] * 6), Pos(tags=["NOUN"] * 40)
    classifier = TagLabels().build_classifier(pretrained.model.config, pretrained.tokenizer).eval()
    state = state_of(pretrained, torch.randn(2, 8, pretrained.model.config.embed_dim))
    short, long = (TagLabels().by_classifier(classifier, batch, [one.dealt(0).tags] * 2) for one in (few, many))
    torch.testing.assert_close(long.energy(state), short.energy(state) + 34 * NO_ROOM)
    assert not many(WORDS).passed
    assert wrapped(many)(WORDS).passed == (wrapped(many).name == "not")


def test_the_tags_of_the_data_and_of_another_judge_are_labels(tmp_path):
    given = ["X"] * len(WORDS)
    data, tagged = TagLabels().labels(LabelledText([WORDS, WORDS], [{"upos": given}, {}]))
    assert [CLASSES[label] for label in data[1:-1]] == given
    assert [CLASSES[label] for label in tagged[1:-1]] == tags_of(WORDS)
    judge = one_tag_tagger(tmp_path)
    assert [CLASSES[at] for at in TagLabels().labels(LabelledText([WORDS], judge=judge))[0][1:-1]] == given
    with pytest.raises(UserError, match="takes none"):
        refuse_unused_options(TagLabels, LabelledText([], label="upos", judge=judge))
    with pytest.raises(UserError, match="no tagger here"):
        TagLabels().labels(LabelledText([WORDS], judge=str(tmp_path / "none")))


def test_another_judge_checks_and_reads_targets(tmp_path):
    judge = one_tag_tagger(tmp_path)
    own, other = Pos.each([PosParams(tags=["X"] * 7), PosParams(tags=["X"] * 7, judge=judge)]).verdicts(
        [0, 1], [WORDS, WORDS]
    )
    assert not own.passed
    assert other.passed
    assert Pos.from_target({"words": WORDS, "judge": judge}).tags == ["X"] * 7
    path = tmp_path / "targets.jsonl"
    path.write_text('{"words": ["It", "rains"]}\n')
    control, _ = read_targets("pos", path, judge=judge)
    assert control.dealt(0) == PosParams(tags=["X", "X"], judge=judge)
    path.write_text('{"words": 3}\n')
    with pytest.raises(UserError, match="not checked by a tagger or parser"):
        read_targets("length", path, judge=judge)


def one_tag_tagger(folder):
    """A tagger that tags every word X."""
    saved = {"format": 1, "tags": ["X", "ADJ"], "transitions": {a: {"X": 9.0, "ADJ": -9.0} for a in ("X", "ADJ")}}
    (folder / "tagger.json").write_text(json.dumps({**saved, "features": {}}))
    return str(folder)


@pytest.mark.parametrize("tags", ["DET;NOUN|X;*", "DET, NOUN|X,*", "DET NOUN|X  *", '["DET", "NOUN|X", "*"]'])
def test_tags_of_a_cell_are_separated_as_other_lists_are(tags):
    for params in ({"tags": "{t}"}, {"tags": ["{t}"]}):  # `pos: "{t}"` is the latter
        parsed = read_params(PosParams, fill_placeholders(params, {"t": tags}))
        assert parsed is not None
        assert parsed.tags == ["DET", "NOUN|X", "*"]


def test_a_list_of_frames_is_said_to_be_one_sequence(caplog):
    frames = ["DET NOUN VERB PUNCT", "PRON VERB NOUN NUM"]
    assert Pos(frames).sets[0].tags == " ".join(frames).split()
    assert "the 2 items of the list are taken as one sequence of 8 tags" in caplog.text
    caplog.clear()
    Pos(["DET NOUN", "INTJ"])
    read_params(PosParams, fill_placeholders({"tags": ["{a}", "{b}"]}, {"a": "DET ADP", "b": "NOUN PUNCT"}))
    assert not caplog.text
