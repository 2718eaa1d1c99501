"""Import and export of checkpoints of the original Diffusion-LM (Li et al. 2022), in its training script's format.

A folder holds ``ema_RATE_STEP.pt`` and ``modelSTEP.pt``, ``training_args.json`` and ``vocab.json``; it may also hold
the sizes of the BERT encoder, in the subfolder given by ``config_name``. Models of the architectures ``transformer``,
``1d-unet`` and ``conv-unet`` that were trained end to end can be loaded; others are refused with the reason.
"""

from typing import TYPE_CHECKING

from dlmctl.checkpoint.on_demand import lazy_getattr

if TYPE_CHECKING:  # the same for type checkers
    from dlmctl.checkpoint.original.load import load_original as load_original
    from dlmctl.checkpoint.original.save import export_original as export_original

# Imported on first use, as few models need them.
_MODULES = {"export_original": ".save", "load_original": ".load"}
__all__ = [*_MODULES]

__getattr__ = lazy_getattr(__name__, _MODULES)
