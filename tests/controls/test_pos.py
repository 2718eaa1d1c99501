import pytest
import torch
from pydantic import ValidationError

from controls.pos import CLASSES, Pos, PosParams
from dlmctl.annotators.tagging import upos_tagger

WORDS = "The old baker sells warm bread .".split()


def tags_of(words):
    return upos_tagger()([words])[0]


def test_a_text_passes_its_own_tags():
    (check,) = Pos.each(Pos.from_words([WORDS])).check([WORDS])
    assert check.passed
    assert check.score == 1.0


def test_the_score_is_the_share_of_tags_met_and_says_which_is_not():
    tags = tags_of(WORDS)
    tags[1] = "INTJ"
    (check,) = Pos(tags=tags).check([WORDS])
    assert check.score == pytest.approx(6 / 7)
    assert not check.passed
    assert "word 2" in check.why
    assert "INTJ" in check.why


def test_a_short_text_is_padded_and_a_long_one_cut():
    tags = tags_of(WORDS)
    short, long = Pos.each([PosParams(tags=tags)] * 2).check([WORDS[:-1], [*WORDS, "Good", "."]])
    assert short.score < 1
    assert long.score == 1.0


def test_alternatives_and_wildcards():
    tags = tags_of(WORDS)
    loose = ["*", f"INTJ|{tags[1]}", *tags[2:]]
    (check,) = Pos(tags=loose).check([WORDS])
    assert check.passed
    (check,) = Pos(tags=["*"] * 9).check([WORDS])
    assert check.score == pytest.approx(7 / 9)


def test_pass_at_lowers_the_bar():
    tags = tags_of(WORDS)
    tags[1] = "INTJ"
    assert Pos(tags=tags, pass_at=0.8).check([WORDS])[0].passed


@pytest.mark.parametrize("tags", [[], ["NUON"], ["DET|"], "DET"])
def test_bad_tags_are_refused(tags):
    with pytest.raises(ValidationError):
        Pos(tags=tags)


def test_labels_cover_start_to_end():
    (labels,) = Pos.labels([WORDS], None)
    assert [CLASSES[label] for label in labels] == ["START", *tags_of(WORDS), "END"]


def test_classifier_loss_counts_the_sentence_only(pretrained):
    labels = Pos.labels([WORDS, WORDS[:3]], None)
    classifier = Pos.build_classifier(pretrained.model.config, pretrained.tokenizer)

    class Oracle(torch.nn.Module):
        def forward(self, x, t):
            logits = torch.zeros(*x.shape[:2], len(CLASSES))
            for row, classes in enumerate(labels):
                logits[row, torch.arange(len(classes)), classes] = 50.0
            logits[:, :, CLASSES.index("PAD")] += 1.0  # PAD wherever nothing is said
            return logits

    x = torch.zeros(2, 16, pretrained.model.config.embed_dim)
    loss, accuracy = Pos.classifier_loss(Oracle(), x, torch.zeros(2), labels)
    assert torch.equal(accuracy, torch.ones(2))
    untrained, _ = Pos.classifier_loss(classifier, x, torch.zeros(2), labels)
    assert bool((untrained > loss).all())
