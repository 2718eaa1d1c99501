"""The mapping of our tensor names to those of BERT encoders in Hugging Face's transformers.

A block of ``TransformerDenoiser`` with ``norm_first: false`` is a layer of BERT, weight for weight, except that the
query, key and value matrices are joined here.
"""

from __future__ import annotations

from dlmctl.models.transformer import TransformerConfig

# The settings of a BERT layer other than its sizes. A configuration with other values cannot be loaded.
FIXED = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"}

_PARTS = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "mlp_in": ("intermediate.dense",),
    "mlp_out": ("output.dense",),
    "mlp_norm": ("output.LayerNorm",),
}


def encoder_tensors(layers: int, prefix: str) -> dict[str, tuple[str, ...]]:
    """Our names of the blocks' tensors, each with the BERT tensors that it joins along their first axis.

    Args:
        layers: number of blocks.
        prefix: what precedes ``layer.0`` in the BERT names, e.g. ``encoder.``.
    """
    return {
        f"denoiser.encoder.blocks.{layer}.{ours}.{kind}": tuple(
            f"{prefix}layer.{layer}.{part}.{kind}" for part in parts
        )
        for layer in range(layers)
        for ours, parts in _PARTS.items()
        for kind in ("weight", "bias")
    }


def sizes(config: TransformerConfig) -> dict[str, int]:
    """The sizes of an encoder, by their names in a BERT ``config.json``."""
    return {
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feedforward or 4 * config.hidden,
    }
