"""Validation of what callers in Python pass and what the code of control authors returns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from dlmctl.control.check import is_range
from dlmctl.control.class_faults import name_and_params
from dlmctl.control.nan_checks import is_tensor
from dlmctl.control.prepared import Prepared
from dlmctl.control.shorthand import params_by_name
from dlmctl.errors import UserError, did_you_mean, first_validation_error, readable
from dlmctl.text.plain_values import plain_value

if TYPE_CHECKING:
    from dlmctl.control.state import BatchContext

# The largest weight; as a factor float32 can still multiply by it.
MAX_WEIGHT = 1e6


# Arguments of callers.


def params_from(kind: type, args: Sequence[Any], params: Mapping[str, Any]) -> BaseModel:
    """The parameters of a control of this class, from positional and keyword arguments.

    Raises:
        UserError: they do not validate, or the class cannot be a control.
        TypeError: as ``params_by_name``.
    """
    name, model = name_and_params(kind)
    return _validated(f"control {name!r}", model, params_by_name(model, args, params))


def sets_from(kind: type, params: Iterable[Any]) -> tuple[BaseModel, ...]:
    """Validated sets of parameters: each as ``Params``, as a mapping, or as the value of the first parameter alone.

    Raises:
        UserError: there are none, one does not validate, or the class cannot be a control.
    """
    name, model = name_and_params(kind)
    if isinstance(params, str | Mapping) or not isinstance(params, Iterable):
        what = f"takes a list with the parameters of each text, not {readable(repr(params), 60)}."
        raise UserError(what, where=f"control {name!r}: each")
    entries = list(params)
    if not entries:
        raise UserError("there are no sets of parameters.", where=f"control {name!r}")
    return tuple(_set_from(f"control {name!r}: each[{at}]", model, entry) for at, entry in enumerate(entries))


def _set_from(where: str, model: type[BaseModel], entry: Any) -> BaseModel:
    if isinstance(entry, model):
        return entry
    if isinstance(entry, BaseModel) or isinstance(getattr(entry, "sets", None), tuple):
        what = f"these are no parameters of this control: {readable(repr(entry), 60)}."
        raise UserError(what, where=where, remedy=f"They are a dict of {', '.join(model.model_fields)}.")
    return _validated(where, model, entry if isinstance(entry, Mapping) else params_by_name(model, [entry], {}))


def _validated(where: str, model: type[BaseModel], params: Any) -> BaseModel:
    try:
        return model.model_validate(plain_value(params))
    except ValidationError as error:
        names = [fault["loc"][0] for fault in error.errors() if fault["type"] == "extra_forbidden"]
        known = list(model.model_fields)
        # A misspelt name also leaves the right one missing, but saying that would help less.
        if unknown := [str(extra) for extra in names if extra not in known]:
            what, remedy = f"there is no parameter {unknown[0]!r}.", did_you_mean(unknown[0], known)
            raise UserError(what, where=where, remedy=remedy) from None
        raise UserError(first_validation_error(error), where=where, remedy=_form_of(error, model)) from None


def _form_of(error: ValidationError, model: type[BaseModel]) -> str | None:
    """How a parameter is written, if its value is of another type."""
    first = error.errors()[0]
    name = next(iter(first["loc"]), None)
    if not first["type"].endswith("_type") or name not in model.model_fields:
        return None
    is_range = first["type"] == "int_type" and isinstance(first["input"], Sequence)
    if is_range and "tolerance" in model.model_fields:
        return f"3 to 5 is {name}=4, tolerance=1."
    examples = model.model_fields[str(name)].examples
    return f"E.g. {name}={examples[0]!r}." if examples else None


def weight_from(name: str, weight: Any) -> float:
    """A factor for a control's weight, within the bounds of recipes.

    Raises:
        UserError: it is not a number within them.
    """
    if not isinstance(weight, Real) or isinstance(weight, bool) or not 0 <= float(weight) <= MAX_WEIGHT:
        what = f"a weight must be a number from 0 to {MAX_WEIGHT:.0f}, not {weight!r}."
        raise UserError(what, where=f"control {name!r}")
    return float(weight)


def no_control(value: Any, where: str | None = None) -> UserError:
    """The error for a value in place of a control, or for a control that was not made as it must be."""
    if isinstance(getattr(value, "name", None), str) and hasattr(value, "verdicts") and not isinstance(value, type):
        what = f"{type(value).__name__} has no parameters."
        return UserError(what, where=where, remedy="Its `__init__` must call `super().__init__(...)` with them.")
    remedy = 'A control is an object such as Contains("pub"); combine several with &, | and ~.'
    if isinstance(value, str):
        remedy += f" The recipe of that name, if there is one, runs by dlmctl.run({value!r})."
    elif isinstance(value, type) and hasattr(value, "verdicts"):
        remedy = f"Give it its parameters: {value.__name__}(...)."
    elif callable(value):
        remedy = "A function that judges texts is one as Predicate(function)."
    return UserError(f"{readable(repr(value), 200)} is not a control.", where=where, remedy=remedy)


def no_function(value: Any) -> Any:
    """Return ``value``, an entry of a recipe's controls, unless it is a function or a class.

    Raises:
        ValueError: it is one.
    """
    if callable(value):
        raise ValueError(str(no_control(value)))
    return value


def words_from(name: str, words: Sequence[str]) -> Sequence[str]:
    """The words of a text.

    Raises:
        UserError: it is a string, whose letters would be taken for words.
    """
    if isinstance(words, str):
        raise UserError("a text is given as a list of its words.", where=f"control {name!r}", remedy="Split it first.")
    return words


# What is wrong with what an author's code returns; None if nothing is.


def range_fault(span: Any) -> str | None:
    """What is wrong with the result of ``word_range``."""
    if span is None:
        return None
    if not is_range(span):
        return f"word_range must return two whole numbers or None, but returned {str(span)[:80]}."
    if span[0] < 0 or span[1] < 1:
        return (
            "word_range must return the fewest words, 0 or more, and the most, 1 or more, "
            f"but returned {str(span)[:80]}."
        )
    return None


def lengths_fault(counts: Sequence[float]) -> str | None:
    """What is wrong with the result of ``lengths``, as numbers."""
    wrong = next((count for count in counts if not 0 <= count < math.inf), None)
    return None if wrong is None else f"lengths must return finite numbers, 0 or above, but returned {wrong}."


def prepared_fault(prepared: Any, batch: BatchContext[Any]) -> str | None:
    """What is wrong with the result of ``prepare``, or with the evidence in it."""
    if not isinstance(prepared, Prepared):
        return f"prepare must return a Prepared, not {type(prepared).__name__}."
    if prepared.evidence is None:
        return None
    wanted = [len(batch), batch.length, batch.model.config.vocab_size]
    shape = list(prepared.evidence.shape) if is_tensor(prepared.evidence) else None
    if shape != wanted:
        shown = type(prepared.evidence).__name__ if shape is None else shape
        return f"its evidence must have the shape {wanted}, a number for each word at each position, not {shown}."
    # One reduction covers both faults: the maximum is NaN where any number is, and -inf where all are.
    if not prepared.evidence.amax(-1).isfinite().all():
        return "its evidence must be finite numbers, or -inf for some of the words at a position."
    return None


def check_many_fault(returned: Sequence[Any], texts: Sequence[Any]) -> str | None:
    """What is wrong with the number of verdicts that ``check_many`` returned."""
    if len(returned) == len(texts):
        return None
    return f"check_many returned {len(returned)} verdicts for {len(texts)} texts."


def verdicts_fault(checks: Sequence[Any], returned: Sequence[Any]) -> str | None:
    """What is wrong with verdicts: ``checks`` are those ``returned``, normalised, with None for an invalid one."""
    if None not in checks:
        return None
    shown = str(returned[checks.index(None)])[:80]
    form = "a Check with a score from 0 to 1, passed True or False, and as values only numbers that `measures` names"
    return f"check must return {form}, but returned {shown}."
