"""What surrounds a command: the file `.env` beside the project, and the user's home directory."""

import atexit
import os
import shlex
import shutil
import tempfile
from pathlib import Path

from src.device.runtime import limit_onednn_isa, take_back_isa_limit
from src.utils.errors import UserError


def load_env(path: Path = Path(".env")) -> None:
    """Puts the lines `NAME=value` of a file into the environment; what is set already stays.

    Values are quoted as in a shell; `export` before a name, empty lines and `# comments` may be.

    Raises:
        UserError: A line is none of these.
    """
    if not path.is_file():
        return
    unlimited = take_back_isa_limit()  # the file may have a value of the user's
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:  # a quote is not closed
            raise UserError(f"{path}, line {number}: {error}; expected NAME=value") from error
        words = words[1:] if words[:1] == ["export"] else words
        if not words:
            continue
        name, equals, value = words[0].partition("=")
        if len(words) > 1 or not equals or not name.isidentifier():
            raise UserError(
                f"{path}, line {number}: {line.strip()!r}: expected NAME=value, quoted if it has "
                "blanks"
            )
        os.environ.setdefault(name, value)
    if unlimited:
        limit_onednn_isa()


def provide_home() -> None:
    """Gives libraries a temporary place for the files that they keep in a writable home directory.

    A user id without a passwd entry, as in containers, may have no home, and that of a cluster's
    node may be read-only: W&B gives up there, and Matplotlib lists the fonts anew each time.
    """
    home = os.path.expanduser("~")
    if os.path.isabs(home) and os.access(home, os.W_OK):
        return
    place = tempfile.mkdtemp(prefix="home-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    if not os.path.isabs(home):
        os.environ["HOME"] = place
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        os.environ.setdefault(name, place)  # one that is there keeps the logins it holds
