"""The pages of docs/ as a site: `sphinx-build -W . site`. A new page in docs/ is found by itself.

Every page stays where it lies and links to other files as the repository has them; the start is README.md.
"""

from typing import Any

from sphinx.application import Sphinx

import dlmctl
from dlmctl.control.catalogue import installed

project = "dlmctl"
author = "The dlmctl developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md", "benchmarks/*.md", "data/*/README.md"]
exclude_patterns = [".*", "dist", "runs", "site", "tests"]
root_doc = "README"
html_theme = "furo"
html_title = "dlmctl"
html_copy_source = False
# The slugs of headings are those of GitHub.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Examples show texts with marks that no lexer knows, and that is no fault.
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


def names() -> tuple[list[str], list[str]]:
    """The public names of dlmctl and the controls that come with it, each as module and name."""
    public = [f"{getattr(dlmctl, name).__module__}.{name}" for name in dlmctl.__all__]
    bundled = [f"{one.module}.{one.attribute}" for one in installed()[0] if one.origin.startswith("dlmctl ")]
    return public, bundled


def directive(path: str, options: str = "") -> str:
    kind = "autoclass" if path.rpartition(".")[2][0].isupper() else "autofunction"
    return f"```{{eval-rst}}\n.. {kind}:: {path}\n{options}```\n"


def add(app: Sphinx, page: str, source: list[str]) -> None:
    """Contents to the start, and to the reference what the docstrings say."""
    if page == root_doc:
        source[0] += CONTENTS
    if page == "docs/reference":
        public, controls = names()
        bundled = [directive(path, "   :members: check, word_range\n") for path in controls]
        source[0] += "\n".join(["", *map(directive, public), "## Controls", "", *bundled])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", add)
    return {"parallel_read_safe": True}
