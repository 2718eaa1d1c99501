"""Settings made in Python: what does not validate is one message, as for a recipe's file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from pydantic import BaseModel, ValidationError

from dlmctl.errors import SettingsError, first_validation_error
from dlmctl.recipe.explain import explain
from dlmctl.recipe.yaml_file import Place, SettingsFile

if TYPE_CHECKING:  # pydantic does not export it
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


M = TypeVar("M", bound=BaseModel)


class PythonSettings(SettingsFile):
    """Settings that are not from a file: messages name the setting itself."""

    def where(self, place: Place) -> str:
        return ".".join(map(str, place)) or self.name


class Readable(ModelMetaclass):
    """The class of models that raise ``SettingsError`` when they are called; validation inside another model does not
    call them, so that its errors keep their places."""

    # The type of what is returned, for editors.
    def __call__(cls: type[M], *args: Any, **settings: Any) -> M:  # type: ignore[misc]
        try:
            return cast("M", super().__call__(*args, **settings))  # type: ignore[misc]
        except ValidationError as error:
            raise _settings_error(error, cls, settings) from None


class ReadableSettings(BaseModel, metaclass=Readable):
    """Base of models that raise ``SettingsError`` however they are made or changed; for code that knows the file,
    ``explain.parsed`` raises pydantic's errors."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).model_fields:
            super().__setattr__(name, value)
            return
        changed = self.changed(**{name: value})
        vars(self).update(vars(changed))
        self.model_fields_set.update(changed.model_fields_set)

    def given(self) -> dict[str, Any]:
        """The settings that make these."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def changed(self, **settings: Any) -> Self:
        """A copy with other settings, validated together with the rest; in a recipe, a preset or a model also changes
        what follows from it.

        Raises:
            SettingsError: they do not validate.
        """
        return type(self)(**{**self.given(), **settings})

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Settings from a mapping. Options are pydantic's.

        Raises:
            SettingsError: they do not validate.
        """
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise _settings_error(error, cls, obj) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Settings from JSON. Options are pydantic's.

        Raises:
            SettingsError: it is not JSON, or they do not validate.
        """
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            try:
                settings = json.loads(json_data)
            except ValueError:
                raise SettingsError(first_validation_error(error), where=cls.__name__) from None
            raise _settings_error(error, cls, settings) from None


def _settings_error(error: ValidationError, kind: type, settings: Any) -> SettingsError:
    fault = explain(error, cast("type[BaseModel]", kind), (), PythonSettings(kind.__name__), settings)
    return SettingsError(fault.what, where=fault.where, remedy=fault.remedy)
