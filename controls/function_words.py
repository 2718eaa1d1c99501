"""English function words: the closed word classes, which texts of any vocabulary need.

Determiners, pronouns, prepositions, conjunctions, auxiliaries in all their forms, particles, question words, and the
pieces into which contractions are split.
"""

from __future__ import annotations

_DETERMINERS = "a an the this that these those each every either neither some any no all both half such another other"
_QUANTIFIERS = "much many more most few fewer less least several enough"
_PRONOUNS = """
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself we us our
ours ourselves they them their theirs themselves one ones oneself someone somebody something anyone anybody anything
everyone everybody everything nobody nothing none
"""
_QUESTIONS = "who whom whose which what where when why how whoever whatever whichever wherever whenever however"
_PREPOSITIONS = """
about above across after against along among around as at before behind below beneath beside besides between beyond by
despite down during except for from in inside into like near of off on onto out outside over past per since through
throughout to toward towards under underneath until till up upon with within without
"""
_CONJUNCTIONS = "and but or nor so yet if unless because although though while whereas whether than once"
_AUXILIARIES = """
am is are was were be been being have has had having do does did doing done can could will would shall should may might
must ought
"""
_PARTICLES = "not there here then too also very just only even again ever never yes"
# As tokenisers split them: do n't or don 't, she 's, wo n't, ca n't, let 's, gon na.
_PIECES = "n't 't 's 're 've 'll 'd 'm ' wo ca sha ai don isn aren wasn weren hasn haven hadn doesn didn couldn wouldn"
_MORE_PIECES = "shouldn won cannot na ta"

FUNCTION_WORDS = frozenset(
    " ".join(
        [
            _DETERMINERS,
            _QUANTIFIERS,
            _PRONOUNS,
            _QUESTIONS,
            _PREPOSITIONS,
            _CONJUNCTIONS,
            _AUXILIARIES,
            _PARTICLES,
            _PIECES,
            _MORE_PIECES,
        ]
    ).split()
)


# Names with the spelling of a function word: a person, a month, a canton. At the start of a sentence they count as the
# function word.
_NAMES = frozenset(["Ai", "Don", "May", "Us", "Will"])
# The words after which a sentence begins.
_OPENING = frozenset(["", ".", "!", "?", "...", ":", '"', "'", "“", "‘", "(", "-", "–", "—"])  # noqa: RUF001


def is_function_word(word: str, before: str | None = None) -> bool:
    """Whether a word is a function word or a punctuation mark.

    Capitals matter: AI, IT and the US are not function words, nor are Will and May within a sentence.

    Args:
        before: the word before it, empty for none; None if unknown.
    """
    if not any(char.isalnum() for char in word):
        return True
    is_name = (len(word) > 1 and word.isupper()) or (word in _NAMES and before not in _OPENING)
    return word.casefold() in FUNCTION_WORDS and not is_name
