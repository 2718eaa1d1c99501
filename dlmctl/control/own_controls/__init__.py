"""The package ``controls`` under a second name, for use if a module of the user's has the first.

``dlmctl.control.own_controls.length`` is the file of ``controls.length``. Only ``dlmctl.control.registry`` imports it,
and only if the name is taken, so that no class exists twice. The modules of ``controls`` import each other relatively,
which works under either name.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[3] / "controls")]
