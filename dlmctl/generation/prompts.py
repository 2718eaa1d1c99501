"""Conditioning of models: labels, source texts or records, and prompts, as recipes and data sets write them.

Labels are values of one field of the data; a source is one or more fields, written as one row of words with each
field's name before its value. Both are encoded as ids here, for the network of ``dlmctl.models.conditioner``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from dlmctl.checkpoint.bundled import model_name
from dlmctl.datasets.conditions import label_numbers, label_values, source_rows, source_words
from dlmctl.datasets.readers import parse_mr
from dlmctl.diffusion.masked_base import MaskedModel
from dlmctl.diffusion.model import SourceSettings
from dlmctl.errors import DataError, ModelError, RecipeError, did_you_mean, first_validation_error
from dlmctl.recipe.explain import parsed
from dlmctl.recipe.settings import TextPrompt
from dlmctl.sampling.prompted import Prompt
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.fields import Source, Value, field_key, nearest_value, value_index, value_words
from dlmctl.text.plain_values import plain_value
from dlmctl.text.vocabulary import known_ids

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained
    from dlmctl.text.tokenizer import Tokenizer

Label = Value
PromptLike = str | TextPrompt | Mapping[str, Any]
"""A prompt for a model over tokens: a text, or the fields of ``TextPrompt``."""
ErrorFactory = Callable[[tuple[str | int, ...], str, str | None], RecipeError]
"""Makes the error for a place of a recipe: takes the place, what is wrong, and the remedy."""


def prompt_of(pretrained: Pretrained, records: Sequence[Mapping[str, Any]]) -> Prompt | None:
    """The labels and sources of a data set's texts as ids; None if the model takes neither.

    A text without the label stays unlabelled, as in training, and so does a text whose label the model does not know.

    Args:
        records: the fields of each text.

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
        source_texts = source_rows(config.source, records)
        if not any(source_texts):
            raise DataError(f"no text has any of the fields {', '.join(config.source.fields)}, the model's source.")
        sources = [pretrained.source_tokenizer.encode(row) for row in source_texts]
    return Prompt(labels, sources) if labels or sources else None


def read_prompt(
    pretrained: Pretrained,
    label: Label | Sequence[Label] | None,
    source: Source | Sequence[Source] | None,
    prompt: PromptLike | Sequence[PromptLike] | None = None,
    *,
    strict: bool = True,
    make_error: ErrorFactory | None = None,
) -> Prompt | None:
    """Encode the label, source or prompt of a recipe or a caller as ids; None without any.

    Args:
        label, source, prompt: one for all samples, or a list that is assigned to them in turn.
        strict: refuse unknown words in fields with a fixed set of values; else they become UNK, as in running text.
        make_error: makes the errors; by default they name the setting only.

    Raises:
        RecipeError: the model takes no such prompt, or does not know the label, field or value.
    """
    make_error = make_error or _recipe_error
    prompts, labels, sources = _listed(prompt), _listed(label), _listed(source)
    listed = {
        name: [_plain(value) for _, value in values]
        for name, values in (("label", labels), ("source", sources), ("prompt", prompts))
        if any(path for path, _ in values)
    }
    if isinstance(pretrained.tokenizer, CheckpointTokenizer):
        _refuse_prompts(pretrained, [("label", label), ("source", source)], make_error)
        texts = [_prompt_ids(pretrained.tokenizer, path, value, make_error) for path, value in prompts]
        return Prompt(texts=texts, listed=listed) if texts else None
    _refuse_prompts(pretrained, [("prompt", prompt)], make_error)
    for name, values in (("label", labels), ("source", sources)):
        if values and getattr(pretrained.model.config, name, None) is None:
            message = f"the model {model_name(pretrained.folder)!r} takes no {name}."
            raise make_error(
                (name,), message, f"Leave it out, or train a model with `model.{name}`; see docs/training.md."
            )
    if isinstance(pretrained.model, MaskedModel):
        return None
    config = pretrained.model.config
    label_ids = [_label_number(config.labels, path, value, make_error) for path, value in labels]
    source_ids = []
    if sources and config.source is not None and pretrained.source_tokenizer is not None:
        accepted = _AcceptedSources(config.source, config.source_closed if strict else [], pretrained.source_tokenizer)
        source_ids = [_source_ids(accepted, path, value, make_error) for path, value in sources]
    return Prompt(label_ids, source_ids, listed=listed) if label_ids or source_ids else None


def joined(prompts: Sequence[Prompt], samples: Mapping[int, tuple[int, int]]) -> Prompt:
    """The prompts of rows of a table as one; a row's lists are assigned to its own texts in turn.

    Args:
        samples: for each sample, the position of its row in ``prompts`` and the number of its text within the row.
    """
    rows = [(prompts[row], text) for row, text in samples.values()]
    entries = [row.entries(text) for row, text in rows]
    return Prompt(
        [row.labels[text % len(row.labels)] for row, text in rows if row.labels],
        [row.sources[text % len(row.sources)] for row, text in rows if row.sources],
        [row.texts[text % len(row.texts)] for row, text in rows if row.texts],
        {sample: at for at, sample in enumerate(samples)},
        {name: [entry.get(name) for entry in entries] for name in dict.fromkeys(chain.from_iterable(entries))},
    )


def _refuse_prompts(pretrained: Pretrained, arguments: Sequence[tuple[str, Any]], make_error: ErrorFactory) -> None:
    for name, value in arguments:
        if value is not None:
            message = f"the model {model_name(pretrained.folder)!r} takes no {name}."
            remedy = "Leave it out, or take a model over tokens, such as LLaDA; see docs/from-llada-dream.md."
            raise make_error(
                (name,), message, remedy if name == "prompt" else "Leave it out; such models take `prompt`."
            )


def _prompt_ids(
    tokenizer: CheckpointTokenizer, path: tuple[str | int, ...], value: PromptLike, make_error: ErrorFactory
) -> list[int]:
    """The tokens of a prompt: a chat turn if the model has a chat template, otherwise plain text."""
    place = ("prompt", *path)
    try:
        text_prompt = value if isinstance(value, TextPrompt) else parsed(TextPrompt, _as_mapping(value))
    except ValidationError as error:
        what = f"prompt: {first_validation_error(error)}"
        raise make_error(place, what, "Give a text, or `text`, `system` and `chat`.") from None
    if not tokenizer.chats if text_prompt.chat is None else not text_prompt.chat:
        if text_prompt.system is not None:
            raise make_error(place, "a system turn needs a chat template.", "Leave `system` out.")
        return tokenizer.prompt_ids(text_prompt.text)
    if not tokenizer.chats:
        raise make_error(place, "this model has no chat template.", "Leave `chat` out.")
    turns = [("system", text_prompt.system), ("user", text_prompt.text)]
    try:
        return tokenizer.turn_ids(
            [{"role": role, "content": content} for role, content in turns if content is not None]
        )
    except ModelError as error:
        raise make_error(place, error.what, error.remedy) from None


def _plain(value: Any) -> Any:
    """An entry of a list as it was written, for results."""
    return value.model_dump(exclude_none=True) if isinstance(value, TextPrompt) else plain_value(value)


def _as_mapping(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else value


ValuesWithPaths = list[tuple[tuple[str | int, ...], Any]]


def _recipe_error(place: tuple[str | int, ...], message: str, remedy: str | None) -> RecipeError:
    return RecipeError(message, where=".".join(map(str, place)), remedy=remedy)


def _listed(value: Any) -> ValuesWithPaths:
    """The values of a setting that may be a list, each with its path below the setting's name."""
    if value is None:
        return []
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [((at,), item) for at, item in enumerate(value)]
    return [((), value)]


def _label_number(
    known_labels: Sequence[str], path: tuple[str | int, ...], value: Label, make_error: ErrorFactory
) -> int:
    number = value_index(value, known_labels)
    if number is None:
        label = value_words(value)
        raise make_error(("label", *path), f"the model knows no label {label!r}.", nearest_value(label, known_labels))
    return number


class _AcceptedSources(NamedTuple):
    """The sources that a model accepts; ``closed`` are the fields with a fixed set of values."""

    settings: SourceSettings
    closed: Sequence[str]
    tokenizer: Tokenizer


def _source_ids(
    accepted: _AcceptedSources, path: tuple[str | int, ...], value: Source, make_error: ErrorFactory
) -> list[int]:
    place, settings = ("source", *path), accepted.settings
    record = value if isinstance(value, dict) else _record(settings.fields, value, place, make_error)
    known = {field_key(name) for name in settings.fields}
    for name in record:
        if field_key(name) not in known:
            raise make_error(
                (*place, name), f"the model's sources have no field {name!r}.", did_you_mean(name, settings.fields)
            )
    words = source_words(settings.fields, record)
    if not words:
        raise make_error(place, "the source is empty.", f"Its fields are {', '.join(settings.fields)}.")
    if len(words) + 2 > settings.length:
        message = f"the source has {len(words)} words, field names counted, and the model reads {settings.length - 2}."
        raise make_error(place, message, "Shorten it.")
    try:  # running text may hold unknown words, a field with a fixed set of values may not
        known_ids(source_words(accepted.closed, record), accepted.tokenizer, "source")
    except RecipeError as error:
        raise make_error(place, error.what, error.remedy) from None
    return accepted.tokenizer.encode(words)


def _record(
    fields: Sequence[str], text: str, place: tuple[str | int, ...], make_error: ErrorFactory
) -> Mapping[str, Value]:
    """Parse a source given as text: the value of the only field, or a meaning representation in the E2E format."""
    if len(fields) == 1:
        return {fields[0]: text}
    try:
        return dict(parse_mr(text))
    except ValueError:
        remedy = f"Its fields are {', '.join(fields)}; write them as `field: value`, or as field[value], field[value]."
        raise make_error(
            place, "this model's source has several fields, and a text does not say which.", remedy
        ) from None
