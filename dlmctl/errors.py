"""Errors that a user can fix. The command line prints them as one message and exits with code 2."""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from pydantic import ValidationError

# Maximum characters of a message, and of its place and its remedy where the whole message would be longer than that.
MAX_MESSAGE, MAX_WHERE, MAX_REMEDY = 560, 160, 200
# The longest value that a message shows, and the pydantic errors that are not about a value, or say it themselves.
MAX_VALUE = 60
_WITHOUT_VALUE = ("missing", "extra_forbidden", "value_error", "json_invalid")
# A longer word cannot be a misspelt name.
MAX_NAME = 100
# The packages of the toolkit; and folders of installed packages, with that of Python's own modules.
_TOOLKIT = ("dlmctl", "controls")
_INSTALLED = {"site-packages", "dist-packages"}
_STANDARD_LIBRARY = Path(os.__file__).parent


def readable(text: str, max_length: int = MAX_MESSAGE) -> str:
    """Text of any origin made safe for a message: one line, at most ``max_length`` characters.

    Unprintable characters (control characters, lone surrogates, marks that change the writing direction) are escaped,
    and the middle of a long text is left out.
    """
    if len(text) > max_length:
        # Only the two ends can be shown, so the middle of a very long text need not be escaped.
        text = text if len(text) <= 2 * max_length else f"{text[:max_length]}{text[-max_length:]}"
    printable = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    if len(printable) <= max_length:
        return printable
    tail = max_length // 3
    return f"{printable[: max_length - tail - 3]}...{printable[-tail:]}"


class UserError(Exception):
    """An input of the user that cannot work.

    Args:
        what: what is wrong, in one sentence.
        where: the place, such as ``recipe.yaml:12`` or a folder.
        remedy: what would be right.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without calling ``__init__``, whose arguments are those of the subclass: an error that cannot be
        unpickled breaks the pool of processes that one of them raised it in."""
        return _unpickled, (type(self), self.args, vars(self))

    def __str__(self) -> str:
        """The message, short and printable whatever its parts contain."""
        where, what, remedy = (readable(part or "") for part in (self.where, self.what, self.remedy))
        if len(where) + len(what) + len(remedy) > MAX_MESSAGE:
            where, remedy = readable(where, MAX_WHERE), readable(remedy, MAX_REMEDY)
            what = readable(what, MAX_MESSAGE - len(where) - len(remedy))
        head = f"{where}: {what}" if where else what
        return f"{head} {remedy}" if remedy else head

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks show of the error: the user's own lines that led to it, and the message.

        The hundred and more lines of libraries between them would push the message out of sight.
        """
        lines = [line for error in (self, self.__cause__) if error is not None for line in _user_lines(error)]
        return [*lines, f"{type(self).__name__}: {self}"]


class RecipeError(UserError):
    """A recipe that cannot be read, validated or satisfied."""


class SettingsError(RecipeError, ValueError):
    """Settings made in Python, such as ``Recipe(...)``, that do not validate."""


class ArgumentNameError(UserError, TypeError):
    """A keyword argument that a function does not have."""


class UnknownWordError(RecipeError):
    """A recipe names a word that is not in the model's vocabulary."""


class UnsatisfiableError(RecipeError):
    """No text of the model can satisfy all requirements. Under `any`, a control that raises this is left out."""


class LayoutError(UnsatisfiableError):
    """No text of the current layout can; another number of words, or other sizes of blanks, may work."""


class ModelError(UserError):
    """A model folder that is missing, damaged or of the wrong kind."""


class SettingError(ModelError):
    """A control's parameter names a model, such as its judge, that cannot be loaded; another name may work.

    Args:
        setting: the parameter, such as ``judge``.
    """

    def __init__(self, setting: str, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.setting = setting


def _unpickled(kind: type[UserError], args: tuple[Any, ...], attributes: Mapping[str, Any]) -> UserError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


def _user_lines(error: BaseException) -> list[str]:
    """The lines of a traceback that are neither the toolkit's nor those of installed packages, from the outermost."""
    frames = ((frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_user_code(frame))
    return [
        f"{_place(entry.filename)}line {entry.lineno}, in {entry.name}: {readable(entry.line or '')}"
        for entry in traceback.StackSummary.extract(frames)
    ]


def _is_user_code(frame: FrameType) -> bool:
    path = Path(frame.f_code.co_filename)
    return (
        str(frame.f_globals.get("__name__")).partition(".")[0] not in _TOOLKIT
        and not _INSTALLED.intersection(path.parts)
        and not path.is_relative_to(_STANDARD_LIBRARY)
        and not str(path).startswith("<frozen")
    )


def _place(filename: str) -> str:
    """The file of a line; nothing for a cell, whose file is the kernel's own affair."""
    is_cell = "ipykernel_" in filename or filename.startswith("<ipython-input")
    return "" if is_cell else f"{readable(filename, MAX_WHERE)}, "


@contextmanager
def setting_errors(setting: str) -> Iterator[None]:
    """Attribute each ModelError inside to the parameter ``setting``, which names the model being loaded.

    Raises:
        SettingError: in place of the ModelError.
    """
    try:
        yield
    except ModelError as error:
        raise SettingError(setting, error.what, where=error.where, remedy=error.remedy) from error


class DataError(UserError):
    """A data file or prepared data set that cannot be used."""


def first_validation_error(error: ValidationError) -> str:
    """The first error of a pydantic validation, as a sentence with its place and, if it is short, the value."""
    first = error.errors()[0]
    place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    value = repr(first["input"])
    if first["type"] not in _WITHOUT_VALUE and ", not " not in message and len(value) <= MAX_VALUE:
        message = f"{message}, not {value}"
    ending = "" if message[-1:] in (".", "?") else "."  # messages of our own validators may end with a hint
    return readable(f"{place}: {message}{ending}" if place else f"{message}{ending}")


def short_message(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters, printable, without its full stop."""
    message = str(error).strip().split("\n")[0] or type(error).__name__
    return readable(message, 200).rstrip(".")


def did_you_mean(word: str, known: list[str]) -> str:
    """A ``Did you mean`` hint for ``word`` among ``known``, or the list itself if nothing is close; ignores case."""
    by_lowercase = {name.lower(): name for name in reversed(known)}
    matches = difflib.get_close_matches(word.lower(), by_lowercase, n=1, cutoff=0.5) if len(word) <= MAX_NAME else []
    suggestions = [by_lowercase[match] for match in matches]
    listed = known if len(known) <= 20 else [*known[:20], "..."]
    return f"Did you mean {suggestions[0]!r}?" if suggestions else f"Known: {', '.join(listed)}."


def first_few(texts: Sequence[str], most: int) -> str:
    """``a, b and 3 more``: the first of several texts, at ``most`` so many."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most:,} more" if len(texts) > most else "")


def typed_message(error: BaseException) -> str:
    """The type and the first line of an error, without its full stop."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0].rstrip(".: ")
