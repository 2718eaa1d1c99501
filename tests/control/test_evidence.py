"""Evidence tables against their formulas written out, one word and one class at a time."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dlmctl.annotators.trees import labelled_spans, read_tree
from dlmctl.control.evidence import bag as bags
from dlmctl.control.evidence import spans, tags
from dlmctl.control.evidence.table import CountTable, count_table, load_table, product, pruned, save_table
from dlmctl.errors import ModelError

TAGS = ["A", "N", "V"]
SIZE = 9


@pytest.fixture(scope="module")
def sentences() -> list[tuple[list[int], list[int]]]:
    """Random words that mostly have one tag each; word 8 never occurs, -1 is outside the vocabulary."""
    rng = np.random.default_rng(0)
    rows = []
    for length in rng.integers(1, 7, 80):
        words = rng.integers(-1, SIZE - 1, length)
        tag_indices = np.where(rng.random(length) < 0.7, words % 3, rng.integers(0, 3, length))
        rows.append((words.tolist(), tag_indices.tolist()))
    return rows


@pytest.fixture(scope="module")
def table(sentences: list[tuple[list[int], list[int]]]) -> CountTable:
    return tags.count_tags(sentences, TAGS, SIZE, "words")


@pytest.fixture(scope="module")
def seen(sentences: list[tuple[list[int], list[int]]]) -> Counter[tuple[int, str, str, str]]:
    """The same counts by plain iteration: (word, left, tag, right)."""
    counts: Counter[tuple[int, str, str, str]] = Counter()
    for words, tag_indices in sentences:
        names = [tags.EDGE, *(TAGS[number] for number in tag_indices), tags.EDGE]
        for at, word in enumerate(words):
            if word >= 0:
                counts[word, names[at], names[at + 1], names[at + 2]] += 1
    return counts


def tag_formula(
    seen: Counter[tuple[int, str, str, str]], word: int, left: set[str], tag: set[str], right: set[str]
) -> float:
    """2 log R + 1.5 log F for one word, by loops over all counts."""
    of_tag: Counter[str] = Counter()
    of_word: Counter[str] = Counter()
    context: Counter[str] = Counter()
    in_context = wanted = 0
    for (w, a, y, b), count in seen.items():
        of_tag[y] += count
        of_word[y] += count * (w == word)
        inside = a in left and b in right
        context[y] += count * inside
        in_context += count * (inside and w == word)
        wanted += count * (inside and w == word and y in tag)
    total, occurrences = of_tag.total(), of_word.total()
    by_word = {y: (of_word[y] + 0.5 * of_tag[y] / total) / (occurrences + 0.5) for y in TAGS}
    expected = {y: by_word[y] * context[y] / of_tag[y] for y in TAGS}
    everything = sum(expected.values())
    prior = sum(expected[y] for y in TAGS if y in tag) / everything if everything else 0.0
    right_tag = (wanted + 2 * prior) / (in_context + 2)
    neighbours = max((in_context + 10 * everything) / (occurrences + 10), 1e-4)
    return 2 * math.log(right_tag if right_tag >= 0.5 else 1e-6) + 1.5 * math.log(neighbours)


@pytest.mark.parametrize("text", [["A", "N", "V"], ["N"], ["V|A", "*", "N"], ["*", "*", "*"], ["A|N|V", "V", "*|A"]])
def test_tag_evidence_is_its_formula(
    table: CountTable, seen: Counter[tuple[int, str, str, str]], text: list[str]
) -> None:
    evidence = tags.TagEvidence(table).evidence([text], len(text) + 2).at()
    everything = {*TAGS, tags.EDGE}
    allowed = [{tags.EDGE}, *(everything if "*" in tag else set(tag.split("|")) for tag in text), {tags.EDGE}]
    for place in range(len(text)):
        expected = [tag_formula(seen, word, *allowed[place : place + 3]) for word in range(SIZE)]
        assert evidence[0, place + 1].tolist() == pytest.approx(expected, abs=1e-4)
    assert not evidence[:, [0, -1]].any()


def test_a_word_with_neither_tag_nor_neighbours_wanted_has_no_evidence(table: CountTable) -> None:
    evidence = tags.TagEvidence(table).evidence([["A", "*", "*", "*", "A"]], 7).at()
    assert evidence[0, 3].abs().max() < 1e-6
    assert evidence[0, 2].abs().max() > 0.01


def test_alternatives_sum_the_counts_of_their_classes(table: CountTable) -> None:
    both = table.allowed(1, ["A", "N"]) & table.allowed(0, ["V"])
    separate = [table.allowed(1, [tag]) & table.allowed(0, ["V"]) for tag in ("A", "N")]
    summed, *parts = table.sums(np.stack([both, *separate]))
    assert np.array_equal(summed, parts[0] + parts[1])
    assert summed.sum() > 0
    assert np.array_equal(table.sums(np.ones((1, len(table.combinations)), bool))[0], table.word_totals)


def test_a_batch_takes_a_row_for_each_different_target(table: CountTable) -> None:
    maker = tags.TagEvidence(table)
    batch = maker.evidence([["A", "N"], ["A", "N"], ["V"]], 4)
    assert batch.rows.shape == (4, SIZE)  # the empty one, and three targets
    assert torch.equal(batch.scaled(2).at(), 2 * batch.rows[batch.index])
    assert torch.equal(batch.at()[2, :3], maker.evidence([["V"]], 3).at()[0])
    assert not batch.at()[2, 3].any()


TREES = [
    "(S (NP (PRP They)) (VP (VBD saw) (NP (DT the) (JJ old) (NN house))) (. .))",
    "(S (NP (DT the) (NN house)) (VP (VBD fell)) (. .))",
    "(SQ (VBD fell) (NP (DT the) (JJ old) (NN house)) (. ?))",
    "(INTJ (UH yes))",
]
WORDS = ["They", "saw", "the", "old", "house", ".", "fell", "?", "yes", "never"]


def test_leaf_classes_are_tag_parent_and_next_sister() -> None:
    assert spans.leaf_classes(read_tree(TREES[0])) == [
        ("PRP", "NP", "-"),
        ("VBD", "VP", "NP"),
        ("DT", "NP", "JJ"),
        ("JJ", "NP", "NN"),
        ("NN", "NP", "-"),
        (".", "S", "-"),
    ]


def test_a_word_right_under_the_root_has_no_parent() -> None:
    assert spans.leaf_classes(read_tree("(ROOT (UH yes) (. .))")) == [("UH", "-", "."), (".", "-", "-")]


def ids_of(tree: str) -> list[int]:
    return [WORDS.index(leaf.word) for leaf in read_tree(tree).leaves()]


def test_leaf_evidence_is_its_formula() -> None:
    parsed = [(ids_of(tree), spans.leaf_classes(read_tree(tree))) for tree in TREES]
    evidence = spans.LeafEvidence(spans.count_leaves(parsed, len(WORDS))).evidence([read_tree(TREES[0])], 8).at()[0]
    seen = Counter((word, leaf) for ids, leaves in parsed for word, leaf in zip(ids, leaves, strict=True))
    every_tag = Counter[str]()
    for (_, leaf), count in seen.items():
        every_tag[leaf[0]] += count
    for place, leaf in enumerate(spans.leaf_classes(read_tree(TREES[0])), start=1):
        in_class = sum(count for (_, other), count in seen.items() if other == leaf)
        for word in range(len(WORDS)):
            word_counts = Counter({other: count for (w, other), count in seen.items() if w == word})
            with_tag = sum(count for other, count in word_counts.items() if other[0] == leaf[0])
            tag = (with_tag + 0.5 * every_tag[leaf[0]] / every_tag.total()) / (word_counts.total() + 0.5)
            share = (word_counts[leaf] + 2 * tag * in_class / every_tag[leaf[0]]) / (word_counts.total() + 2)
            assert evidence[place, word].item() == pytest.approx(math.log(max(share, 1e-7)), abs=1e-4)


def test_for_an_unseen_leaf_the_values_that_were_seen_together_count() -> None:
    parsed = [(ids_of(tree), spans.leaf_classes(read_tree(tree))) for tree in TREES]
    maker = spans.LeafEvidence(spans.count_leaves(parsed, len(WORDS)))
    unseen, known = maker.rows([("DT", "PP", "XX"), ("DT", "NP", "XX")])
    assert np.array_equal(unseen, known)  # every determiner is in a noun phrase here
    assert unseen.argmax() == WORDS.index("the")
    (new,) = maker.rows([("NEW", "NP", "-")])
    assert new.argmax() in (WORDS.index("They"), WORDS.index("house"))  # which end noun phrases
    assert not maker.rows([("NEW", "NEW", "NEW")]).any()


def test_span_evidence_prefers_words_seen_in_that_part_of_a_span() -> None:
    parsed = []
    for text in TREES:
        tree = read_tree(text)
        parsed.append((ids_of(text), [leaf.label for leaf in tree.leaves()], labelled_spans(tree)))
    table = spans.count_spans(parsed, len(WORDS))
    evidence = spans.SpanEvidence(table).evidence([(5, [(2, 4, "NP")]), (3, [])], 7).at()
    assert evidence[0, 3].argmax() == WORDS.index("the")
    assert evidence[0, 5].argmax() == WORDS.index("house")
    assert not evidence[0, 1].any()  # neither in the span nor adjacent to it
    assert evidence[0, 2].any()
    assert not evidence[1].any()
    # "the" began a noun phrase of three words in two of its three occurrences; smoothing shifts this slightly.
    first = spans.SpanEvidence(table).rows([(("first", "NP", "3"),)])[0]
    assert math.exp(first[WORDS.index("the")]) == pytest.approx(2 / 3, abs=0.1)


def test_a_span_outside_the_text_gives_no_evidence() -> None:
    # As under `not`, where texts can have any length.
    outside = [(5, 9, "NP"), (3, 5, "NP"), (4, 4, "NP")]
    assert list(spans.span_parts(outside, 4)) == []
    assert list(spans.span_parts([*outside, (1, 1, "NP")], 4)) == list(spans.span_parts([(1, 1, "NP")], 4))
    parsed = [(ids_of(TREES[0]), [leaf.label for leaf in read_tree(TREES[0]).leaves()], [])]
    evidence = spans.SpanEvidence(spans.count_spans(parsed, len(WORDS))).evidence([(4, outside)], 7).at()
    assert not evidence.any()


def test_the_bag_is_exact_for_every_word() -> None:
    generator = torch.Generator().manual_seed(0)
    bag = bags.Bag(("x", "y", "z"), 3 * torch.randn(5, 3, generator=generator), torch.randn(3, generator=generator))
    ids = torch.tensor([[0, 3, 1, 4], [2, 2, 0, 1]])
    evidence = bags.evidence(bag, bag.weights[ids], torch.tensor([0, 2]))
    for row, place, word in itertools.product(range(2), range(4), range(5)):
        text = ids[row].clone()
        text[place] = word
        expected = (bag.weights[text].sum(0) + bag.bias).log_softmax(0)[2 * row]
        assert evidence[row, place, word].item() == pytest.approx(expected.item(), abs=1e-4)


def test_the_bag_lowers_the_wanted_label_by_the_margin() -> None:
    bag = bags.Bag(("x", "y"), torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.zeros(2))
    evidence = bags.evidence(bag, torch.zeros(1, 1, 2), torch.tensor([0]), margin=3.0)
    assert torch.allclose(evidence[0, 0], torch.nn.functional.logsigmoid(torch.tensor([2.0 - 3.0, -3.0])))


def test_words_without_weights_have_the_evidence_that_is_computed_with_all() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.zeros(9, 3).index_copy(0, torch.tensor([2, 7]), torch.randn(2, 3, generator=generator))
    bag = bags.Bag(("x", "y", "z"), weights, torch.randn(3, generator=generator))
    assert bag.weighted is not None
    assert bag.weighted.tolist() == [2, 7]
    scores, wanted = torch.randn(2, 4, 3, generator=generator), torch.tensor([1, 2])
    evidence = bags.evidence(bag, scores, wanted, margin=1.0)
    # Two words with weights of three are too many to be worth it.
    few = bags.Bag(bag.labels, weights[[2, 7, 0]], bag.bias)
    assert few.weighted is None
    of_few = bags.evidence(few, scores, wanted, margin=1.0)
    assert torch.allclose(evidence, of_few[..., [2, 2, 0, 2, 2, 2, 2, 1, 2]])


def test_open_places_count_with_their_expected_weights() -> None:
    bag = bags.Bag(("x", "y"), torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), torch.zeros(2))
    open_place = torch.tensor([[[0.25, 0.25, 0.5], [1.0, 0.0, 0.0]]])
    scores = bag.expected(open_place)
    assert scores.tolist() == [[[0.5, 0.5], [2.0, 0.0]]]
    evidence = bags.evidence(bag, scores, torch.tensor([0]))
    sigmoid = torch.nn.functional.logsigmoid(torch.tensor([4.0, 0.0, 2.0]))  # the other place gives x two nats more
    assert torch.allclose(evidence[0, 0], sigmoid, atol=1e-5)


def test_far_apart_scores_neither_overflow_nor_vanish() -> None:
    bag = bags.Bag(("x", "y"), torch.tensor([[60.0, 0.0], [0.0, 0.0]]), torch.zeros(2))
    scores = torch.tensor([[[0.0, 0.0], [0.0, 400.0]]])
    evidence = bags.evidence(bag, scores, torch.tensor([0]))[0]
    assert evidence[0].tolist() == pytest.approx([-340.0, -400.0], abs=1e-3)
    assert evidence[1].tolist() == pytest.approx([0.0, math.log(0.5)], abs=1e-5)


def test_a_fitted_bag_predicts_its_labels() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400).tolist()
    texts = [[int(label), *rng.integers(2, 8, 4).tolist()] for label in labels]
    bag = bags.fit_bag(texts, labels, ["no", "yes"], 8, steps=60, lr=0.1)
    predicted = (bag.weights[torch.tensor(texts)].sum(1) + bag.bias).argmax(1)
    assert predicted.tolist() == labels
    again = bags.fit_bag(texts, labels, ["no", "yes"], 8, steps=60, lr=0.1)
    assert torch.equal(bag.weights, again.weights)


def test_texts_that_are_not_learned_from_leave_the_weights_as_they_are() -> None:
    texts, labels = [[0, 2], [1, 2]] * 20, [0, 1] * 20
    alone, beside = (
        bags.fit_bag([*texts, *others], [*labels, *[0] * len(others)], ["no", "yes"], 4, steps=60, weights=weights)
        for others, weights in (
            ([], torch.ones(40)),
            ([[3]] * 360, torch.cat([torch.full((40,), 10.0), torch.zeros(360)])),
        )
    )
    assert torch.allclose(alone.weights, beside.weights, atol=1e-3)


def test_texts_are_balanced_over_labels_and_sources() -> None:
    labels, sources = [0, 0, 0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 2, 2]
    share = bags.balanced(labels, sources, least=1)
    total = dict.fromkeys(itertools.product((0, 1), (0, 1, 2)), 0.0)
    for label, source, weight in zip(labels, sources, share.tolist(), strict=True):
        total[label, source] += weight
    assert total[0, 0] == pytest.approx(total[1, 0]) == pytest.approx(total[0, 1]) == pytest.approx(total[1, 1])
    assert total[1, 2] == 0  # a source of one label
    # With ``least`` 3, three texts and one text of label 0 count as three and one.
    few = bags.balanced(labels, sources, least=3)
    assert few[4] == pytest.approx(few[0])
    assert few[labels.index(0) : 3].sum() == pytest.approx(3 * few[4])


def test_a_label_without_sources_of_several_labels_is_still_learned() -> None:
    # Every source has one label, as if the source were the label.
    share = bags.balanced([0, 0, 1, 1, 1], [0, 1, 2, 2, 3], least=1)
    assert share.min() > 0
    assert share[:2].sum() == pytest.approx(share[2:].sum())
    # Label 2 only has a source of its own; label 1 is learned from the source that it shares with label 0.
    share = bags.balanced([0, 1, 1, 2], [0, 0, 1, 2], least=1)
    assert share[2] == 0
    assert share[[0, 1]] == pytest.approx(share[[1, 3]])


def test_a_few_texts_of_a_source_of_several_labels_do_not_decide_alone() -> None:
    # As if the source were the address of each text, and one of them occurred twice.
    share = bags.balanced([0, 1, *[0, 1] * 10], [0, 0, *range(1, 21)])
    assert share.min() > 0


def test_a_table_round_trips(table: CountTable, tmp_path: Path) -> None:
    path = tmp_path / "tags.safetensors"
    many = count_table([["a"], ["b", "c"]], np.repeat([0, 2], [70_000, 3]), np.zeros((70_003, 2), np.int64), 3, "other")
    for saved in (table, many, pruned(table, 10**6)):
        save_table(saved, path)
        loaded = load_table(path, saved.vocabulary)
        assert loaded.axes == saved.axes
        for name in ("combinations", "starts", "classes", "counts"):
            assert np.array_equal(getattr(loaded, name), getattr(saved, name)), name
    assert many.word_totals.tolist() == [70_000, 0, 3]


def test_pruning_removes_only_rare_cells(table: CountTable) -> None:
    pruned_table = pruned(table, 3)
    assert pruned_table.counts.min() == 3
    assert pruned_table.counts.sum() == table.counts[table.counts >= 3].sum()
    rare = table.word_totals - pruned_table.word_totals
    assert rare.sum() == table.counts[table.counts < 3].sum()


def test_a_bag_round_trips_in_half_precision(tmp_path: Path) -> None:
    bag = bags.Bag(("x", "y"), torch.randn(4, 2).half().float(), torch.randn(2), "words")
    bags.save_bag(bag, tmp_path / "kind.safetensors")
    loaded = bags.load_bag(tmp_path / "kind.safetensors", "words")
    assert loaded.labels == bag.labels
    assert torch.equal(loaded.weights, bag.weights)
    assert torch.equal(loaded.bias, bag.bias)


@pytest.mark.parametrize("fault", ["missing", "cut", "other", "class", "sizes", "negative", "axes", "large"])
def test_a_damaged_table_is_one_model_error(table: CountTable, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "tags.safetensors"
    save_table(table, path)
    arrays = load_file(path)
    metadata = {"format": 1, "axes": table.axes, "vocabulary": "", "words": SIZE}
    if fault == "missing":
        path.unlink()
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif fault == "other":
        save_file(arrays, path, {"format": "pt"})
    else:
        if fault == "axes":
            metadata["axes"] = [["A"]]
        elif fault == "class":
            arrays["classes"] = arrays["classes"] + 60_000
        elif fault == "sizes":
            arrays["sizes"] = arrays["sizes"][:-1]
        elif fault == "negative":  # the sum is right
            arrays["sizes"] = arrays["sizes"].astype(np.int64)
            arrays["sizes"][0] += 1 + arrays["sizes"][1]
            arrays["sizes"][1] = -1
        elif fault == "large":
            arrays["large"] = np.array([300], np.uint32)
        save_file(arrays, path, {"evidence": json.dumps(metadata)})
    with pytest.raises(ModelError, match=r"missing|damaged") as error:
        load_table(path)
    assert len(str(error.value)) < 500


def test_evidence_of_other_words_is_refused(table: CountTable, tmp_path: Path) -> None:
    save_table(table, tmp_path / "tags.safetensors")
    with pytest.raises(ModelError, match="another vocabulary"):
        load_table(tmp_path / "tags.safetensors", "different")
    bag = bags.Bag(("x", "y"), torch.zeros(4, 2), torch.zeros(2), "words")
    bags.save_bag(bag, tmp_path / "bag.safetensors")
    with pytest.raises(ModelError, match="another vocabulary"):
        bags.load_bag(tmp_path / "bag.safetensors", "different")


def test_a_damaged_bag_is_one_model_error(tmp_path: Path) -> None:
    path = tmp_path / "bag.safetensors"
    bag = bags.Bag(("x", "y"), torch.zeros(4, 2), torch.zeros(2))
    for broken in (
        bags.Bag(("x",), bag.weights, bag.bias),
        bags.Bag(bag.labels, bag.weights * torch.nan, bag.bias),
        bags.Bag(bag.labels, bag.weights, bag.bias * torch.nan),
        bags.Bag(bag.labels, bag.weights, torch.zeros(3)),
        bags.Bag(bag.labels, torch.tensor([[500.0, 0.0]]), bag.bias),
    ):
        bags.save_bag(broken, path)
        with pytest.raises(ModelError, match="damaged"):
            bags.load_bag(path)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="damaged"):
        bags.load_bag(path)


def test_products_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    chosen, left, right = rng.random((4, 9)) < 0.3, rng.random((9, 5)), rng.random((7, 5)).T
    np.testing.assert_allclose(product(chosen, left, right), chosen @ left @ right)
    assert product(chosen, left.astype(np.float32)).dtype == np.float32
