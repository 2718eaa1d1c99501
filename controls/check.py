"""Any test of a finished text, given as a function: nothing steers, and texts that fail are redrawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PlainSerializer, WithJsonSchema, field_validator

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.control.user_files import load_reference, parse_reference
from dlmctl.errors import UserError
from dlmctl.text.spelling import detokenize

Verdict = bool | tuple[bool, str] | Check


def _name_of(function: Any) -> str:
    return function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)


# The name of a function, or in Python also the function itself.
Function = Annotated[
    Any, WithJsonSchema({"type": "string"}), PlainSerializer(_name_of, return_type=str, when_used="json")
]


class PredicateParams(ControlParams):
    """The function that tests the texts."""

    function: Function = Field(
        description="file.py:name of a function that takes a text and returns whether it passes, optionally with the "
        "reason; the file is imported",
        examples=["mine.py:is_polite"],
    )

    @field_validator("function")
    @classmethod
    def _is_function(cls, function: Any) -> Any:
        if callable(function) or (isinstance(function, str) and parse_reference(function)):
            return function
        raise ValueError(f"a function is named as file.py:name, not {_name_of(function)[:80]!r}")


class Predicate(Control[PredicateParams]):
    """Your own test, satisfied by rejection: texts that fail are redrawn, up to ``until.max_rounds`` rounds.

    The function receives the text as a reader sees it. It returns True or False, optionally with the reason as a
    string, or a ``Check``; anything else is an error, so that no text passes by accident.
    """

    name = "check"
    Params = PredicateParams
    by_rejection = True

    def __init__(self, *args: Any, **params: Any) -> None:
        super().__init__(*args, **params)
        self.detokenize: Callable[[Sequence[str]], str] = detokenize

    def attach(self, model: Pretrained) -> None:
        self.detokenize = model.tokenizer.text
        for params in self.sets:
            _function(params)  # report an unreadable file before anything is drawn

    def check(self, params: PredicateParams, words: Sequence[str]) -> Check:
        """The function's verdict; the score is 1 or 0 unless it returns a ``Check``.

        Raises:
            UserError: it does not return a verdict.
        """
        return self._verdict(params, self.detokenize(words))

    def check_written(
        self, params: Sequence[PredicateParams], texts: Sequence[Sequence[str]], written: Sequence[str]
    ) -> list[Check]:
        """``check`` for the texts with their original spaces and lines."""
        return [self._verdict(target, text) for target, text in zip(params, written, strict=True)]

    def _verdict(self, params: PredicateParams, text: str) -> Check:
        returned = _function(params)(text)
        if isinstance(returned, Check):
            return returned
        passed, why = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, "")
        name = _name_of(params.function)
        if not isinstance(passed, bool | np.bool_) or not isinstance(why, str):
            what = f"{name} must return True or False, optionally with a reason, or a Check, not {returned!r}."
            raise UserError(what, where=f"control {self.name!r}", remedy='E.g. `return False, "too long"`.')
        label = name.rpartition(":")[2]
        return Check(float(passed), bool(passed), why or f"{label} says {'yes' if passed else 'no'}")


def _function(params: PredicateParams) -> Callable[[str], Verdict]:
    if callable(params.function):
        return params.function
    reference = parse_reference(params.function)
    assert reference is not None
    function = load_reference(reference)
    if not callable(function):
        raise UserError(f"{reference.attribute!r} is not a function.", where=str(reference.path))
    return function
