"""Loading a checkpoint of the original Diffusion-LM."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from dlmctl.checkpoint.original.arguments import ARGUMENTS, read_arguments, read_config, refuse_other_kinds
from dlmctl.checkpoint.original.names import HEAD, WORDS, original_names
from dlmctl.checkpoint.resolve import ORIGINAL_WEIGHTS
from dlmctl.checkpoint.torch_files import read_torch_weights
from dlmctl.checkpoint.weights import require_numbers, take_over, without_memory
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import DataError, ModelError, first_validation_error, short_message
from dlmctl.text.tokenizer import WordTokenizer


def load_original(folder: str | Path) -> tuple[DiffusionLM, WordTokenizer]:
    """A model of the original Diffusion-LM and its vocabulary: float32, on the CPU, in evaluation mode.

    The newest EMA weights are used, or the newest plain weights if there are none. If the folder named by
    ``config_name`` is missing, attention heads are 64 wide as in every published BERT (12 for BERT-base).

    Raises:
        ModelError: a file is missing or damaged, or this kind of model cannot be loaded.
    """
    folder = Path(folder)
    arguments = read_arguments(folder)
    path = newest_weights(folder)
    weights = read_torch_weights(path)
    _require_floats(weights, path)
    try:
        tokenizer = WordTokenizer.load(folder)
    except DataError as error:
        raise ModelError(error.what, where=str(folder / "vocab.json")) from None
    try:
        refuse_other_kinds(arguments, weights, folder / ARGUMENTS)
        config = read_config(arguments, weights, folder)
    except KeyError as error:
        raise ModelError(f"the tensor {error} is missing.", where=str(path)) from None
    except ValidationError as error:
        raise ModelError(f"has impossible sizes: {first_validation_error(error)}", where=str(folder)) from None
    except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError) as error:
        raise ModelError(f"has impossible sizes: {short_message(error)}.", where=str(folder)) from None
    if len(tokenizer) != config.vocab_size:
        raise ModelError(
            f"vocab.json has {len(tokenizer)} entries, {path.name} {config.vocab_size}.", where=str(folder)
        )
    with without_memory():  # memory is allocated only once the sizes match the weights
        model = DiffusionLM(config)
    take_over(model, convert(weights, model, path))
    return model.eval(), tokenizer


def _require_floats(weights: dict[str, Tensor], path: Path) -> None:
    require_numbers(weights, path)
    for name, tensor in weights.items():
        if not tensor.is_floating_point() and name != "position_ids":
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"the tensor {name!r} is {kind}; weights are floating point.", where=str(path))


def newest_weights(folder: Path) -> Path:
    """The newest ``ema_*.pt`` of a folder, else its newest ``model*.pt``.

    Raises:
        ModelError: there is neither.
    """
    for pattern in ORIGINAL_WEIGHTS:
        matches = [(match, path) for path in folder.glob("*.pt") if (match := pattern.fullmatch(path.name))]
        if matches:
            return max(matches, key=lambda item: (int(item[0][2]), item[0][1]))[1]
    raise ModelError(
        "there are no weights: neither ema_*.pt nor model*.pt.",
        where=str(folder),
        remedy="Copy them here from the original run.",
    )


def convert(weights: dict[str, Tensor], model: DiffusionLM, where: Path) -> dict[str, Tensor]:
    """The original's tensors under the names of ``model``, float32.

    Raises:
        ModelError: a tensor is missing, has the wrong shape, or has no place in the model.
    """
    remaining = {name: tensor.float() for name, tensor in weights.items() if name != "position_ids"}
    # The head is tied to the embeddings, but the original averages (EMA) only the embeddings. On loading, the head's
    # copy comes last and is the one in use.
    remaining[WORDS] = remaining.pop(HEAD, remaining[WORDS])
    converted: dict[str, Tensor] = {}
    state = model.state_dict()
    for our_name, names in original_names(model.config, state).items():
        missing = [name for name in names if name not in remaining]
        if missing:
            raise ModelError(f"the tensor {missing[0]!r} is missing.", where=str(where))
        converted[our_name] = torch.cat([remaining.pop(name) for name in names])
        if converted[our_name].shape != state[our_name].shape:
            shapes = f"{list(converted[our_name].shape)}, not {list(state[our_name].shape)}"
            raise ModelError(f"the tensor for {our_name} has the shape {shapes}.", where=str(where))
    if remaining:
        raise ModelError(f"the tensor {next(iter(remaining))!r} has no place in our model.", where=str(where))
    return converted
