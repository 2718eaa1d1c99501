"""Parsing of the E2E corpus's meaning representations, ``name[Blue Door], eatType[pub]``, and of the tokenised form."""

from __future__ import annotations

from dlmctl.text.spelling import split_words

# The released E2E files and the tokenised form name the same fields differently.
_E2E_NAMES = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}


def parse_mr(mr: str) -> dict[str, str]:
    """Fields of a released E2E meaning representation, with the names and words of the tokenised form.

    >>> parse_mr("name[Blue Door], priceRange[£20-25]")
    {'name': 'Blue Door', 'price': '£ 20 - 25'}

    Raises:
        ValueError: it is not a list of ``field[value]``, or has a field twice with different values.
    """
    pairs: list[tuple[str, str]] = []
    start, end = 0, len(mr.rstrip())
    while start < end:
        opening, closing = mr.find("[", start), mr.find("]", start)
        name, value = mr[start:opening].strip(), mr[opening + 1 : closing]
        if not 0 <= opening < closing or not name or "," in name or "[" in value:
            raise ValueError(f"not field[value] at {mr[start : start + 30]!r}")
        pairs.append((_E2E_NAMES.get(name, name), " ".join(split_words(value))))
        start = closing + 1
        while start < end and mr[start].isspace():
            start += 1
        if start < end and mr[start] != ",":
            raise ValueError(f"not field[value] at {mr[start : start + 30]!r}")
        start += 1
    if not pairs:
        raise ValueError("the meaning representation is empty")
    return unique_fields(pairs)


def parse_pairs(left: str) -> dict[str, str]:
    """Fields of the tokenised form, ``name : Blue Door | price : cheap``.

    Raises:
        ValueError: it is not such a list, or has a field twice with different values.
    """
    pairs = [pair.partition(" : ") for pair in left.split(" | ")]
    if not all(colon for _, colon, _ in pairs):
        raise ValueError("not `attribute : value | ...||text`")
    return unique_fields([(name.strip(), value.strip()) for name, _, value in pairs])


def unique_fields(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The pairs as a mapping.

    Raises:
        ValueError: a name occurs twice with different values.
    """
    fields: dict[str, str] = {}
    for name, value in pairs:
        if fields.setdefault(name, value) != value:
            raise ValueError(f"the field {name[:40]!r} occurs twice")
    return fields
