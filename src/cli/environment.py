"""The file `.env`: what a machine or a person sets, beside the project and outside of Git."""

import os
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
            if binding.key is not None:
                os.environ.setdefault(binding.key, binding.value)
    if unlimited:
        limit_onednn_isa()
