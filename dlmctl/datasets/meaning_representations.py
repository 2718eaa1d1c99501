"""The meaning representations of the E2E corpus: ``name[Blue Door], eatType[pub]``, and the tokenised form's pairs."""

from __future__ import annotations

from dlmctl.text.spelling import split_words

# The released E2E files and the tokenised form name the same fields differently.
_E2E_NAMES = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}


def parse_mr(mr: str) -> dict[str, str]:
    """Fields of a released E2E meaning representation, under the names and in the words of the tokenised form.

    >>> parse_mr("name[Blue Door], priceRange[£20-25]")
    {'name': 'Blue Door', 'price': '£ 20 - 25'}

    Raises:
        ValueError: it is not a list of ``field[value]``, or has a field twice with different values.
    """
    pairs: list[tuple[str, str]] = []
    at, end = 0, len(mr.rstrip())
    while at < end:
        opened, closed = mr.find("[", at), mr.find("]", at)
        name, value = mr[at:opened].strip(), mr[opened + 1 : closed]
        if not 0 <= opened < closed or not name or "," in name or "[" in value:
            raise ValueError(f"not field[value] at {mr[at : at + 30]!r}")
        pairs.append((_E2E_NAMES.get(name, name), " ".join(split_words(value))))
        at = closed + 1
        while at < end and mr[at].isspace():
            at += 1
        if at < end and mr[at] != ",":
            raise ValueError(f"not field[value] at {mr[at : at + 30]!r}")
        at += 1
    if not pairs:
        raise ValueError("the meaning representation is empty")
    return agreeing(pairs)


def parse_pairs(left: str) -> dict[str, str]:
    """Fields of the tokenised form, ``name : Blue Door | price : cheap``.

    Raises:
        ValueError: it is no such list, or has a field twice with different values.
    """
    pairs = [pair.partition(" : ") for pair in left.split(" | ")]
    if not all(colon for _, colon, _ in pairs):
        raise ValueError("not `attribute : value | ...||text`")
    return agreeing([(name.strip(), value.strip()) for name, _, value in pairs])


def agreeing(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The pairs as a mapping.

    Raises:
        ValueError: a name occurs twice with different values.
    """
    found: dict[str, str] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise ValueError(f"the field {name[:40]!r} occurs twice")
    return found
