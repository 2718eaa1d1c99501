"""What callers in Python and authors of controls give, looked at before anything goes on with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from dlmctl.control.check import is_range
from dlmctl.control.class_faults import sound
from dlmctl.control.nan_checks import is_tensor
from dlmctl.control.prepared import Prepared
from dlmctl.control.shorthand import by_name
from dlmctl.errors import UserError, first_fault, nearest

if TYPE_CHECKING:
    from dlmctl.control.state import BatchContext

# As a factor, which float32 can still multiply.
MOST_WEIGHT = 1e6


# By callers.


def params_from(kind: type, first: Sequence[Any], params: Mapping[str, Any]) -> BaseModel:
    """The parameters of a control of this class, by place and by name.

    Raises:
        UserError: they do not validate, or the class cannot be a control.
        TypeError: as of ``by_name``.
    """
    name, wanted = sound(kind)
    return _validated(name, wanted, by_name(wanted, first, params))


def sets_from(kind: type, given: Sequence[Any]) -> tuple[BaseModel, ...]:
    """Sets of parameters, as such or as mappings.

    Raises:
        UserError: there is none, one does not validate, or the class cannot be a control.
    """
    name, wanted = sound(kind)
    if not given:
        raise UserError("there are no sets of parameters.", where=f"control {name!r}")
    return tuple(one if isinstance(one, BaseModel) else _validated(name, wanted, one) for one in given)


def _validated(name: str, kind: type[BaseModel], params: Any) -> BaseModel:
    try:
        return kind.model_validate(params)
    except ValidationError as error:
        names = [fault["loc"][0] for fault in error.errors() if fault["type"] == "extra_forbidden"]
        known = list(kind.model_fields)
        # A name that is spelled wrongly is missing as well, which says less.
        if unknown := [str(one) for one in names if one not in known]:
            what, remedy = f"there is no parameter {unknown[0]!r}.", nearest(unknown[0], known)
            raise UserError(what, where=f"control {name!r}", remedy=remedy) from None
        raise UserError(first_fault(error), where=f"control {name!r}") from None


def weight_from(name: str, weight: Any) -> float:
    """A factor of a control's weight, within the bounds of recipes.

    Raises:
        UserError: it is none.
    """
    if not isinstance(weight, Real) or isinstance(weight, bool) or not 0 <= float(weight) <= MOST_WEIGHT:
        what = f"a weight must be a number from 0 to {MOST_WEIGHT:.0f}, not {weight!r}."
        raise UserError(what, where=f"control {name!r}")
    return float(weight)


def words_from(name: str, words: Sequence[str]) -> Sequence[str]:
    """A text as its words.

    Raises:
        UserError: it is not split, and would be taken for words of a letter each.
    """
    if isinstance(words, str):
        raise UserError("a text is given as a list of its words.", where=f"control {name!r}", remedy="Split it first.")
    return words


# By authors: what is wrong with what their code gives, None for nothing.


def range_fault(found: Any) -> str | None:
    """Of ``word_range``."""
    if found is None:
        return None
    if not is_range(found):
        return f"word_range must give two whole numbers or None, and gave {str(found)[:80]}."
    if found[0] < 0 or found[1] < 1:
        return f"word_range must give the fewest and the most words, 1 or more at most, and gave {str(found)[:80]}."
    return None


def lengths_fault(found: Sequence[float]) -> str | None:
    """Of ``lengths``, as numbers."""
    wrong = next((one for one in found if not 0 <= one < math.inf), None)
    return None if wrong is None else f"lengths must give numbers from 0 on, all of them finite, and gave {wrong}."


def prepared_fault(found: Any, batch: BatchContext[Any]) -> str | None:
    """Of ``prepare``: what it returns, and the evidence in it."""
    if not isinstance(found, Prepared):
        return f"prepare must return a Prepared, not {type(found).__name__}."
    if found.evidence is None:
        return None
    wanted = [len(batch), batch.length, batch.model.config.vocab_size]
    shape = list(found.evidence.shape) if is_tensor(found.evidence) else None
    if shape != wanted:
        what = type(found.evidence).__name__ if shape is None else shape
        return f"its evidence must have the shape {wanted}, a number for each word at each place, not {what}."
    # One look for all: the most of a place is not a number where any is not, and -inf where all are.
    if not found.evidence.amax(-1).isfinite().all():
        return "its evidence must be finite numbers, or -inf for some of the words of a place."
    return None


def check_many_fault(given: Sequence[Any], texts: Sequence[Any]) -> str | None:
    """Of ``check_many``: as many verdicts as texts."""
    return None if len(given) == len(texts) else f"check_many gave {len(given)} verdicts for {len(texts)} texts."


def verdicts_fault(found: Sequence[Any], given: Sequence[Any]) -> str | None:
    """Of verdicts as ``settled`` has ``found`` what was ``given``."""
    if None not in found:
        return None
    gave = str(given[found.index(None)])[:80]
    return f"check must give a Check with a score from 0 to 1, and True or False as passed, and gave {gave}."
