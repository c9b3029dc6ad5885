"""Which operators a training step spends its time in, by MindSpore's profiler."""

import csv
import io
import logging
from contextlib import redirect_stdout
from pathlib import Path

import mindspore as ms
from mindspore import profiler
from mindspore.profiler import ProfilerActivity
from rich.table import Table

from src.engine.callbacks.base import Callback
from src.utils.console import console
from src.utils.errors import UserError

log = logging.getLogger(__name__)

# What MindSpore writes of CPU operators; of an accelerator's it writes op_statistic.csv
_OPERATORS = "cpu_op_type_info_*.csv"


class Profile(Callback):
    """Watches a few training steps and prints a table of operators, the slowest first.

    MindSpore's own files, a trace for chrome://tracing among them, go to `profile/` in the run
    directory. Without data sinking, which calls back once a sink.

    Args:
        skip: Steps before, at least 1: the first one compiles.
        steps: Steps that are watched.
        rows: Operators in the table.
    """

    def __init__(self, skip: int = 3, steps: int = 5, rows: int = 15) -> None:
        super().__init__()
        if skip < 1 or steps < 1:
            raise UserError(f"profile: skip={skip} steps={steps}: expected at least 1 of each")
        self.skip = skip
        self.steps = steps
        self.rows = rows
        self._profiler: profiler.profile | None = None
        self._seen = 0

    def on_train_begin(self, run_context: ms.train.RunContext) -> None:
        target = ms.get_context("device_target")
        accelerator = {"Ascend": ProfilerActivity.NPU, "GPU": ProfilerActivity.GPU}
        more = [accelerator[target]] if target in accelerator else []
        self._profiler = profiler.profile(
            activities=[ProfilerActivity.CPU, *more],
            schedule=profiler.schedule(wait=self.skip - 1, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=profiler.tensorboard_trace_handler(str(self._directory)),
        )
        self._profiler.start()

    def on_train_step_end(self, run_context: ms.train.RunContext) -> None:
        self._seen += 1
        if self._seen <= self.skip + self.steps:
            with redirect_stdout(io.StringIO()):  # its progress bars
                self._profiler.step()
        if self._seen == self.skip + self.steps:
            for path in sorted(self._directory.rglob(_OPERATORS)):
                console.print(operators_table(path, self.steps, self.rows))
            log.info("profile → %s", self._directory)

    def on_train_end(self, run_context: ms.train.RunContext) -> None:
        if self._seen < self.skip + self.steps:
            log.warning(
                "profile: the run has %d steps, fewer than skip=%d and steps=%d",
                self._seen, self.skip, self.steps,
            )  # fmt: skip

    def close(self) -> None:
        if self._profiler is not None:
            with redirect_stdout(io.StringIO()):
                self._profiler.stop()
            self._profiler = None

    @property
    def _directory(self) -> Path:
        return self.trainer.output_dir / "profile"


def operators_table(path: Path, steps: int, rows: int) -> Table:
    """The kinds of operators by their time, from a file of MindSpore's profiler.

    Args:
        path: CSV with `op_type`, `type_occurrences` and `total_compute_time` in milliseconds.
        steps: That were watched.
        rows: At most so many; the others are summed.
    """
    with open(path, newline="") as file:
        found = [
            (row["op_type"], int(row["type_occurrences"]), float(row["total_compute_time"]))
            for row in csv.DictReader(file)
        ]
    found.sort(key=lambda row: -row[2])
    total = sum(time for _, _, time in found)
    table = Table(title=f"operators, per step of {total / steps:.1f} ms", title_justify="left")
    table.add_column("operator")
    for name in ("calls", "ms", "share"):
        table.add_column(name, justify="right")
    shown, rest = found[:rows], found[rows:]
    if rest:
        sums = sum(calls for _, calls, _ in rest), sum(time for *_, time in rest)
        shown.append((f"{len(rest)} others", *sums))
    for name, calls, time in shown:
        share = f"{time / total:.1%}"
        table.add_row(name, f"{calls / steps:g}", f"{time / steps:.2f}", share)
    return table
