"""Runs of the playground: one at a time, told step by step, stopped by whoever started them or when nobody waits."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from queue import Queue
from typing import Any

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.cli.playground.forms import Form, recipe_of
from dlmctl.errors import UserError, first_line
from dlmctl.generation.page.marked import text_html
from dlmctl.generation.results import Sample
from dlmctl.generation.run import run_recipe
from dlmctl.text.tokenizer import END

# Texts whose steps are kept.
MOST_TRACED = 24
# Seconds between two words on progress, and between two looks of a run that waits at whether it is still wanted.
PAUSE = 0.1
log = logging.getLogger(__name__)
_Event = dict[str, Any]


class Stopped(Exception):
    """The run was told to stop."""


@lru_cache(maxsize=2)
def loaded(model: str) -> Pretrained:
    """A model, kept for the runs to come."""
    return from_pretrained(model)


def marked_html(sample: Sample) -> str:
    """The text with its words marked by what each control saw, as in a report."""
    return text_html(sample.text, sample.words, {name: check.seen for name, check in sample.checks.items()})


def least_likely(sample: Sample) -> str | None:
    """What the scorer finds least likely of a text, as a report says it; None where there is no scorer."""
    if sample.fluency is None:
        return None
    return "the end" if sample.fluency.worst_word == END else f"“{sample.fluency.worst_word}”"


class Runs:
    """Takes one run at a time; the next one waits."""

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._stops: dict[str, threading.Event] = {}

    def stop(self, name: str) -> None:
        """Stop a run where it waits or at its next step; one that has ended is left alone."""
        if (stop := self._stops.get(name)) is not None:
            stop.set()

    def start(self, form: Form) -> tuple[str, Iterator[str]]:
        """A run: the name that stops it, which nobody else knows, and its lines of JSON.

        The lines are ``progress`` (steps done, steps in all), and at the end ``result`` or ``error``. The run begins
        with the first of them; whoever stops listening stops it.
        """
        name = secrets.token_hex(8)
        self._stops[name] = threading.Event()
        return name, self._lines(name, form)

    def _lines(self, name: str, form: Form) -> Iterator[str]:
        events: Queue[_Event | None] = Queue()
        stop = self._stops[name]
        thread = threading.Thread(target=self._run, args=(form, events.put, stop), daemon=True)
        thread.start()
        try:
            while (event := events.get()) is not None:
                yield json.dumps(event, ensure_ascii=False) + "\n"
        finally:
            stop.set()
            del self._stops[name]

    def _run(self, form: Form, tell: Callable[[_Event | None], None], stop: threading.Event) -> None:
        try:
            with self._turn(stop):
                tell({"result": self._drawn(form, tell, stop)})
        except Stopped:
            tell({"error": "stopped."})
        except UserError as error:
            tell({"error": str(error)})
        except Exception as error:  # what is wrong here must reach the page, or it waits for ever
            log.exception("a run failed")
            tell({"error": f"the run failed: {first_line(error)}. The terminal of `dlmctl play` has the details."})
        finally:
            tell(None)

    @contextmanager
    def _turn(self, stop: threading.Event) -> Iterator[None]:
        """Context of the one run that draws."""
        while not self._one.acquire(timeout=PAUSE):
            if stop.is_set():
                raise Stopped
        try:
            yield
        finally:
            self._one.release()

    def _drawn(self, form: Form, tell: Callable[[_Event], None], stop: threading.Event) -> dict[str, Any]:
        recipe, origin = recipe_of(form)
        said = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal said
            if stop.is_set():
                raise Stopped
            if time.monotonic() - said > PAUSE or done == total:
                said = time.monotonic()
                tell({"progress": [done, total]})

        traced = min(recipe.samples, MOST_TRACED)
        result = run_recipe(recipe, model=loaded(recipe.model), origin=origin, progress=progress, trace=traced)
        rows = [
            {**sample.to_dict(), "html": marked_html(sample), "least_likely": least_likely(sample)} for sample in result
        ]
        checked = any(sample.checks for sample in result)
        return {"samples": rows, "seconds": result.seconds, "success": result.success if checked else None}
