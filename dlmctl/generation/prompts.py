"""What a model can be given to write about: a label, or a source text or record, as recipes and data sets spell it.

Labels are values of one field of the data; a source is one or more fields, written out as one row of words with each
field's name before its value. Both become ids here, for the network of ``dlmctl.models.conditioner``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from dlmctl.datasets.conditions import label_numbers, label_values, source_rows, source_words
from dlmctl.datasets.readers import parse_mr
from dlmctl.diffusion.masked_base import MaskedModel
from dlmctl.diffusion.model import SourceSettings
from dlmctl.errors import DataError, ModelError, RecipeError, first_fault, nearest
from dlmctl.recipe.settings import TextPrompt
from dlmctl.sampling.prompted import Prompt
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.fields import Given, Value, field_key, nearest_value, value_words
from dlmctl.text.vocabulary import known_ids

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained
    from dlmctl.text.tokenizer import Tokenizer

Label = Value
PromptLike = str | TextPrompt | Mapping[str, Any]
"""A prompt of a model over tokens: a text, or what ``TextPrompt`` has."""
Fault = Callable[[tuple[str | int, ...], str, str | None], RecipeError]
"""Makes the error for a fault at a place of a recipe: place, what is wrong, remedy."""


def prompt_of(pretrained: Pretrained, records: Sequence[Mapping[str, Any]]) -> Prompt | None:
    """What a model is given with the texts of a data set, one text's fields a record; None if it takes nothing.

    A text without the label has none, as in training, and so has one whose label the model does not know.

    Raises:
        DataError: no record has the label, or any field of the source; a source is too long.
    """
    if isinstance(pretrained.model, MaskedModel):
        return None
    config = pretrained.model.config
    labels: list[int] = []
    sources: list[list[int]] = []
    if config.label is not None:
        values = label_values(config.label, records)
        if not any(values):
            raise DataError(f"no text has the field {config.label.field!r}, the model's label.")
        labels = label_numbers(config.labels, values)
    if config.source is not None and pretrained.source_tokenizer is not None:
        words = source_rows(config.source, records)
        if not any(words):
            raise DataError(f"no text has any of the fields {', '.join(config.source.fields)}, the model's source.")
        sources = [pretrained.source_tokenizer.encode(row) for row in words]
    return Prompt(labels, sources) if labels or sources else None


def read_prompt(
    pretrained: Pretrained,
    label: Label | Sequence[Label] | None,
    source: Given | Sequence[Given] | None,
    prompt: PromptLike | Sequence[PromptLike] | None = None,
    *,
    strict: bool = True,
    fault: Fault | None = None,
) -> Prompt | None:
    """What a recipe or a caller gives the samples, as ids; None if it gives nothing.

    Args:
        label, source, prompt: one for all samples, or a list that is dealt out to them in turn.
        strict: refuse new words in fields that have a set of values; they become UNK otherwise, as in running text.
        fault: makes the errors; by default they name the setting only.

    Raises:
        RecipeError: the model takes no such prompt, or does not know the label, field or value.
    """
    fault = fault or _unplaced
    asked = _listed(prompt)
    if isinstance(pretrained.tokenizer, CheckpointTokenizer):
        _refuse(pretrained, [("label", label), ("source", source)], fault)
        texts = [_prompt_ids(pretrained.tokenizer, at, value, fault) for at, value in asked]
        return Prompt(texts=texts) if texts else None
    _refuse(pretrained, [("prompt", prompt)], fault)
    labels, sources = _listed(label), _listed(source)
    for name, given in (("label", labels), ("source", sources)):
        if given and getattr(pretrained.model.config, name, None) is None:
            what = f"the model {str(pretrained.folder)!r} takes no {name}."
            raise fault((name,), what, f"Leave it out, or train a model with `model.{name}`; see docs/training.md.")
    if isinstance(pretrained.model, MaskedModel):
        return None
    config = pretrained.model.config
    numbers = [_label_number(config.labels, at, value, fault) for at, value in labels]
    rows = []
    if sources and config.source is not None and pretrained.source_tokenizer is not None:
        takes = _Takes(config.source, config.source_closed if strict else [], pretrained.source_tokenizer)
        rows = [_source_ids(takes, at, value, fault) for at, value in sources]
    return Prompt(numbers, rows) if numbers or rows else None


def _refuse(pretrained: Pretrained, given: Sequence[tuple[str, Any]], fault: Fault) -> None:
    for name, value in given:
        if value is not None:
            what = f"the model {str(pretrained.folder)!r} takes no {name}."
            remedy = "Leave it out, or take a model over tokens, such as LLaDA; see docs/from-llada-dream.md."
            raise fault((name,), what, remedy if name == "prompt" else "Leave it out; such models take `prompt`.")


def _prompt_ids(
    tokenizer: CheckpointTokenizer, at: tuple[str | int, ...], value: PromptLike, fault: Fault
) -> list[int]:
    """The tokens before a text: a turn of a conversation where the model has them, else plain text."""
    place = ("prompt", *at)
    try:
        asked = value if isinstance(value, TextPrompt) else TextPrompt.model_validate(_mapped(value))
    except ValidationError as error:
        raise fault(place, first_fault(error), "Give a text, or `text`, `system` and `chat`.") from None
    if not tokenizer.chats if asked.chat is None else not asked.chat:
        if asked.system is not None:
            raise fault(place, "a turn of the system needs a chat template.", "Leave `system` out.")
        return tokenizer.prompt_ids(asked.text)
    if not tokenizer.chats:
        raise fault(place, "this model has no chat template.", "Leave `chat` out.")
    turns = [("system", asked.system), ("user", asked.text)]
    try:
        return tokenizer.turn_ids([{"role": role, "content": said} for role, said in turns if said is not None])
    except ModelError as error:
        raise fault(place, error.what, error.remedy) from None


def _mapped(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else value


Placed = list[tuple[tuple[str | int, ...], Any]]


def _unplaced(place: tuple[str | int, ...], what: str, remedy: str | None) -> RecipeError:
    return RecipeError(what, where=".".join(map(str, place)), remedy=remedy)


def _listed(value: Any) -> Placed:
    """The values of a setting that may be a list, each with its place below the setting's name."""
    if value is None:
        return []
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [((at,), item) for at, item in enumerate(value)]
    return [((), value)]


def _label_number(known: Sequence[str], at: tuple[str | int, ...], value: Label, fault: Fault) -> int:
    said = value_words(value)
    for number, name in enumerate(known):
        if name.lower() == said.lower():
            return number
    raise fault(("label", *at), f"the model knows no label {said!r}.", nearest_value(said, known))


class _Takes(NamedTuple):
    """What sources a model takes."""

    settings: SourceSettings
    closed: Sequence[str]
    tokenizer: Tokenizer


def _source_ids(takes: _Takes, at: tuple[str | int, ...], value: Given, fault: Fault) -> list[int]:
    place, settings = ("source", *at), takes.settings
    record = value if isinstance(value, dict) else _record(settings.fields, value, place, fault)
    known = {field_key(name) for name in settings.fields}
    for name in record:
        if field_key(name) not in known:
            raise fault((*place, name), f"the model's sources have no field {name!r}.", nearest(name, settings.fields))
    words = source_words(settings.fields, record)
    if not words:
        raise fault(place, "the source is empty.", f"Its fields are {', '.join(settings.fields)}.")
    if len(words) + 2 > settings.length:
        what = f"the source has {len(words)} words, field names counted, and the model reads {settings.length - 2}."
        raise fault(place, what, "Shorten it.")
    try:  # running text may hold words that are new, a field that is always one of a few values may not
        known_ids(source_words(takes.closed, record), takes.tokenizer, "source")
    except RecipeError as error:
        raise fault(place, error.what, error.remedy) from None
    return takes.tokenizer.encode(words)


def _record(fields: Sequence[str], text: str, place: tuple[str | int, ...], fault: Fault) -> Mapping[str, Value]:
    """A source given as text: the value of the only field, or a meaning representation as E2E is released."""
    if len(fields) == 1:
        return {fields[0]: text}
    try:
        return dict(parse_mr(text))
    except ValueError:
        remedy = f"Its fields are {', '.join(fields)}; write them as `field: value`, or as field[value], field[value]."
        raise fault(place, "this model's source has several fields, and a text does not say which.", remedy) from None
