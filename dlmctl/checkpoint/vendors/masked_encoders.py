"""Masked language models of ``transformers``: BERT, RoBERTa, ModernBERT and others, in any language.

Trained to fill in masked tokens, they are masked diffusion models whose noise level is not given and who never write
where a text ends (Wang and Cho 2019, arXiv 1902.04094): the number of tokens of a text is chosen before it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator
from torch import nn

from dlmctl.checkpoint.vendors.declared import (
    Base,
    Epsilon,
    Heads,
    Id,
    Layers,
    Positions,
    Rope,
    Rows,
    Shape,
    Sizes,
    Vendor,
    Width,
)
from dlmctl.models.masked_encoder import MaskedEncoder

Activation = Literal["gelu", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "relu", "silu", "swish"]
Attention = Literal["full_attention", "sliding_attention"]
Count = Annotated[int, Field(strict=True, gt=0, le=65_536)]
# START, a token and END.
FEWEST_POSITIONS = 3

# The most tokens of a text, unless others are asked for: these models write a sentence well, not a page.
NEW_TOKENS = 24
# Tensors of other heads, and numbers that are computed from the sizes.
_UNUSED = ("pooler", "seq_relationship", "sop_classifier", "discriminator_predictions", "position_ids")
# As TensorFlow calls the weights of a layer norm, and the first checkpoints in PyTorch do.
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# The special tokens by role, where a tokenizer does not name them.
BERT_ROLES = {"bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
_ROBERTA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}


class EncoderSizes(Sizes):
    """What the ``config.json`` of every encoder says.

    Attributes:
        not_settings: checked, but no settings of the class in ``transformers``.
    """

    not_settings: ClassVar[frozenset[str]] = frozenset()

    vocab_size: Rows
    max_position_embeddings: Positions
    pad_token_id: Id = 0
    tie_word_embeddings: bool = True

    @property
    def width(self) -> int:
        """The width of the embeddings."""
        raise NotImplementedError

    @property
    def first_position(self) -> int:
        """The number of the first position of a text."""
        return 0

    def settings(self) -> dict[str, Any]:
        """The settings of the class in ``transformers``."""
        return self.model_dump(exclude=set(self.not_settings))

    @model_validator(mode="after")
    def _check_ids_and_positions(self) -> Self:
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(f"pad_token_id is {self.pad_token_id}, and the vocabulary ends at {self.vocab_size - 1}")
        if self.max_position_embeddings - self.first_position < FEWEST_POSITIONS:
            raise ValueError("max_position_embeddings leaves no positions for a text")
        return self


class HiddenSizes(EncoderSizes):
    """Sizes under the names that BERT and ModernBERT share."""

    hidden_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Heads
    intermediate_size: Width

    @property
    def width(self) -> int:
        """The width of the embeddings."""
        return self.hidden_size


class BertSizes(HiddenSizes):
    """``config.json`` of an encoder like BERT; models that decode are refused."""

    not_settings = frozenset({"position_embedding_type", "is_decoder"})

    hidden_act: Activation = "gelu"
    type_vocab_size: Count = 2
    layer_norm_eps: Epsilon = 1e-12
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False


class RobertaSizes(BertSizes):
    """RoBERTa, which counts positions from its padding id on."""

    pad_token_id: Id = 1

    @property
    def first_position(self) -> int:
        """The number of the first position of a text."""
        return self.pad_token_id + 1


class FactoredSizes(BertSizes):
    """An encoder whose embeddings have a width of their own: ELECTRA."""

    embedding_size: Width = 128

    @property
    def width(self) -> int:
        """The width of the embeddings."""
        return self.embedding_size


class AlbertSizes(FactoredSizes):
    """ALBERT, whose layers share their weights."""

    num_hidden_groups: Layers = 1
    inner_group_num: Literal[1] = 1
    hidden_act: Activation = "gelu_new"


class DistilBertSizes(EncoderSizes):
    """``config.json`` of a DistilBERT."""

    dim: Width
    n_layers: Layers
    n_heads: Heads
    hidden_dim: Width
    activation: Activation = "gelu"
    sinusoidal_pos_embds: bool = False

    @property
    def width(self) -> int:
        """The width of the embeddings."""
        return self.dim


class ModernBertSizes(HiddenSizes):
    """``config.json`` of a ModernBERT, as written by transformers 4 or 5."""

    not_settings = frozenset({"layer_types", "rope_parameters"})

    hidden_activation: Activation = "gelu"
    norm_eps: Epsilon = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    classifier_bias: bool = False
    classifier_activation: Activation = "gelu"
    global_attn_every_n_layers: Layers = 3
    local_attention: Count = 128
    global_rope_theta: Base = 160_000.0
    local_rope_theta: Base = 10_000.0
    # In place of global_attn_every_n_layers and of the two bases, as written by transformers 5.
    layer_types: list[Attention] | None = None
    rope_parameters: dict[Attention, Rope] | None = None
    pad_token_id: Id = 50283

    def settings(self) -> dict[str, Any]:
        """The settings of the class in ``transformers``, without the special tokens of the first ModernBERT."""
        given = super().settings()
        given |= dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
        if self.layer_types is not None:
            given["layer_types"] = self.layer_types
        rope = self.rope_parameters or {}
        bases: dict[str, Attention] = {"global_rope_theta": "full_attention", "local_rope_theta": "sliding_attention"}
        for name, attention in bases.items():
            given[name] = rope.get(attention, Rope()).base(given[name])
        return given

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.layer_types)} layers, not {self.num_hidden_layers}")
        return self


class Encoder(NamedTuple):
    """A family of encoders.

    Attributes:
        name: as written by its authors.
        prefix: of its classes in ``transformers``, ``PREFIXConfig`` and ``PREFIXForMaskedLM``.
        roles: its special tokens by role, as in ``Vendor``.
        head: the modules from hidden states to scores, in turn.
        sizes: the required contents of its ``config.json``.
    """

    name: str
    prefix: str
    roles: Mapping[str, str]
    head: tuple[str, ...]
    sizes: type[EncoderSizes]


_ROBERTA_HEAD = ("lm_head",)
_DISTILBERT_HEAD = ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector")
_ALBERT = {**BERT_ROLES, "unk": "<unk>", "pad": "<pad>"}
_ENCODERS = {
    "bert": Encoder("BERT", "Bert", BERT_ROLES, ("cls",), BertSizes),
    "distilbert": Encoder("DistilBERT", "DistilBert", BERT_ROLES, _DISTILBERT_HEAD, DistilBertSizes),
    "electra": Encoder("ELECTRA", "Electra", BERT_ROLES, ("generator_predictions", "generator_lm_head"), FactoredSizes),
    "albert": Encoder("ALBERT", "Albert", _ALBERT, ("predictions",), AlbertSizes),
    "roberta": Encoder("RoBERTa", "Roberta", _ROBERTA, _ROBERTA_HEAD, RobertaSizes),
    "xlm-roberta": Encoder("XLM-RoBERTa", "XLMRoberta", _ROBERTA, _ROBERTA_HEAD, RobertaSizes),
    "camembert": Encoder("CamemBERT", "Camembert", _ROBERTA, _ROBERTA_HEAD, RobertaSizes),
    "modernbert": Encoder("ModernBERT", "ModernBert", BERT_ROLES, ("head", "decoder"), ModernBertSizes),
}


def _shape(sizes: EncoderSizes) -> Shape:
    length = sizes.max_position_embeddings - sizes.first_position
    return Shape(sizes.vocab_size, sizes.width, length, None)


def _network(encoder: Encoder, sizes: EncoderSizes) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{encoder.prefix}Config")(**sizes.settings(), attn_implementation="sdpa")
    network = getattr(transformers, f"{encoder.prefix}ForMaskedLM")(config)
    return MaskedEncoder(network, encoder.head, sizes.first_position)


def _rename(name: str) -> str | None:
    if any(part in name for part in _UNUSED):
        return None
    for old, new in _OLD_NAMES.items():
        name = name.replace(old, new)
    return name


# By model_type.
MASKED_ENCODERS = {
    kind: Vendor(
        encoder.name,
        encoder.sizes,
        _shape,
        partial(_network, encoder),
        _rename,
        predicts="same",
        sampler="entropy",
        roles=encoder.roles,
        ends=False,
        new_tokens=NEW_TOKENS,
    )
    for kind, encoder in _ENCODERS.items()
}
