"""Errors a user can mend. The command line prints them as one message and exits with code 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


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
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head} {self.remedy}" if self.remedy else head


class RecipeError(UserError):
    """A recipe that cannot be read, validated or satisfied."""


class ModelError(UserError):
    """A model folder that is missing, damaged or of the wrong kind."""


class DataError(UserError):
    """A data file or prepared data set that cannot be used."""


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic found, as a sentence with its place."""
    first = error.errors()[0]
    place, what = _plain(".".join(map(str, first["loc"])), 100), first["msg"].removeprefix("Value error, ")
    return f"{place}: {what}." if place else f"{what}."


def brief(error: BaseException) -> str:
    """The first line of what an error says, at most 200 characters, without the full stop and control characters."""
    said = str(error).strip().split("\n")[0] or type(error).__name__
    return _plain(said, 200).rstrip(".")


def _plain(text: str, most: int) -> str:
    """A text of at most ``most`` characters, control characters as their escapes."""
    plain = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text[: most + 1])
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def nearest(word: str, known: list[str]) -> str:
    """A ``Did you mean`` hint for ``word`` among ``known``, or the list itself when nothing is close."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    listed = known if len(known) <= 20 else [*known[:20], "..."]
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(listed)}."


def first_line(error: BaseException) -> str:
    """An error in one line, without its full stop."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0].rstrip(".: ")
