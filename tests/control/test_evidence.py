"""Evidence tables against their formulas written out, one word and one class at a time."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dlmctl.control.evidence import tags
from dlmctl.control.evidence.prepared import Evidence
from dlmctl.control.evidence.table import CountTable, count_table, load_table, pruned, save_table
from dlmctl.errors import ModelError

TAGS = ["A", "N", "V"]
SIZE = 9


@pytest.fixture(scope="module")
def sentences() -> list[tuple[list[int], list[int]]]:
    """Random words that lean to one tag each; word 8 never occurs, -1 is no word of the vocabulary."""
    rng = np.random.default_rng(0)
    made = []
    for length in rng.integers(1, 7, 80):
        words = rng.integers(-1, SIZE - 1, length)
        found = np.where(rng.random(length) < 0.7, words % 3, rng.integers(0, 3, length))
        made.append((words.tolist(), found.tolist()))
    return made


@pytest.fixture(scope="module")
def table(sentences: list[tuple[list[int], list[int]]]) -> CountTable:
    return tags.count_tags(sentences, TAGS, SIZE, "words")


@pytest.fixture(scope="module")
def seen(sentences: list[tuple[list[int], list[int]]]) -> Counter[tuple[int, str, str, str]]:
    """The same counts by plain iteration: (word, left, tag, right)."""
    found: Counter[tuple[int, str, str, str]] = Counter()
    for words, numbers in sentences:
        names = [tags.EDGE, *(TAGS[number] for number in numbers), tags.EDGE]
        for at, word in enumerate(words):
            if word >= 0:
                found[word, names[at], names[at + 1], names[at + 2]] += 1
    return found


def tag_formula(
    seen: Counter[tuple[int, str, str, str]], word: int, left: set[str], tag: set[str], right: set[str]
) -> float:
    """2 log R + 1.5 log F for one word, by loops over all counts."""
    of_tag: Counter[str] = Counter()
    of_word: Counter[str] = Counter()
    context: Counter[str] = Counter()
    around = wanted = 0
    for (w, a, y, b), count in seen.items():
        of_tag[y] += count
        of_word[y] += count * (w == word)
        inside = a in left and b in right
        context[y] += count * inside
        around += count * (inside and w == word)
        wanted += count * (inside and w == word and y in tag)
    total, occurrences = of_tag.total(), of_word.total()
    by_word = {y: (of_word[y] + 0.5 * of_tag[y] / total) / (occurrences + 0.5) for y in TAGS}
    expected = {y: by_word[y] * context[y] / of_tag[y] for y in TAGS}
    everything = sum(expected.values())
    prior = sum(expected[y] for y in TAGS if y in tag) / everything if everything else 0.0
    right_tag = (wanted + 2 * prior) / (around + 2)
    neighbours = max((around + 10 * everything) / (occurrences + 10), 1e-4)
    return 2 * math.log(right_tag if right_tag >= 0.5 else 1e-6) + 1.5 * math.log(neighbours)


@pytest.mark.parametrize("text", [["A", "N", "V"], ["N"], ["V|A", "*", "N"], ["*", "*", "*"], ["A|N|V", "V", "*|A"]])
def test_tag_evidence_is_its_formula(
    table: CountTable, seen: Counter[tuple[int, str, str, str]], text: list[str]
) -> None:
    found = tags.TagEvidence(table).evidence([text], len(text) + 2).at()
    everything = {*TAGS, tags.EDGE}
    asked = [{tags.EDGE}, *(everything if "*" in tag else set(tag.split("|")) for tag in text), {tags.EDGE}]
    for place in range(len(text)):
        wanted = [tag_formula(seen, word, *asked[place : place + 3]) for word in range(SIZE)]
        assert found[0, place + 1].tolist() == pytest.approx(wanted, abs=1e-4)
    assert not found[:, [0, -1]].any()


def test_a_word_with_neither_tag_nor_neighbours_wanted_has_no_evidence(table: CountTable) -> None:
    found = tags.TagEvidence(table).evidence([["A", "*", "*", "*", "A"]], 7).at()
    assert found[0, 3].abs().max() < 1e-6
    assert found[0, 2].abs().max() > 0.01


def test_alternatives_sum_the_counts_of_their_classes(table: CountTable) -> None:
    both = table.allowed(1, ["A", "N"]) & table.allowed(0, ["V"])
    apart = [table.allowed(1, [tag]) & table.allowed(0, ["V"]) for tag in ("A", "N")]
    summed, *parts = table.sums(np.stack([both, *apart]))
    assert np.array_equal(summed, parts[0] + parts[1])
    assert summed.sum() > 0
    assert np.array_equal(table.sums(np.ones((1, len(table.combinations)), bool))[0], table.word_totals)


def test_a_batch_takes_a_row_for_each_different_target(table: CountTable) -> None:
    maker = tags.TagEvidence(table)
    batch = maker.evidence([["A", "N"], ["A", "N"], ["V"]], 4)
    assert batch.rows.shape == (4, SIZE)  # the empty one, and three targets
    logits = torch.randn(3, 4, SIZE)
    assert torch.equal(batch.scaled(2).add(logits), logits + 2 * batch.rows[batch.index])
    open_places = torch.rand(3, 4) < 0.5
    assert torch.equal(batch.at(open_places), batch.at()[open_places])
    assert torch.equal(batch.at()[2, :3], maker.evidence([["V"]], 3).at()[0])
    assert not batch.at()[2, 3].any()


def test_a_table_comes_back_as_it_was_saved(table: CountTable, tmp_path: Path) -> None:
    path = tmp_path / "tags.safetensors"
    many = count_table([["a"], ["b", "c"]], np.repeat([0, 2], [70_000, 3]), np.zeros((70_003, 2), np.int64), 3, "other")
    for one in (table, many, pruned(table, 10**6)):
        save_table(one, path)
        again = load_table(path, one.vocabulary)
        assert again.axes == one.axes
        for name in ("combinations", "starts", "classes", "counts"):
            assert np.array_equal(getattr(again, name), getattr(one, name)), name
    assert many.word_totals.tolist() == [70_000, 0, 3]


def test_pruning_leaves_out_rare_cells_only(table: CountTable) -> None:
    kept = pruned(table, 3)
    assert kept.counts.min() == 3
    assert kept.counts.sum() == table.counts[table.counts >= 3].sum()
    rare = table.word_totals - kept.word_totals
    assert rare.sum() == table.counts[table.counts < 3].sum()


@pytest.mark.parametrize("fault", ["missing", "cut", "other", "class", "sizes", "axes", "large"])
def test_a_damaged_table_is_one_model_error(table: CountTable, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "tags.safetensors"
    save_table(table, path)
    arrays = load_file(path)
    about = {"format": 1, "axes": table.axes, "vocabulary": "", "words": SIZE}
    if fault == "missing":
        path.unlink()
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif fault == "other":
        save_file(arrays, path, {"format": "pt"})
    else:
        if fault == "axes":
            about["axes"] = [["A"]]
        elif fault == "class":
            arrays["classes"] = arrays["classes"] + 60_000
        elif fault == "sizes":
            arrays["sizes"] = arrays["sizes"][:-1]
        elif fault == "large":
            arrays["large"] = np.array([300], np.uint32)
        save_file(arrays, path, {"evidence": json.dumps(about)})
    with pytest.raises(ModelError, match=r"missing|damaged") as caught:
        load_table(path)
    assert len(str(caught.value)) < 500


def test_evidence_of_other_words_is_refused(table: CountTable, tmp_path: Path) -> None:
    save_table(table, tmp_path / "tags.safetensors")
    with pytest.raises(ModelError, match="another vocabulary"):
        load_table(tmp_path / "tags.safetensors", "different")


def test_evidence_moves_to_a_device_and_keeps_the_logits_type() -> None:
    found = Evidence(torch.ones(2, 3), torch.tensor([[0, 1]])).to("cpu")
    assert found.add(torch.zeros(1, 2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
