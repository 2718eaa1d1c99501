"""The rooms of the toolkit stand in strict order, and docs/architecture.md states it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dlmctl import _PUBLIC

ROOT = Path(__file__).resolve().parents[1]
# Imports inside functions that stay, each an optional or heavy dependency that few commands need.
LATE = {
    "accelerate",
    "accelerate.utils",
    "datasets",
    "difflib",
    "filelock",
    "hashlib",
    "huggingface_hub",
    "huggingface_hub.errors",
    "matplotlib",
    "matplotlib.figure",
    "nltk.tokenize.punkt",
    "nltk.translate.bleu_score",
    "nltk.translate.meteor_score",
    "pandas",
    "pyarrow",
    "pyarrow.parquet",
    "pycrfsuite",
    "pydantic",
    "sacrebleu.metrics.bleu",
    "sacrebleu.tokenizers.tokenizer_13a",
    "safetensors",
    "safetensors.torch",
    "spacy",
    "stanza",
    "torch",
    "torch.nn.functional",
    "torch.utils.tensorboard",
    "transformers",
    "transformers.utils",
}
FORBIDDEN_TO_CONTROLS = (
    "dlmctl.training",
    "dlmctl.evaluation",
    "dlmctl.metrics",
    "dlmctl.sampling",
    "dlmctl.generation",
)


def order() -> list[list[str]]:
    """The layers from the ground up, as docs/architecture.md states them."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    found = re.search(r"<!-- layers -->\s*```\n(.*?)```", text, re.DOTALL)
    assert found, "docs/architecture.md has no block marked <!-- layers -->"
    return [line.split("#")[0].replace(",", " ").split() for line in reversed(found[1].strip().splitlines())]


def modules() -> list[Path]:
    return sorted(path for base in ("dlmctl", "controls") for path in (ROOT / base).rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "controls" if parts[0] == "controls" else parts[1]


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """Every module that a file imports: name, line, and whether inside a function."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = {id(node) for at in ast.walk(tree) if isinstance(at, ast.FunctionDef) for node in ast.walk(at)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # Those among the controls are right under either name of their package; see dlmctl.control.own_controls.
            if path.parent.name == "controls" and path.parents[1] == ROOT and node.level == 1:
                found.append((f"controls.{node.module}", node.lineno, id(node) in inner))
                continue
            assert not node.level, f"{path}:{node.lineno} is a relative import"
            # Of the public names each stands for its module.
            public = [f"dlmctl.{_PUBLIC.get(alias.name, alias.name)}" for alias in node.names]
            names = public if node.module == "dlmctl" else [node.module or ""]
            found += [(name, node.lineno, id(node) in inner) for name in names]
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "controls":
        return "controls"
    if parts[0] == "dlmctl" and len(parts) > 1 and not parts[1].startswith("__"):
        return parts[1]
    return None


def test_every_room_has_its_place_and_there_are_at_most_sixteen():
    rooms = {room(path) for path in modules()} - {"__init__", "__main__"}
    assert rooms == {name for layer in order() for name in layer}
    assert len(rooms - {"controls"}) <= 16


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward_and_stand_at_the_top(path):
    floors = {name: floor for floor, names in enumerate(order()) for name in names}
    here = room(path)
    for module, line, inside in imports(path):
        there = room_of(module)
        at = f"{path.relative_to(ROOT)}:{line} imports {module}"
        if here not in ("__init__", "__main__", "cli") and there not in (None, here):
            assert floors[there] < floors[here], f"{at}, which is not below it"
        if inside and here not in ("__init__", "__main__", "cli"):
            assert module in LATE, f"{at} inside a function"
        if here == "controls":
            assert not module.startswith(FORBIDDEN_TO_CONTROLS), at


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_fit_a_screen_or_few(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
