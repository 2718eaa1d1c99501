import json
import shutil

import numpy as np
import pytest

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.datasets.dataset import load_split, load_vocabulary
from dlmctl.datasets.existing_tokenizer import find_tokenizer
from dlmctl.datasets.prepare import prepare
from dlmctl.errors import DataError, UserError
from dlmctl.text.tokenizer import HuggingFaceTokenizer, WordTokenizer
from tests.checkpoint.tiny_vendors import write_llada
from tests.test_tokenizer import word_pieces

KINDS, PLACES = ["inn", "bar", "cafe", "club"], ["quay", "park", "mill", "lane", "moor"]
TEXTS = [f"The {kind} is by the {place}." for kind in KINDS for place in PLACES]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": text, "number": number}) for number, text in enumerate(TEXTS)]
    path.write_text("\n".join(lines) + "\n")
    return path


def run(source, tmp_path, valid=None, out="set", **settings):
    defaults = {"length": 12} if settings.get("tokenizer") else {"length": 12, "min_count": 1}
    return prepare(source, valid, tmp_path / out, **{**defaults, **settings})


def texts_of(folder, split):
    tokenizer, rows = load_vocabulary(folder), load_split(folder, split)
    return [" ".join(tokenizer.words(rows.row(at).tolist())) for at in range(len(rows))]


def test_every_text_is_in_one_split_with_its_fields(source, tmp_path):
    report = run(source, tmp_path, valid_share=0.2)
    by_split = {split: texts_of(tmp_path / "set", split) for split in ("train", "valid")}
    assert (len(by_split["train"]), len(by_split["valid"])) == (16, 4)
    assert sorted(by_split["train"] + by_split["valid"]) == sorted(text.replace(".", " .") for text in TEXTS)
    for split, texts in by_split.items():
        fields = load_split(tmp_path / "set", split).read_fields()
        assert [TEXTS[row["number"]].replace(".", " .") for row in fields] == texts
    assert report.splits["train"].words == 16 * 7
    assert report.vocabulary == 4 + len({word for text in by_split["train"] for word in text.split()})
    saved = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert saved["splits"]["train"]["rows"] == 16
    assert saved["fields"] == ["number"]


def test_the_rows_held_out_follow_from_the_seed(source, tmp_path):
    valid_texts = []
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(source, tmp_path, out=out, seed=seed)
        valid_texts.append(texts_of(tmp_path / out, "valid"))
    assert valid_texts[0] == valid_texts[1] != valid_texts[2]


@pytest.mark.parametrize(("texts", "share", "held_out"), [(2, 0.05, 1), (10, 0.05, 1), (10, 0.25, 2), (4, 0.99, 3)])
def test_of_few_texts_at_least_one_is_held_out_and_one_is_left(tmp_path, texts, share, held_out):
    path = tmp_path / "few.txt"
    path.write_text("\n".join(TEXTS[:texts]))
    report = run(path, tmp_path, valid_share=share)
    assert {name: split.rows for name, split in report.splits.items()} == {
        "train": texts - held_out,
        "valid": held_out,
    }


def test_the_fewest_equal_texts_are_held_out_where_all_are_more_than_the_share(tmp_path):
    path = tmp_path / "few.txt"
    path.write_text("\n".join([TEXTS[0]] * 4 + [TEXTS[1]] * 3 + [TEXTS[2]] * 4))
    report = run(path, tmp_path, valid_share=0.1)
    assert {name: split.rows for name, split in report.splits.items()} == {"train": 8, "valid": 3}


def test_equal_texts_stay_on_one_side(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(TEXTS * 3))
    run(path, tmp_path, valid_share=0.3)
    train, valid = (set(texts_of(tmp_path / "set", split)) for split in ("train", "valid"))
    assert not train & valid
    report = run(path, tmp_path, out="once", unique=True)
    assert report.splits["train"].dropped == {"duplicate": 40}
    assert report.splits["train"].examples["duplicate"][0] == "line 21"


def test_rare_words_become_unk_and_are_counted(source, tmp_path):
    report = run(source, tmp_path, valid=source, min_count=5)  # a place occurs four times
    assert report.vocabulary == 4 + 5 + len(KINDS)  # The is by the .
    assert report.splits["valid"].unknown == len(TEXTS)
    assert report.splits["valid"].unknown_share == pytest.approx(1 / 7)


def test_texts_too_long_are_dropped_with_their_line(source, tmp_path):
    with source.open("a") as file:
        file.write(json.dumps({"text": "a " * 20}) + "\n")
    split = run(source, tmp_path, valid=source).splits["train"]
    assert split.dropped == {"too long": 1}
    assert split.examples == {"too long": ["line 21: 20 words, 10 fit"]}
    assert split.lengths["max"] == 7


def test_blocks_hold_the_joined_texts(source, tmp_path):
    report = run(source, tmp_path, valid=source, packing="block", length=16)
    rows = load_split(tmp_path / "set", "train")
    assert rows.lengths.tolist() == [16] * (20 * 9 // 16)
    joined = np.concatenate([rows.row(at) for at in range(len(rows))])
    tokenizer = load_vocabulary(tmp_path / "set")
    assert joined.tolist() == [i for text in TEXTS for i in tokenizer.encode(tokenizer.split(text))][: len(joined)]
    assert report.splits["train"].cut_off == 20 * 9 - len(joined)


def test_an_existing_vocabulary_is_used(source, tmp_path):
    run(source, tmp_path)
    known = find_tokenizer(str(tmp_path / "set"), None)
    (tmp_path / "new.txt").write_text("The inn is shut.\nThe mill is by the inn.\n")
    report = run(tmp_path / "new.txt", tmp_path, out="new", valid=source, tokenizer=known)
    assert load_vocabulary(tmp_path / "new").vocabulary == load_vocabulary(tmp_path / "set").vocabulary
    assert report.splits["train"].unknown == 1
    assert report.min_count is None


def test_words_are_added_to_an_existing_vocabulary(source, tmp_path):
    run(source, tmp_path)
    known = find_tokenizer(str(tmp_path / "set"), None)
    (tmp_path / "new.txt").write_text("The inn is shut.\nThe shed is shut by the inn.\n")
    report = run(tmp_path / "new.txt", tmp_path, out="new", valid=source, tokenizer=known, add_words=2)
    words = load_vocabulary(tmp_path / "new").vocabulary
    assert list(words) == [*known.vocabulary, "shut"]  # "shed" occurs once
    assert words["shut"] == len(known)
    assert (report.vocabulary, report.min_count, report.splits["train"].unknown) == (len(known) + 1, 2, 1)


def test_a_minimum_count_is_not_ignored_beside_an_existing_vocabulary(source, tmp_path):
    run(source, tmp_path)
    known = find_tokenizer(str(tmp_path / "set"), None)
    said = "--min-count: is for a new vocabulary, and an existing one was given. Leave it out"
    for add_words, remedy in ((None, ", or add words of the texts with --add-words."), (2, ".")):
        with pytest.raises(UserError) as caught:
            run(source, tmp_path, out="new", tokenizer=known, min_count=3, add_words=add_words)
        assert str(caught.value) == said + remedy
    assert not (tmp_path / "new").exists()


def test_words_that_are_seen_too_rarely_are_unknown_by_default(source, tmp_path):
    report = prepare(source, source, tmp_path / "set", length=12)
    assert report.min_count == 11


def test_words_cannot_be_added_to_nothing_or_to_tokens(source, tmp_path):
    for tokenizer in (None, HuggingFaceTokenizer(word_pieces(tmp_path / "pieces"))):
        with pytest.raises(UserError, match="--add-words: there is no vocabulary of whole words to add to"):
            run(source, tmp_path, tokenizer=tokenizer, add_words=2)
    run(source, tmp_path)
    with pytest.raises(UserError, match="--add-words: the minimum count is 0"):
        run(source, tmp_path, out="new", tokenizer=find_tokenizer(str(tmp_path / "set"), None), add_words=0)


def test_find_tokenizer(model_folder, tmp_path):
    assert find_tokenizer(None, None) is None
    assert isinstance(find_tokenizer(str(model_folder), None), WordTokenizer)
    with pytest.raises(UserError, match="exclude each other"):
        find_tokenizer("e2e", "gpt2")
    with pytest.raises(UserError, match="no such model"):
        find_tokenizer(str(tmp_path / "nothing"), None)


def test_only_a_prepared_set_is_replaced_and_only_when_told(source, tmp_path):
    run(source, tmp_path)
    with pytest.raises(DataError, match="exists already"):
        run(source, tmp_path)
    run(source, tmp_path, length=14, overwrite=True)
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["length"] == 14
    (tmp_path / "set" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match=r"holds other files \(thesis.tex\)"):
        run(source, tmp_path, overwrite=True)
    with pytest.raises(DataError, match="is a file"):
        run(source, tmp_path, out="texts.jsonl", overwrite=True)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_set_that_was_there(source, tmp_path, monkeypatch, error):
    run(source, tmp_path)
    before = texts_of(tmp_path / "set", "train")

    def full(*_arguments):
        raise error

    monkeypatch.setattr("dlmctl.datasets.prepare.write_split", full)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        run(source, tmp_path, overwrite=True)
    if isinstance(error, OSError):
        assert "set: cannot be written: No space left on device." in str(caught.value)
    assert texts_of(tmp_path / "set", "train") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "texts.jsonl"]


def test_an_interruption_while_replacing_brings_the_old_set_back(source, tmp_path, monkeypatch):
    import os

    run(source, tmp_path)
    replace, moves = os.replace, []

    def interrupted(a, b):
        moves.append(a)
        if len(moves) == 2:
            raise KeyboardInterrupt
        replace(a, b)

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path, overwrite=True)
    assert len(texts_of(tmp_path / "set", "train")) == 19


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_count": 0}, "--min-count: the minimum count is 0. It must be 1 or more."),
        ({"length": 2}, "--length"),
        ({"valid_share": 1.0}, "--valid-share"),
        ({"valid_share": float("nan")}, "--valid-share"),
        ({"min_count": 1000}, "no word occurs 1000 times"),
        ({"length": 5}, "no text can be used: 19 too long (line 1: 7 words, 3 fit). Choose a larger --length"),
        ({"packing": "block", "length": 4000}, "give more text"),
        ({"text_field": "body"}, "no text can be used: 20 unreadable (line 1: no field 'body' among text, number)"),
    ],
)
def test_settings_that_leave_nothing_are_said(source, tmp_path, settings, message):
    with pytest.raises(UserError) as caught:
        run(source, tmp_path, **settings)
    assert message in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_lines_of_several_sentences_are_told_where_none_fits(tmp_path):
    (tmp_path / "story.txt").write_text("The inn is old. Nobody goes there now.\n" * 2 + "We left. It rained a bit.\n")
    with pytest.raises(DataError, match=r"can be used: .* too long .*--format prose makes each sentence a text"):
        run(tmp_path / "story.txt", tmp_path, length=5, min_count=1)


def test_one_text_cannot_be_split(tmp_path):
    (tmp_path / "one.txt").write_text("The inn.\n" * 5)
    with pytest.raises(DataError, match="too few different texts"):
        run(tmp_path / "one.txt", tmp_path)


def test_words_are_split_as_the_vocabulary_has_them(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("You don't say.\nI can't go.\nHe won't stay.\n")
    run(path, tmp_path, splitting="penn", valid_share=0.3)
    tokenizer = load_vocabulary(tmp_path / "set")
    assert tokenizer.splitting == "penn"
    texts = texts_of(tmp_path / "set", "train") + texts_of(tmp_path / "set", "valid")
    assert all(" n't " in text or "UNK" in text for text in texts)
    run(path, tmp_path, out="same", tokenizer=tokenizer, valid_share=0.3)
    assert texts_of(tmp_path / "same", "train") == texts_of(tmp_path / "set", "train")
    run(path, tmp_path, splitting="penn", overwrite=True)  # what it replaces is all of it its own
    with pytest.raises(UserError, match="--splitting: the words of the vocabulary are split as 'penn'"):
        run(path, tmp_path, out="other", tokenizer=tokenizer, splitting="e2e")


def test_words_get_labels_where_the_source_has_none(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [{"text": text, "upos": ["X"] * 7} if number % 2 else {"text": text} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(path, tmp_path, tagger=lambda sentences: [[word.upper() for word in words] for words in sentences])
    for split in ("train", "valid"):
        for text, fields in zip(
            texts_of(tmp_path / "set", split), load_split(tmp_path / "set", split).read_fields(), strict=True
        ):
            assert fields["upos"] in (text.upper().split(), ["X"] * 7)
            assert (fields["upos"] == ["X"] * 7) == (TEXTS.index(text.replace(" .", ".")) % 2 == 1)
    with pytest.raises(UserError, match=r"--tags: word labels need.* Leave out --packing block\.$"):
        run(path, tmp_path, out="blocks", packing="block", tagger=lambda sentences: [])
    checkpoint = find_tokenizer(str(write_llada(tmp_path / "checkpoint")), None)
    with pytest.raises(UserError, match=r"--tags: word labels need.* `dlmctl train control` finds the tags itself"):
        run(path, tmp_path, out="tokens", tokenizer=checkpoint, tagger=lambda sentences: [])


def test_the_tokenizer_of_a_checkpoint_is_its_vocabulary_or_its_file_alone(tmp_path):
    theirs = write_llada(tmp_path / "theirs")
    assert find_tokenizer(str(theirs), None).digest == from_pretrained(theirs).tokenizer.digest
    with pytest.raises(UserError, match=r"Copy its tokenizer\.json into a folder of its own"):
        find_tokenizer(None, str(theirs))
    (tmp_path / "own").mkdir()
    shutil.copy(theirs / "tokenizer.json", tmp_path / "own")
    (tmp_path / "own" / "README.md").write_text("Theirs.")
    assert find_tokenizer(None, str(tmp_path / "own")).split("the red boat") == ["the", "red", "boat"]


def test_a_story_stays_on_one_side_with_all_its_sentences(tmp_path):
    stories = [{f"sentence{n}": f"Story {at} says {word}." for n, word in enumerate("abcde", 1)} for at in range(20)]
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps(story) + "\n" for story in stories))
    run(path, tmp_path, format="roc-infill", valid_share=0.2)
    splits = {name: load_split(tmp_path / "set", name).read_fields() for name in ("train", "valid")}
    neighbours = {name: {row["before"].split()[1] for row in rows} for name, rows in splits.items()}
    assert len(neighbours["valid"]) == 4
    assert not neighbours["train"] & neighbours["valid"]


def test_texts_to_validate_on_that_are_learned_from_are_told(source, tmp_path):
    (tmp_path / "valid.txt").write_text(f"{TEXTS[0]}\nThe bar is shut.\n")
    (note,) = run(source, tmp_path, valid=tmp_path / "valid.txt").notes
    assert note.startswith("1 of the 2 texts of valid also occurs in train")
    assert not run(source, tmp_path, out="valid_texts").notes


def test_a_row_that_cannot_be_read_is_named_where_too_few_are_left(tmp_path):
    (tmp_path / "cut.jsonl").write_text('{"text": "The inn is shut."}\n{"text": "The bar')
    with pytest.raises(DataError, match=r"too few different texts .*; left out were 1 unreadable \(line 2"):
        run(tmp_path / "cut.jsonl", tmp_path)


def test_a_disk_that_gets_full_leaves_nothing_and_is_named(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("1901 requested and 1520 written")  # as NumPy says

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"set: cannot be written: the disk may be full \(1901 requested"):
        run(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
