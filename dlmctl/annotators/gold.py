"""Gold tags and trees from the data, and a judge's for sentences without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dlmctl.annotators.parsing import constituency_parser
from dlmctl.annotators.tagging import UPOS_TAGS, upos_tagger
from dlmctl.annotators.trees import Tree, read_tree
from dlmctl.errors import setting_errors

T = TypeVar("T")
Sentences = Sequence[Sequence[str]]
Fields = Sequence[Mapping[str, Any]]
# Fields of a data set: a list of UPOS tags (as CoNLL-U files give them), and a tree in brackets.
TAGS_FIELD, TREE_FIELD = "upos", "tree"
# The most words of a sentence in a file of targets: parsing takes cubic time.
MOST_WORDS = 300


def tags_of(sentences: Sentences, fields: Fields | None = None, judge: str | None = None) -> list[list[str]]:
    """UPOS tags of each sentence: its field ``upos`` if that has one for each word, else the tagger's.

    Args:
        judge: see ``upos_tagger``.

    Raises:
        UserError: there is no such tagger.
    """
    return _gold_or_judged(sentences, fields, _gold_tags, lambda rest: upos_tagger(judge)(rest))


def trees_of(sentences: Sentences, fields: Fields | None = None, judge: str | None = None) -> list[Tree]:
    """A tree of each sentence: its field ``tree`` if that has the same words, else the parser's.

    Args:
        judge: see ``constituency_parser``.

    Raises:
        UserError: there is no such parser.
    """
    return _gold_or_judged(sentences, fields, _gold_tree, lambda rest: constituency_parser(judge)(rest))


def is_external_judge(judge: str | None) -> bool:
    """Whether a judge is another program, which may choose to run on a GPU."""
    return judge is not None and judge.partition(":")[0] in ("stanza", "spacy")


def sentence_of(record: Mapping[str, Any]) -> list[str]:
    """The ``words`` of a target, to be tagged or parsed.

    Raises:
        ValueError: they are not words, or too many to parse quickly.
    """
    words = record["words"]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("`words` is a list of words")
    if len(words) > MOST_WORDS:
        raise ValueError(f"a sentence of {len(words)} words, and at most {MOST_WORDS} are parsed")
    return words


def require_judges(judges: Iterable[str | None], annotator: Callable[[str | None], object]) -> None:
    """Load the named judges, as ``annotate_by_judges`` does, so that a missing one is reported before texts are drawn.

    Raises:
        SettingError: there is no such judge.
        UserError: the judge's program cannot be used.
    """
    for judge in dict.fromkeys(judges):
        if judge is not None:
            with setting_errors("judge"):
                annotator(judge)


def annotate_by_judges(
    texts: Sentences,
    judges: Sequence[str | None],
    annotator: Callable[[str | None], Callable[[list[list[str]]], list[T]]],
) -> list[T]:
    """The annotation of each text by its own judge; ``annotator`` returns the judge with a name.

    Raises:
        UserError: there is no such judge.
    """
    annotations: dict[int, T] = {}
    for judge in dict.fromkeys(judges):
        rows = [row for row, name in enumerate(judges) if name == judge]
        annotations.update(zip(rows, annotator(judge)([list(texts[row]) for row in rows]), strict=True))
    return [annotations[row] for row in range(len(texts))]


def _gold_or_judged(
    sentences: Sentences,
    fields: Fields | None,
    gold_of: Callable[[Sequence[str], Mapping[str, Any]], T | None],
    annotate: Callable[[Sentences], list[T]],
) -> list[T]:
    golds = [gold_of(*pair) for pair in zip(sentences, fields or [{}] * len(sentences), strict=True)]
    rest = [words for words, gold in zip(sentences, golds, strict=True) if gold is None]
    judged = iter(annotate(rest) if rest else [])
    return [next(judged) if gold is None else gold for gold in golds]


def _gold_tags(words: Sequence[str], row: Mapping[str, Any]) -> list[str] | None:
    tags = row.get(TAGS_FIELD)
    if not isinstance(tags, list) or len(tags) != len(words) or not all(tag in UPOS_TAGS for tag in tags):
        return None
    return list(tags)


def _gold_tree(words: Sequence[str], row: Mapping[str, Any]) -> Tree | None:
    try:
        tree = read_tree(row[TREE_FIELD])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tree if [leaf.word for leaf in tree.leaves()] == list(words) else None
