"""Tags and trees that the data itself gives, and a judge's for the sentences without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dlmctl.annotators.parsing import constituency_parser
from dlmctl.annotators.tagging import UPOS_TAGS, upos_tagger
from dlmctl.annotators.trees import Tree, read_tree
from dlmctl.errors import named_by

T = TypeVar("T")
Sentences = Sequence[Sequence[str]]
Fields = Sequence[Mapping[str, Any]]
# Fields of a data set: a list of UPOS tags (as CoNLL-U files give them), and a tree in brackets.
TAGS_FIELD, TREE_FIELD = "upos", "tree"
# Of a sentence in a file of targets: the time of parsing grows with the third power.
MOST_WORDS = 300


def tags_of(sentences: Sentences, fields: Fields | None = None, judge: str | None = None) -> list[list[str]]:
    """UPOS tags of each sentence: its field ``upos`` where that has one for each word, else the tagger's.

    Args:
        judge: see ``upos_tagger``.

    Raises:
        UserError: there is no such tagger.
    """
    return _given_or(sentences, fields, _gold_tags, lambda rest: upos_tagger(judge)(rest))


def trees_of(sentences: Sentences, fields: Fields | None = None, judge: str | None = None) -> list[Tree]:
    """A tree of each sentence: its field ``tree`` where that has the same words, else the parser's.

    Args:
        judge: see ``constituency_parser``.

    Raises:
        UserError: there is no such parser.
    """
    return _given_or(sentences, fields, _gold_tree, lambda rest: constituency_parser(judge)(rest))


def is_outside(judge: str | None) -> bool:
    """Whether a judge is another program's, which may run on a GPU of its own accord."""
    return judge is not None and judge.partition(":")[0] in ("stanza", "spacy")


def sentence_of(record: Mapping[str, Any]) -> list[str]:
    """The ``words`` of a target, to be tagged or parsed.

    Raises:
        ValueError: they are no words, or more than are parsed in a moment.
    """
    words = record["words"]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("`words` is a list of words")
    if len(words) > MOST_WORDS:
        raise ValueError(f"a sentence of {len(words)} words, and at most {MOST_WORDS} are parsed")
    return words


def require_judges(judges: Iterable[str | None], annotator: Callable[[str | None], object]) -> None:
    """Load the judges that are named, as ``by_judges`` does, to find out before texts are drawn what is missing.

    Raises:
        NamedError: there is no such judge.
        UserError: the program that it is of cannot be used.
    """
    for judge in dict.fromkeys(judges):
        if judge is not None:
            with named_by("judge"):
                annotator(judge)


def by_judges(
    texts: Sentences,
    judges: Sequence[str | None],
    annotator: Callable[[str | None], Callable[[list[list[str]]], list[T]]],
) -> list[T]:
    """What a judge says of each text, which may be another for each; ``annotator`` gives the judge of a name.

    Raises:
        UserError: there is no such judge.
    """
    found: dict[int, T] = {}
    for judge in dict.fromkeys(judges):
        places = [at for at, name in enumerate(judges) if name == judge]
        found.update(zip(places, annotator(judge)([list(texts[at]) for at in places]), strict=True))
    return [found[at] for at in range(len(texts))]


def _given_or(
    sentences: Sentences,
    fields: Fields | None,
    given: Callable[[Sequence[str], Mapping[str, Any]], T | None],
    annotate: Callable[[Sentences], list[T]],
) -> list[T]:
    found = [given(*pair) for pair in zip(sentences, fields or [{}] * len(sentences), strict=True)]
    rest = [words for words, gold in zip(sentences, found, strict=True) if gold is None]
    judged = iter(annotate(rest) if rest else [])
    return [next(judged) if gold is None else gold for gold in found]


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
