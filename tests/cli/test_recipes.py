"""The list of recipes says what their heads say."""

from src.cli.command import CONF_DIR
from src.cli.recipes import described, recipes_table
from src.utils.console import console

HEAD = """# @package _global_
# What it is.
#   python -m src.train experiment=x
# Expected, on val: 65.0 mIoU; others 64.9. Unverified here.
defaults: []
"""


def test_a_recipe_is_told_by_its_first_line_and_its_expected_score(tmp_path):
    (tmp_path / "x.yaml").write_text(HEAD)
    assert described(tmp_path / "x.yaml") == ("What it is.", "on val: 65.0 mIoU; others 64.9")
    (tmp_path / "y.yaml").write_text("# @package _global_\n# Another.\nseed: 1\n")
    assert described(tmp_path / "y.yaml") == ("Another.", "–")


def test_every_recipe_is_listed():
    with console.capture() as shown:
        console.print(recipes_table(CONF_DIR / "experiment"))
    assert all(path.stem in shown.get() for path in (CONF_DIR / "experiment").glob("*.yaml"))
