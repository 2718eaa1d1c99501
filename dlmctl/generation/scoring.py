"""Scoring of texts: the model's scorer, its acceptability judge, and a second language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dlmctl.annotators.causal import CausalLM, load_causal
from dlmctl.annotators.reader import Reader, required_scorer
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.metrics.acceptability import AcceptabilityScorer, find_acceptability, load_acceptability
from dlmctl.metrics.fluency import Fluency, fluency_of, with_second


class Scoring(NamedTuple):
    """The networks that score texts.

    Attributes:
        judge: the scorer.
        reader: the acceptability judge, if the model has learned one.
        second: a second language model, if one is requested.
    """

    judge: Reader
    reader: AcceptabilityScorer | None = None
    second: CausalLM | None = None

    def of(
        self, texts: Sequence[Sequence[str]], natural: Sequence[str] = (), *, alone: bool = False
    ) -> list[Fluency | None]:
        """The fluency of each text.

        Args:
            texts: as words; natural: in natural spelling, for causal language models.
            alone: score each text by itself, so that its last digits do not depend on the other texts.
        """
        fluencies = fluency_of(self.judge, texts, natural, alone=alone)
        if self.reader is not None:
            fluencies = self.reader.score(texts, fluencies, alone=alone)
        return fluencies if self.second is None else with_second(fluencies, self.second, texts, natural, alone=alone)


def load_scoring(pretrained: Pretrained, *, reads: bool = False, second: str | None = None) -> Scoring:
    """Load the networks that score a model's texts, onto the model's device.

    Args:
        reads: whether the acceptability judge is required; otherwise it is loaded if the model has one.
        second: a language model by folder or hub name.

    Raises:
        ModelError: the model has no scorer, lacks the required acceptability judge, or a file cannot be read.
    """
    # First, as most models cannot learn it: a scorer would be trained in vain.
    acceptability = load_acceptability(pretrained) if reads else find_acceptability(pretrained)
    judge = required_scorer(pretrained)
    second_model = None if second is None else load_causal(second)
    for network in (judge[0], second_model and second_model.model):
        if network is not None:
            network.to(pretrained.model.embeddings.device)
    return Scoring(judge, acceptability, second_model)
