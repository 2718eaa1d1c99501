import json
from dataclasses import replace

import pytest
import torch

from controls import syntax_tree
from controls.syntax_params import SpanParams, SyntaxTreeParams
from controls.syntax_tree import SpanLabels, SyntaxTree
from dlmctl.annotators.brackets import compare
from dlmctl.annotators.parsing import NONE, all_spans
from dlmctl.annotators.trees import Span, from_spans, labelled_spans, read_tree
from dlmctl.checkpoint.weights import save_weights
from dlmctl.control.classifier import LABELS_FILE, load_classifier
from dlmctl.control.labels import LabelledText, refuse_unused_options
from dlmctl.diffusion.layout import Layout
from dlmctl.errors import RecipeError, UserError
from tests.conftest import batch_of, state_of

WORDS = "Anna paints the old bridge .".split()
TREE = "(S (NP (NNP Anna)) (VP (VBZ paints) (NP (DT the) (JJ old) (NN bridge))) (. .))"
LABELS = SpanLabels([NONE, "NP", "PP", "S", "VP"])


@pytest.fixture(autouse=True)
def parser(monkeypatch):
    """A stub parser that knows one sentence; any other text is a noun phrase."""

    def parse(texts):
        return [
            read_tree(f"(ROOT {TREE})")
            if list(words) == WORDS
            else from_spans(words, ["NN"] * len(words), [Span(0, len(words) - 1, "NP")] if words else [])
            for words in texts
        ]

    monkeypatch.setattr(syntax_tree, "constituency_parser", lambda judge=None: parse)
    syntax_tree._parsed.cache_clear()
    yield
    syntax_tree._parsed.cache_clear()


@pytest.fixture
def batch(pretrained, tmp_path):
    """The tiny model in a separate folder, with an untrained span classifier."""
    folder = tmp_path / "controls" / "syntax_tree"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_weights(LABELS.build_classifier(pretrained.model.config, pretrained.tokenizer).state_dict(), folder)
    (folder / LABELS_FILE).write_text(json.dumps(LABELS.to_json()))
    return batch_of(pretrained, 2, Layout(16, None), tmp_path)


@pytest.fixture
def state(pretrained):
    generator = torch.Generator().manual_seed(0)
    return state_of(
        pretrained, torch.randn(2, 16, pretrained.model.config.embed_dim, generator=generator).requires_grad_()
    )


def test_a_text_passes_its_own_tree():
    check = SyntaxTree.each(SyntaxTree.from_words([WORDS]))(WORDS)
    assert check[:4] == (1.0, True, "all constituents found", ())
    assert all(mark.met and mark.label for mark in check.marks)


def test_the_score_of_a_tree_is_its_labelled_f1_and_says_what_is_missing():
    other = "(S (NP (NNP Anna)) (VP (VBZ paints) (NP (DT the) (JJ old)) (NN bridge)) (. .))"
    check = SyntaxTree(tree=other)(WORDS)
    assert check.score == compare(read_tree(other), read_tree(TREE), ignore=()).f1 == 0.75
    assert not check.passed
    assert check.why == "no NP over words 2 to 3 (the old)"
    assert check.where == (2, 3, 4)  # the span that is missing, 2 to 3, and the one in its place, 2 to 4
    assert SyntaxTree(tree=other, pass_at=0.7)(WORDS).passed


@pytest.mark.parametrize(("tag", "near"), [("NNX", "NN"), ("NP", "NNP"), ("VBDD", "VBD")])
def test_a_tag_of_a_leaf_that_no_judge_gives_is_refused(pretrained, tag, near):
    with pytest.raises(RecipeError, match=f"the tag '{tag}' of a leaf .* Did you mean '{near}") as caught:
        SyntaxTree(tree=f"(S (NP DT {tag}) (VP VBZ) .)").attach(pretrained)
    assert len(str(caught.value)) < 160
    SyntaxTree(tree="(S (NP DT NFP) (VP VBZ) (XX it))").attach(pretrained)  # tags of treebanks pass


def test_constituents_beyond_the_tree_cost_too():
    check = SyntaxTree(tree="(S (NP NNP) VBZ DT JJ NN .)")(WORDS)
    assert check.score == pytest.approx(2 * 2 / (2 + 4))
    assert "beyond" in check.why
    assert check.where == (1, 2, 3, 4)  # the words of the VP and of the NP in it, which nobody asked for


def test_the_score_of_spans_is_the_share_that_is_in_the_parse():
    spans = [SpanParams(label="NP", start=2, end=4), SpanParams(label="PP", start=1, end=4)]
    check = SyntaxTree(spans=spans)(WORDS)
    assert check.score == 0.5
    assert check.why == "no PP over words 1 to 4 (paints the old bridge)"
    assert check.where == (1, 4)  # the ends of what is missing
    assert SyntaxTree(spans=spans[:1])(WORDS).passed
    assert SyntaxTree(spans=spans[:1])([]).score == 0.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "either tree or spans"),
        ({"tree": TREE, "spans": [{"label": "NP", "start": 0, "end": 1}]}, "either tree or spans"),
        ({"tree": "(S (NP"}, "not closed"),
        ({"tree": "(NNP Anna)"}, "no phrase"),
        ({"spans": []}, "at least 1"),
        ({"spans": [{"label": "NP", "start": 3, "end": 1}]}, "before its start"),
        ({"spans": [{"label": "NP", "start": 0, "end": 2}, {"label": "PP", "start": 1, "end": 3}]}, "cross"),
        ({"spans": [{"label": "NP", "start": 0, "end": 2}, {"label": "S", "start": 0, "end": 2}]}, "two labels"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(UserError, match=message):
        SyntaxTree(**params)


def test_a_tree_settles_the_number_of_words_and_spans_only_the_least():
    assert SyntaxTree(tree=TREE).range_of(0) == (6, 6)
    assert SyntaxTree(tree="(S (NP PRP) (VP VBZ (NP DT NN)))").range_of(0) == (4, 4)
    low, high = SyntaxTree(spans=[{"label": "NP", "start": 2, "end": 7}]).range_of(0)
    assert low == 8
    assert high > 1000


def test_the_energy_is_minus_the_log_probability_of_the_cells_and_differs_by_sample(batch, state):
    control = SyntaxTree.each(
        [SyntaxTreeParams(tree=TREE), SyntaxTreeParams(spans=[SpanParams(label="PP", start=1, end=3)])]
    )
    prepared, seen = control.ready(batch), state
    energies = prepared.energy(seen)

    classifier = load_classifier(SyntaxTree, batch)
    starts, ends = all_spans(6)
    log_probs = classifier(seen.x, seen.t, starts, ends).log_softmax(-1)
    spans = {(span.start, span.end): span.label for span in labelled_spans(read_tree(TREE))}
    wanted = [LABELS.names.index(spans.get(cell, NONE)) for cell in zip(starts.tolist(), ends.tolist(), strict=True)]
    whole = -log_probs[0].gather(-1, torch.tensor(wanted)[:, None]).sum()
    cells = list(zip(starts.tolist(), ends.tolist(), strict=True))
    asked = syntax_tree.SPAN_WEIGHT * log_probs[1, cells.index((1, 3)), 2]
    # The text has four words at least.
    crossing = syntax_tree.CROSSING * (log_probs[1, cells.index((0, 1)), 0] + log_probs[1, cells.index((0, 2)), 0])
    assert torch.allclose(energies, torch.stack([whole, -asked - crossing]), atol=1e-3)

    (gradient,) = torch.autograd.grad(energies.sum(), seen.x)
    assert torch.isfinite(gradient).all()
    assert gradient.flatten(1).norm(dim=1).min() > 0


def test_an_energy_does_not_depend_on_the_company(batch, state):
    params = [SyntaxTreeParams(spans=[SpanParams(label="NP", start=0, end=1)]), SyntaxTreeParams(tree=TREE)]
    both, alone = SyntaxTree.each(params), SyntaxTree.each(params[:1])
    assert torch.allclose(both.ready(batch).energy(state)[0], alone.ready(batch).energy(state)[0], atol=1e-5)


def test_what_would_cross_a_span_counts(batch, state, monkeypatch):
    batch = replace(batch, layouts=[Layout(16, 6)] * 2)
    control = SyntaxTree(spans=[SpanParams(label="PP", start=1, end=3), SpanParams(label="NP", start=3, end=3)])
    energy, crossing = control.ready(batch).energy(state), syntax_tree.CROSSING
    monkeypatch.setattr(syntax_tree, "CROSSING", 0)
    more = energy - control.ready(batch).energy(state)
    starts, ends = torch.tensor([[0, 1], [0, 2], [2, 4], [2, 5], [3, 4], [3, 5]]).unbind(1)
    log_probs = load_classifier(SyntaxTree, batch)(state.x, state.t, starts, ends).log_softmax(-1)
    assert torch.allclose(more, -crossing * log_probs[..., 0].sum(-1), atol=1e-3)


def test_spans_beyond_the_positions_have_a_high_energy(batch, state):
    batch = replace(batch, layouts=[Layout(16, 14)] * 2)
    far = SyntaxTree(spans=[{"label": "NP", "start": 0, "end": 1}, {"label": "NP", "start": 3, "end": 30}])
    near = SyntaxTree(spans=[{"label": "NP", "start": 0, "end": 1}])
    assert torch.allclose(far.ready(batch).energy(state), near.ready(batch).energy(state) + syntax_tree.NO_ROOM)


def test_an_unknown_label_is_said_with_the_nearest(batch):
    control = SyntaxTree(spans=[{"label": "VPP", "start": 0, "end": 1}])
    with pytest.raises(RecipeError, match=r"'VPP'.*'VP'"):
        control.ready(batch)


def test_labels_are_those_the_parser_gives_often_enough():
    labels = SpanLabels.from_data(LabelledText([WORDS] * 5 + [["Oh"]]))
    assert labels.names == [NONE, "NP", "S", "VP"]
    assert SpanLabels.from_json(json.loads(json.dumps(labels.to_json()))) == labels
    (chart,) = labels.labels(LabelledText([WORDS]))
    constituents = {(start, end): labels.names[chart[start, end]] for start, end in chart.nonzero().tolist()}
    assert constituents == {(0, 5): "S", (0, 0): "NP", (1, 4): "VP", (2, 4): "NP"}
    with pytest.raises(UserError, match="labels of its own"):
        refuse_unused_options(SpanLabels, LabelledText([WORDS], label="sentiment"))


def test_the_classifier_loss_counts_the_spans_of_the_sentence_only(pretrained):
    charts = LABELS.labels(LabelledText([WORDS, WORDS[:2]]))
    x = torch.zeros(2, 16, pretrained.model.config.embed_dim)

    class Oracle(torch.nn.Module):
        def forward(self, x, t, starts, ends):
            logits = torch.full((2, len(starts), len(LABELS.names)), 0.0)
            for row, chart in enumerate(charts):
                for at, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
                    inside = end < len(chart)
                    logits[row, at, int(chart[start, end]) if inside else 3] = 50.0
            return logits

    loss, accuracy = LABELS.classifier_loss(Oracle(), x, torch.zeros(2), charts)
    assert torch.allclose(loss, torch.zeros(2), atol=1e-6)
    assert torch.equal(accuracy, torch.ones(2))
    untrained = LABELS.build_classifier(pretrained.model.config, pretrained.tokenizer)
    worse, _ = LABELS.classifier_loss(untrained, x, torch.zeros(2), charts)
    assert bool((worse > 1).all())


def test_targets_are_trees_spans_or_words():
    assert SyntaxTree.from_target({"words": WORDS, "spans": [[2, 4, "NP"]]}).wanted == [Span(2, 4, "NP")]
    assert SyntaxTree.from_target({"tree": TREE}).tree == TREE
    assert SyntaxTree.from_target({"words": WORDS}).wanted == labelled_spans(read_tree(TREE))
