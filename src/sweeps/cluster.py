"""Jobs on a cluster: submitit queues them, and each is a process as on this machine."""

import logging
import os
import signal
import subprocess
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from src.sweeps.jobs import Job
from src.sweeps.process import CONSOLE, start
from src.utils.errors import UserError

log = logging.getLogger(__name__)

_REFRESH_SECONDS = 5


class Queue:
    """The queue of a cluster, with the jobs of one sweep in it.

    Args:
        cluster: "slurm" or "local".
        folder: Of submitit's own files.
        parameters: Resources; None leaves what the cluster gives.

    Raises:
        UserError: There is no such cluster here, or it does not know a parameter.
    """

    def __init__(self, cluster: str, folder: str, parameters: dict[str, Any]) -> None:
        import submitit

        common = ("name", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
        self._launcher = f"hydra/launcher=submitit_{cluster}"
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
            self._executor.update_parameters(
                **{
                    key if key in common else f"{cluster}_{key}": value
                    for key, value in parameters.items()
                    if value is not None
                }
            )
        except (RuntimeError, NameError, ValueError, TypeError, OSError) as error:
            raise self._refusal(error) from error
        self._slurm = SlurmQueue() if cluster == "slurm" else None
        self._left = self._left_behind(Path(folder))

    def submit(self, job: Job, environment: dict[str, str]) -> "Submitted":
        """Queues a job.

        Raises:
            UserError: The cluster does not take it.
        """
        import submitit

        try:
            submitted = self._executor.submit(Submission(job, environment, os.getcwd()))
        except (submitit.core.utils.FailedJobError, RuntimeError, OSError) as error:
            raise self._refusal(error) from error
        return self._watched(submitted, job)

    def find(self, job: Job) -> "Submitted | None":
        """A job that is queued already, by the command of this sweep that was cut off."""
        left = self._left.pop(job.number, None)
        return None if left is None else self._watched(left, job)

    def _watched(self, submitted: Any, job: Job) -> "Submitted":
        if self._slurm is not None:
            self._slurm.add(submitted.job_id)
        return Submitted(submitted, job, self._slurm)

    def _left_behind(self, folder: Path) -> dict[int, Any]:
        import submitit

        if self._slurm is None:
            return {}
        # Not those that were cancelled and are ending
        queued = self._slurm.ask("--states=PENDING,RUNNING,SUSPENDED")
        left: list[Any] = [submitit.SlurmJob(folder, job_id) for job_id in queued]
        return {
            submitted.submission().function.job.number: submitted
            for submitted in left
            if submitted.paths.submitted_pickle.exists()
        }

    def _refusal(self, error: Exception) -> UserError:
        return UserError(f"{self._launcher}: {' '.join(str(error).split())}")


class SlurmQueue:
    """The user's jobs that SLURM has not finished: waiting, at work or ending.

    They are read from squeue, which needs no accounting database (submitit's sacct does). A job has
    left the queue when it was missing twice: by then its files are seen on a shared file system.
    """

    def __init__(self) -> None:
        self._listed = deque([self.ask()], maxlen=2)
        self._asked = time.monotonic()

    @staticmethod
    def ask(*options: str) -> set[str]:
        """Asks SLURM for the ids of this user's jobs.

        Raises:
            UserError: Its controller does not answer.
        """
        command = ["squeue", f"--user={os.getuid()}", "--noheader", "--format=%i", *options]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode != 0:
            raise UserError(f"squeue: {' '.join(answer.stderr.split())}")
        return set(answer.stdout.split())

    def add(self, job_id: str) -> None:
        """Counts a job that has just been submitted."""
        self._listed[-1].add(job_id)

    def __contains__(self, job_id: str) -> bool:
        if time.monotonic() - self._asked >= _REFRESH_SECONDS:
            self._asked = time.monotonic()
            try:
                self._listed.append(self.ask())
            except UserError as error:  # it may be busy or restarting: the state is unknown
                log.debug("%s", error)
        return any(job_id in listed for listed in self._listed)


class Submission:
    """The function that a cluster node calls: it runs the job in a process of its own.

    When the time is up or the job is preempted, submitit calls `checkpoint` and queues what that
    gives, which goes on from the saved state.
    """

    def __init__(self, job: Job, environment: dict[str, str], folder: str) -> None:
        self.job = job
        self._environment, self._folder = environment, folder
        self._process: Any = None

    def __call__(self) -> int:
        import submitit

        os.chdir(self._folder)  # paths of the config are relative to it
        # SLURM sends the signal that time is up to the job's own process as well, which it would
        # end unsaved: blocked here, it is blocked there
        time_is_up = {getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")}
        signal.pthread_sigmask(signal.SIG_BLOCK, time_is_up)
        self._process = start(self.job, self._environment)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, time_is_up)
        exit_code = self._process.wait()
        if exit_code == 128 + signal.SIGTERM and "SLURM_JOB_ID" in os.environ:
            _requeue_if_preempted(os.environ["SLURM_JOB_ID"])
        return exit_code

    def checkpoint(self) -> Any:
        """Lets the job save its state, and gives what goes on with it."""
        import submitit

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(ChildProcessError):
                # Called amid `__call__`, whose wait holds the lock that another one would want
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        again = Submission(self.job, self._environment, self._folder)
        return submitit.helpers.DelayedSubmission(again)


class Submitted:
    """A queued job; see `pool.Handle`."""

    def __init__(self, submitted: Any, job: Job, queue: SlurmQueue | None) -> None:
        self._submitted, self._job, self._queue = submitted, job, queue

    def poll(self) -> int | None:
        if not self._is_over() or self._job.is_at_work:  # cancelled, it may yet be saving
            return None
        try:
            if self._submitted.paths.result_pickle.exists():
                return self._submitted.result()
            text = self._submitted.stderr()
        except Exception as error:  # submitit has several kinds
            text = str(error)
        if text:
            self._job.path.mkdir(parents=True, exist_ok=True)
            with open(self._job.path / CONSOLE, "a", encoding="utf-8") as file:
                file.write(f"{text}\n")
        return 1

    def _is_over(self) -> bool:
        if self._queue is None:
            return self._submitted.done()
        return self._submitted.job_id not in self._queue

    def send_signal(self, number: int) -> None:
        """Cancels the job: the cluster tells its process to end."""
        self._submitted.cancel(check=False)


def _requeue_if_preempted(job_id: str) -> None:
    """SLURM itself queues again what it has to kill, but not what saves and ends in time."""
    shown = subprocess.run(["scontrol", "show", "job", job_id], capture_output=True, text=True)
    if "PreemptTime=" in shown.stdout and "PreemptTime=None" not in shown.stdout:
        subprocess.run(["scontrol", "requeue", job_id])
