"""Taggers and parsers of other programs: Stanza (Qi et al. 2020) and spaCy, on words that are already split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dlmctl.annotators.field import Tagger
from dlmctl.annotators.trees import Tree
from dlmctl.errors import UserError

T = TypeVar("T")
Sentences = Sequence[Sequence[str]]


def stanza_tagger(language: str) -> Tagger:
    """Stanza's UPOS tagger of a language.

    Raises:
        UserError: its models are not on disk and cannot be downloaded.
    """
    pipeline = _stanza_pipeline(language, "tokenize,pos", "tagger")

    def tag(sentences: list[list[str]]) -> list[list[str]]:
        return [[word.upos for word in sentence.words] for sentence in pipeline(sentences).sentences]

    return lambda sentences: _annotate_nonempty(sentences, tag, list)


def stanza_parser(language: str) -> Callable[[Sentences], list[Tree]]:
    """Stanza's constituency parser of a language.

    Raises:
        UserError: its models are not on disk and cannot be downloaded.
    """
    pipeline = _stanza_pipeline(language, "tokenize,pos,constituency", "parser")

    def convert(node: Any) -> Tree:
        if len(node.children) == 1 and not node.children[0].children:
            return Tree(node.label, word=node.children[0].label)
        return Tree(node.label, tuple(map(convert, node.children)))

    def parse(sentences: list[list[str]]) -> list[Tree]:
        return [convert(sentence.constituency) for sentence in pipeline(sentences).sentences]

    return lambda sentences: _annotate_nonempty(sentences, parse, lambda: Tree("ROOT"))


def spacy_tagger(name: str) -> Tagger:
    """The UPOS tagger of an installed spaCy model, such as ``en_core_web_sm``.

    Raises:
        UserError: spaCy or the model is not installed, or the model has no tagger.
    """
    where = f"spacy:{name}"
    try:
        import spacy
    except ImportError:
        raise UserError(
            "spaCy is not installed.", where=where, remedy='Install it with `pip install "dlmctl[spacy]"`.'
        ) from None
    if not spacy.util.is_package(name):  # a folder could name its own components to run
        installed = sorted(spacy.util.get_installed_models())
        remedy = (
            f"Installed: {', '.join(installed)}." if installed else f"Get it with `python -m spacy download {name}`."
        )
        raise UserError(f"no spaCy model {name!r} is installed.", where=where, remedy=remedy)
    pipeline = spacy.load(name, exclude=["parser", "ner", "lemmatizer"])

    def tag(sentences: list[list[str]]) -> list[list[str]]:
        docs = pipeline.pipe(spacy.tokens.Doc(pipeline.vocab, words=words) for words in sentences)
        return [[token.pos_ or "X" for token in doc] for doc in docs]

    if tag([["word"]]) == [["X"]]:
        raise UserError("the model does not assign UPOS tags.", where=where, remedy="Use one with a tagger.")
    return lambda sentences: _annotate_nonempty(sentences, tag, list)


def _annotate_nonempty(
    sentences: Sentences, annotate: Callable[[list[list[str]]], list[T]], empty: Callable[[], T]
) -> list[T]:
    """The annotations of the sentences, computed without empty ones: programs drop those and shift the rest."""
    nonempty = [list(words) for words in sentences if words]
    annotations = iter(annotate(nonempty) if nonempty else [])
    return [next(annotations) if words else empty() for words in sentences]


def _stanza_pipeline(language: str, processors: str, bundled: str) -> Any:
    """A Stanza pipeline; ``bundled`` names the bundled annotator that can replace it."""
    import stanza

    try:
        return stanza.Pipeline(
            language,
            processors=processors,
            tokenize_pretokenized=True,
            download_method=stanza.DownloadMethod.REUSE_RESOURCES,
            verbose=False,
        )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"Stanza's {language!r} models are not on disk and could not be downloaded: {reason}",
            where=f"stanza:{language}",
            remedy=f"Use the bundled {bundled}, or run `stanza.download` where there is a network.",
        ) from None
