"""The log of a run in SwanLab."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.engine.loggers.base import EndStatus, Tracker
from src.engine.loggers.formats import markdown_table, side_by_side
from src.visualization.sheets import Case, Classes

_STATE = {"completed": "success", "interrupted": "aborted", "failed": "crashed"}  # SwanLab's


class SwanLabLogger(Tracker):
    """Logs to SwanLab 0.10 or newer. SwanLab's own variables are obeyed for what is not given here.

    Online, a resumed run goes on in the same experiment, where SwanLab drops the steps that it
    has; offline and local, in a second folder with the same id.

    Args:
        output_dir: The run directory; the files lie in `swanlog` below it.
        project, workspace, group, name, tags: As in `swanlab.init`.
        mode: "online", "offline" (uploaded later by `swanlab sync`), "local" (for `swanlab watch`)
            or "disabled"; `SWANLAB_MODE` wins.
        host: Address of a self-hosted server; None takes `SWANLAB_API_HOST`, else SwanLab's own.
    """

    name = "swanlab"
    title = "SwanLab"
    repair = "`swanlab login`, or logger.swanlab.mode=offline and `swanlab sync` later"

    def __init__(
        self,
        output_dir: str | Path,
        project: str,
        mode: str = "online",
        host: str | None = None,
        workspace: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self._output_dir = Path(output_dir)
        self._mode = mode
        self._host = host
        self._place = {"project": project, "workspace": workspace, "group": group, "name": name}
        self._tags = list(tags) or None
        self._step = 0  # the newest that was logged

    def open(self, config: Mapping[str, Any], resume_id: str | None) -> Any:
        try:
            import swanlab
        except Exception:  # protobuf's mismatch is a TypeError
            self.repair = (
                "`pip install swanlab` beside MindSpore before 2.10 (2.10 needs a protobuf that "
                "SwanLab excludes); else logger=tensorboard logger.tensorboard.scalars_only=true "
                "and, in an environment with SwanLab and tensorboard, "
                f"`swanlab convert -t tensorboard --tb-log-dir {self._output_dir}/tensorboard`"
            )
            raise
        host = {"api_host": self._host, "web_host": self._host} if self._host else {}
        return swanlab.init(
            **self._place,
            tags=self._tags,
            mode=os.environ.get("SWANLAB_MODE", self._mode),
            log_dir=str(self._output_dir / "swanlog"),
            id=resume_id,
            resume="allow" if resume_id else None,
            config={**config, "run_directory": str(self._output_dir)},
            settings=swanlab.Settings(interactive=False, **host),  # never waits for a key
        )

    @property
    def run_id(self) -> str | None:
        """The id of the experiment, None while it is off."""
        return self._run.id if self._run is not None else None

    @property
    def url(self) -> str | None:
        """The experiment's page; None unless online."""
        return self._run.url if self._run is not None and self._run.mode == "online" else None

    def log(self, metrics: Mapping[str, float], epoch: int, step: int) -> None:
        self._step = step
        self.send(lambda run: run.log({"epoch": epoch, **metrics}, step=step))

    def log_images(self, paths: Sequence[Path]) -> None:
        def send(run: Any) -> None:
            import swanlab

            images = {f"figures/{path.stem}": swanlab.Image(str(path)) for path in paths}
            run.log(images, step=self._step)

        self.send(send)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """As a text in Markdown."""

        def send(run: Any) -> None:
            import swanlab

            run.log({name: swanlab.Text(markdown_table(columns, rows))}, step=self._step)

        self.send(send)

    def log_masks(self, name: str, cases: Sequence[Case], classes: Classes) -> None:
        """One picture a case: image, label and prediction side by side."""

        def send(run: Any) -> None:
            import swanlab

            images = [swanlab.Image(side_by_side(c, classes), caption=c.name) for c in cases]
            run.log({name: images}, step=self._step)

        self.send(send)

    def log_best(self, scores: Mapping[str, float]) -> None:
        best = {f"best/{key}": value for key, value in scores.items() if key.startswith("val/")}
        self.send(lambda run: run.log(best, step=self._step))

    def close(self, status: EndStatus) -> None:
        self.send(lambda run: run.finish(_STATE[status]))
        self._run = None
