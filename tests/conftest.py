"""A tiny model for tests: random weights, a vocabulary of our own, saved as users' models are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
import typer.main
from torch import Tensor

from controls.pos import TagLabels
from dlmctl.annotators.scorer import load_scorer
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.checkpoint.weights import save_weights
from dlmctl.control.state import BatchContext, ControlState
from dlmctl.diffusion import own_modes
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.diffusion.noise import Draw
from dlmctl.models.transformer import TransformerConfig
from dlmctl.text.tokenizer import WordTokenizer

# Tiny tensors gain nothing from threads, and threads that wait for each other lose much on a busy machine.
torch.set_num_threads(1)
# The command line is put together from its functions at every call of a command, which takes longer than most commands.
# ``typer.testing``, which is imported later, takes this function from here.
typer.main.get_command = cache(typer.main.get_command)

SENTENCES = [
    "the small bakery sells warm bread .".split(),
    "a noisy garden hides two grey cats .".split(),
    "Anna paints the old bridge near a river .".split(),
]


@pytest.fixture(scope="session")
def tokenizer() -> WordTokenizer:
    return WordTokenizer.from_corpus(SENTENCES, min_count=1)


def tiny_config(vocab_size: int, **changes: object) -> ModelConfig:
    sizes = TransformerConfig(hidden=32, layers=2, heads=2, dropout=0.0, max_length=32, time_channels=16)
    settings: dict[str, object] = {
        "vocab_size": vocab_size,
        "length": 32,
        "embed_dim": 8,
        "denoiser": sizes,
        "sentence_lengths": [0, 0, 0, 0, 0, 1, 4, 4, 2],
    }
    return ModelConfig.model_validate({**settings, **changes})


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: WordTokenizer) -> Path:
    """A saved model with untrained weights of its POS classifier beside it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    model = DiffusionLM(tiny_config(len(tokenizer)))
    save_pretrained(model, tokenizer, folder)
    classifier = TagLabels().build_classifier(model.config, tokenizer)
    (folder / "controls" / "pos").mkdir(parents=True)
    save_weights(classifier.state_dict(), folder / "controls" / "pos")
    return folder


@pytest.fixture
def hub_model(tokenizer: WordTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of someone/a-model in the hub's cache; the hub itself may not be asked."""

    def no_network(*_arguments: object, **_settings: object) -> None:
        raise AssertionError("the network was asked")

    commit = "a" * 40
    repository = tmp_path / "hub" / "models--someone--a-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    folder = repository / "snapshots" / commit
    save_pretrained(DiffusionLM(tiny_config(len(tokenizer))), tokenizer, folder, max_shard_bytes=10_000)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    return folder


def batch_of(pretrained: Pretrained, rows: int, layout: Layout, folder: Path | None = None) -> BatchContext[Any]:
    """A batch of so many texts, as the sampler hands it to a control."""
    draws = [Draw(0, sample) for sample in range(rows)]
    where = pretrained.folder if folder is None else folder
    return BatchContext(pretrained.model, pretrained.tokenizer, where, draws, [layout] * rows)


def state_of(pretrained: Pretrained, x: Tensor, log_probs: Callable[[], Tensor] | None = None) -> ControlState:
    """The state of latents ``[B, L, D]`` without noise, its words by rounding if ``log_probs`` does not give them."""
    rounded = lambda: pretrained.model.rounding_logits(x).log_softmax(-1)  # noqa: E731
    return ControlState(
        x,
        torch.zeros(len(x)),
        vocabulary=pretrained.tokenizer,
        embeddings=pretrained.model.embeddings,
        x0=lambda: x,
        word_log_probs=rounded if log_probs is None else log_probs,
    )


@pytest.fixture
def float64() -> Iterator[None]:
    """All that is made meanwhile is in float64, models included: there rounding is far below any leak between rows.

    What a text has in common with the same one in another batch is tested so: in float32 kernels are chosen by the
    shape of a batch, and the last bits, which guidance makes grow, are each processor's own.
    """
    with patch.object(own_modes, "DTYPE", torch.float64):
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)
    load_scorer.cache_clear()  # those loaded meanwhile are in float64


@pytest.fixture
def pretrained(model_folder: Path) -> Pretrained:
    return from_pretrained(model_folder)


@pytest.fixture
def kernel(monkeypatch) -> list[object]:
    """A notebook as seen from inside; what it is given to show."""
    shown: list[object] = []

    def display(value: object, display_id: bool) -> SimpleNamespace:
        assert display_id
        shown.append(value)
        return SimpleNamespace(update=shown.append)

    for name in ("IPython", "IPython.display"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["IPython"].get_ipython = lambda: SimpleNamespace(kernel=True)
    sys.modules["IPython.display"].display = display
    return shown
