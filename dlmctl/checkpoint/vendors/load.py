"""Loading a vendor checkpoint: configuration, tokenizer and weights, in this order, each checked against the last."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dlmctl.checkpoint.kinds import SEDD_KIND, vendor_kind
from dlmctl.checkpoint.resolve import PICKLED, hub_files
from dlmctl.checkpoint.torch_files import read_torch_weights
from dlmctl.checkpoint.vendors.a2d import A2D
from dlmctl.checkpoint.vendors.bd3lm import BD3LM
from dlmctl.checkpoint.vendors.block_decoders import FAST_DLLM, SDAR
from dlmctl.checkpoint.vendors.declared import Shape, Sizes, Vendor
from dlmctl.checkpoint.vendors.diffu import DIFFUGPT, DIFFULLAMA, TABLE
from dlmctl.checkpoint.vendors.dream import CODA, DREAM, OPEN_DCODER
from dlmctl.checkpoint.vendors.gemma import KIND as GEMMA
from dlmctl.checkpoint.vendors.gemma import load_gemma
from dlmctl.checkpoint.vendors.llada import LLADA
from dlmctl.checkpoint.vendors.masked_encoders import MASKED_ENCODERS
from dlmctl.checkpoint.vendors.mdlm import MDLM
from dlmctl.checkpoint.vendors.mixtures import LLADA2, LLADA_MOE, RND1, SDAR_MOE
from dlmctl.checkpoint.vendors.sedd import SEDD
from dlmctl.checkpoint.vendors.trained_folder import training_texts
from dlmctl.checkpoint.vendors.uniform import DUO, UDLM
from dlmctl.checkpoint.weights import (
    QUANTISED,
    UNQUANTISED,
    load_weights,
    require_fit,
    require_numbers,
    stored_shape,
    without_memory,
)
from dlmctl.diffusion.canvas import CanvasLM
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.tokens import TokenConfig, TokenLM
from dlmctl.diffusion.uniform_tokens import UniformTokenLM
from dlmctl.errors import ModelError, first_validation_error, readable, short_message
from dlmctl.models.dit import DiT
from dlmctl.models.gpt2 import BidirectionalGPT2
from dlmctl.models.masked_encoder import MaskedEncoder
from dlmctl.models.transformers_network import TransformersNetwork
from dlmctl.text.checkpoint_tokenizer import TOKENIZER_FILES, CheckpointTokenizer, has_tokenizer, read_tokenizer
from dlmctl.text.files import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK_IN_NAME = re.compile(r"-b([1-9]\d{0,3})$", re.IGNORECASE)

# By kind, see ``vendor_kind``.
VENDORS: dict[str, Vendor] = {
    "llada": LLADA,
    "lladamoe": LLADA_MOE,
    "llada2_moe": LLADA2,
    "Dream": DREAM,
    "qwen2": OPEN_DCODER,
    "CoDA": CODA,
    "sdar": SDAR,
    "sdar_moe": SDAR_MOE,
    "Fast_dLLM_Qwen": FAST_DLLM,
    "rnd1": RND1,
    "mdlm": MDLM,
    "udlm": UDLM,
    "duo": DUO,
    "DUO": DUO,
    "bd3lm": BD3LM,
    "gpt2": DIFFUGPT,
    "llama": DIFFULLAMA,
    SEDD_KIND: SEDD,
    **A2D,
    **MASKED_ENCODERS,
}


def load_vendor(folder: Path, settings: Mapping[str, Any]) -> tuple[TokenLM | CanvasLM, CheckpointTokenizer]:
    """A checkpoint, its weights mapped into memory unchanged, and its tokenizer.

    Args:
        settings: the contents of its ``config.json``.

    Raises:
        ModelError: this kind cannot be read, or one of its files is missing, damaged or of another checkpoint.
    """
    where = str(folder / "config.json")
    if vendor_kind(settings) == GEMMA:
        return load_gemma(folder, settings)
    vendor, sizes = declared(folder, settings)
    shape = vendor.shape(sizes)
    tokenizer = _tokenizer(folder, vendor, shape)
    _check_ids(shape, tokenizer, folder)
    try:
        with without_memory():  # the sizes in config.json are not trusted yet
            network = vendor.network(sizes)
    except Exception as error:  # transformers raises many kinds for impossible sizes
        raise ModelError(f"no network can have these sizes: {short_message(error)}.", where=where) from None
    _assign_weights(network, vendor, sizes, folder)
    config = TokenConfig(
        kind=vendor.name,
        vocab_size=len(tokenizer),
        length=shape.length,
        embed_dim=shape.width,
        mask_id=tokenizer.mask_id,
        predicts=vendor.predicts,
        sampler=vendor.sampler,
        block=shape.block,
        ends=vendor.ends,
        new_tokens=max(1, min(vendor.new_tokens, shape.length - SPECIAL)),
        # Other models end their texts with special tokens.
        never=[] if vendor.ends else tokenizer.special_ids,
    )
    if lengths := training_texts(settings, folder / "config.json").sentence_lengths:
        config = config.trained_on(lengths, tokenizer.special_ids)
    model_class = UniformTokenLM if vendor.noise == "uniform" else TokenLM
    return model_class(config, network).eval().requires_grad_(False), tokenizer


def checkpoint_tokenizer(folder: Path) -> CheckpointTokenizer | None:
    """The tokenizer of a masked vendor checkpoint in a folder; None if there is something else.

    Raises:
        ModelError: a file is missing or damaged, or the checkpoint cannot be read.
    """
    settings = read_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    if vendor_kind(settings) in (None, GEMMA):
        return None
    vendor, sizes = declared(folder, settings)
    return _tokenizer(folder, vendor, vendor.shape(sizes))


def declared(folder: Path, settings: Mapping[str, Any]) -> tuple[Vendor, Sizes]:
    """The kind of a checkpoint, and its sizes."""
    where, kind = str(folder / "config.json"), vendor_kind(settings)
    if kind not in VENDORS:
        what = f"is a checkpoint of model_type {readable(repr(kind), 80)}, which cannot be read."
        raise ModelError(what, where=where, remedy=f"Supported: {', '.join([*VENDORS, GEMMA])}.")
    if settings.get("quantization_config") is not None:
        raise ModelError(f"quantization_config is set, and {QUANTISED}", where=where, remedy=UNQUANTISED)
    # As published, a LLaDA-MoE has the model_type of a LLaDA.
    vendor = LLADA_MOE if kind == "llada" and "num_experts" in settings else VENDORS[kind]
    if vendor in (SDAR, SDAR_MOE) and settings.get("block_size") is None and (block := _named_block(folder)):
        settings = {**settings, "block_size": block}
    if vendor is DIFFUGPT and (table := _stored_shape(weights_path(folder, BidirectionalGPT2), TABLE)):
        settings = {**settings, "vocab_size": table[0]}  # of the GPT-2 that it was made from, perhaps without MASK
    try:
        return vendor, vendor.sizes.model_validate(settings)
    except ValidationError as error:
        raise ModelError(first_validation_error(error), where=where) from None


def _tokenizer(folder: Path, vendor: Vendor, shape: Shape) -> CheckpointTokenizer:
    place = _tokenizer_folder(folder, vendor)
    return read_tokenizer(place, vendor.splitting, shape.mask_id, vendor.roles, vendor.mask_token)


def _named_block(folder: Path) -> int | None:
    """The positions per block in the name of a folder or of a snapshot in the hub's cache, as in SDAR-8B-Chat-b32."""
    is_snapshot = folder.parent.name == "snapshots"
    names = (folder.name, folder.parent.parent.name if is_snapshot else "")
    matches = (_BLOCK_IN_NAME.search(name) for name in names)
    return next((int(match[1]) for match in matches if match), None)


def _tokenizer_folder(folder: Path, vendor: Vendor) -> Path:
    if has_tokenizer(folder) or vendor.tokenizer is None:
        return folder
    return hub_files(vendor.tokenizer, TOKENIZER_FILES)


def _check_ids(shape: Shape, tokenizer: CheckpointTokenizer, folder: Path) -> None:
    if len(tokenizer) > shape.rows or tokenizer.mask_id >= shape.rows:
        what = f"the tokenizer has ids up to {max(len(tokenizer) - 1, tokenizer.mask_id)}, the model {shape.rows} rows."
        raise ModelError(what, where=str(folder), remedy="They belong to different checkpoints.")
    others = {"START": tokenizer.start_id, "END": tokenizer.end_id, "PAD": tokenizer.pad_id}
    for role, index in others.items():
        if tokenizer.mask_id == index:
            what = f"MASK and {role} are the same token, {index}."
            raise ModelError(what, where=str(folder), remedy="See mask_token_id of its config.json and its mask_token.")


def _assign_weights(network: nn.Module, vendor: Vendor, sizes: Sizes, folder: Path) -> None:
    """Assign the weights of a checkpoint to a network that was built without values."""
    path = weights_path(folder, type(network))
    state: dict[str, Tensor] = {}
    for name, tensor in stored_weights(path).items():
        network_name = vendor.rename(name)
        if network_name is None:
            continue
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"the tensor {name!r} is {kind}, and {QUANTISED}", where=str(folder), remedy=UNQUANTISED)
        state[network_name] = tensor
    if vendor.convert is not None:
        try:
            state = vendor.convert(state, sizes)
        except ModelError as error:
            raise ModelError(error.what, where=str(path)) from None
    if not isinstance(network, TransformersNetwork):
        require_fit(state, network.state_dict(), path)
        network.load_state_dict(state, strict=False, assign=True)
        return
    # Names are those in the class of transformers, for messages too.
    inner = network.network
    tied = _take_tied(state, inner.all_tied_weights_keys)
    if isinstance(network, MaskedEncoder):
        _require_head(state, network, folder)
    require_fit(state, {name: tensor for name, tensor in inner.state_dict().items() if name not in tied}, path)
    if isinstance(network, MaskedEncoder):
        state = _in_one_precision(state)
    else:
        state = _in_main_precision(state, getattr(inner, "_keep_in_fp32_modules_strict", None) or ())
    inner.load_state_dict(state, strict=False, assign=True)
    inner.all_tied_weights_keys = tied
    for name, source in tied.items():
        module, _, parameter = name.rpartition(".")
        inner.get_submodule(module).register_parameter(parameter, inner.get_parameter(source))
    _rebuild_buffers(inner)


def _require_head(state: Mapping[str, Tensor], network: MaskedEncoder, folder: Path) -> None:
    """Check that the weights of an encoder are also those of its head."""
    if not any(name.startswith(network.head_names[0]) for name in state):
        what = "has no weights that predict masked tokens: it is an encoder for other uses, such as embeddings."
        raise ModelError(what, where=str(folder), remedy="Take the masked language model that it was made from.")


def _take_tied(state: dict[str, Tensor], pairs: Mapping[str, str]) -> dict[str, str]:
    """Those of ``pairs`` that are tied, after moving their weights to the names of the second, the source.

    Files hold tied weights under either name, or under both. As in ``transformers``, two that differ are not tied,
    whatever ``config.json`` says.
    """
    tied = {}
    for name, source in pairs.items():
        tensor = state.get(name)
        if tensor is not None and not torch.equal(state.setdefault(source, tensor), tensor):
            continue
        state.pop(name, None)
        tied[name] = source
    return tied


def _in_one_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in their stored precision, or in float32 if it is float16 or not the same everywhere: the layer norms of
    ``torch`` take no bfloat16 beside float16."""
    kinds = {tensor.dtype for tensor in state.values()}
    if len(kinds) == 1 and torch.float16 not in kinds:
        return state
    return {name: tensor.float() for name, tensor in state.items()}


def _in_main_precision(state: dict[str, Tensor], kept: Iterable[str]) -> dict[str, Tensor]:
    """The weights of a decoder in the precision of most of them, in which ``torch`` multiplies its matrices; none in
    float64, which mixtures of experts cannot be in.

    Args:
        kept: parts of the names of those that stay as they are.
    """
    counts: Counter[torch.dtype] = Counter()
    for tensor in state.values():
        counts[tensor.dtype] += tensor.numel()
    main = max(counts, key=counts.__getitem__)
    main = torch.float32 if main == torch.float64 else main
    return {
        name: tensor if any(part in name for part in kept) and tensor.dtype != torch.float64 else tensor.to(main)
        for name, tensor in state.items()
    }


def weights_path(folder: Path, network: type[nn.Module]) -> Path:
    """The file of the weights; many older models have no other than one that torch saved."""
    pickled = folder / PICKLED
    may_be_old = issubclass(network, MaskedEncoder | DiT | BidirectionalGPT2) and pickled.is_file()
    is_old = may_be_old and not any(folder.glob("model*.safetensors*"))
    return pickled if is_old else folder / "model.safetensors"


def stored_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file as stored, or in the shards beside it."""
    if path.name != PICKLED:
        return load_weights(path.parent, stored=True)
    state = read_torch_weights(path)
    require_numbers(state, path)
    return state


def _stored_shape(path: Path, tensor: str) -> Sequence[int] | None:
    """The shape of one of the ``stored_weights``, without reading them; None if it is not there.

    Raises:
        ModelError: a file that torch saved is damaged.
    """
    if path.name != PICKLED:
        return stored_shape(path.parent, tensor)
    found = read_torch_weights(path, mapped=True).get(tensor)
    return None if found is None else found.shape


def _rebuild_buffers(inner: PreTrainedModel) -> None:
    """Compute the buffers that are not stored and so were left without values."""
    for module in inner.modules():
        names = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        if names:
            built = type(module)(inner.config)
            for name in names:
                module.register_buffer(name, built.get_buffer(name), persistent=False)
