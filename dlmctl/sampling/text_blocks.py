"""The blocks in which a masked text is written, and where they begin after a prompt."""

from __future__ import annotations

from dlmctl.diffusion.absorbing import AttentionBlocks
from dlmctl.diffusion.masked_base import MaskedModel
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.plan import Plan


def block_size(sampler: SamplerSettings, model: DiffusionLM | MaskedModel) -> int | None:
    """Positions that are written before those after them; None for all at once.

    A model that attends by blocks writes parts of a block of its own: the largest equal ones that are no larger than
    what is asked for.
    """
    own = _own_block(model)
    if own is None or sampler.block is None:
        return own or sampler.block
    return max(size for size in range(1, min(sampler.block, own) + 1) if own % size == 0)


def first_block(plan: Plan, draw: Draw) -> int | None:
    """Places of a text in its first block, if they may be others than in the next ones."""
    block = block_size(plan.sampler, plan.pretrained.model)
    blocks = attention_blocks(plan, draw)
    return None if block is None or blocks is None else block - (blocks.before + 1) % block


def attention_blocks(plan: Plan, draw: Draw) -> AttentionBlocks | None:
    """The blocks of the model's attention; None for a model that attends to all positions.

    They are counted from the beginning of the prompt, so the prompt's last one may go on with the text.
    """
    size = _own_block(plan.pretrained.model)
    if size is None:
        return None
    prompt_tokens = len(plan.prompt.text(draw.sample)) if plan.prompt is not None else 0
    # Without a prompt there is START.
    return AttentionBlocks(size, (max(1, prompt_tokens) - 1) % size)


def _own_block(model: DiffusionLM | MaskedModel) -> int | None:
    return model.config.block if isinstance(model, TokenLM) else None
