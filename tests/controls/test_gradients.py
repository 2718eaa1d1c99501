"""Every energy has a gradient at its extremes: on words that are certain, whether wrong or unwanted."""

import pytest
import torch

from controls import Avoid, Contains, Infill, Length, Pattern
from controls.pos import TagLabels
from controls.syntax_tree import SpanLabels, SyntaxTree
from dlmctl.control.field_labels import FieldLabels
from dlmctl.control.negation import PreparedNot
from dlmctl.control.prepared import Part
from dlmctl.diffusion.layout import Layout
from tests.conftest import batch_of, state_of

LAYOUT = Layout(8, None)
# What a text of the model's words may be asked for, and one that it may not be.
CASES = [
    (Contains("bread"), "a warm bread", "a warm garden"),
    (Avoid("bread"), "a warm garden", "a warm bread"),
    (Infill("a ___ bread"), "a warm bread", "a warm garden"),
    (Pattern("a <any> bread"), "a warm bread", "a warm garden"),
    (Length(3), "a warm bread", "a warm old garden ."),
]


def gradient(pretrained, prepared, text, sureness):
    """Gradient of the energy with respect to the logits of a text whose words are all but certain."""
    ids = pretrained.tokenizer.encode(text.split())
    ids += [pretrained.tokenizer.pad_id] * (LAYOUT.positions - len(ids))
    logits = torch.zeros(1, LAYOUT.positions, len(pretrained.tokenizer))
    logits.scatter_(-1, torch.tensor(ids)[None, :, None], sureness)
    logits.requires_grad_()
    x = pretrained.model.embed(torch.tensor([ids]))
    energy = prepared.energy(state_of(pretrained, x, lambda: logits.log_softmax(-1)))
    (found,) = torch.autograd.grad(energy.sum(), logits)
    assert bool(torch.isfinite(found).all())
    return energy.item(), float(found.norm())


@pytest.mark.parametrize(("control", "right", "wrong"), CASES)
@pytest.mark.parametrize("sureness", [8.0, 14.0, 40.0])
def test_a_certain_text_that_is_wrong_is_steered(pretrained, control, right, wrong, sureness):
    prepared = control.ready(batch_of(pretrained, 1, LAYOUT))
    energy, norm = gradient(pretrained, prepared, wrong, sureness)
    assert energy > gradient(pretrained, prepared, right, sureness)[0] + 1
    assert norm > 0.1


@pytest.mark.parametrize(("control", "right", "wrong"), CASES)
@pytest.mark.parametrize("sureness", [8.0, 14.0])
def test_a_certain_text_that_is_unwanted_is_steered(pretrained, control, right, wrong, sureness):
    """14: beyond 99.999 %; for another length two words would have to change."""
    sureness = sureness / 2 if isinstance(control, Length) else sureness
    prepared = PreparedNot(Part(control.name, 1.0, control.ready(batch_of(pretrained, 1, LAYOUT))))
    energy, norm = gradient(pretrained, prepared, right, sureness)
    assert energy > gradient(pretrained, prepared, wrong, sureness)[0] + 1
    assert norm > 0.05


@pytest.mark.parametrize("negated", [False, True])
def test_classifiers_that_are_certain_steer(pretrained, negated):
    batch, x = batch_of(pretrained, 1, LAYOUT), torch.randn(1, 8, pretrained.model.config.embed_dim)
    labels = SpanLabels(["none", "NP", "VP"])
    tags = TagLabels().build_classifier(pretrained.model.config, pretrained.tokenizer).eval()
    spans = labels.build_classifier(pretrained.model.config, pretrained.tokenizer).eval()
    tree = SyntaxTree(spans=[{"label": "NP", "start": 0, "end": 1}])
    for head, wanted in ((tags.head, TagLabels.classes().index("NOUN")), (spans.out, 1)):
        if negated:
            head.bias.data[wanted] += 9  # what is unwanted is all but certain
        else:
            head.weight.data *= 30
    made = [
        TagLabels().by_classifier(tags, batch, [["NOUN", "NOUN"]]),
        labels.by_classifier(spans, batch, [tree.dealt(0)]),
    ]
    for prepared in made:
        x = x.detach().requires_grad_()
        judged = PreparedNot(Part("it", 1.0, prepared)) if negated else prepared
        (found,) = torch.autograd.grad(judged.energy(state_of(pretrained, x)).sum(), x)
        assert bool(torch.isfinite(found).all())
        assert float(found.norm()) > 0


def test_losses_of_classifiers_keep_to_the_device_of_the_latents(pretrained):
    """The meta device refuses tensors of the CPU as a GPU does."""
    config = pretrained.model.config
    x, t = torch.empty(2, 8, config.embed_dim, device="meta"), torch.empty(2, device="meta")
    cases = [
        (TagLabels(), [[0, 5, 7, 1]] * 2),
        (SpanLabels(["none", "NP", "VP"]), [torch.ones(3, 3, dtype=torch.uint8)] * 2),
        (FieldLabels({"food": ["French", "Italian"], "area": ["riverside"]}), [[0, 1], [2, 0]]),
    ]
    for labels, wanted in cases:
        classifier = labels.build_classifier(config, pretrained.tokenizer).to("meta")
        losses, accuracy = labels.classifier_loss(classifier, x, t, wanted)
        assert [found.device.type for found in (losses, accuracy)] == ["meta"] * 2
        assert losses.shape == accuracy.shape == (2,)
