"""A run's directory: made once, never shared, never overwritten."""

import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.runs.lock import hold
from src.runs.summary import SUMMARY, TRACKER_ID, TRACKER_URL, read_summary, trackers
from src.utils.errors import UserError
from src.utils.files import write_json
from src.utils.versions import versions

log = logging.getLogger(__name__)

RESOLVED_CONFIG = "config.resolved.yaml"


class RunDirectory:
    """Claims a directory for one run and keeps its `summary.json`.

    A lock file shows that the run is alive; the system releases it when the process ends, however
    it ends.

    Args:
        path: The directory.
        command, task_name: For the summary.
        resumed: The directory holds a run, and this process goes on with it.

    Raises:
        UserError: The directory already holds a run (`resumed`: another process works in it), or
            it cannot be written to.
    """

    is_main_process = True  # whether this process writes the run's files

    def __init__(
        self, path: str | Path, command: str, task_name: str, resumed: bool = False
    ) -> None:
        self.path = Path(path)
        self.resumed = resumed
        self.resumed_with: Sequence[str] = ()  # overrides
        self.accepted = not resumed
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not resumed:
                # Exclusive creation: of two runs that start at once, one is refused
                (self.path / SUMMARY).touch(exist_ok=False)
            self._held = hold(self.path, "output_dir")
        except FileExistsError:
            raise UserError(
                f"output_dir={self.path}: holds a run already; give another directory, "
                f"or go on with it by resume={self.path}"
            ) from None
        except OSError as error:
            raise UserError(f"output_dir={self.path}: not writable ({error.strerror})") from error
        self._started = time.perf_counter()
        self._seconds_before = 0.0
        self._summary: dict[str, Any] = {
            "status": "running",
            "reason": None,
            "command": command,
            "task_name": task_name,
            "best": None,
            "last": None,
            "seconds": 0.0,
            "device": None,
            "versions": versions(),
            "git_commit": _git_commit(),
            "wandb_id": None,
        }
        if resumed:
            self._take_over()
        self.update()

    @property
    def tracker_ids(self) -> dict[str, str]:
        """The ids of the run in trackers such as W&B, by logger name."""
        return {name: tracker.id for name, tracker in trackers(self._summary).items()}

    def set_trackers(self, ids: Mapping[str, str], urls: Mapping[str, str]) -> None:
        """Writes ids and pages in trackers into `summary.json`: `wandb_id`, `wandb_url` …"""
        self._summary |= {f"{name}{TRACKER_ID}": value for name, value in ids.items()}
        self._summary |= {f"{name}{TRACKER_URL}": value for name, value in urls.items()}
        self.update()

    def _take_over(self) -> None:
        """Continues the existing summary, and removes temporary files of a killed process."""
        before = read_summary(self.path)
        self._ended_before = {key: before.get(key) for key in ("status", "reason")}
        self._seconds_before = before.get("seconds", 0.0)
        for key, value in before.items():
            if key in ("best", "last") or key.endswith((TRACKER_ID, TRACKER_URL)):
                self._summary[key] = value
        changed = {
            name: f"{old} → {self._summary['versions'].get(name)}"
            for name, old in before.get("versions", {}).items()
            if old != self._summary["versions"].get(name)
        }
        if changed:
            log.warning("versions have changed since the run began, its bits may too: %s", changed)
        for folder in (self.path, self.path / "checkpoints"):
            for rest in folder.glob(".*.tmp*"):
                rest.unlink()

    def fail(self, status: str, reason: str) -> None:
        """Writes how the run ended; one whose resume was refused stays as it was."""
        if self.accepted:
            self.update(status=status, reason=reason)
        else:
            self.update(**self._ended_before)

    def update(self, **values: Any) -> None:
        """Writes new values into `summary.json`.

        Raises:
            UserError: The disk is full or the directory not writable.
        """
        unknown = values.keys() - self._summary.keys()
        if unknown:
            raise KeyError(f"not in {SUMMARY}: {sorted(unknown)}")
        self._summary |= values
        seconds = self._seconds_before + time.perf_counter() - self._started
        self._summary["seconds"] = round(seconds, 3)
        write_json(self.path / SUMMARY, self._summary)


class FollowedDirectory(RunDirectory):
    """A run's directory as seen by the other processes; only the main process writes into it."""

    is_main_process = False

    def __init__(self, path: str | Path, resumed: bool = False) -> None:
        self.path = Path(path)
        self.resumed = resumed

    def fail(self, status: str, reason: str) -> None:
        """Only the main process writes."""

    @property
    def tracker_ids(self) -> dict[str, str]:
        """Only the main process has trackers."""
        return {}

    def set_trackers(self, ids: Mapping[str, str], urls: Mapping[str, str]) -> None:
        """Only the main process has trackers."""

    def update(self, **values: Any) -> None:
        """Only the main process writes."""


def newest_checkpoint(experiments_dir: str | Path) -> Path:
    """The best (or else last) checkpoint of the training run that was completed last.

    Runs of debug modes and benchmarks do not count.

    Raises:
        UserError: There is none.
    """
    found = []
    for summary_path in Path(experiments_dir).glob(f"*/*runs/**/{SUMMARY}"):
        summary = read_summary(summary_path.parent)
        wanted = summary.get("command") == "train" and summary["status"] == "completed"
        if not wanted or summary["task_name"] in ("debug", "benchmark"):
            continue
        if checkpoint := _best_or_last(summary_path.parent):
            found.append((summary_path.stat().st_mtime, checkpoint))
    if not found:
        raise UserError(
            f"no completed training run in {experiments_dir}/: train one first "
            "(make demo, or python -m src.train), or give ckpt_path=FILE"
        )
    return max(found)[1]


def checkpoint_at(path: str) -> str:
    """The best checkpoint of a run's directory, or else its last; a file is returned as it is.

    Raises:
        UserError: The directory has no checkpoint.
    """
    if not Path(path).is_dir():
        return path
    checkpoint = _best_or_last(Path(path))
    if checkpoint is None:
        raise UserError(
            f"{path}: has no checkpoints/best.ckpt or last.ckpt in it; give the directory of a "
            "training run, as experiments/train/runs/TIME, or a file"
        )
    return str(checkpoint)


def _best_or_last(run: Path) -> Path | None:
    paths = (run / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    return next(filter(Path.exists, paths), None)


def run_directory_of(checkpoint: Path) -> Path | None:
    """The run directory that a checkpoint lies in; None for one that stands alone."""
    candidate = checkpoint.parent.parent
    return candidate if (candidate / RESOLVED_CONFIG).exists() else None


def _git_commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return result.stdout.strip()
