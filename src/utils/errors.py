"""The one exception that stands for a mistake of the user, and the one line of any other."""

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake the user can mend.

    The message is one line: the offending value, what was expected, the repair. The command line
    prints it alone, without a traceback, and exits with 1.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name most like `name`, or an empty string if none is."""
    found = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


def error_summary(error: BaseException) -> str:
    """The line of an error's text that says what is wrong.

    MindSpore's texts are pages of sections; those of its dataset pipeline say in the first line
    where to look: for the exception of our own code, or for what the pipeline could not do.
    """
    text = str(error).strip()
    rule = "\n-{20,}\n"
    sections = re.split(f"{rule}- (.*?):.*{rule}", text)
    by_title = dict(zip(sections[1::2], sections[2::2], strict=True))
    for title in ("Python Call Stack", "Dataset Pipeline Error Message"):
        lines = by_title.get(title, "").strip().splitlines()
        if lines:
            return lines[-1].removeprefix("[ERROR] ")
    return text.splitlines()[0] if text else ""
