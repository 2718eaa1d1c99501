"""Training the autoregressive scorer behind the lm-score: a GPT-2 architecture over the words of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from dlmctl.annotators.scorer import sequence_nats
from dlmctl.checkpoint.resolve import SCORER
from dlmctl.checkpoint.scorer import save_scorer, scorer_lineage
from dlmctl.datasets.dataset import BatchPlan, batch_stream, load_splits, padded_batch
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.training.config import LoopConfig
from dlmctl.training.initial_scorer import initial_folder, start_scorer_from
from dlmctl.training.loop import StatelessTask, fit
from dlmctl.training.rows import Rows
from dlmctl.training.run_folder import check_run_folder
from dlmctl.training.state import digest


class ScorerSizes(BaseModel):
    """Sizes of the scorer."""

    model_config = ConfigDict(extra="forbid")

    length: int = Field(default=64, gt=1, description="longest row, START and END included")
    hidden: int = Field(default=256, gt=0, description="width")
    layers: int = Field(default=4, gt=0, description="blocks")
    heads: int = Field(default=4, gt=0, description="attention heads; they share the width")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of embeddings, attention and blocks")


class ScorerConfig(BaseModel):
    """A configuration file of ``dlmctl train scorer``."""

    model_config = ConfigDict(extra="forbid")

    model: ScorerSizes = Field(default_factory=ScorerSizes, description="sizes of the scorer")
    init: str | None = Field(
        default=None,
        description="a model whose scorer to start from, of the same width and with as many blocks or fewer; or the "
        "folder of a scorer",
    )
    loop: LoopConfig


class ScorerTask(StatelessTask):
    """An autoregressive model on a prepared data set, for the training loop.

    Args:
        data: folder of a prepared data set with the splits ``train`` and ``valid``, one sentence a row
            (packing ``pad``).

    Raises:
        DataError: ``data`` is not such a data set.
        ModelError: the scorer that ``config.init`` names does not exist or does not fit.
    """

    def __init__(self, config: ScorerConfig, data: Path) -> None:
        self.config = config
        self.train, self.valid, self.tokenizer = load_splits(data)
        torch.manual_seed(config.loop.seed)
        scorer = build_scorer(config.model, self.tokenizer)
        self.origins: list[str] = []
        if config.init is not None:
            folder = initial_folder(config.init)
            self.origins = [digest for digest in scorer_lineage(folder) if digest is not None]
            start_scorer_from(scorer, self.tokenizer, folder)
        self.model: nn.Module = scorer

    def batches(self, skip: int, rank: int, world: int) -> Iterator[Tensor]:
        loop = self.config.loop
        plan = BatchPlan(loop.batch_positions, self.config.model.length, loop.bucket, loop.full_share, loop.seed)
        texts = Rows(self.train, self.tokenizer.pad_id, next(self.model.parameters()).device)
        for rows, width in batch_stream(self.train, plan, skip=skip, rank=rank, world=world):
            yield texts.batch(rows, width)

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, int]:
        """Nats per token, counting words and END but not PAD."""
        tokens = (batch[:, 1:] != self.tokenizer.pad_id).sum()
        return sequence_nats(model, batch, self.tokenizer.pad_id).sum() / tokens, batch.numel()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Nats per token of the whole validation split."""
        device, pad_id = next(model.parameters()).device, self.tokenizer.pad_id
        nats, tokens = 0.0, 0
        plan = BatchPlan(8192, self.config.model.length, full_share=0.0)
        for rows, width in plan.epoch(self.valid.lengths, 0):
            ids = torch.from_numpy(padded_batch(self.valid, rows, width, pad_id)).to(device)
            nats += sequence_nats(model, ids, pad_id).double().sum().item()
            tokens += int((ids[:, 1:] != pad_id).sum())
        return {"loss": nats / max(1, tokens)}

    def loss_of(self, figures: dict[str, float]) -> float:
        return figures["loss"]

    @torch.no_grad()
    def samples(self, model: nn.Module) -> list[str]:
        """Four texts drawn word by word, with the same random numbers every time."""
        ids = torch.full((4, 1), self.tokenizer.start_id, device=next(model.parameters()).device)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _ in range(self.config.model.length - 1):
                logits = model(input_ids=ids, use_cache=False).logits[:, -1]
                ids = torch.cat([ids, torch.multinomial(logits.float().softmax(-1), 1)], dim=1)
        return [self.tokenizer.text(self.tokenizer.words(row)) for row in ids.tolist()]


def build_scorer(sizes: ScorerSizes, tokenizer: Tokenizer) -> GPT2LMHeadModel:
    """An untrained scorer."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=sizes.length - 1,  # END is predicted, never read
            n_embd=sizes.hidden,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            resid_pdrop=sizes.dropout,
            embd_pdrop=sizes.dropout,
            attn_pdrop=sizes.dropout,
            bos_token_id=tokenizer.start_id,
            eos_token_id=tokenizer.end_id,
        )
    )


def train_scorer(
    config: ScorerConfig, data: str | Path, out: str | Path, *, resume: bool = False, quiet: bool = False
) -> GPT2LMHeadModel:
    """Train a scorer on a prepared data set; ``out`` receives the files of the run and, in ``out/scorer``, the result.

    Raises:
        DataError: ``data`` is not a prepared data set with the splits ``train`` and ``valid``.
        ModelError: the scorer that ``config.init`` names does not exist or does not fit.
        UserError: ``out`` holds an earlier run and ``resume`` is off, or holds none and it is on.
    """
    data, out = Path(data), Path(out)
    check_run_folder(out, data, resume=resume)
    task = ScorerTask(config, data)
    identity = {**config.model_dump(mode="json"), **digest(data)}
    scorer = fit(task, config.loop, out, identity=identity, resume=resume, quiet=quiet)
    assert isinstance(scorer, GPT2LMHeadModel)
    if PartialState().is_main_process:
        save_scorer(scorer, task.tokenizer, out / SCORER, task.origins)
    return scorer
