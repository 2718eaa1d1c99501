"""Template of a package with a new control: ``dlmctl controls new NAME``.

The other files of this folder are the templates. Their control works unchanged, so that its author starts from
something that runs.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from string import Template

from dlmctl.control.class_faults import RESERVED
from dlmctl.control.registry import offered_controls, origin
from dlmctl.errors import UserError

# The most characters of a control's name, which is also the name of a file.
MAX_NAME = 60
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Each template with the path of its file; $module is substituted.
_FILES = {
    "pyproject.toml.template": "pyproject.toml",
    "README.md.template": "README.md",
    "recipe.yaml.template": "recipe.yaml",
    "control.py.template": "$module.py",
    "test_control.py.template": "tests/test_$module.py",
}


def distribution_name(name: str) -> str:
    """The name of a control's package."""
    return f"dlmctl-{name.replace('_', '-')}"


def write_skeleton(name: str, out: Path) -> list[Path]:
    """Write the package of a control ``name`` into the folder ``out``, which must not exist.

    Returns:
        The files, relative to ``out``.

    Raises:
        UserError: the name is invalid or taken, or the folder exists or cannot be written.
    """
    _require_free(name)
    if out.exists():
        raise UserError("already exists.", where=str(out), remedy="Give another folder with --out.")
    substitutions = {
        "name": name,
        "module": f"dlmctl_{name}",
        "distribution": distribution_name(name),
        "Class": "".join(part.capitalize() for part in name.split("_")),
    }
    templates = resources.files(__name__)
    files = []
    for template, target in _FILES.items():
        path = out / Template(target).substitute(substitutions)
        text = Template((templates / template).read_text("utf-8")).substitute(substitutions)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}.", where=str(path)) from None
        files.append(path.relative_to(out))
    return files


def _require_free(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise UserError(
            f"{name!r} cannot be the name of a control.",
            remedy="Use lower-case letters, digits and single underscores, starting with a letter, e.g. word_order.",
        )
    if name in RESERVED:
        raise UserError(f"{name!r} means something else in recipes.", remedy="Choose another name.")
    if name in (taken := offered_controls()):
        raise UserError(
            f"there is a control {name!r} already, from {origin(taken[name][0])}.", remedy="Choose another name."
        )
