"""dlmctl: controllable text generation on diffusion language models.

>>> import dlmctl
>>> from controls import Pos
>>> model = dlmctl.load("e2e")
>>> for sample in model.generate(Pos(tags=["DET", "NOUN", "AUX", "ADJ", "PUNCT"]), samples=4):
...     print(sample.text, sample.passed)
>>> dlmctl.run("pos").texts
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from dlmctl.checkpoint.on_demand import lazy_getattr

if TYPE_CHECKING:  # for type checkers; tests/test_api.py keeps it in step with _PUBLIC
    from dlmctl.checkpoint.pretrained import Pretrained as Pretrained
    from dlmctl.checkpoint.pretrained import from_pretrained as from_pretrained
    from dlmctl.checkpoint.pretrained import save_pretrained as save_pretrained
    from dlmctl.control.base import All as All
    from dlmctl.control.base import AnyOf as AnyOf
    from dlmctl.control.base import Control as Control
    from dlmctl.control.base import ControlParams as ControlParams
    from dlmctl.control.base import Not as Not
    from dlmctl.control.check import Check as Check
    from dlmctl.control.check import Mark as Mark
    from dlmctl.control.classifier import guide as guide
    from dlmctl.control.field_labels import FieldLabels as FieldLabels
    from dlmctl.control.labels import LabelledText as LabelledText
    from dlmctl.control.labels import Labels as Labels
    from dlmctl.control.prepared import Energy as Energy
    from dlmctl.control.prepared import Prepared as Prepared
    from dlmctl.control.state import BatchContext as BatchContext
    from dlmctl.control.state import ControlState as ControlState
    from dlmctl.control.text_labels import TextLabels as TextLabels
    from dlmctl.control.word_labels import WordLabels as WordLabels
    from dlmctl.errors import DataError as DataError
    from dlmctl.errors import ModelError as ModelError
    from dlmctl.errors import RecipeError as RecipeError
    from dlmctl.errors import SettingsError as SettingsError
    from dlmctl.errors import UserError as UserError
    from dlmctl.generation.generate import generate as generate
    from dlmctl.generation.generator import Generator as Generator
    from dlmctl.generation.matched import matched as matched
    from dlmctl.generation.matched_sets import MatchedSets as MatchedSets
    from dlmctl.generation.model import Model as Model
    from dlmctl.generation.model import load as load
    from dlmctl.generation.model import run as run
    from dlmctl.generation.page.report import report as report
    from dlmctl.generation.results import Generation as Generation
    from dlmctl.generation.results import Sample as Sample
    from dlmctl.generation.run import run_recipe as run_recipe
    from dlmctl.recipe.load import load_recipe as load_recipe
    from dlmctl.recipe.recipe import Recipe as Recipe
    from dlmctl.recipe.saving import save_recipe as save_recipe
    from dlmctl.recipe.settings import Guidance as Guidance
    from dlmctl.recipe.settings import Quota as Quota
    from dlmctl.recipe.settings import SamplerSettings as SamplerSettings
    from dlmctl.recipe.settings import Until as Until
    from dlmctl.sampling.logits_control import LogitsControl as LogitsControl

__version__ = "0.1.0"

# The public names and their modules. Imported on first use, so that `import dlmctl` does not import torch.
_PUBLIC = {
    "All": "control.base",
    "AnyOf": "control.base",
    "BatchContext": "control.state",
    "Check": "control.check",
    "Control": "control.base",
    "ControlParams": "control.base",
    "ControlState": "control.state",
    "DataError": "errors",
    "Energy": "control.prepared",
    "FieldLabels": "control.field_labels",
    "Generation": "generation.results",
    "Generator": "generation.generator",
    "Guidance": "recipe.settings",
    "LabelledText": "control.labels",
    "Labels": "control.labels",
    "LogitsControl": "sampling.logits_control",
    "Mark": "control.check",
    "MatchedSets": "generation.matched_sets",
    "Model": "generation.model",
    "ModelError": "errors",
    "Not": "control.base",
    "Prepared": "control.prepared",
    "Pretrained": "checkpoint.pretrained",
    "Quota": "recipe.settings",
    "Recipe": "recipe.recipe",
    "RecipeError": "errors",
    "Sample": "generation.results",
    "SamplerSettings": "recipe.settings",
    "SettingsError": "errors",
    "TextLabels": "control.text_labels",
    "Until": "recipe.settings",
    "UserError": "errors",
    "WordLabels": "control.word_labels",
    "guide": "control.classifier",
    "load": "generation.model",
    "load_recipe": "recipe.load",
    "matched": "generation.matched",
    "report": "generation.page.report",
    "run": "generation.model",
    "save_pretrained": "checkpoint.pretrained",
    "save_recipe": "recipe.saving",
}
# Deprecated names of version 0.1, with their modules and replacements; removed in the next version.
_DEPRECATED = {
    "from_pretrained": ("checkpoint.pretrained", "dlmctl.load(...)"),
    "generate": ("generation.generate", "dlmctl.load(...).generate(...)"),
    "run_recipe": ("generation.run", "dlmctl.run(...)"),
}
__all__ = [*_PUBLIC]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


_homes = {**_PUBLIC, **{name: module for name, (module, _) in _DEPRECATED.items()}}
_import_on_first_use = lazy_getattr(__name__, {name: f".{module}" for name, module in _homes.items()})


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED:
        replacement = _DEPRECATED[name][1]
        warnings.warn(
            f"dlmctl.{name} will be removed in the next version; use {replacement}.", DeprecationWarning, stacklevel=2
        )
    return _import_on_first_use(name)
