"""dlmctl: controllable text generation on diffusion language models.

>>> from dlmctl import generate
>>> from controls import Pos
>>> for sample in generate(Pos(tags=["DET", "NOUN", "AUX", "ADJ", "PUNCT"]), samples=4):
...     print(sample.text, sample.passed)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
    from dlmctl.control.base import Check, Control
    from dlmctl.control.state import ControlState
    from dlmctl.errors import UserError
    from dlmctl.generation.generate import Generation, Sample, generate, run_recipe
    from dlmctl.recipe.recipe import Recipe, load_recipe
    from dlmctl.recipe.settings import Guidance, SamplerSettings

_HOME = {
    "Check": "control.base",
    "Control": "control.base",
    "ControlState": "control.base",
    "Generation": "generation.generate",
    "Guidance": "recipe.settings",
    "Pretrained": "checkpoint.pretrained",
    "Recipe": "recipe.recipe",
    "Sample": "generation.generate",
    "SamplerSettings": "recipe.settings",
    "UserError": "errors",
    "from_pretrained": "checkpoint.pretrained",
    "generate": "generation.generate",
    "load_recipe": "recipe.recipe",
    "run_recipe": "generation.generate",
    "save_pretrained": "checkpoint.pretrained",
}

__all__ = [
    "Check",
    "Control",
    "ControlState",
    "Generation",
    "Guidance",
    "Pretrained",
    "Recipe",
    "Sample",
    "SamplerSettings",
    "UserError",
    "from_pretrained",
    "generate",
    "load_recipe",
    "run_recipe",
    "save_pretrained",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Resolved on first use, so that `import dlmctl` does not pull in torch.
    if name not in _HOME:
        raise AttributeError(f"module 'dlmctl' has no attribute {name!r}")
    return getattr(import_module(f"dlmctl.{_HOME[name]}"), name)
