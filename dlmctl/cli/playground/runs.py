"""Runs of the playground: one at a time, with progress; stopped on request or when the client disconnects."""

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
from dlmctl.control.user_files import one_version
from dlmctl.errors import UserError, typed_message
from dlmctl.generation.page.marked import text_html
from dlmctl.generation.results import Sample
from dlmctl.generation.run import run_recipe
from dlmctl.text.tokenizer import END

# Maximum number of texts whose steps are kept.
MAX_TRACED = 24
# Seconds between progress events, and between checks of a waiting run for a stop request.
INTERVAL = 0.1
log = logging.getLogger(__name__)
_Event = dict[str, Any]


class Stopped(Exception):
    """The run was stopped."""


@lru_cache(maxsize=2)
def cached_model(model: str) -> Pretrained:
    """A loaded model, kept for later runs."""
    return from_pretrained(model)


def marked_html(sample: Sample) -> str:
    """The text as HTML, with its words marked by what each control saw, as in a report."""
    return text_html(sample.text, sample.words, {name: check.seen for name, check in sample.checks.items()})


def least_likely(sample: Sample) -> str | None:
    """The word that the scorer finds least likely, worded as in a report; None if there is no scorer."""
    if sample.fluency is None:
        return None
    return "the end" if sample.fluency.worst_word == END else f"“{sample.fluency.worst_word}”"


class Runs:
    """Executes one run at a time; further runs wait."""

    def __init__(self) -> None:
        self._run_lock = threading.Lock()
        self._stop_events: dict[str, threading.Event] = {}

    def stop(self, name: str) -> None:
        """Stop a run, while it waits or at its next step; a run that has ended is ignored."""
        if (stop := self._stop_events.get(name)) is not None:
            stop.set()

    def start(self, form: Form) -> tuple[str, Iterator[str]]:
        """A new run: the secret name with which it can be stopped, and its output as lines of JSON.

        The lines are ``progress`` (steps done, total steps), and at the end ``result`` or ``error``. The run begins
        when the first line is requested; closing the iterator stops it.
        """
        name = secrets.token_hex(8)
        self._stop_events[name] = threading.Event()
        return name, self._lines(name, form)

    def _lines(self, name: str, form: Form) -> Iterator[str]:
        events: Queue[_Event | None] = Queue()
        stop = self._stop_events[name]
        thread = threading.Thread(target=self._run, args=(form, events.put, stop), daemon=True)
        thread.start()
        try:
            while (event := events.get()) is not None:
                yield json.dumps(event, ensure_ascii=False) + "\n"
        finally:
            stop.set()
            del self._stop_events[name]

    def _run(self, form: Form, send: Callable[[_Event | None], None], stop: threading.Event) -> None:
        try:
            with self._exclusive(stop), one_version({}):
                send({"result": self._draw(form, send, stop)})
        except Stopped:
            send({"error": "stopped."})
        except UserError as error:
            send({"error": str(error)})
        except Exception as error:  # every failure must reach the page, or it would wait for ever
            log.exception("a run failed")
            send({"error": f"the run failed: {typed_message(error)}. The terminal of `dlmctl play` has the details."})
        finally:
            send(None)

    @contextmanager
    def _exclusive(self, stop: threading.Event) -> Iterator[None]:
        """Context that only one run at a time can enter."""
        while not self._run_lock.acquire(timeout=INTERVAL):
            if stop.is_set():
                raise Stopped
        try:
            yield
        finally:
            self._run_lock.release()

    def _draw(self, form: Form, send: Callable[[_Event], None], stop: threading.Event) -> dict[str, Any]:
        recipe, origin = recipe_of(form)
        last_sent = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal last_sent
            if stop.is_set():
                raise Stopped
            if time.monotonic() - last_sent > INTERVAL or done == total:
                last_sent = time.monotonic()
                send({"progress": [done, total]})

        trace = min(recipe.samples, MAX_TRACED)
        result = run_recipe(recipe, model=cached_model(recipe.model), origin=origin, progress=progress, trace=trace)
        rows = [
            {**sample.to_dict(), "html": marked_html(sample), "least_likely": least_likely(sample)} for sample in result
        ]
        has_checks = any(sample.checks for sample in result)
        return {"samples": rows, "seconds": result.seconds, "success": result.success if has_checks else None}
