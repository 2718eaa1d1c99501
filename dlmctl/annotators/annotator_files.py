"""Files of the toolkit's own annotators, and what is said of one that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlmctl.errors import ModelError, first_line
from dlmctl.text.files import require_file


@contextmanager
def reading(path: Path, kind: str, known: int) -> Iterator[dict[str, Any]]:
    """What is saved of an annotator, to be made one of.

    Args:
        kind: the command that makes such ones, as ``tagger``.
        known: the version of the format that is read.

    Raises:
        ModelError: it is missing, of another format, or damaged, as it turns out here or when it is made one of.
    """
    try:
        if path.exists():
            require_file(path)
        saved = json.loads(path.read_text("utf-8"))
        version = saved.pop("format")
        if version != known:
            raise ModelError(f"format {version!r} is not the known {known}.", where=str(path))
        yield saved
    except FileNotFoundError:
        others = "`stanza:en` or `spacy:MODEL`" if kind == "tagger" else "`stanza:en`"
        raise ModelError(
            f"no {kind} here: {path.name} is missing.",
            where=str(path.parent),
            remedy=f"Make one with `dlmctl train {kind}`, or give {others}.",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"the {kind} is damaged: {first_line(error)}.", where=str(path)) from None
