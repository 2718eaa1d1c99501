import json

import pytest
from typer.testing import CliRunner

from dlmctl.cli import app
from dlmctl.errors import DataError
from dlmctl.metrics.text_files import read_hypotheses, read_references


def written(folder, name, text):
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_a_line_is_a_text_and_an_empty_one_an_empty_text(tmp_path):
    path = written(tmp_path, "out.txt", "It's cheap, £7.50.\n\nThe family-friendly pub\n")
    assert read_hypotheses(path) == [["It's", "cheap", ",", "£7.50", "."], [], ["The", "family-friendly", "pub"]]


def test_empty_lines_separate_the_references_of_sources(tmp_path):
    path = written(tmp_path, "ref.txt", "a b\nc\n\nd\n\n\ne\n")
    assert read_references(path) == [[["a", "b"], ["c"]], [["d"]], [["e"]]]
    one_source = written(tmp_path, "one.txt", "a b\nc\n\n")
    # A blank last line is no separator.
    assert read_references(one_source) == [[["a", "b"]], [["c"]]]


def test_without_empty_lines_each_line_is_a_source(tmp_path):
    assert read_references(written(tmp_path, "ref.txt", "a b\nc\n")) == [[["a", "b"]], [["c"]]]


def test_json_lines_hold_texts_or_lists_of_them(tmp_path):
    lines = ['"a b"', '{"text": "c", "index": 1}']
    assert read_hypotheses(written(tmp_path, "out.jsonl", "\n".join(lines))) == [["a", "b"], ["c"]]
    lines += ['["d", "e f"]', '{"references": ["g", "h"]}']
    references = read_references(written(tmp_path, "ref.jsonl", "\n".join(lines)))
    assert references == [[["a", "b"]], [["c"]], [["d"], ["e", "f"]], [["g"], ["h"]]]


@pytest.mark.parametrize("line", ["7", '{"words": 3}', "{", '["a", 2]'])
def test_a_line_that_is_no_text_is_named(tmp_path, line):
    path = written(tmp_path, "bad.jsonl", f'"fine"\n{line}\n')
    with pytest.raises(DataError, match=r"bad.jsonl:2: (holds no text|is not JSON)"):
        read_references(path)


def test_the_command_prints_the_scores(tmp_path):
    texts = written(tmp_path, "out.txt", "The old baker sleeps.\nA grey cat hides bread.\n")
    references = written(tmp_path, "ref.txt", "the old baker sleeps .\n\nA grey cat hides bread.\nNo cat.\n")
    run = CliRunner().invoke(app, ["evaluate", "overlap", str(texts), str(references), "--json"])
    assert run.exit_code == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["bleu"] == pytest.approx(1)
    assert list(figures) == ["bleu", "nist", "meteor_exact_stem", "rouge_l", "cider"]
    plain = CliRunner().invoke(app, ["evaluate", "overlap", str(texts), str(references)])
    assert "bleu                         1.0000" in plain.stdout


def test_texts_without_spaces_are_compared_by_their_characters(tmp_path):
    texts = written(tmp_path, "out.txt", "灯笼餐厅提供便宜的菜。\n")
    references = written(tmp_path, "ref.txt", "灯笼餐厅提供昂贵的菜。\n")

    def bleu(*options):
        run = CliRunner().invoke(app, ["evaluate", "overlap", str(texts), str(references), "--json", *options])
        assert run.exit_code == 0, run.stderr
        return json.loads(run.stdout)["bleu"]

    assert bleu() == 0  # one word, and another one
    assert (
        bleu("--tokenize", "zh")
        == bleu("--tokenize", "char")
        == pytest.approx((9 / 11 * 7 / 10 * 5 / 9 * 3 / 8) ** 0.25)
    )
    run = CliRunner().invoke(app, ["evaluate", "overlap", str(texts), str(references), "--tokenize", "ja"])
    assert (run.exit_code, "--tokenize: there is no splitting 'ja'. Known: 13a, zh, char." in run.stderr) == (2, True)
