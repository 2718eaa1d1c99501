"""What the texts of a run are scored by: the scorer beside the model, and whatever else its choice depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.metrics.acceptability import Reader, find_reader, load_reader
from dlmctl.metrics.fluency import Fluency, fluency_of, with_second
from dlmctl.metrics.lm_score import Judge, load_scorer
from dlmctl.metrics.nats import CausalLM, load_causal


class Scoring(NamedTuple):
    """What scores texts.

    Attributes:
        judge: the scorer.
        reader: what has learned which texts readers accept, where the model has.
        second: another language model, where one is asked.
    """

    judge: Judge
    reader: Reader | None = None
    second: CausalLM | None = None

    def of(
        self, texts: Sequence[Sequence[str]], natural: Sequence[str] = (), *, alone: bool = False
    ) -> list[Fluency | None]:
        """The fluency of texts, scored in one go.

        Args:
            texts: as words; natural: as people write them, where there is a second language model.
            alone: score each by itself, so that what else is scored does not change its last digits.
        """
        found = fluency_of(self.judge, texts, alone=alone)
        if self.reader is not None:
            found = self.reader.read(texts, found, alone=alone)
        return found if self.second is None else with_second(found, self.second, texts, natural, alone=alone)


def load_scoring(pretrained: Pretrained, *, reads: bool = False, second: str | None = None) -> Scoring:
    """What scores the texts of a model, on the model's device.

    Args:
        reads: whether acceptability must be there; if not, it is told where it can be had.
        second: a language model by folder or hub name.

    Raises:
        ModelError: the model has no scorer, acceptability must be there and is not, or a file cannot be read.
    """
    judge = load_scorer(pretrained.folder / "scorer")
    reader = load_reader(pretrained) if reads else find_reader(pretrained)
    other = None if second is None else load_causal(second)
    for network in (judge[0], other and other.model):
        if network is not None:
            network.to(pretrained.model.embeddings.device)
    return Scoring(judge, reader, other)
