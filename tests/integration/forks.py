"""Commands in processes that begin where `import mindspore` has ended, which takes 2 s each time.

Run as a script this is the process that forks: it reads what is wanted, a JSON line a command, and
answers with the exit code.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

IMPORTED = ("mindspore", "matplotlib.pyplot", "src.cli.command", "src.cli.build")
PATIENCE = 300  # seconds a command may take


class Forks:
    """Runs modules as `python -m` does.

    Args:
        environment: Variables while `IMPORTED` are; PYTHONPATH tells of which project.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, module: str, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]
    ) -> tuple[int, str]:
        """Runs a module in a working folder; returns its exit code and what it printed."""
        with tempfile.NamedTemporaryFile("r", errors="replace") as screen:
            wanted = [[module, *arguments], str(folder), environment, screen.name]
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline()), screen.read()

    def close(self) -> None:
        """Ends the process that forks."""
        self._process.communicate()


def serve() -> None:
    """Forks for each line of the input; each child returns from here and does what is wanted."""
    for name in IMPORTED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")  # what a command prints goes elsewhere
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            return become(*json.loads(line))
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(code, file=answers, flush=True)
    sys.exit()


def become(argv: list[str], folder: str, environment: dict[str, str], screen: str) -> None:
    """Makes this process one that a shell might have started with a module's name."""
    signal.alarm(PATIENCE)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, name, flags in ((0, os.devnull, os.O_RDONLY), (1, screen, os.O_WRONLY)):
        file = os.open(name, flags | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    os.dup2(1, 2)
    sys.argv = argv


if __name__ == "__main__":
    del sys.path[0]  # this folder
    serve()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
