"""Parity of an exported file with the network."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.exporting.deployment import Deployment
from src.exporting.specification import Specification
from src.utils.errors import UserError
from src.utils.normalization import Normalization
from src.utils.padding import MULTIPLE

log = logging.getLogger(__name__)

Runner = Callable[[np.ndarray], np.ndarray]

# Largest difference of logits, as a share of the largest logit: float32 sums in another order, and
# mindcv's HRNet rounds to float16 inside
TOLERANCE = 5e-4
# Odd at all five halvings, so that networks which round down and those which round up differ
_ODD = (2 * MULTIPLE + 1, 3 * MULTIPLE + 1)
_EVEN = (2 * MULTIPLE, 3 * MULTIPLE)


@dataclass(frozen=True)
class _Case:
    title: str
    images: np.ndarray  # N×3×H×W float32, as the file takes them
    logits: np.ndarray  # N×C×H×W, as the network gives them


class ParityCheck:
    """Compares a file's logits with the network's, on noise and on a drawn scene, at two sizes.

    Attributes:
        multiple: Heights and widths that the network takes: 1, all; or multiples of 32. Of a fixed
            size, 1.

    Raises:
        UserError: The network does not run at the fixed size, or its logits are not finite.
    """

    def __init__(
        self, network: nn.Cell, normalization: Normalization, specification: Specification
    ) -> None:
        self._raw = specification.normalize
        self._normalization = normalization
        self._run = _dynamic(network)
        self.multiple = 1
        first = self._cases(specification.size or _EVEN, specification.batch_size or 1)
        second_batch = specification.batch_size or 2
        if specification.size:
            second = self._cases(specification.size, second_batch)
        else:
            try:
                second = self._cases(_ODD, second_batch)
            except UserError:
                self.multiple = MULTIPLE
                self._run = _dynamic(network)  # a graph that failed once fails ever after
                second = self._cases(_EVEN[::-1], second_batch)
                log.warning(
                    "this network runs at multiples of %d only (its backbone rounds sizes down): "
                    "the file says so in its metadata",
                    MULTIPLE,
                )
        self._all = [*first, *second]
        self._largest = max(float(np.abs(case.logits).max()) for case in self._all)
        if self._largest == 0:
            log.warning("all logits are zero, as before any training: the comparison says little")

    def check(self, run: Runner, file: str, argmax: bool = False) -> float:
        """Compares a file's answers with the network's.

        Args:
            run: The loaded file: images → logits, or class ids.
            file: Its name, for the error.
            argmax: It gives class ids.

        Returns:
            The largest difference of logits; for class ids, by how much the logit of the file's
            class falls short of the largest one.

        Raises:
            UserError: A shape differs, or a difference is above the tolerance.
        """
        worst = 0.0
        for case in self._all:
            output = run(case.images)
            n, _, h, w = case.logits.shape
            expected = (n, h, w) if argmax else case.logits.shape
            if output.shape != expected:
                raise UserError(
                    f"{file}: gives {_times(output.shape)} for {case.title}, the network gives "
                    f"{_times(expected)}; no file was written"
                )
            if argmax:
                chosen = np.take_along_axis(case.logits, output[:, None], axis=1)[:, 0]
                difference = case.logits.max(axis=1) - chosen
            else:
                difference = np.abs(output - case.logits)
            largest = float(difference.max())
            allowed = TOLERANCE * self._largest
            if not largest <= allowed:  # also if NaN
                raise UserError(
                    f"{file}: differs from the network by {largest:.2g} for {case.title}, where "
                    f"logits reach {self._largest:.2g} and {allowed:.2g} is allowed; no file was "
                    "written"
                )
            worst = max(worst, largest)
        return worst

    def summary(self, difference: float) -> dict[str, Any]:
        """What was compared, for the run directory."""
        return {
            "largest_difference": difference,
            "largest_logit": self._largest,
            "tolerance": TOLERANCE * self._largest,
            "inputs": [case.title for case in self._all],
        }

    def _cases(self, size: tuple[int, int], batch: int) -> list[_Case]:
        rng = np.random.default_rng(sum(size) + batch)
        noise = rng.integers(0, 256, (batch, *size, 3), np.uint8)
        scenes = np.stack([_scene(size, rng) for _ in range(batch)])
        return [
            self._case(f"{name} of {batch}×{_times(size)}", images)
            for name, images in (("noise", noise), ("a scene", scenes))
        ]

    def _case(self, title: str, rgb: np.ndarray) -> _Case:
        normalized = np.stack([self._normalization.apply(image) for image in rgb])
        n, height, width, _ = rgb.shape
        try:
            logits = self._run(normalized)
            if logits.shape[0] != n or logits.shape[2:] != (height, width):
                raise ValueError(f"logits of {_times(logits.shape)}")
        except (RuntimeError, ValueError, TypeError) as error:  # MindSpore's, of unfitting shapes
            log.debug("%s", title, exc_info=True)
            raise UserError(
                f"size=[{height},{width}]: the network does not run at this size; take multiples "
                f"of {MULTIPLE}"
            ) from error
        if not np.isfinite(logits).all():
            raise UserError(f"the network's logits are not finite for {title}; was it trained?")
        images = rgb.transpose(0, 3, 1, 2).astype(np.float32) if self._raw else normalized
        return _Case(title, np.ascontiguousarray(images), logits)


def mindspore_runner(cell: nn.Cell, shape: tuple[int | None, ...]) -> Runner:
    """Runs a cell on arrays; compiled once for all that fit `shape`."""
    cell.set_inputs(Tensor(shape=list(shape), dtype=ms.float32))
    return lambda images: cell(Tensor(images)).asnumpy()


def _dynamic(network: nn.Cell) -> Runner:
    return mindspore_runner(Deployment(network), (None, 3, None, None))


def _scene(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """H×W×3 uint8: a sky of changing brightness, a ground, discs of some colours, some noise."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    scene = np.stack([90 + 100 * y / height, 140 + 60 * x / width, 200 - 80 * y / height], -1)
    scene[y > 0.7 * height] = (90, 120, 60)
    for _ in range(4):
        center_y, center_x, radius = rng.uniform((0, 0, 0.1), (height, width, 0.3))
        disc = np.hypot(y - center_y, x - center_x) < radius * min(size)
        scene[disc] = rng.uniform(0, 255, 3)
    return np.clip(scene + rng.normal(0, 6, scene.shape), 0, 255).astype(np.uint8)


def _times(numbers: tuple[int, ...]) -> str:
    return "×".join(map(str, numbers))
