"""The package ``controls`` under a second name, for where a module of the user's own has the first.

``dlmctl.control.own_controls.length`` is the file of ``controls.length``. Only ``dlmctl.control.registry`` imports it,
and only where the name is taken, so that no class is there twice. The modules of ``controls`` import each other
relatively, which is right under either name.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[3] / "controls")]
