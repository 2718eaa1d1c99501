"""What notebooks and editors show of a control's class: its call with all parameters by name, and what each one means.

A class takes its parameters by ``*args`` and ``**params``, so that its own ``Params`` alone defines them; without this,
``Length?`` in a notebook would not name any of them, and none could be completed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from inspect import Parameter, Signature
from typing import Any

from pydantic import BaseModel


class CallSignature:
    """Descriptor for ``__signature__`` of controls: that of the class, which ``inspect.signature`` reads."""

    def __get__(self, control: object | None, kind: type) -> Signature:
        if control is not None:  # the call of an instance is ``__call__``
            raise AttributeError("__signature__")
        return signature_of(kind)


def signature_of(kind: Any) -> Signature:
    """The signature of ``__init__`` with the fields of ``Params`` in place of ``*args`` and ``**params``."""
    own = list(inspect.signature(kind.__init__).parameters.values())[1:]
    open_ended = {parameter.name: parameter for parameter in own if parameter.kind == Parameter.VAR_KEYWORD}
    model = getattr(kind, "Params", None)
    if not open_ended or not (isinstance(model, type) and issubclass(model, BaseModel)):
        return Signature(own)
    rest = list(open_ended.values()) if model.model_config.get("extra") == "allow" else []
    named = [parameter for parameter in own if parameter.name not in ("args", *open_ended)]
    taken = {parameter.name for parameter in named}
    fields = [parameter for parameter in _fields(model) if parameter.name not in taken]
    if named:  # its own arguments stand for the required fields
        optional = [field for field in fields if field.default is not Parameter.empty]
        return Signature([*named, *(field.replace(kind=Parameter.KEYWORD_ONLY) for field in optional), *rest])
    return Signature([*_by_position(fields), *rest])


def _fields(model: type[BaseModel]) -> list[Parameter]:
    return [
        Parameter(
            name,
            Parameter.POSITIONAL_OR_KEYWORD,
            default=Parameter.empty if field.is_required() else field.get_default(call_default_factory=False),
            annotation=field.annotation,
        )
        for name, field in model.model_fields.items()
        if name.isidentifier()
    ]


def _by_position(fields: Sequence[Parameter]) -> list[Parameter]:
    """Fields that can be given by position; from the first required one after an optional one, by name only."""
    placed: list[Parameter] = []
    optional = by_name = False
    for field in fields:
        by_name = by_name or (optional and field.default is Parameter.empty)
        optional = optional or field.default is not Parameter.empty
        placed.append(field.replace(kind=Parameter.KEYWORD_ONLY) if by_name else field)
    return placed


def help_of(kind: Any) -> str:
    """The docstring of a control's class, and a line for each parameter that its author describes."""
    model = getattr(kind, "Params", None)
    described = model.model_fields.items() if isinstance(model, type) and issubclass(model, BaseModel) else ()
    lines = [f"    {name}: {field.description}" for name, field in described if field.description]
    docstring = inspect.cleandoc(kind.__doc__ or "")
    return "\n".join([docstring, "", "Args:", *lines]) if lines else docstring
