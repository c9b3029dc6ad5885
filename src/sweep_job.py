"""One job of a sweep: `python -m src.sweep_job DIR OVERRIDE … -- RESOURCE_OVERRIDE …`.

It is started by the sweep and does what `python -m src.train` does, but what refuses it before it
has a directory is written into DIR, and it ends with the process that started it.
"""

import faulthandler
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path

from src.runs.summary import SUMMARY
from src.sweeps.jobs import Job
from src.sweeps.process import mark
from src.train import train
from src.utils.console import setup_logging
from src.utils.errors import UserError
from src.utils.processes import end_with_parent

log = logging.getLogger("src.sweeps")


def main(path: Path, overrides: list[str], resource_overrides: list[str]) -> None:
    """Runs the job that lies in a directory, see `Job`."""
    end_with_parent(signal.SIGTERM)  # the job saves and stops
    faulthandler.enable()
    job = Job(int(path.name), tuple(overrides), (), path, tuple(resource_overrides))
    if not job.has_begun:  # one that was refused may begin again, its log goes on
        (path / SUMMARY).unlink(missing_ok=True)
    sys.argv[1:] = job.arguments()
    try:
        train.start()
    except UserError as error:
        setup_logging(job.log_file)
        log.debug("the job was refused", exc_info=True)
        log.error("%s", error)
        with suppress(UserError):  # another process is at work there
            if job.status in ("waiting", "running", "interrupted"):
                mark(job, "failed", str(error))
        sys.exit(1)


if __name__ == "__main__":
    end = sys.argv.index("--")
    main(Path(sys.argv[1]), sys.argv[2:end], sys.argv[end + 1 :])
