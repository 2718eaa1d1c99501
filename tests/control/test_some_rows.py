"""Controls prepared for a batch that shrinks act as if they had been prepared for the remaining texts."""

import pytest
import torch

from controls import Contains, Pos, SyntaxTree
from controls.pos import PosParams
from controls.syntax_params import SyntaxTreeParams
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control.combined import prepare_all
from dlmctl.control.state import BatchContext, ControlState
from dlmctl.diffusion.layout import Layout, batch_layouts
from dlmctl.diffusion.noise import Draw

TREES = ["(S (NP (NN pubs)) (VP (VBZ open)))", "(S (NP (NNP Cotto)) (VP (VBZ is) (ADJP (JJ cheap))) (. .))"]
ASKED = [
    Pos.each([PosParams(tags=tags) for tags in (["DET", "NOUN"] * 9, ["*", "NOUN|VERB"], ["DET", "NOUN", "AUX"])]),
    SyntaxTree.each([SyntaxTreeParams(tree=tree) for tree in ("(S (NP" + " (JJ old)" * 17 + " (NN pub)))", *TREES)]),
]


@pytest.fixture(scope="module")
def e2e():
    return from_pretrained("e2e")


def batch_of(model, rows):
    layouts = [[Layout(24, 18), Layout(8, 2), Layout(8, 4)][row] for row in rows]
    return BatchContext(model.model, model.tokenizer, model.folder, [Draw(0, row) for row in rows], layouts)


@pytest.mark.parametrize("control", ASKED, ids=["pos", "tree"])
def test_some_texts_are_guided_as_if_prepared_alone(e2e, control):
    control.load_from(e2e)
    rows = [1, 2]
    prepared = prepare_all(control, batch_of(e2e, range(3))).of_rows(torch.tensor(rows), 8)
    wanted = prepare_all(control, batch_of(e2e, rows))
    assert prepared is not None
    x = torch.randn(2, 8, e2e.model.config.embed_dim)
    state = ControlState(
        x,
        torch.zeros(2),
        vocabulary=e2e.tokenizer,
        embeddings=e2e.model.embeddings.detach(),
        x0=lambda: x,
        word_log_probs=lambda: e2e.model.rounding_logits(x).log_softmax(-1),
        mask=batch_layouts([Layout(8, 2), Layout(8, 4)], x.device).mask,
    )
    torch.testing.assert_close(prepared.energy(state), wanted.energy(state))
    ((one,), (other,)) = prepared.parts, wanted.parts
    torch.testing.assert_close(one.prepared.evidence, other.prepared.evidence)


def test_what_has_to_be_prepared_anew_says_so(e2e):
    control = ASKED[0] & Contains("cheap")
    control.load_from(e2e)
    whole = prepare_all(control, batch_of(e2e, range(3)))
    assert whole.of_rows(torch.tensor([1, 2]), 8) is None
