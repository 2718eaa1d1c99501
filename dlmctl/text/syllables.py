"""The number of syllables in English words.

Counted by a rule of spelling, and for the words of the CMU Pronouncing Dictionary that do not follow it, by a list
(``syllables.json``, written by ``benchmarks/syllables.py``), so that every word of the dictionary has the number of its
first pronunciation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from dlmctl.text.pronouncing import word_groups
from dlmctl.text.spelling import plain

EXCEPTIONS = "syllables.json"

_VOWELS = re.compile("[aeiouy]+")
# The e of "made", "makes", "moved" and "lately" is silent, but not that of "table", "roses", "added" and "tables".
_SILENT = re.compile(
    r"(?<![aeiouy])(?:(?<!l)|(?<=[aeiouyl]l))e$"
    r"|(?<![aeiouyszxgc])(?<!sh)(?<!ch)(?:(?<!l)|(?<=[aeiouyl]l))es$"
    r"|(?<![aeiouydt])(?:(?<!l)|(?<=[aeiouyl]l))ed$"
    r"|(?:(?<=[^aeiouyl])|(?<=[aeiouyl]l))e(?:ly|li(?:er|est|ness)|ments?|ness|less|ful|fully|some)$"
)
# Two syllables in a row of vowels: "dual", "fluent", "via", "radio", "easier", "quiet", "video", "player", "trying".
_HIATUS = re.compile(
    r"(?<![qg])u(?:a|e[^aeious]|o[^u])|(?<![ctsg])i(?:a|u)|(?<![ctsgln])io|ie(?:r|st|nt|nce|t)(?=s?$)|(?<![gp])eo"
    r"|[aeiou]y[aeiou]|[yeou]ing|aeo|(?<![ctsxg])iou|(?<=[ctsgx]i)a(?=te|ting|tion)|ei(?=ty)|uity"
    r"|ea(?=te|tion|tor|ting|tive)|ii"
)
# The m of "prism" and "rhythm" is a syllable, and so is the n of "didnt" and "wasnt" without an apostrophe.
_SYLLABIC = re.compile(r"(?:s|th)ms?$|[ds]nt$")

# Second parts of contractions, which depend on the word before.
CLITICS = ("n't", "'t", "'s", "'m", "'d", "'ll", "'re", "'ve")
# Don't, can't, won't, weren't: one syllable with "n't"; so are I'll, you've, she'd.
_ONE_WITH_NOT = frozenset("do ca wo sha ai are were don can won shan ain aren weren".split())
_ONE_WITH_PRONOUN = frozenset("i you he she we they who".split())
_SIBILANT = re.compile(r"(?:s|x|z|ch|sh|[cgsz]e)$")

# Initials that could be read as words, but are not; others without a vowel, such as TV, are told by that.
_INITIALS = frozenset(
    "ADHD AFC AI API DIY EMT ER FAQ GMO GPA ICU IMF IOU IPA IRS IVF LA LGBTQ MBA NGO NSA NY NYC NYU OCD OMG PTA SFO"
    " UCLA UN URL US USB".split()
)
# Capitals that are no initials: HMM, SHH, BRR, PSST.
_SOUND = re.compile(r"H+M+|S+H+|[BG]R+|M+|Z+|P[SF]+T+|TSK")
# "McDonald" and "YouTube" are written as one word.
_JOINT = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])")
_LETTERS = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "th", "þ": "th"})
# In decomposed spelling: an accent makes a last e a syllable, as in "café" and "fiancées", and two dots make any vowel
# after a vowel one, as in "naïve".
_LAST_E = re.compile(r"(?P<vowel>(?<=[aeiou]))?e[\u0301\u0308]e?(?P<plural>s?)$")
_DIAERESIS = re.compile(r"(?<=[aeiouy])(?=[aeiou]\u0308)")


def syllables(word: str, before: str = "") -> int | None:
    """The number of syllables that a word adds to a text; None if that is unknown, as for "2014", "%" and "слово".

    Args:
        word: a word as tokenisers split it; punctuation marks have no syllable.
        before: the word before it, on which the pieces of contractions depend: "did n't" has two, "do n't" one.

    >>> syllables("little"), syllables("n't", "did"), syllables("n't", "do"), syllables("2014")
    (2, 1, 0, None)
    """
    return counted(word, before, _exceptions())


def counted(word: str, before: str, listed: Mapping[str, int]) -> int | None:
    """``syllables`` with another list of words that do not follow the rule, in lower case."""
    written = unicodedata.normalize("NFC", plain(word)).replace("\u2019", "'")
    folded = written.casefold()
    if folded in CLITICS:
        return _of_clitic(folded, before.casefold())
    parts = [part for part in re.split(r"['\-.]", written) if part]
    if not parts and written:
        return 0
    if not all(part.isalpha() for part in parts):
        return None if any(char.isalnum() or char in "$£€%&+=#@" for char in written) else 0
    whole = "".join(parts).casefold() if "." in written else folded
    if written not in _INITIALS and whole in listed:
        return listed[whole]
    clitic = next((clitic for clitic in CLITICS if folded.endswith(clitic)), "")
    if clitic and (head := written[: -len(clitic)])[-1:].isalpha():
        return _added([counted(head, "", listed), _of_clitic(clitic, head.casefold())])
    return _added(_of_part(part, listed) for part in parts)


def syllables_of_words(words: Sequence[str]) -> list[int | None]:
    """The ``syllables`` that each word of a text adds to it.

    >>> syllables_of_words(["I", "do", "n't", "sing", "."])
    [1, 1, 0, 1, 0]
    """
    return [syllables(word, before) for before, word in zip(["", *words], words, strict=False)]


def by_rule(word: str) -> int:
    """The number of syllables in a word of lower-case letters by its spelling, at least one."""
    count = len(_VOWELS.findall(word)) - len(_SILENT.findall(word))
    return max(1, count + len(_HIATUS.findall(word)) + len(_SYLLABIC.findall(word)))


def _of_part(part: str, listed: Mapping[str, int]) -> int | None:
    """The syllables of letters without marks between them; None if they are of another script."""
    folded = part.casefold()
    letters = part.removesuffix("s")
    is_spelled = len(letters) > 1 and letters.isupper() and not _VOWELS.search(folded) and not _SOUND.fullmatch(letters)
    if letters in _INITIALS or (is_spelled and folded not in listed):
        return sum(3 if letter == "W" else 1 for letter in letters)
    if folded in listed:
        return listed[folded]
    if len(joint := _JOINT.split(part)) > 1:
        return _added(_of_part(piece, listed) for piece in joint)
    if folded.isascii():
        return by_rule(folded)
    return _of_accented(folded, listed)


def _of_accented(word: str, listed: Mapping[str, int]) -> int | None:
    """The syllables of a word of lower-case letters that are not all from a to z."""
    marked = unicodedata.normalize("NFD", word.translate(_LETTERS))
    split = _LAST_E.sub(lambda found: f"{'-' * (found['vowel'] is not None)}ay{found['plural']}", marked)
    is_known = split == marked  # the list has "resume", not "résumé"
    split = _DIAERESIS.sub("-", split)
    plain_letters = "".join(char for char in split if not unicodedata.combining(char))
    whole = plain_letters.replace("-", "")
    if not (whole.isascii() and whole.isalpha()):
        return None
    if is_known and whole in listed:
        return listed[whole]
    return sum(map(by_rule, plain_letters.split("-")))


def _added(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _of_clitic(clitic: str, before: str) -> int:
    """The syllables of the second part of a contraction: "it 'll" has one more than "it", "I 'll" none."""
    if clitic in ("n't", "'t"):
        return int(before not in _ONE_WITH_NOT)
    if clitic == "'m":
        return 0
    if clitic == "'s":
        return int(_SIBILANT.search(before) is not None)
    if clitic == "'d":
        return int(before.endswith(("t", "d")))
    return int(before not in _ONE_WITH_PRONOUN)


@cache
def _exceptions() -> Mapping[str, int]:
    """The words that do not follow the rule."""
    return {word: int(count) for count, words in word_groups(EXCEPTIONS).items() for word in words}
