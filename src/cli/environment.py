"""What surrounds a command: the file `.env` beside the project, and the user's home directory."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from dotenv.parser import parse_stream

from src.device.runtime import limit_onednn_isa, take_back_isa_limit
from src.utils.errors import UserError


def load_env(path: Path = Path(".env")) -> None:
    """Puts the lines `NAME=value` of a file into the environment; what is set already stays.

    Raises:
        UserError: A line is none.
    """
    if not path.is_file():
        return
    unlimited = take_back_isa_limit()  # the file may have a value of the user's
    with path.open(encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.error or (binding.key is not None and binding.value is None):
                text = binding.original.string
                number = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                raise UserError(f"{path}, line {number}: {text.strip()!r}: expected NAME=value")
            if binding.key is not None and binding.value is not None:
                os.environ.setdefault(binding.key, binding.value)
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
