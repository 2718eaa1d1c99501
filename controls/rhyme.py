"""A text whose last word rhymes with a given one: lines of a poem or a song."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import Field, field_validator

from dlmctl import Check, ControlParams, Mark, Pretrained, RecipeError
from dlmctl.control.automata import alphabet_of, escaped, parse
from dlmctl.control.automata.syntax import Node
from dlmctl.text.rhymes import rhymes_of
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .phrases import Split, TreeControl


class RhymeParams(ControlParams):
    """The word to rhyme with."""

    word: str = Field(
        min_length=1,
        max_length=100,
        description="the word that the last word of the text rhymes with, without being it",
        examples=["night"],
    )

    @field_validator("word")
    @classmethod
    def _has_rhymes(cls, word: str) -> str:
        if not rhymes_of(word):
            raise ValueError(f"no word is known that rhymes with {word[:40]!r}")
        return word


class Rhyme(TreeControl[RhymeParams]):
    """Ends the text with a perfect rhyme, exactly, also in combination with other controls; marks may follow it."""

    name = "rhyme"
    Params = RhymeParams
    # How the model writes the words that it knows, by their lower case; None for models that write any word.
    spellings: Mapping[str, Sequence[str]] | None = None

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        if isinstance(model.tokenizer, HuggingFaceTokenizer):
            return
        spellings = defaultdict(list)
        for word in alphabet_of(model.tokenizer).words:
            if word is not None:
                spellings[word.casefold()].append(word)
        self.spellings = spellings

    def tree(self, params: RhymeParams, split: Split) -> Node:
        rhymes = sorted(rhymes_of(params.word))
        if self.spellings is not None:
            rhymes = [word for rhyme in rhymes for word in self.spellings.get(rhyme, ())]
        if not rhymes:
            raise RecipeError(f"the model knows no word that rhymes with {params.word!r}.", where=self.name)
        return parse(f"<any>* ({'|'.join(map(escaped, rhymes))}) <punctuation>*", split)

    def check(self, params: RhymeParams, words: Sequence[str]) -> Check:
        """Looks up the last word, apart from marks."""
        place = next((at for at in reversed(range(len(words))) if any(map(str.isalnum, words[at]))), None)
        if place is None:
            return Check(0.0, False, "no word")
        passed = words[place].casefold() in rhymes_of(params.word)
        why = f"{words[place]!r} {'rhymes' if passed else 'does not rhyme'} with {params.word!r}"
        return Check(float(passed), passed, why, () if passed else (place,), (Mark(place, place, "", passed),))
