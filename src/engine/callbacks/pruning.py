"""Pruning: a trial of a search reports its validations and stops when the search says so."""

import json
import logging
import time

import mindspore as ms

from src.engine.callbacks.base import Callback
from src.runs.trial import REPORTS, VERDICT
from src.utils.errors import UserError
from src.utils.files import read_json

log = logging.getLogger(__name__)


class Pruning(Callback):
    """Reports each validation's monitored value to a search, and stops if it is pruned.

    The search is another process and answers through a file in the run directory, which it lays
    there before the run begins; without that file there is no search, and nothing is done.
    Register after `Validate`.

    Args:
        timeout: Seconds to wait for an answer; without one the run goes on.
    """

    def __init__(self, timeout: float = 30) -> None:
        super().__init__()
        self.timeout = timeout

    def on_train_epoch_end(self, run_context: ms.train.RunContext) -> None:
        trainer, state = self.trainer, self.trainer.state
        value = trainer.new_value()
        if value is None or not (trainer.output_dir / VERDICT).exists():
            return
        with open(trainer.output_dir / REPORTS, "a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": state.epoch, "value": value}) + "\n")
        if self._is_given_up(state.epoch):
            state.stop_reason = (
                f"pruned by the search: {trainer.monitor} {value:.4f} at epoch {state.epoch}"
            )
            log.info("stopping: %s", state.stop_reason)
            run_context.request_stop()

    def _is_given_up(self, epoch: int) -> bool:
        until = time.monotonic() + self.timeout
        while time.monotonic() < until:
            try:
                verdict = read_json(self.trainer.output_dir / VERDICT)
            except UserError:  # on a network file system for a moment
                verdict = {"epoch": 0}
            if verdict["epoch"] >= epoch:
                return verdict["prune"]
            time.sleep(0.05)
        log.warning("the search has not answered for %g s: going on", self.timeout)
        return False
