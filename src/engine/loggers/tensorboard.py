"""The log of a run as TensorBoard event files."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.engine.loggers.base import EndStatus, Tracker
from src.engine.loggers.formats import hyperparameters, markdown_table, side_by_side
from src.visualization.sheets import Case, Classes


class TensorBoardLogger(Tracker):
    """Writes event files to `<run>/tensorboard`: `tensorboard --logdir experiments` shows them.

    Args:
        output_dir: The run directory.
        flush_seconds: Events are on the disk after so many seconds at the latest.
        scalars_only: Leaves out figures, tables, predictions and hyperparameters, which
            `swanlab convert` (0.10) cannot read.
    """

    name = "tensorboard"
    title = "TensorBoard"
    repair = "make setup, which installs tensorboardX"
    run_id = "tensorboard"  # the folder below the run directory

    def __init__(
        self, output_dir: str | Path, flush_seconds: int = 10, scalars_only: bool = False
    ) -> None:
        self.folder = Path(output_dir) / "tensorboard"
        self._flush_seconds = flush_seconds
        self._scalars_only = scalars_only
        self._step = 0  # the newest that was logged
        self._hparams: dict[str, Any] = {}
        self._writer: Callable[..., Any] | None = None

    def open(self, config: Mapping[str, Any], resume_id: str | None) -> Any:
        from tensorboardX import SummaryWriter

        self._hparams = hyperparameters(config)
        self._writer = functools.partial(
            SummaryWriter, str(self.folder), flush_secs=self._flush_seconds
        )
        return self._writer() if resume_id is None else None  # see `load_state_dict`

    def log(self, metrics: Mapping[str, float], epoch: int, step: int) -> None:
        self._step = step

        def send(writer: Any) -> None:
            for key, value in {"epoch": epoch, **metrics}.items():
                writer.add_scalar(key, value, step)

        self.send(send)

    def log_images(self, paths: Sequence[Path]) -> None:
        def send(writer: Any) -> None:
            for path in paths:
                self._add_image(writer, f"figures/{path.stem}", Image.open(path).convert("RGB"))

        self._send_more(send)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        text = markdown_table(columns, rows)
        self._send_more(lambda writer: writer.add_text(name, text, self._step))

    def log_masks(self, name: str, cases: Sequence[Case], classes: Classes) -> None:
        """One picture a case: image, label and prediction side by side."""

        def send(writer: Any) -> None:
            for case in cases:
                self._add_image(writer, f"{name}/{case.name}", side_by_side(case, classes))

        self._send_more(send)

    def log_best(self, scores: Mapping[str, float]) -> None:
        """The scores lie on their curves, at the step that they are of."""
        best = {key: value for key, value in scores.items() if key.startswith("val/")}
        step = int(scores.get("step", self._step))
        self._send_more(lambda writer: writer.add_hparams(self._hparams, best, "hparams", step))

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on in a new file that tells readers to leave out later steps of the earlier ones."""
        self._step = state.get("step", 0)
        if self._run is None and self._writer is not None:
            suffix = f".from_{self._step + 1}"  # its name has seconds alone beside it
            self._run = self._writer(purge_step=self._step + 1, filename_suffix=suffix)

    def close(self, status: EndStatus) -> None:
        self.send(lambda writer: writer.close())
        self._run = None

    def _send_more(self, action: Callable[[Any], None]) -> None:
        if not self._scalars_only:
            self.send(action)

    def _add_image(self, writer: Any, tag: str, image: Any) -> None:
        writer.add_image(tag, np.asarray(image), self._step, dataformats="HWC")
