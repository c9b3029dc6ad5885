"""A run's directory: made once, never shared, never overwritten."""

import subprocess
import time
from pathlib import Path
from typing import Any

from src.utils.errors import UserError
from src.utils.files import read_json, write_json
from src.utils.runtime import versions

SUMMARY = "summary.json"
RESOLVED_CONFIG = "config.resolved.yaml"


class RunDirectory:
    """Claims a directory for one run and keeps its `summary.json`.

    Raises:
        UserError: The directory already holds a run.
    """

    def __init__(self, path: str | Path, command: str, task_name: str) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            # Exclusive creation: of two runs that start at once, one is refused
            (self.path / SUMMARY).touch(exist_ok=False)
        except FileExistsError:
            raise UserError(
                f"output_dir={self.path}: holds a run already; give another directory"
            ) from None
        except OSError as error:
            raise UserError(f"output_dir={self.path}: not writable ({error.strerror})") from error
        self._started = time.perf_counter()
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
        self.update()

    def update(self, **values: Any) -> None:
        """Writes new values into `summary.json`."""
        unknown = values.keys() - self._summary.keys()
        if unknown:
            raise KeyError(f"not in {SUMMARY}: {sorted(unknown)}")
        self._summary |= values
        self._summary["seconds"] = round(time.perf_counter() - self._started, 3)
        write_json(self.path / SUMMARY, self._summary)


def newest_checkpoint(experiments_dir: str | Path) -> Path:
    """The best (or else last) checkpoint of the training run that was completed last.

    Runs of debug modes and benchmarks do not count.

    Raises:
        UserError: There is none.
    """
    found = []
    for summary_path in Path(experiments_dir).glob(f"*/*runs/**/{SUMMARY}"):
        try:
            summary = read_json(summary_path)
        except UserError:
            continue  # of a run that was killed before its first write
        wanted = summary["command"] == "train" and summary["status"] == "completed"
        if not wanted or summary["task_name"] in ("debug", "benchmark"):
            continue
        for name in ("best.ckpt", "last.ckpt"):
            checkpoint = summary_path.parent / "checkpoints" / name
            if checkpoint.exists():
                found.append((summary_path.stat().st_mtime, checkpoint))
                break
    if not found:
        raise UserError(
            f"no completed training run in {experiments_dir}/: train one first "
            "(make demo, or python -m src.train), or give ckpt_path=FILE"
        )
    return max(found)[1]


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
