"""The bundled controls when the user has a module or folder that is also called controls."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from dlmctl.control.catalogue import installed
from dlmctl.control.registry import find_control
if sys.argv[1:]:
    import controls
    assert controls.MINE == 1
plugins, broken = installed()
print(sorted(one.name for one in plugins if one.origin.startswith("dlmctl ")), broken)
print(find_control("contains")("pub")(["a", "pub"]).passed)
"""


@pytest.mark.parametrize("form", ["controls.py", "controls/__init__.py"])
@pytest.mark.parametrize("imported", [(), ("first",)])
def test_a_users_own_controls_do_not_hide_the_bundled_ones(tmp_path, form, imported):
    (tmp_path / form).parent.mkdir(exist_ok=True)
    (tmp_path / form).write_text("MINE = 1\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.run(
        [sys.executable, "script.py", *imported],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    names, passed = run.stdout.splitlines()
    assert "'contains', 'edit', 'infill', 'length'" in names
    assert names.endswith("[]")
    assert passed == "True"
