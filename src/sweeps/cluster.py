"""Jobs on a cluster: submitit queues them, and each is a process as on this machine."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from src.sweeps.jobs import Job
from src.sweeps.process import CONSOLE, start
from src.utils.errors import UserError


def executor(cluster: str, folder: str, parameters: dict[str, Any]) -> Any:
    """submitit's executor for a cluster.

    Args:
        cluster: "slurm" or "local".
        folder: Of submitit's own files.
        parameters: Resources; None leaves what the cluster gives.

    Raises:
        UserError: There is no such cluster here, or it does not know a parameter.
    """
    import submitit

    common = ("name", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node",
              "mem_gb", "stderr_to_stdout")  # fmt: skip
    try:
        made = submitit.AutoExecutor(folder, cluster=cluster)
        made.update_parameters(
            **{
                key if key in common else f"{cluster}_{key}": value
                for key, value in parameters.items()
                if value is not None
            }
        )
    except (RuntimeError, NameError, ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"hydra/launcher=submitit_{cluster}: {reason}") from error
    return made


def submit(made: Any, job: Job, environment: dict[str, str]) -> "Submitted":
    """Queues a job."""
    return Submitted(made.submit(Submission(job, environment, os.getcwd())), job)


class Submission:
    """What a node of the cluster does: it runs the job in a process of its own.

    When the time is up or the job is preempted, submitit calls `checkpoint` and queues what that
    gives, which goes on from the saved state.
    """

    def __init__(self, job: Job, environment: dict[str, str], folder: str) -> None:
        self._job, self._environment, self._folder = job, environment, folder
        self._process: Any = None

    def __call__(self) -> int:
        os.chdir(self._folder)  # paths of the config are relative to it
        self._process = start(self._job, self._environment)
        return self._process.wait()

    def checkpoint(self) -> Any:
        """Lets the job save its state, and gives what goes on with it."""
        import submitit

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(ChildProcessError):
                # Called amid `__call__`, whose wait holds the lock that another one would want
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        again = Submission(self._job, self._environment, self._folder)
        return submitit.helpers.DelayedSubmission(again)


class Submitted:
    """A queued job; see `pool.Handle`."""

    def __init__(self, submitted: Any, job: Job) -> None:
        self._submitted, self._job = submitted, job

    def poll(self) -> int | None:
        if not self._submitted.done() or self._job.is_at_work:  # cancelled, it may yet be saving
            return None
        try:
            return self._submitted.result()
        except Exception as error:  # submitit has several kinds
            self._job.path.mkdir(parents=True, exist_ok=True)
            with open(Path(self._job.path) / CONSOLE, "a", encoding="utf-8") as file:
                file.write(f"{error}\n")
            return 1

    def send_signal(self, number: int) -> None:
        """Cancels the job: the cluster tells its process to end."""
        self._submitted.cancel(check=False)
