"""An untrained scorer of the tiny model's words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlmctl.checkpoint.scorer import save_scorer
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.scorer import ScorerSizes, build_scorer


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory, tokenizer: WordTokenizer) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    torch.manual_seed(0)
    save_scorer(build_scorer(ScorerSizes(length=32, hidden=16, layers=1, heads=2), tokenizer), tokenizer, folder)
    return folder
