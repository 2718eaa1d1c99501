"""Several controls of a batch in one automaton per row, called as the sampler does."""

import pytest
import torch

from dlmctl.control.automata import languages
from dlmctl.control.automata.joint import SETTLED, Demand, JointAutomata, language_of, possible_lengths
from dlmctl.control.automata.posterior import condition
from dlmctl.control.automata.product import intersection
from dlmctl.control.automata.regex import parse
from dlmctl.control.automata.spans import spans_of
from dlmctl.control.automata.transitions import stacked
from dlmctl.errors import RecipeError

ALPHABET = languages.Alphabet([None, *(f"w{index}" for index in range(40)), "."])
SIZE = len(ALPHABET.words)
SENTENCE = Demand("pattern", languages.pattern(parse("w0? <word>+ .", str.split), ALPHABET))
WITHOUT = Demand("avoid", languages.avoiding(ALPHABET, [(3,), (5, 6)]))
FEW = Demand("contains", phrases=((6, 7), (8,)))
MANY = Demand("contains", phrases=tuple((token,) for token in range(10, 30)))


def joint_automata(demands, words):
    rows = [language_of(row, ALPHABET) for row in demands]
    names = [" and ".join(demand.name for demand in row) for row in demands]
    return JointAutomata(rows, words, alphabet=ALPHABET, longest=30, names=names, sharpness=[1.0] * len(rows))


def random_logits(rows, length, seed=0):
    return 2 * torch.randn(rows, length, SIZE, generator=torch.Generator().manual_seed(seed))


def has(text, phrase):
    return any(tuple(text[at : at + len(phrase)]) == phrase for at in range(len(text)))


def test_rows_with_different_controls_are_all_satisfied():
    batch = joint_automata([[SENTENCE, WITHOUT, FEW], [FEW], [MANY, SENTENCE], [WITHOUT]], [9, 3, 21, 12])
    logits = random_logits(4, 24)
    batch.verify(torch.zeros_like(logits))
    for step, t in enumerate((1.0, SETTLED, 0.5, 0.0)):
        constrained = batch.constrain(logits + 0.1 * step, torch.full((4,), t))
        assert torch.isfinite(batch.log_probability(constrained.log_softmax(-1))).all()
    texts = [constrained[row, 1 : count + 1].argmax(-1).tolist() for row, count in enumerate(batch.words)]
    assert all(has(texts[row], phrase) for row in (0, 1) for phrase in FEW.phrases)
    assert all(has(texts[2], phrase) for phrase in MANY.phrases)
    assert texts[0][-1] == texts[2][-1] == SIZE - 1
    assert not any(has(texts[row], phrase) for row in (0, 3) for phrase in ((3,), (5, 6)))


def test_until_the_end_every_text_of_the_language_keeps_its_probability():
    batch, logits = joint_automata([[FEW]], [3]), random_logits(1, 5)
    texts = torch.tensor([[6, 7, 8], [8, 6, 7]])
    share = logits[0, torch.arange(1, 4), texts].sum(-1).softmax(0)
    found = batch.constrain(logits, torch.ones(1)).softmax(-1)
    torch.testing.assert_close(found[0, 1, texts[:, 0]], share, atol=1e-4, rtol=0)


def test_joint_conditioning_differs_from_conditioning_in_turn():
    """Two words in two places: conditioning in turn leaves probability to other words, the product does not."""
    logits = random_logits(1, 4).log_softmax(-1)
    first = languages.containing(ALPHABET, [1])
    second = languages.containing(ALPHABET, [2])
    words = torch.tensor([2])
    together = condition(logits, stacked([intersection(first, second)]), spans_of(words))
    in_turn = condition(condition(logits, stacked([first]), spans_of(words)), stacked([second]), spans_of(words))
    shares = [conditioned[0, 1:3, 1:3].exp().sum(-1) for conditioned in (together, in_turn)]
    assert shares[0].min() > 0.99999
    assert shares[1].max() < 0.999


def test_an_order_follows_the_first_distribution_after_verify():
    batch = joint_automata([[MANY]], [20])
    logits = torch.zeros(1, 24, SIZE)
    expected = torch.randperm(20, generator=torch.Generator().manual_seed(3)) + 10
    confident = logits.clone()
    confident[0, torch.arange(1, 21), expected] = 5.0
    batch.verify(logits)
    batch.constrain(logits, torch.zeros(1))  # like a trial with uniform logits
    batch.verify(logits)
    assert batch.constrain(confident, torch.zeros(1))[0, 1:21].argmax(-1).tolist() == expected.tolist()


def test_lengths_are_known_before_the_layout():
    language = language_of([SENTENCE, MANY], ALPHABET)
    assert possible_lengths(language, 25).nonzero()[0].min() == 20
    with pytest.raises(RecipeError, match=r"pattern and avoid: no text of 1 words.*2 to 30 words"):
        joint_automata([[SENTENCE, WITHOUT]], [1])


def test_words_excluded_by_other_controls_leave_no_text():
    restricted = torch.zeros(1, 24, SIZE)
    restricted[..., 8] = -torch.inf
    with pytest.raises(RecipeError, match="contains: no text of 9 words is left"):
        joint_automata([[FEW]], [9]).verify(restricted)
    restricted[..., 12] = -torch.inf
    with pytest.raises(RecipeError, match="contains: no arrangement of 20 phrases in 20 words"):
        joint_automata([[MANY]], [20]).verify(restricted)
