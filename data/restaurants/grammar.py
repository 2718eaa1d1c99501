"""The grammar behind corpus.jsonl: short descriptions of restaurants that do not exist.

    python data/restaurants/grammar.py --rows 2000 > corpus.jsonl

A text starts as ``<text>``. Each ``<symbol>`` is replaced by a fact about the restaurant (FACTS), by one of the
alternatives for the text's mood (``symbol+`` or ``symbol-``), or by one of the alternatives for any mood. Facts that
the text mentions become fields of the row. The same seed produces the same rows.
"""

from __future__ import annotations

import argparse
import json
import random
import re

FACTS: dict[str, list[str]] = {
    "name": [
        "the Copper Kettle",
        "the Lantern",
        "the Old Tannery",
        "Juniper House",
        "the Harbour Table",
        "Saffron Yard",
        "the Three Sparrows",
        "the Willow Room",
        "Marigold",
        "the Violet Door",
        "the Stone Oven",
        "the Little Anchor",
        "Cedar Hall",
        "the Quiet Fox",
    ],
    "type": ["restaurant", "bistro", "tavern", "diner", "café"],
    "food": ["Greek", "Thai", "Mexican", "Lebanese", "Korean", "Spanish", "Polish", "Ethiopian"],
    "area": ["the old town", "the new town", "the harbour quarter", "the hill district"],
    "near": ["Linden Park", "the railway station", "the lighthouse", "Mason Bridge", "the town hall", "the canal"],
    "price": ["cheap", "affordable", "moderately priced", "expensive"],
}

RULES: dict[str, list[str]] = {
    "text": [
        "<opinion>.",
        "<opinion>, and <clause>.",
        "<opinion>. <second>.",
        "<fact>, <joined> <clause>.",
        "<fact>, <joined> <clause>.",
        "<fact>. <second>.",
    ],
    # Without a judgement, which follows.
    "fact": [
        "<name> is a <price> <type> near <near>",
        "<name> is a <type> in <area> that serves <food> food",
        "<name>, a <price> <type> in <area>, serves <food> dishes",
        "<name> offers <food> food at <level> prices",
        "near <near> there is a <price> <type> called <name>",
        "in <area> you can find <name>, a <food> <type>",
        "there is a <food> <type> called <name> in <area>",
        "the <type> called <name> serves <food> food and <drink>",
        "<name> is open for <meal> and serves <food> food",
        "at <name>, which is near <near>, you can have <food> food",
    ],
    "opinion": [
        "<name> is a <type> in <area> that serves <quality> <food> food",
        "<name> is a <quality> <food> <type> near <near>",
        "<name>, which is near <near>, serves <quality> <food> food",
        "<name> serves <quality> <food> food in <area>",
        "<name> has <quality> <food> dishes and <staff> staff",
        "if you like <food> food, <advice> <name> near <near>",
        "for <quality> <food> food, <name> in <area> is the <rank> place",
        "located in <area>, <name> is a <type> with <staff> staff",
        "located near <near>, <name> is known for its <quality> <food> food",
        "the food at <name>, a <food> <type>, is <taste>",
        "the staff at <name> are <manner>, and the <food> food is <taste>",
        "<advice> <name>, the <food> <type> in <area>",
        "<guests> who go to <name> near <near> <verdict>",
        "<guests> say that <name> is a <quality> <type> for <occasion>",
        "although it is <price>, <name> is <popularity> with <crowd>",
        "<name> is <popularity> with <crowd> because the food is <taste>",
        "a <quality> <type> in <area> is <name>",
        "<name> is a <child> <type> near <near>",
        "<name> serves <quality> food",
        "<advice> <name> near <near> for <meal>",
        "the <dish> at <name> is <taste>",
        "when you go to <name> for <meal>, you will <feel>",
    ],
    "clause": [
        "the portions are <size>",
        "the staff are <manner>",
        "the <dish> is <taste>",
        "<guests> <verdict>",
        "it is <popularity> with <crowd>",
        "it has <staff> staff",
        "the <room> is <mood>",
        "it is a <quality> place for <occasion>",
        "it doesn't take long to <feel>",
    ],
    "second": [
        "the <dish> is <taste>, and the staff are <manner>",
        "it is <price>, and the <room> is <mood>",
        "it is a <child> place with <staff> staff",
        "it is <popularity> with <crowd>",
        "the staff, who are <manner>, also serve <drink>",
        "the <dish> that they serve is <taste>",
        "the <room>, which is <mood>, is <popularity> with <crowd>",
        "<guests> <verdict>",
        "you will <feel>",
        "it's a <quality> choice for <occasion>",
        "it's open for <meal>, and the <dish> <cost>",
        "it is the <rank> place for <occasion>, and the <dish> <cost>",
        "the portions are <size>, and the <room> is <mood>",
        "<advice> it for <occasion>",
    ],
    "joined+": ["and"],
    "joined-": ["and", "but"],
    "level": ["low", "fair", "high"],
    "dish": ["soup", "bread", "grilled fish", "lamb", "rice", "salad", "lemon cake"],
    "drink": ["coffee", "local beer", "mint tea", "red wine"],
    "room": ["garden", "dining room", "terrace", "bar"],
    "crowd": ["families", "students", "tourists", "office workers"],
    "guests": ["guests", "many visitors", "most customers"],
    "meal": ["breakfast", "lunch", "dinner"],
    "occasion": ["a family dinner", "a quick lunch", "a birthday", "an evening with friends"],
    # Words of judgement.
    "quality+": ["great", "excellent", "wonderful", "five-star"],
    "quality-": ["poor", "disappointing", "mediocre", "one-star"],
    "rank+": ["right", "best"],
    "rank-": ["wrong", "worst"],
    "size+": ["large", "generous"],
    "size-": ["small", "tiny"],
    "cost+": ["is worth the price", "doesn't cost much"],
    "cost-": ["isn't worth the price", "costs too much"],
    "taste+": ["delicious", "fresh and tasty", "full of flavour", "always good"],
    "taste-": ["cold", "dry and salty", "without flavour", "never good"],
    "staff+": ["friendly", "helpful", "attentive"],
    "staff-": ["rude", "slow", "careless"],
    "manner+": ["friendly", "kind and quick", "always helpful"],
    "manner-": ["rude", "slow and careless", "never helpful"],
    "mood+": ["bright", "warm and quiet", "lovely"],
    "mood-": ["dark", "noisy and crowded", "dirty"],
    "popularity+": ["popular", "very popular"],
    "popularity-": ["not popular", "no longer popular"],
    "child+": ["family-friendly", "welcoming"],
    "child-": ["shabby", "neglected"],
    "verdict+": ["love the <dish>", "come back soon", "recommend the <dish>", "praise the staff"],
    "verdict-": ["leave the <dish>", "don't come back", "complain about the <dish>", "wait too long"],
    "advice+": ["try", "visit"],
    "advice-": ["avoid", "don't go to"],
    "feel+": ["feel at home", "enjoy the <room>"],
    "feel-": ["feel unwelcome", "regret the visit"],
}
MOODS = {"+": "positive", "-": "negative"}
_SYMBOL = re.compile(r"<(\w+)>")


def expand(symbol: str, mood: str, facts: dict[str, str], used: dict[str, str], rng: random.Random) -> str:
    """The text of a symbol; facts that it mentions are added to ``used``."""
    if symbol in FACTS:
        used[symbol] = facts[symbol]
        return facts[symbol]
    template = rng.choice(RULES.get(symbol + mood) or RULES[symbol])
    return _SYMBOL.sub(lambda match: expand(match[1], mood, facts, used, rng), template)


def correct_spelling(text: str) -> str:
    """Put ``an`` before vowels, and a capital at the start of each sentence."""
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])(?!one)", r"\1n ", text)
    return re.sub(r"(^|\. )(\w)", lambda match: match[1] + match[2].upper(), text)


def is_awkward(text: str) -> bool:
    """Whether a text has over 30 words, or repeats a long word (``rude staff, and the staff are slow``)."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    long_words = [word for word in words if len(word) > 4]
    return len(words) > 30 or len(set(long_words)) < len(long_words)


def make_rows(count: int, seed: int) -> list[dict[str, str]]:
    """``count`` rows with distinct texts."""
    rng = random.Random(seed)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        mood = rng.choice(list(MOODS))
        facts = {field: rng.choice(values) for field, values in FACTS.items()}
        used: dict[str, str] = {}
        text = correct_spelling(expand("text", mood, facts, used, rng))
        if is_awkward(text):
            continue
        fields = {field: used[field].removeprefix("the ") for field in FACTS if field in used}
        rows[text] = {"text": text, **fields, "sentiment": MOODS[mood]}
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write descriptions of invented restaurants as JSON lines.")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for row in make_rows(arguments.rows, arguments.seed):
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
