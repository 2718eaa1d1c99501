"""Judges keep what they have looked up, so that threads take turns at them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")


def locked(annotate: Callable[[A], T]) -> Callable[[A], T]:
    """An annotator that one thread at a time is in: checks run beside the drawing, which may ask it too."""
    lock = Lock()

    def waiting(given: A) -> T:
        with lock:
            return annotate(given)

    return waiting
