"""The log of a run in Weights & Biases."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.utils.errors import error_summary
from src.visualization.sheets import Case

log = logging.getLogger(__name__)


class WandbLogger:
    """Logs to Weights & Biases; never stops or stalls a run.

    What fails (no network, no login, no package, its process killed) becomes one warning, and the
    run goes on without it. `WANDB_MODE` in the environment is obeyed, and so are W&B's other
    variables for what is None here.

    Args:
        output_dir: The run directory.
        dir: The folder that the offline files go below; None takes the run directory.
        project, group, name, tags, entity: As in `wandb.init`.
        mode: "online", "offline" or "disabled".
        run_config: The resolved config of the run.
        resume_id: The id of the W&B run that a resumed run goes on with; None makes a new one.
        timeout: Seconds to wait for the server.
    """

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
        run_config: dict[str, Any] | None = None,
        resume_id: str | None = None,
        timeout: float = 20,
    ) -> None:
        self._run = None
        try:
            import wandb

            self._run = wandb.init(
                dir=str(dir or output_dir),
                project=project,
                entity=entity,
                group=group,
                name=name,
                tags=list(tags) or None,
                mode=os.environ.get("WANDB_MODE", mode),
                id=resume_id,
                resume="allow" if resume_id else None,
                config={**(run_config or {}), "run_directory": str(output_dir)},
                settings=wandb.Settings(init_timeout=timeout, silent=True),
            )
        except Exception as error:  # wandb raises many kinds; none may reach the run
            log.warning(
                "W&B is off for this run (%s); metrics.csv has everything. Repair: "
                "`wandb login`, or logger.wandb.mode=offline and `wandb sync` later",
                error_summary(error) or type(error).__name__,
            )

    @property
    def run_id(self) -> str | None:
        """The id of the W&B run, None while it is off."""
        return self._run.id if self._run is not None else None

    def log(self, metrics: dict[str, float], epoch: int, step: int) -> None:
        self._tell(lambda run: run.log({"epoch": epoch, **metrics}, step=step))

    def log_images(self, paths: Sequence[Path]) -> None:
        def send(run: Any) -> None:
            import wandb

            images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in paths}
            run.log(images, commit=False)

        self._tell(send)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        def send(run: Any) -> None:
            import wandb

            # NaN, the one value unequal to itself, is no JSON
            data = [[cell if cell == cell else None for cell in row] for row in rows]
            run.log({name: wandb.Table(list(columns), data)}, commit=False)

        self._tell(send)

    def log_masks(self, name: str, cases: Sequence[Case], labels: Mapping[int, str]) -> None:
        def send(run: Any) -> None:
            import wandb

            images = {}  # a key each: W&B wants one size in a list
            for number, case in enumerate(cases, 1):
                masks = {
                    "prediction": {"mask_data": case.pred, "class_labels": dict(labels)},
                    "label": {"mask_data": case.label, "class_labels": dict(labels)},
                }
                image = wandb.Image(case.image, masks=masks, caption=case.name)
                images[f"{name}/{number}"] = image
            run.log(images, commit=False)

        self._tell(send)

    def _tell(self, send: Callable[[Any], None]) -> None:
        """Does something with the W&B run, if there is one; it is given up once that fails."""
        if self._run is None:
            return
        try:
            send(self._run)
        except Exception as error:  # wandb raises many kinds; none may reach the run
            self._run = None
            log.warning(
                "W&B is off from here on (%s); metrics.csv goes on. What was logged before is in "
                "the run directory's wandb folder: `wandb sync` sends it",
                error_summary(error) or type(error).__name__,
            )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """W&B keeps its own rows: the repeated steps give the same values, and it drops them."""

    def close(self, failed: bool) -> None:
        self._tell(lambda run: run.finish(exit_code=int(failed)))
        self._run = None
