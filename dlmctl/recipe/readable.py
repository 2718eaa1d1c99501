"""Settings made in Python: what does not validate is one message, as for a recipe's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from dlmctl.errors import SettingsError
from dlmctl.recipe.explain import explain
from dlmctl.recipe.yaml_file import Place, SettingsFile

if TYPE_CHECKING:  # pydantic does not export it
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class PythonSettings(SettingsFile):
    """Settings that are not from a file: messages name the setting itself."""

    def where(self, place: Place) -> str:
        return ".".join(map(str, place)) or self.name


class Readable(ModelMetaclass):
    """The class of models that raise ``SettingsError`` when they are called; validation inside another model does not
    call them, so that its errors keep their places."""

    def __call__(cls, *args: Any, **settings: Any) -> Any:
        try:
            return super().__call__(*args, **settings)
        except ValidationError as error:
            fault = explain(error, cast("type[BaseModel]", cls), (), PythonSettings(cls.__name__), settings)
            raise SettingsError(fault.what, where=fault.where, remedy=fault.remedy) from None
