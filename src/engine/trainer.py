"""Fit, evaluate, predict: a Lightning-style trainer around `mindspore.train.Model`."""

import logging
import math
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.train.callback import _InternalCallbackParam

from src.device.dropout import make_dropout_repeatable
from src.device.precision import set_precision
from src.device.process_group import ProcessGroup
from src.engine.callbacks.base import Callback, StateTracker
from src.engine.callbacks.figures import Figures
from src.engine.callbacks.monitors import MetricLogger, NonFiniteGuard
from src.engine.callbacks.progress import ProgressBar
from src.engine.callbacks.validation import BestCheckpoint, TopKCheckpoints, Validate
from src.engine.checkpoint import save_weights
from src.engine.checkpointing import Checkpointing
from src.engine.ema import ExponentialMovingAverage
from src.engine.evaluator import Evaluation, Evaluator
from src.engine.loggers.base import EndStatus, Logger
from src.engine.loggers.csv import CsvLogger
from src.engine.prediction import write_predictions
from src.engine.segmenter import Segmenter
from src.engine.sinking import SinkCallbacks, close_queue, sink_size
from src.engine.state import FitState
from src.engine.train_step import TrainStep
from src.utils.console import progress
from src.utils.errors import UserError
from src.utils.video import Video

log = logging.getLogger(__name__)


def _default_callbacks() -> list[ms.train.Callback]:
    return [
        NonFiniteGuard(),
        MetricLogger(),
        Validate(),
        BestCheckpoint(),
        TopKCheckpoints(),
        ProgressBar(),
        Figures(),
    ]


class Trainer:
    """Trains and evaluates a network, with callbacks and loggers.

    As a context manager it closes the loggers at the end of a run, whatever ends it.

    Args:
        output_dir: The run directory.
        callbacks: Ours and stock `mindspore.train` ones, called in this order; None takes those of
            `conf/callbacks/default.yaml`.
        loggers: Receive every logged scalar; None writes `metrics.csv` alone.
        max_epochs: Epochs to train.
        limit_train_batches, limit_val_batches: Only so many steps an epoch or images a
            validation; None takes all, 0 validation images leave validation out.
        val_every_n_epochs: Validate after every n-th epoch, and after the last.
        monitor: Logged value that decides what is best.
        monitor_mode: "max" or "min".
        gradient_clip, accumulate: See `TrainStep`.
        save_last: Keeps the newest weights and the state that a resumed run starts from; Ctrl-C and
            SIGTERM then wait for the end of a step (with sinking of a sink), and what is reached
            there is saved.
        save_every_n_epochs: The newest state is saved after every n-th epoch, and at the end.
        save_every_n_steps: It is also saved so often within epochs; None saves at epoch ends.
        keep_top_k: Weights of so many best validations are kept beside the best.
        ema_decay: Keeps an `ExponentialMovingAverage` of the weights and validates it too, as
            `val/ema/miou` …; a `monitor` of that kind makes it the weights that are kept as best.
        log_every_n_steps: Loss, learning rate and speed are logged so often.
        amp_level: MindSpore's mixed-precision level, "O0" (float32) to "O3" or "auto".
        amp_dtype: "float16", or "bfloat16", which needs no loss scaling.
        loss_scaler: Made anew for a fit by this function, in float16; None scales nothing.
        sink_mode: Hands several steps at a time to the device, which has a queue of its own for
            the data: as many as divide an epoch, up to `log_every_n_steps`. What is due within
            (logging, saving) is done at the end. Without effect on the CPU and in PyNative mode.
        fast_convolutions, all_reduce_megabytes, cache_graph, lazy_inline: See `TrainStep`.
        process_group: The processes that train together, each with batches of its own; None is one.
    """

    def __init__(
        self,
        output_dir: str | Path,
        callbacks: Sequence[ms.train.Callback] | None = None,
        loggers: Sequence[Logger] | None = None,
        max_epochs: int = 1,
        limit_train_batches: int | None = None,
        limit_val_batches: int | None = None,
        val_every_n_epochs: int = 1,
        monitor: str = "val/miou",
        monitor_mode: str = "max",
        gradient_clip: float | None = None,
        accumulate: int = 1,
        save_last: bool = True,
        save_every_n_epochs: int = 1,
        save_every_n_steps: int | None = None,
        keep_top_k: int = 0,
        ema_decay: float | None = None,
        log_every_n_steps: int = 10,
        amp_level: str = "O0",
        amp_dtype: str = "float16",
        loss_scaler: Callable[[], ms.amp.LossScaler] | None = None,
        sink_mode: bool = False,
        fast_convolutions: bool = True,
        all_reduce_megabytes: float | None = None,
        cache_graph: bool = False,
        lazy_inline: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.callbacks = _default_callbacks() if callbacks is None else list(callbacks)
        self.loggers: list[Logger] = [CsvLogger(output_dir)] if loggers is None else list(loggers)
        self.max_epochs = max_epochs
        self.limit_train_batches = limit_train_batches
        self.limit_val_batches = limit_val_batches
        self.val_every_n_epochs = val_every_n_epochs
        self.monitor = monitor
        self.monitor_mode = monitor_mode
        self.gradient_clip = gradient_clip
        self.accumulate = accumulate
        self.save_last = save_last
        self.save_every_n_epochs = save_every_n_epochs
        self.save_every_n_steps = save_every_n_steps
        self.keep_top_k = keep_top_k
        self.ema_decay = ema_decay
        self.log_every_n_steps = log_every_n_steps
        self.amp_level = amp_level
        self.amp_dtype = amp_dtype
        self.loss_scaler = loss_scaler if amp_dtype == "float16" else None
        self.sink_mode = sink_mode
        self.fast_convolutions = fast_convolutions
        self.all_reduce_megabytes = all_reduce_megabytes
        self.cache_graph = cache_graph
        self.lazy_inline = lazy_inline
        self.monitors_ema = monitor.startswith("val/ema/")
        if self.monitors_ema and ema_decay is None:
            raise UserError(
                f"trainer.monitor={monitor}: no average of the weights is kept; set "
                "trainer.ema_decay=0.999, or monitor val/miou"
            )
        self.process_group = process_group or ProcessGroup()
        self.state = FitState()
        self.train_step: TrainStep | None = None
        self.evaluator: Evaluator | None = None
        self.checkpointing = Checkpointing()
        self._rate: Callable[[int], float] = lambda step: math.nan
        self._sinks, self._sink_size = False, 1

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        status: EndStatus = "completed"
        if kind is not None:
            status = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        for logger in self.loggers:
            logger.close(status)

    @property
    def val_count(self) -> int:
        """How many samples a validation takes."""
        return self._count(self.evaluator)

    @property
    def checkpoint_dir(self) -> Path:
        """Where the checkpoints of the run lie."""
        return self.output_dir / "checkpoints"

    @property
    def tracker_ids(self) -> dict[str, str]:
        """The ids of the run in trackers that are on, by logger name."""
        return {logger.name: logger.run_id for logger in self.loggers if logger.run_id}

    @property
    def tracker_urls(self) -> dict[str, str]:
        """The pages of the run in trackers that have a server, by logger name."""
        return {logger.name: logger.url for logger in self.loggers if logger.url}

    def fit(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        optimizer: nn.Optimizer,
        batches: ms.dataset.Dataset,
        evaluator: Evaluator | None = None,
        learning_rate: Callable[[int], float] | None = None,
        resume: bool = False,
        on_ready: Callable[[], None] = lambda: None,
    ) -> FitState:
        """Trains `network` in place.

        Args:
            network: Images → logits.
            loss: See `src.losses`.
            optimizer: Over the network's trainable parameters.
            batches: Images N×3×H×W float32 and labels N×H×W int32, with N a multiple of
                `accumulate`.
            evaluator: Evaluates the network on the validation split; None does without.
            learning_rate: Rate after so many updates, for the log; a schedule's `value`.
            resume: Goes on from the state in `checkpoint_dir`, bit for bit; without one, begins.
            on_ready: Called before the first step, once a state that is resumed has been accepted.
        """
        if self.limit_train_batches is not None:
            batches = batches.take(self.limit_train_batches)
        steps = batches.get_dataset_size()
        batch_size = batches.get_batch_size() * self.process_group.world_size
        self.state = FitState(steps_per_epoch=steps, batch_size=batch_size)
        self.evaluator = None if self.limit_val_batches == 0 else evaluator
        if learning_rate is not None:
            self._rate = learning_rate
        # Each rank drops other values
        make_dropout_repeatable(network, (ms.get_seed() or 0) + self.process_group.rank * 2**31)
        set_precision(network, self.amp_level, self.amp_dtype)
        scaler = self.loss_scaler() if self.loss_scaler else None
        decay = self.ema_decay
        ema = None if decay is None else ExponentialMovingAverage(network, decay)
        self.train_step = TrainStep(
            network,
            loss,
            optimizer,
            self.accumulate,
            self.gradient_clip,
            scaler,
            ema,
            self.process_group.world_size,
            self.all_reduce_megabytes,
            self.fast_convolutions,
            self.cache_graph,
            self.lazy_inline,
        )
        processes = self.process_group.world_size
        shared = f", shared by {processes} processes" if processes > 1 else ""
        counts = (self.max_epochs, steps, batch_size, shared)
        log.info("training %d epochs of %d steps, %d images a step%s", *counts)
        compiled = ms.get_context("mode") == ms.GRAPH_MODE
        self._sinks = self.sink_mode and compiled and ms.get_context("device_target") != "CPU"
        self._sink_size = sink_size(steps, self.log_every_n_steps) if self._sinks else 1
        if self._sinks:
            log.info("device.sink_mode=true: %d steps at a time", self._sink_size)
        callbacks = [StateTracker(), *self.callbacks]
        if self.save_last:
            callbacks.append(self.checkpointing)
        own = [callback for callback in callbacks if isinstance(callback, Callback)]
        for callback in own:
            callback.trainer = self
        self.checkpointing.trainer = self
        if resume:
            self.checkpointing.restore()
        self._check_equal_weights(network)
        on_ready()
        guarded = self.save_last and self.process_group.is_main_process
        try:
            with self.checkpointing.guard() if guarded else nullcontext():
                self._run(batches, callbacks, own)
            if self.state.best:
                for logger in self.loggers:
                    logger.log_best(self.state.best)
        finally:
            for callback in own:
                callback.close()
        return self.state

    def _run(
        self,
        batches: ms.dataset.Dataset,
        callbacks: Sequence[ms.train.Callback],
        own: Sequence[Callback],
    ) -> None:
        state = self.state
        context = ms.train.RunContext(_InternalCallbackParam())
        epochs = state.step // state.steps_per_epoch
        if epochs > state.epochs_ended:  # interrupted between an epoch's last step and its end
            for callback in own:
                callback.on_train_epoch_end(context)
        if epochs < self.max_epochs and state.stop_reason is None:
            batches.set_init_step(state.step)  # the pipeline skips them without reading
            model = ms.train.Model(self.train_step)
            if self._sinks:
                self._sink(model, batches, callbacks)
            else:
                model.train(
                    self.max_epochs, batches, callbacks=list(callbacks), initial_epoch=epochs
                )
        else:
            log.info("nothing is left to train after epoch %d", state.epoch)
            for callback in own:
                callback.on_train_end(context)

    def _sink(
        self,
        model: ms.train.Model,
        batches: ms.dataset.Dataset,
        callbacks: Sequence[ms.train.Callback],
    ) -> None:
        state, size = self.state, self._sink_size
        if state.step % size:  # MindSpore would feed the device from the last multiple on
            raise UserError(
                f"resume: the state is of step {state.step}, device.sink_mode=true goes on at "
                f"multiples of {size} alone; set device.sink_mode=false"
            )
        try:
            model.train(
                self.max_epochs * state.steps_per_epoch // size,
                batches,
                callbacks=SinkCallbacks(callbacks, state.steps_per_epoch),
                dataset_sink_mode=True,
                sink_size=size,
                initial_epoch=state.step // size,
            )
        except BaseException:
            close_queue(batches)
            raise

    def _check_equal_weights(self, network: nn.Cell) -> None:
        """Refuses processes that start from different weights: gradients alone are exchanged."""
        if self.process_group.world_size == 1:
            return
        checksum = 0
        for parameter in network.get_parameters():
            checksum = zlib.crc32(parameter.asnumpy(), checksum)
        checksums = self.process_group.gather(checksum)
        for rank, other in enumerate(checksums):
            if other != checksums[0]:
                raise UserError(
                    f"rank {rank} starts from other weights than rank 0: give all processes the "
                    "same code, seed and files (model.weights, mindcv's downloads, the run that is "
                    "resumed)"
                )

    def learning_rate(self, step: int) -> float:
        """The rate of the newest update at a step, counted from 1."""
        return self._rate(max(0, step - self.state.skipped_steps - 1))

    def is_due(self, every: int, step: int) -> bool:
        """Whether `step` is a multiple of `every`, or one lies in the sink that it ends."""
        return step % every < self._sink_size

    def is_logged(self, step: int) -> bool:
        """Whether `step` is one whose loss is read and logged: each n-th, and an epoch's last."""
        return self.is_due(self.log_every_n_steps, step) or step % self.state.steps_per_epoch == 0

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether a monitored value beats another; NaN never does, and 0.0 is a value."""
        if not math.isfinite(value):
            return False
        return than is None or (value > than if self.monitor_mode == "max" else value < than)

    def new_value(self) -> float | None:
        """The monitored value of this epoch's validation; None if there was none."""
        return self.state.metrics[self.monitor] if self.state.evaluation is not None else None

    def monitored_weights(self) -> AbstractContextManager[None]:
        """Swaps the weights that `monitor` refers to into the network temporarily."""
        return self.train_step.ema.in_place() if self.monitors_ema else nullcontext()

    def save_weights(self, name: str) -> Path:
        """Writes the weights that `monitor` refers to, `checkpoints/<name>.ckpt` (main process)."""
        path = self.checkpoint_dir / f"{name}.ckpt"
        if self.process_group.is_main_process:
            with self.monitored_weights():
                save_weights(self.train_step.network, path)
        return path

    def save_last_weights(self) -> None:
        """Writes the newest weights as `last.ckpt`, their EMA as `last_ema.ckpt` (main process)."""
        if not self.process_group.is_main_process:
            return
        save_weights(self.train_step.network, self.checkpoint_dir / "last.ckpt")
        if self.train_step.ema is not None:
            with self.train_step.ema.in_place():
                save_weights(self.train_step.network, self.checkpoint_dir / "last_ema.ckpt")

    def log(self, metrics: dict[str, float]) -> None:
        """Sends scalars, by their log keys, to all loggers."""
        for logger in self.loggers:
            logger.log(metrics, epoch=self.state.epoch, step=self.state.step)

    def evaluate(self, evaluator: Evaluator) -> Evaluation:
        """Evaluates at native resolution, with a progress bar."""
        count = self._count(evaluator)
        with progress() as bar:
            task = bar.add_task(f"evaluating {evaluator.split}", total=len(evaluator.share(count)))

            def advance() -> None:
                bar.advance(task)
                self.checkpointing.signals.obey()

            return evaluator.run(count, advance)

    def _count(self, evaluator: Evaluator) -> int:
        return min(len(evaluator.samples), self.limit_val_batches or 2**62)

    def predict(
        self,
        segmenter: Segmenter,
        files: Sequence[Path],
        read: Callable[[Path], np.ndarray | Video],
        output: Path,
        palette: np.ndarray,
        **options: Any,
    ) -> list[str]:
        """Writes the pictures of images and videos, see `src.engine.prediction`."""
        return write_predictions(segmenter, files, read, output, palette, **options)
