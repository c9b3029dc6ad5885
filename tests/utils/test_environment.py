import os

import pytest

from src.utils.environment import load_env
from src.utils.errors import UserError


def test_lines_become_variables_and_what_is_set_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("SET_BEFORE", "stays")
    for name in ("PLAIN", "QUOTED", "EXPORTED", "EMPTY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that it is undone afterwards
        monkeypatch.delenv(name)
    path = tmp_path / ".env"
    path.write_text(
        "# mine\n\nPLAIN=/data/voc # the disk\nQUOTED='two words'\nexport EXPORTED=1=2\n"
        "EMPTY=\nSET_BEFORE=changed\n"
    )
    load_env(path)
    names = ("PLAIN", "QUOTED", "EXPORTED", "EMPTY", "SET_BEFORE")
    assert [os.environ[name] for name in names] == ["/data/voc", "two words", "1=2", "", "stays"]


@pytest.mark.parametrize("line", ["JUST_A_NAME", "A=two words", "1A=x", "A='open"])
def test_a_line_that_is_none_is_named(tmp_path, line):
    (tmp_path / ".env").write_text(f"\n{line}\n")
    with pytest.raises(UserError, match="line 2: .*expected NAME=value"):
        load_env(tmp_path / ".env")


def test_no_file_is_no_mistake(tmp_path):
    load_env(tmp_path / ".env")
