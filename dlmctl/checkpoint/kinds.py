"""Which kind of third-party checkpoint a ``config.json`` belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The kind of checkpoints that have no ``model_type``.
SEDD_KIND = "sedd"


def vendor_kind(settings: Mapping[str, Any]) -> str | None:
    """The ``model_type`` of a vendor checkpoint, or ``SEDD_KIND`` if these are the settings of a SEDD's training, which
    its authors publish instead; None for anything else."""
    kind = settings.get("model_type")
    if kind is None and "tokens" in settings and all(isinstance(settings.get(key), dict) for key in ("graph", "model")):
        return SEDD_KIND
    return kind if isinstance(kind, str) else None
