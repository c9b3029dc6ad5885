"""The group of processes that train one network together, and their communication.

A launcher (`python -m src.distributed`, or MindSpore's msrun) starts them and passes each its rank
in MindSpore's environment variables; a platform may pass a rank table instead (Ascend:
RANK_TABLE_FILE, RANK_SIZE, RANK_ID, DEVICE_ID). MindSpore and NumPy are imported inside the
functions, see `src.device.runtime`.
"""

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.device.runtime import choose_device, make_deterministic
from src.utils.errors import UserError
from src.utils.processes import available_cores, own_cores

if TYPE_CHECKING:
    import numpy as np

ROLE = "MS_ROLE"  # MS_SCHED, which connects the workers, or MS_WORKER
RANK_TABLES = ("RANK_TABLE_FILE", "MINDSPORE_HCCL_CONFIG_PATH")  # MindSpore takes either
RUN_FILE = "FCN_RUN_DIRECTORY_FILE"  # where rank 0 writes its run directory for our launcher


class ProcessGroup:
    """The processes that work together; this one is `rank`, from 0, of `world_size`.

    A single process is rank 0 of 1. Rank 0, the main process, writes the run's files.
    `local_world_size` of the processes run on this machine, and `core_sharers` of these may use
    this one's cores: only itself if the launcher has bound each to cores of its own.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = self.local_world_size = self.core_sharers = world_size

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes the run's files."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Gathers a JSON-serialisable value of each process, in rank order; waits for all."""
        if self.world_size == 1:
            return [value]
        import numpy as np

        data = json.dumps(value).encode()
        sizes = self._gather(np.array([len(data)], np.int32))[:, 0]
        words = np.zeros(-(-int(sizes.max()) // 4), np.int32)  # no kernel gathers bytes on the CPU
        words.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
        parts = self._gather(words)
        return [json.loads(part.tobytes()[:size]) for part, size in zip(parts, sizes, strict=True)]

    def _gather(self, values: "np.ndarray") -> "np.ndarray":
        from mindspore import Tensor, ops

        return ops.AllGather()(Tensor(values)).asnumpy().reshape(self.world_size, -1)


_process_group = ProcessGroup()


def this_process() -> ProcessGroup:
    """The process group of this process; a group of one until `join`."""
    return _process_group


def is_launched() -> bool:
    """Whether a launcher has started this process, as one of several."""
    return ROLE in os.environ or _has_rank_table()


def _has_rank_table() -> bool:
    table = any(name in os.environ for name in RANK_TABLES)
    return table and int(os.environ.get("RANK_SIZE", 1)) > 1  # platforms set it for one card, too


def is_scheduler() -> bool:
    """Whether this process is the scheduler, which only connects the others."""
    return os.environ.get(ROLE) == "MS_SCHED"


def schedule() -> None:
    """Connects the processes and returns when all have ended."""
    import mindspore as ms

    ms.set_device("CPU")
    ms.communication.init()


def join(target: str, deterministic: bool = False) -> ProcessGroup:
    """Joins the process group that the launcher has described; returns when all have joined.

    Args:
        target: "CPU", "GPU" or "Ascend".
        deterministic: Sums over ranks are repeatable, too.

    Raises:
        UserError: No launcher has started this process, or the device is not available.
    """
    global _process_group
    if not is_launched():
        raise UserError(
            "device.distributed=true: this process was started alone; start several by "
            "python -m src.distributed 2 train … or by msrun (or by a rank table: RANK_TABLE_FILE, "
            "RANK_SIZE, RANK_ID and DEVICE_ID), or set device.distributed=false"
        )
    if ROLE not in os.environ:
        _check_rank_table(target)
    import mindspore as ms

    choose_device(target, local_device(target, 0))
    if deterministic:
        make_deterministic()
    ms.communication.init()
    _process_group = ProcessGroup(ms.communication.get_rank(), ms.communication.get_group_size())
    host, cores = socket.gethostname(), own_cores()
    here = [theirs for there, theirs in _process_group.gather([host, cores]) if there == host]
    _process_group.local_world_size = len(here)
    _process_group.core_sharers = sum(not set(cores).isdisjoint(theirs) for theirs in here)
    if not _process_group.is_main_process:  # the main process saves, the launcher ends the others
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _process_group


def _check_rank_table(target: str) -> None:
    if target != "Ascend":
        raise UserError(
            f"device.target={target}: a rank table (RANK_TABLE_FILE) is for Ascend; start the "
            "processes by python -m src.distributed or msrun"
        )
    for name in ("RANK_ID", "DEVICE_ID"):
        if not os.environ.get(name, "").isdigit():
            raise UserError(
                f"{name}={os.environ.get(name, '')}: expected a number beside RANK_TABLE_FILE, "
                "another for each process: RANK_ID of all, DEVICE_ID of its machine's cards"
            )


@contextmanager
def leaving() -> Iterator[None]:
    """Ends a process of a group as its launcher expects: at once if the work inside failed.

    MindSpore's own shutdown waits for ranks that have already ended, and sometimes crashes; but
    msrun's scheduler requires it.
    """
    code = 0
    try:
        yield
    except BaseException as error:
        if _process_group.world_size == 1:
            raise
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else 1
        else:
            traceback.print_exc()
            code = 1
    if _process_group.world_size == 1:
        return
    if code == 0:
        _process_group.gather(None)
    if code != 0 or RUN_FILE in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def local_device(target: str, otherwise: int) -> int:
    """The number of the card of this machine that the launcher has chosen for this process."""
    given = os.environ.get("DEVICE_ID") if is_launched() and target != "CPU" else None
    return otherwise if given is None else int(given)


def share_of_cores() -> int | None:
    """Threads of this process, sharing the cores with others here; None (all cores) if alone."""
    if _process_group.local_world_size == 1:
        return None
    return max(1, available_cores() // _process_group.core_sharers)


def tell_launcher(run_directory: Path) -> None:
    """Passes the run's directory to `src.distributed`, if that has started this process."""
    if RUN_FILE in os.environ:
        Path(os.environ[RUN_FILE]).write_text(str(run_directory.resolve()), encoding="utf-8")
