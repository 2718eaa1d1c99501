"""BERTScore: similarity of the token vectors of a text and a reference under a pretrained encoder.

Zhang et al. 2020, section 3, without idf weights and without baseline rescaling; figures are comparable only for the
same encoder and layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.checkpoint.quiet_transformers import without_progress_bars
from dlmctl.errors import ModelError
from dlmctl.text.tokenizer import loading_fault

BATCH = 64


def bert_score(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], encoder: Path, layer: int = -1
) -> list[float]:
    """F1 of each text against the best of its references, at most 1.

    Args:
        encoder: folder of a Hugging Face encoder and its tokenizer.
        layer: the layer whose output is compared; -1 is the last. (The paper uses layer 17 of roberta-large.)

    Raises:
        ModelError: the folder has no encoder, or the encoder has no such layer.
    """
    tokenizer, model = _load(encoder)
    layers = int(model.config.num_hidden_layers)
    if not -layers <= layer <= layers:
        raise ModelError(f"has {layers} layers, not {layer}.", where=str(encoder))
    texts = list(dict.fromkeys([*hypotheses, *(text for group in references for text in group)]))
    vectors: dict[str, Tensor] = {}
    for at in range(0, len(texts), BATCH):
        vectors.update(
            zip(texts[at : at + BATCH], _vectors(tokenizer, model, texts[at : at + BATCH], layer), strict=True)
        )
    return [
        max(_f1(vectors[text], vectors[other]) for other in group)
        for text, group in zip(hypotheses, references, strict=True)
    ]


def require_encoder(folder: Path) -> None:
    """Check early that there is an encoder.

    Raises:
        ModelError: there is none.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            "no encoder here.",
            where=str(folder),
            remedy="BERTScore needs one on disk, e.g. `hf download roberta-large --local-dir FOLDER`.",
        )


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    require_encoder(folder)
    try:
        with without_progress_bars():
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            ), AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False).eval()
    except Exception as error:  # whatever a damaged folder makes transformers raise
        raise ModelError(f"the encoder cannot be loaded: {loading_fault(error)}.", where=str(folder)) from None


@torch.no_grad()
def _vectors(tokenizer: Any, model: Any, texts: Sequence[str], layer: int) -> list[Tensor]:
    """Unit vectors ``[tokens, hidden]`` of each text, without special tokens."""
    batch = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True, return_special_tokens_mask=True)
    special = batch.pop("special_tokens_mask").bool()
    hidden = model(**batch, output_hidden_states=True).hidden_states[layer]
    return [F.normalize(rows[~is_special], dim=-1) for rows, is_special in zip(hidden, special, strict=True)]


def _f1(vectors: Tensor, reference_vectors: Tensor) -> float:
    """F1 with each token matched to the most similar token of the other text."""
    if not len(vectors) or not len(reference_vectors):
        return 0.0
    similarities = vectors @ reference_vectors.T
    precision, recall = similarities.amax(1).mean().item(), similarities.amax(0).mean().item()
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
