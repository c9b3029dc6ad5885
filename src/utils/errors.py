"""The one exception that stands for a mistake of the user."""

import difflib
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
