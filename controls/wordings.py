"""How a text says that a field has a value: word for word, or in another wording of the same meaning.

The wordings are those of restaurant descriptions; fields and values that are not listed are said word for word only.
A wording counts for a value only if it means it: ``cheap`` is no wording of ``less than £ 20``, nor ``five stars`` of
a ``high`` rating, though writers do use them so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from dlmctl.text.fields import Value, field_key, value_words

_PRICE = r"(?:pric\w*|cost\w*)"
_RATING = r"(?:rat(?:ed|es?|ings?)|review(?:s|ed)?|scor(?:es?|ed|ing)|rank(?:ed|ings?)?|feedback|satisfaction)"
# A word between an adjective and its noun ("prices are quite low"), not one that begins another statement.
_BETWEEN = r"(?: (?!(?:and|but|with|pric\w*|cost\w*|rat\w*|review\w*|star\w*|food|£)(?!\S)|[.,;!?])\S+)"


def _said_of(noun: str, adjectives: str) -> str:
    """``low prices``, ``low customer ratings``, ``priced rather low``: an adjective before or soon after its noun."""
    return rf"(?:{adjectives}){_BETWEEN}{{0,2}} {noun}|{noun}{_BETWEEN}{{0,3}} (?:{adjectives})"


def _out_of_five(digit: str, word: str) -> str:
    count = rf"(?:{digit}|{word})"
    rated = rf"{_RATING}(?: (?:of|is|at|as|a|only|just|by|customers)){{0,2}} {count}(?! (?:out|of|/|star|to|[35]))"
    return rf"{count} (?:out )?(?:of|/) (?:5|five)|{count} star(?:s|red)?|{rated}"


# Field, value, wordings; all as ``plain`` leaves them.
WORDINGS: dict[str, dict[str, str]] = {
    "type": {
        "pub": r"pubs?|public house",
        "coffee shop": r"coffee ?(?:shop|house)s?",
        "restaurant": r"restaurants?",
    },
    "food": {"english": r"english|british", "fast food": r"fast ?food"},
    "area": {
        "riverside": r"river ?(?:side|front|banks?)|(?:the|that|a) river|river cam",
        "city centre": r"(?:city|town) ?cent(?:re|er)|cent(?:re|er) of (?:the )?(?:city|town)",
    },
    "price": {
        "cheap": r"cheap\w*|inexpensive\w*|affordabl[ey]|budget|low cost|economical|" + _said_of(_PRICE, "low|lower"),
        "moderate": _said_of(_PRICE, r"moderate(?:ly)?|mid|middle|medium|average|reasonabl[ey]"),
        "high": r"expensive|pricey|costly|upscale|high end|" + _said_of(_PRICE, r"high(?:er|ly)?"),
        "less than £ 20": r"(?:less than|under|below|lower than|up to|(?:no|not) more than)(?: £)? 20",
        "£ 20 25": r"20(?: pounds)?(?: to| and)?(?: £)? 25",
        "more than £ 30": r"(?:more than|over|above|greater than|higher than|upwards of)(?: £)? 30|"
        r"30(?: pounds)? (?:and|or) (?:up|above|over|more)",
    },
    "rating": {
        "low": _said_of(_RATING, r"low(?:ly|er)?|poor(?:ly)?|bad(?:ly)?"),
        "average": _said_of(_RATING, r"average(?:ly)?|mediocre|moderate(?:ly)?|decent|okay"),
        "high": r"highly recommended|" + _said_of(_RATING, r"high(?:ly|er|est)?|excellent|great|good|well|top"),
        "1 out of 5": _out_of_five("1", "one"),
        "3 out of 5": _out_of_five("3", "three"),
        "5 out of 5": _out_of_five("5", "five"),
    },
    "near": {"crowne plaza hotel": r"crowne? plaza"},
}

_YOUNG = r"(?:famil(?:y|ies)|child(?:ren)?|kids?)(?: s)?"
_THE = r"(?: all| the| whole| entire| your| a| of)*"
FAMILY = "family friendly"
WELCOMING = (
    rf"{_YOUNG} (?:and {_YOUNG} )?(?:friendly|orient\w+|welcoming)|"
    rf"{_YOUNG} (?:are |is )?(?:\w+ )?(?:welcomed?|allowed|permitted)|"
    rf"(?:welcom(?:es?|ing)|allow(?:s|ing)?|accommodat(?:es?|ing)|cater(?:s|ing)?(?: to| for)|friendly (?:to|for))"
    rf"{_THE} {_YOUNG}|"
    rf"(?:suitable|suited|good|great|perfect|ideal|appropriate|fun|place|recommended|friendly){_THE} for"
    rf"{_THE} {_YOUNG}|"
    r"family (?:restaurant|pub|coffee shop|place|establishment|venue|atmosphere|environment|dining|style|eatery)|"
    r"(?:whole|entire|all the) family|all ages"
)
ADULT = (
    r"adults? (?:only|friendly|orient\w+|establishment|venue|place|restaurant|pub|atmosphere|environment)|"
    rf"(?:only (?:for )?|for )adults|(?:no|without) {_YOUNG}|{_YOUNG} (?:free|unfriendly)"
)

_NEGATIONS = {"not", "t", "no", "non", "never", "nor", "neither", "lack", "lacks", "lacking", "without", "un"}
# "North of the city centre" is not in it.
_ELSEWHERE = {"outside", "outskirts", "edge", "north", "south", "east", "west", "away"}
# By field, what denies a statement and how many words before it: "not a place that is family friendly", but "not very
# cheap". What a place is called or serves is not denied in such texts.
_DENIED_BY: dict[str, tuple[set[str], int]] = {
    "price": (_NEGATIONS, 2),
    "rating": (_NEGATIONS, 2),
    "area": (_ELSEWHERE, 3),
    FAMILY: (_NEGATIONS, 5),
}
_NOT_ADULT = ({"not", "t"}, 2)


def plain(words: Sequence[str]) -> str:
    """Lower case, without accents, hyphens, apostrophes and quotation marks: ``not family friendly , £ 20 25``."""
    text = unicodedata.normalize("NFKD", " ".join(words)).lower().replace("£", " £ ")
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(re.sub(r"[-'\"`]", " ", text).split())


def statement(field: str, value: Value, words: Sequence[str], *, natural: bool) -> str | None:
    """The words of a text that state that ``field`` is ``value``, or None.

    Args:
        words: as the model made them, hyphens and currency signs being words.
        natural: False: the value word for word, in upper or lower case, wherever it stands. True: a wording of
            ``WORDINGS``, not denied; of values that are not there the value itself, any article in front left out.
            Yes and no, which texts do not say, are the field's name affirmed or denied in both cases.
    """
    key, wanted = field_key(field), value_words(value).split()
    if plain(wanted) in ("yes", "no"):
        return _yes_or_no(key, plain(wanted) == "yes", plain(words), natural)
    if not natural:
        said = f" {' '.join(words).lower()} "
        return " ".join(wanted) if f" {' '.join(wanted).lower()} " in said else None
    name = plain(wanted)
    mentions = _mentions(_wording(key, name), plain(words), *_DENIED_BY.get(key, (set(), 0)))
    return next((found for found, denied in mentions if not denied), None)


# Values that may be true of one place together, each in another measure: what is cheap costs less than £ 20.
_TOGETHER = {
    "price": [{"cheap", "less than £ 20"}, {"moderate", "£ 20 25"}, {"high", "more than £ 30"}],
    "rating": [{"low", "1 out of 5"}, {"average", "3 out of 5"}, {"high", "5 out of 5"}],
}
# Words for a place of any kind: a coffee shop is called a restaurant, too.
_GENERAL = {"type": {"restaurant"}}


def contradiction(
    field: str, value: Value, others: Sequence[str], words: Sequence[str], aside: Sequence[str] = ()
) -> tuple[str, str] | None:
    """Another value of ``field`` that a text states, and the words for it, or None.

    Natural wordings count, whole and not denied, as in ``statement``. What is part of a wording of ``value`` itself, or
    may be true beside it, is no contradiction.

    Args:
        others: the values of the field; ``value`` among them is left out.
        aside: values of other fields as ``plain`` leaves them; a value within one, as Indian in the name Raja Indian
            Cuisine, is not stated.
    """
    key, text = field_key(field), plain(words)
    for name in aside:
        text = _blanked(text, re.escape(name)) if name in text else text
    wanted = plain(value_words(value).split())
    beside = next((group for group in _TOGETHER.get(key, []) if wanted in group), {wanted})
    own = "" if wanted in ("yes", "no") else _blanked(text, _wording(key, wanted))
    for other in others:
        name = plain(value_words(other).split())
        if name in beside or name in _GENERAL.get(key, ()):
            continue
        if name in ("yes", "no"):
            rest = list(words)
        else:  # of a longer value that has the wanted one in it, the text means the longer one
            rest = (text if not own or f" {wanted} " in f" {name} " else own).split()
        found = statement(field, other, rest, natural=True)
        if found is not None:
            return other, found
    return None


def span_of(found: str, words: Sequence[str]) -> tuple[int, int]:
    """The first and last word, from 0, of what ``statement`` or ``contradiction`` found in a text."""
    places = [(part, at) for at, word in enumerate(words) for part in plain([word]).split()]
    wanted = plain([found]).split()
    for start in range(len(places) - len(wanted) + 1):
        some = places[start : start + len(wanted)]
        if [part for part, _ in some] == wanted:
            return some[0][1], some[-1][1]
    return 0, len(words) - 1  # what stands there is known only to be somewhere


def _wording(key: str, name: str) -> str:
    return WORDINGS.get(key, {}).get(name, re.escape(name.removeprefix("the ")))


def _blanked(text: str, pattern: str) -> str:
    """A text with a mark in place of each match, so that nothing is found in it, nor across it."""
    return re.sub(rf"(?<!\S)(?:{pattern})(?!\S)", "_", text)


def _yes_or_no(key: str, yes: bool, text: str, natural: bool) -> str | None:
    wide = natural and key == FAMILY
    mentions = list(_mentions(WELCOMING if wide else re.escape(key), text, *_DENIED_BY[FAMILY]))
    if wide and not yes:
        mentions += [(found, not denied) for found, denied in _mentions(ADULT, text, *_NOT_ADULT)]
    return next((found for found, denied in mentions if denied != yes), None)


def _mentions(pattern: str, text: str, negations: set[str], reach: int) -> Iterator[tuple[str, bool]]:
    """Whole-word matches, each with whether a negation stands in it or shortly before it in the same clause."""
    for match in re.finditer(rf"(?<!\S)(?:{pattern})(?!\S)", text):
        clause = re.split(r"[.,;:!?]|\b(?:and|but|however)\b", text[: match.start()])[-1]
        nearby = [*clause.split()[-reach:], *match.group().split()]
        yield match.group(), any(word in negations for word in nearby)
