"""Errors a user can mend. The command line prints them as one message and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

# Characters of a message; within it, of its place and of its remedy where the whole would be longer.
MOST, MOST_WHERE, MOST_REMEDY = 560, 160, 200
# A word longer than this was not meant to be one of a list of names.
MOST_NAME = 100


def readable(text: str, most: int = MOST) -> str:
    """Text of any origin as it may stand in a message: one line, at most ``most`` characters.

    What does not print (control characters, lone surrogates, marks that turn the direction of writing) is escaped, and
    the middle of a long text is left out.
    """
    if len(text) > most:
        # Escapes take up to ten characters; more than this need not be looked at.
        text = text if len(text) <= 2 * most else f"{text[:most]}{text[-most:]}"
    plain = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    if len(plain) <= most:
        return plain
    tail = most // 3
    return f"{plain[: most - tail - 3]}...{plain[-tail:]}"


class UserError(Exception):
    """Something the user gave cannot work.

    Args:
        what: what is wrong, in one sentence.
        where: the place, such as ``recipe.yaml:12`` or a folder.
        remedy: what would be right.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        """The message, short and printable whatever its parts are made of."""
        where, what, remedy = (readable(part or "") for part in (self.where, self.what, self.remedy))
        if len(where) + len(what) + len(remedy) > MOST:
            where, remedy = readable(where, MOST_WHERE), readable(remedy, MOST_REMEDY)
            what = readable(what, MOST - len(where) - len(remedy))
        head = f"{where}: {what}" if where else what
        return f"{head} {remedy}" if remedy else head


class RecipeError(UserError):
    """A recipe that cannot be read, validated or satisfied."""


class Unknown(RecipeError):
    """A recipe names a word that the model does not have."""


class Unmet(RecipeError):
    """No text of a model is all that is asked for. Of several controls under `any` such a one is left out."""


class Unfit(Unmet):
    """None is as it was laid out: another number of words, or other sizes of blanks, may do."""


class ModelError(UserError):
    """A model folder that is missing, damaged or of the wrong kind."""


class NamedError(ModelError):
    """What a parameter of a control names, such as its judge, cannot be had; another name may do.

    Args:
        setting: the parameter, such as ``judge``.
    """

    def __init__(self, setting: str, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.setting = setting


@contextmanager
def named_by(setting: str) -> Iterator[None]:
    """Turn each ModelError inside into the fault of the parameter that names what is loaded there.

    Raises:
        NamedError: see there.
    """
    try:
        yield
    except ModelError as error:
        raise NamedError(setting, error.what, where=error.where, remedy=error.remedy) from error


class DataError(UserError):
    """A data file or prepared data set that cannot be used."""


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic found, as a sentence with its place."""
    first = error.errors()[0]
    place, what = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    ending = "" if what[-1:] in (".", "?") else "."  # sentences of ours may end with a hint
    return readable(f"{place}: {what}{ending}" if place else f"{what}{ending}")


def brief(error: BaseException) -> str:
    """The first line of what an error says, at most 200 characters, without the full stop and control characters."""
    said = str(error).strip().split("\n")[0] or type(error).__name__
    return readable(said, 200).rstrip(".")


def nearest(word: str, known: list[str]) -> str:
    """A ``Did you mean`` hint for ``word`` among ``known``, or the list itself when nothing is close; letters may be
    upper or lower case."""
    folded = {name.lower(): name for name in reversed(known)}
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.5) if len(word) <= MOST_NAME else []
    close = [folded[one] for one in found]
    listed = known if len(known) <= 20 else [*known[:20], "..."]
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(listed)}."


def first_line(error: BaseException) -> str:
    """An error in one line, without its full stop."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0].rstrip(".: ")
