"""Several controls of a batch held by one automaton a row, as the sampler asks."""

import pytest
import torch

from dlmctl.control.automata import languages
from dlmctl.control.automata.joint import SETTLED, Demand, JointAutomata, language_of, possible_lengths
from dlmctl.control.automata.posterior import condition
from dlmctl.control.automata.product import intersection
from dlmctl.control.automata.regex import parse
from dlmctl.control.automata.transitions import stacked
from dlmctl.errors import RecipeError

ALPHABET = languages.Alphabet([None, *(f"w{index}" for index in range(40)), "."])
SIZE = len(ALPHABET.words)
SENTENCE = Demand("pattern", languages.pattern(parse("w0? <word>+ .", str.split), ALPHABET))
WITHOUT = Demand("avoid", languages.avoiding(ALPHABET, [(3,), (5, 6)]))
FEW = Demand("contains", phrases=((6, 7), (8,)))
MANY = Demand("contains", phrases=tuple((token,) for token in range(10, 30)))


def held(demands, words):
    rows = [language_of(row, ALPHABET) for row in demands]
    names = [" and ".join(demand.name for demand in row) for row in demands]
    return JointAutomata(rows, words, alphabet=ALPHABET, longest=30, names=names, sharpness=[1.0] * len(rows))


def random_logits(rows, length, seed=0):
    return 2 * torch.randn(rows, length, SIZE, generator=torch.Generator().manual_seed(seed))


def has(text, phrase):
    return any(tuple(text[at : at + len(phrase)]) == phrase for at in range(len(text)))


def test_rows_with_different_controls_are_all_satisfied():
    batch = held([[SENTENCE, WITHOUT, FEW], [FEW], [MANY, SENTENCE], [WITHOUT]], [9, 3, 21, 12])
    logits = random_logits(4, 24)
    batch.verify(torch.zeros_like(logits))
    for step, t in enumerate((1.0, SETTLED, 0.5, 0.0)):
        found = batch.constrain(logits + 0.1 * step, torch.full((4,), t))
        assert torch.isfinite(batch.log_probability(found.log_softmax(-1))).all()
    texts = [found[row, 1 : count + 1].argmax(-1).tolist() for row, count in enumerate(batch.words)]
    assert all(has(texts[row], phrase) for row in (0, 1) for phrase in FEW.phrases)
    assert all(has(texts[2], phrase) for phrase in MANY.phrases)
    assert texts[0][-1] == texts[2][-1] == SIZE - 1
    assert not any(has(texts[row], phrase) for row in (0, 3) for phrase in ((3,), (5, 6)))


def test_together_is_not_one_after_the_other():
    """Two words in two places: conditioned in turn they leave others a share, which their product does not."""
    logits = random_logits(1, 4).log_softmax(-1)
    first = languages.containing(ALPHABET, [1])
    second = languages.containing(ALPHABET, [2])
    words = torch.tensor([2])
    together = condition(logits, stacked([intersection(first, second)]), words)
    locked = condition(condition(logits, stacked([first]), words), stacked([second]), words)
    shares = [found[0, 1:3, 1:3].exp().sum(-1) for found in (together, locked)]
    assert shares[0].min() > 0.99999
    assert shares[1].max() < 0.999


def test_an_order_follows_the_first_distribution_after_verify():
    batch = held([[MANY]], [20])
    logits = torch.zeros(1, 24, SIZE)
    wanted = torch.randperm(20, generator=torch.Generator().manual_seed(3)) + 10
    sure = logits.clone()
    sure[0, torch.arange(1, 21), wanted] = 5.0
    batch.verify(logits)
    batch.constrain(logits, torch.zeros(1))  # as a trial with equal words does
    batch.verify(logits)
    assert batch.constrain(sure, torch.zeros(1))[0, 1:21].argmax(-1).tolist() == wanted.tolist()


def test_lengths_are_known_before_the_layout():
    language = language_of([SENTENCE, MANY], ALPHABET)
    assert possible_lengths(language, 25).nonzero()[0].min() == 20
    with pytest.raises(RecipeError, match=r"pattern and avoid: no text of 1 words.*2 to 30 words"):
        held([[SENTENCE, WITHOUT]], [1])


def test_what_others_leave_is_too_little():
    closed = torch.zeros(1, 24, SIZE)
    closed[..., 8] = -torch.inf
    with pytest.raises(RecipeError, match="contains: no text of 9 words is left"):
        held([[FEW]], [9]).verify(closed)
    closed[..., 12] = -torch.inf
    with pytest.raises(RecipeError, match="contains: no arrangement of 20 phrases in 20 words"):
        held([[MANY]], [20]).verify(closed)
