"""The notebooks of `examples/`, as they are in git; `tests/notebooks.py` executes them."""

import json

from tests import ROOT

ENGLISH, CHINESE = (
    json.loads((ROOT / "examples" / name).read_text(encoding="utf-8"))["cells"]
    for name in ("tutorial.ipynb", "tutorial.zh-CN.ipynb")
)


def sources(cells, kind):
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_outputs_are_stripped():
    code = [cell for cell in ENGLISH + CHINESE if cell["cell_type"] == "code"]
    assert code and not [cell for cell in code if cell["outputs"] or cell["execution_count"]]


def test_both_have_the_same_code_between_as_many_texts():
    assert sources(CHINESE, "code") == sources(ENGLISH, "code")
    assert [c["cell_type"] for c in CHINESE] == [c["cell_type"] for c in ENGLISH]


def test_the_nine_steps_of_the_tutorial_are_walked_in_their_order():
    for cells in (ENGLISH, CHINESE):
        headings = [text.split()[1] for text in sources(cells, "markdown") if text.startswith("##")]
        assert headings[:9] == [f"{step}." for step in range(1, 10)]


def test_src_is_imported_before_mindspore():
    code = "\n".join(sources(ENGLISH, "code"))
    assert code.index("from src.") < code.index("from mindspore")
