"""What a notebook shows of an error: the lines of its own cells and the message, without those of libraries between."""

from __future__ import annotations

import linecache
import pickle
from collections.abc import Mapping

import pytest

from dlmctl.errors import RecipeError, SettingError, UserError
from dlmctl.recipe.recipe import Misplaced

CELL = """
import json
from dlmctl import Check, Control, ControlParams

class Odd(Control[ControlParams]):
    name, Params = "odd", ControlParams

    def check(self, params, words):
        return Check(json.loads("[") and 1, True, "")
"""


def shown(cells: Mapping[str, str]) -> list[str]:
    """What IPython shows of the error of the last of some cells, by file name."""
    names: dict[str, object] = {"__name__": "__main__"}
    for filename, cell in cells.items():
        linecache.cache[filename] = len(cell), None, cell.splitlines(True), filename
    *before, last = [compile(cell, filename, "exec") for filename, cell in cells.items()]
    for code in before:
        exec(code, names)
    with pytest.raises(UserError) as caught:
        exec(last, names)
    caught.value.__traceback__ = caught.tb.tb_next  # without the line of this test
    return caught.value._render_traceback_()


def test_the_line_of_the_cell_and_the_message_are_shown():
    assert shown({"/tmp/ipykernel_7/1.py": "from controls import Length\nLength(8.5)\n"}) == [
        "line 2, in <module>: Length(8.5)",
        "UserError: control 'length': words: Input should be a valid integer, not 8.5. E.g. words=14.",
    ]


def test_the_line_of_an_author_s_control_is_shown_but_none_of_libraries():
    *lines, message = shown({"/tmp/ipykernel_7/1.py": CELL, "<ipython-input-2-0a>": "Odd()(['a', 'b'])\n"})
    assert lines == [
        "line 1, in <module>: Odd()(['a', 'b'])",
        'line 9, in check: return Check(json.loads("[") and 1, True, "")',
    ]
    assert message.startswith("UserError: control 'odd' (__main__): check failed: JSONDecodeError: Expecting value")


def test_the_file_of_a_line_is_named_if_it_is_no_cell(tmp_path):
    mine = tmp_path / "mine.py"
    assert shown({str(mine): "from dlmctl import UserError\nraise UserError('odd', where='here')\n"}) == [
        f"{mine}, line 2, in <module>: raise UserError('odd', where='here')",
        "UserError: here: odd",
    ]


@pytest.mark.parametrize(
    "error",
    [
        RecipeError("is odd.", where="recipe.yaml:3", remedy="Make it even."),
        SettingError("judge", "there is no such model.", where="judges/mine", remedy="Known: everyday."),
        Misplaced(("controls", 0), "is odd."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_out_of_a_worker_process_whole(error):
    """One that cannot be unpickled breaks the pool of processes that it is sent back to."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
