"""Files of the toolkit's own annotators, and the errors for those that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlmctl.errors import ModelError, typed_message
from dlmctl.text.files import require_file


@contextmanager
def read_annotator(path: Path, kind: str, known_version: int) -> Iterator[dict[str, Any]]:
    """The saved content of an annotator; errors in the ``with`` block, which builds it, count as damage of the file.

    Args:
        kind: the training command for such annotators, e.g. ``tagger``.
        known_version: the version of the format that can be read.

    Raises:
        ModelError: it is missing, of another version, or damaged.
    """
    try:
        if path.exists():
            require_file(path)
        saved = json.loads(path.read_text("utf-8"))
        version = saved.pop("format")
        if version != known_version:
            raise ModelError(f"format {version!r} is not the known {known_version}.", where=str(path))
        yield saved
    except FileNotFoundError:
        others = "`stanza:en` or `spacy:MODEL`" if kind == "tagger" else "`stanza:en`"
        raise ModelError(
            f"no {kind} here: {path.name} is missing.",
            where=str(path.parent),
            remedy=f"Train one with `dlmctl train {kind}`, or use {others}.",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"the {kind} is damaged: {typed_message(error)}.", where=str(path)) from None
