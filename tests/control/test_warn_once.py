"""A warning is logged once, and in a notebook again when a cell runs again, since its earlier output is gone."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

from dlmctl.control import warn_once as module


def test_a_warning_is_logged_once_in_a_process(caplog):
    module._warn.cache_clear()
    for _ in range(3):
        module.warn_once("odd")
    assert caplog.messages == ["dlmctl: odd"]


def test_a_notebook_is_warned_once_in_each_run_of_a_cell(monkeypatch, caplog):
    module._warn.cache_clear()
    shell = SimpleNamespace(execution_count=4)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    sys.modules["IPython"].get_ipython = lambda: shell
    module.warn_once("odd")
    module.warn_once("odd")
    shell.execution_count = 5
    module.warn_once("odd")
    assert caplog.messages == ["dlmctl: odd"] * 2
