"""The log of a run in Weights & Biases."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.engine.loggers.base import EndStatus, Tracker
from src.visualization.sheets import Case, Classes


class WandbLogger(Tracker):
    """Logs to Weights & Biases. `WANDB_MODE` in the environment is obeyed, and so are W&B's other
    variables for what is not given here.

    Args:
        output_dir: The run directory.
        dir: The folder that the offline files go below; None takes the run directory.
        project, entity, group, name, tags: As in `wandb.init`.
        mode: "online", "offline" or "disabled".
        timeout: Seconds to wait for the server.
    """

    name = "wandb"
    title = "W&B"
    repair = "`wandb login`, or logger.wandb.mode=offline and `wandb sync` later"

    def __init__(
        self,
        output_dir: str | Path,
        project: str,
        mode: str = "online",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        dir: str | Path | None = None,
        timeout: float = 20,
    ) -> None:
        self._output_dir, self._dir = str(output_dir), str(dir or output_dir)
        self._mode = mode
        self._timeout = timeout
        self._place = {"project": project, "entity": entity, "group": group, "name": name}
        self._tags = list(tags) or None

    def open(self, config: Mapping[str, Any], resume_id: str | None) -> Any:
        import wandb

        return wandb.init(
            dir=self._dir,
            **self._place,
            tags=self._tags,
            mode=os.environ.get("WANDB_MODE", self._mode),
            id=resume_id,
            resume="allow" if resume_id else None,
            config={**config, "run_directory": self._output_dir},
            settings=wandb.Settings(init_timeout=self._timeout, silent=True),
        )

    @property
    def run_id(self) -> str | None:
        """The id of the W&B run, None while it is off."""
        return self._run.id if self._run is not None else None

    @property
    def url(self) -> str | None:
        """The page of the run; None offline."""
        return self._run.url if self._run is not None else None

    def log(self, metrics: Mapping[str, float], epoch: int, step: int) -> None:
        # After a resume the repeated steps give the same values, and W&B drops them
        self.send(lambda run: run.log({"epoch": epoch, **metrics}, step=step))

    def log_images(self, paths: Sequence[Path]) -> None:
        def send(run: Any) -> None:
            import wandb

            images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in paths}
            run.log(images, commit=False)

        self.send(send)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        def send(run: Any) -> None:
            import wandb

            # NaN, the one value unequal to itself, is no JSON
            data = [[cell if cell == cell else None for cell in row] for row in rows]
            run.log({name: wandb.Table(list(columns), data)}, commit=False)

        self.send(send)

    def log_masks(self, name: str, cases: Sequence[Case], classes: Classes) -> None:
        labels = {**dict(enumerate(classes.names)), classes.ignore_index: "ignored"}

        def send(run: Any) -> None:
            import wandb

            images = {}  # a key each: W&B wants one size in a list
            for number, case in enumerate(cases, 1):
                masks = {
                    "prediction": {"mask_data": case.pred, "class_labels": labels},
                    "label": {"mask_data": case.label, "class_labels": labels},
                }
                image = wandb.Image(case.image, masks=masks, caption=case.name)
                images[f"{name}/{number}"] = image
            run.log(images, commit=False)

        self.send(send)

    def close(self, status: EndStatus) -> None:
        self.send(lambda run: run.finish(exit_code=int(status != "completed")))
        self._run = None
