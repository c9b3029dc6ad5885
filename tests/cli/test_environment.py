import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.cli.environment import load_env, provide_home
from src.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


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


def test_a_limit_of_the_instruction_set_may_stand_there_though_the_package_was_imported(tmp_path):
    (tmp_path / ".env").write_text("ONEDNN_MAX_CPU_ISA=AVX512_CORE\n")
    code = (
        "from src.device import runtime; runtime._cpu_has_avx512 = lambda: True; "
        "runtime.version = lambda package: '2.10.0'; runtime.limit_onednn_isa(); "
        "from src.cli.environment import load_env; load_env(); "
        "import os; print(os.environ['ONEDNN_MAX_CPU_ISA'], '|', runtime._note)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ONEDNN_MAX_CPU_ISA"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == (
        "AVX512_CORE | oneDNN instruction set: AVX512_CORE, as ONEDNN_MAX_CPU_ISA says"
    )


@pytest.mark.parametrize("line", ["JUST_A_NAME", "A='open"])
def test_a_line_that_is_none_is_named(tmp_path, line):
    (tmp_path / ".env").write_text(f"\n{line}\n")
    with pytest.raises(UserError, match="line 2: .*expected NAME=value"):
        load_env(tmp_path / ".env")


def test_no_file_is_no_mistake(tmp_path):
    load_env(tmp_path / ".env")


PLACES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")


@pytest.fixture
def homeless(monkeypatch):
    """An environment without the variables of a home directory; what a test sets there goes."""
    for name in ("HOME", *PLACES):
        monkeypatch.setenv(name, "")  # so that it is undone afterwards
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_writable_home_directory_is_left_alone(homeless, tmp_path):
    homeless.setenv("HOME", str(tmp_path))
    provide_home()
    assert os.environ["HOME"] == str(tmp_path) and not set(PLACES) & set(os.environ)


def test_beside_a_home_directory_that_is_not_writable_libraries_have_a_place(homeless):
    homeless.setenv("HOME", "/proc/nobody")
    homeless.setenv("XDG_CONFIG_HOME", "/my/own")
    provide_home()
    assert (os.environ["HOME"], os.environ["XDG_CONFIG_HOME"]) == ("/proc/nobody", "/my/own")
    assert os.access(os.environ["XDG_CACHE_HOME"], os.W_OK)


def test_who_has_no_home_directory_gets_one_for_the_time(homeless):
    homeless.setattr(os.path, "expanduser", lambda path: path)  # as for an unknown user id
    provide_home()
    assert os.access(os.environ["HOME"], os.W_OK)
    assert os.environ["XDG_CACHE_HOME"] == os.environ["HOME"]
