"""Sphinx configuration for the documentation site: `sphinx-build -W . site`. New pages in docs/ are included by glob.

Pages stay in place and link to other files as in the repository; the start page is README.md.
"""

from typing import Any

from sphinx.application import Sphinx

import dlmctl
from dlmctl.control.catalogue import installed

project = "dlmctl"
author = "The dlmctl developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md", "benchmarks/*.md", "data/**/README.md"]
exclude_patterns = [".*", "dist", "runs", "site", "tests"]
root_doc = "README"
html_theme = "furo"
html_title = "dlmctl"
html_copy_source = False
# Heading anchors as on GitHub.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Examples contain marked-up output that no lexer can parse.
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "text"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_ivar = True
nitpicky = False

CONTENTS = """
```{toctree}
:hidden:
:glob:
:caption: Guide

docs/recipes
docs/controls
docs/classifiers
docs/training
docs/evaluation
docs/*
```

```{toctree}
:hidden:
:glob:
:caption: Models and data

data/*/README
data/annotators/*/README
```

```{toctree}
:hidden:
:glob:
:caption: Measured

benchmarks/README
benchmarks/*
CHANGELOG
```
"""


def public_names() -> tuple[list[str], list[str]]:
    """Qualified names of the public API and of the bundled controls."""
    public = [f"{getattr(dlmctl, name).__module__}.{name}" for name in dlmctl.__all__]
    bundled = [
        f"{plugin.module}.{plugin.attribute}" for plugin in installed()[0] if plugin.origin.startswith("dlmctl ")
    ]
    return public, bundled


def directive(path: str, options: str = "") -> str:
    kind = "autoclass" if path.rpartition(".")[2][0].isupper() else "autofunction"
    return f"```{{eval-rst}}\n.. {kind}:: {path}\n{options}```\n"


def add_generated(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the table of contents to the start page, and the autodoc directives to the reference."""
    if page == root_doc:
        source[0] += CONTENTS
    if page == "docs/reference":
        public, controls = public_names()
        control_directives = [directive(path, "   :members: check, word_range\n") for path in controls]
        source[0] += "\n".join(["", *map(directive, public), "## Controls", "", *control_directives])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", add_generated)
    return {"parallel_read_safe": True}
