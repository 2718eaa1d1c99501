"""Checkpoints of the original Diffusion-LM (Li et al. 2022): read as its training script leaves them, and written so.

A folder holds ``ema_RATE_STEP.pt`` and ``modelSTEP.pt``, ``training_args.json`` and ``vocab.json``; the sizes of
its BERT encoder may lie beside them in the folder that ``config_name`` names. Models trained end to end of the
architectures ``transformer``, ``1d-unet`` and ``conv-unet`` can be loaded; the rest is refused with the reason.
"""

from dlmctl.checkpoint.original.load import load_original
from dlmctl.checkpoint.original.save import export_original

__all__ = ["export_original", "load_original"]
