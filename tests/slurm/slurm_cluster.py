"""A SLURM cluster of one node on this machine, all of it below one folder."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from src.utils.processes import end_with_parent

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "srun")
PATIENCE = 30  # seconds a daemon may take to begin or to end

# Defaults but for waits that are shortened (requeued jobs wait for credentials to expire), and for
# control groups, which ask for root. There is no accounting.
CONFIG = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=graceful Nodes=ALL PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


def missing() -> list[str]:
    """What a cluster needs and is not installed."""
    return [name for name in PROGRAMS if _found(name) is None]


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")


class SlurmCluster:
    """munged, slurmctld and slurmd, at work inside a `with`, for jobs of this user.

    Args:
        folder: Of configuration, key, state and logs.
        cores: That the node has.
    """

    def __init__(self, folder: Path, cores: int) -> None:
        self.folder, self.cores = folder, cores
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons = ExitStack()

    def __enter__(self) -> "SlurmCluster":
        self.folder.chmod(0o711)  # munged wants its socket to be within reach of all
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        host = socket.gethostname().partition(".")[0]
        config = CONFIG.format(
            host=host,
            ports=_free_ports(2),
            user=pwd.getpwuid(os.getuid()).pw_name,
            folder=self.folder,
            cores=self.cores,
        )
        (self.folder / "slurm.conf").write_text(config)
        files = {name: self.folder / f"munge.{name}" for name in ("log", "pid", "seed")}
        munge_socket = self.folder / "munge.socket"
        with self._daemons:
            self._start(
                "munged", "--foreground", f"--socket={munge_socket}", f"--key-file={key}",
                *(f"--{name}-file={path}" for name, path in files.items()),
            )  # fmt: skip
            self._wait("munged", munge_socket.exists)
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D", "-N", host)
            self._wait("slurmd", lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"))
            self._daemons = self._daemons.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._daemons:
            self.cancel_all()

    def cancel_all(self) -> None:
        """Ends all jobs, and waits until they have."""
        self.ask("scancel", f"--user={os.getuid()}")
        self._wait("scancel", lambda: not self.ask("squeue", "--noheader"))

    def ask(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        return subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, text=True
        ).stdout

    def _start(self, name: str, *options: str) -> None:
        with open(self.folder / f"{name}.console", "wb") as console:
            daemon = subprocess.Popen(
                [_found(name), *options],
                env=self.environment,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGKILL),
            )
        self._daemons.callback(_stop, daemon)

    def _wait(self, name: str, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > until:
                logs = [*self.folder.glob("*.console"), *self.folder.glob("*.log")]
                texts = "".join(f"\n--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)
                raise RuntimeError(f"{name} is not ready after {PATIENCE} s{texts}")
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _stop(daemon: subprocess.Popen) -> None:
    daemon.terminate()
    try:
        daemon.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
