"""Checkpoints of the original Diffusion-LM (Li et al. 2022): read as its training script leaves them, and written so.

A folder holds ``ema_RATE_STEP.pt`` and ``modelSTEP.pt``, ``training_args.json`` and ``vocab.json``; the sizes of
its BERT encoder may lie beside them in the folder that ``config_name`` names. Models trained end to end of the
architectures ``transformer``, ``1d-unet`` and ``conv-unet`` can be loaded; the rest is refused with the reason.
"""

from typing import TYPE_CHECKING

from dlmctl.checkpoint.on_demand import on_demand

if TYPE_CHECKING:  # the same for type checkers
    from dlmctl.checkpoint.original.load import load_original as load_original
    from dlmctl.checkpoint.original.save import export_original as export_original

# Few models are such.
_HOMES = {"export_original": ".save", "load_original": ".load"}
__all__ = [*_HOMES]

__getattr__ = on_demand(__name__, _HOMES)
