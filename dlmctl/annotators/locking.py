"""A lock for annotators, which have caches and so must be used by one thread at a time."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")


def locked(annotate: Callable[[A], T]) -> Callable[[A], T]:
    """An annotator that only one thread uses at a time: checks run in parallel with drawing, which may use it too."""
    lock = Lock()

    def annotate_locked(argument: A) -> T:
        with lock:
            return annotate(argument)

    return annotate_locked
