"""``python -m dlmctl``."""

from __future__ import annotations

from dlmctl.cli import main

main()
