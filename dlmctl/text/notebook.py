"""The notebook that this code runs in."""

from __future__ import annotations

import sys
from typing import Any


def running_shell() -> Any:
    """The shell of IPython that runs this code, None outside of it; where it runs, IPython is loaded already."""
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
