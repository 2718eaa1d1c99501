"""Controls of single tokens: one held exactly, two that guide by energies."""

from __future__ import annotations

import torch

from dlmctl import Check, Control, ControlParams, Prepared


class OnlyParams(ControlParams):
    tokens: list[int]


class Only(Control[OnlyParams]):
    """Every token of the text is one of a list; an exact constraint."""

    name = "only"
    Params = OnlyParams

    def prepare(self, batch):
        class Held(Prepared):
            exact = True

            def restrict(self, logits):
                out = torch.ones_like(logits, dtype=torch.bool)
                for row, params in enumerate(batch.params):
                    out[row, :, params.tokens] = False
                out[:, 0] = False
                return logits.masked_fill(out, -torch.inf)

        return Held()

    def check(self, params, words):
        return Check(1.0, True, "")


class Likes(Only):
    """As many tokens of a list as possible; guided by an energy of the token probabilities."""

    name = "likes"

    def prepare(self, batch):
        tokens = batch.params[0].tokens

        class Guided(Prepared):
            def energy(self, state):
                return -state.word_log_probs[:, 1:, tokens].logsumexp(-1).sum(1)

        return Guided()


class Reads(Only):
    """An energy that reads embeddings."""

    name = "reads"

    def prepare(self, batch):
        class Guided(Prepared):
            def energy(self, state):
                return state.x0.square().sum((1, 2))

        return Guided()
