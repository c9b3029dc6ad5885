"""Inference: the single path from an image to class ids, for validation, eval and predict."""

from collections.abc import Sequence

import cv2
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.device.cpu_convolutions import use_cpu_convolutions
from src.utils.errors import UserError
from src.utils.normalization import Normalization
from src.utils.padding import MULTIPLE


def arg_max(scores: np.ndarray) -> np.ndarray:
    """Index of the largest of C×H×W scores, H×W uint8; of equal ones the first.

    Class by class, in whole planes: a ninth of the time of `argmax`, which goes through the
    classes of each pixel, and a fifth of MindSpore's on the CPU (21 classes, 384×512).
    """
    best = scores[0].copy()
    ids = np.zeros(best.shape, np.uint8)
    better = np.empty(best.shape, np.bool_)
    candidate = np.empty_like(ids)
    for index, plane in enumerate(scores[1:], 1):
        np.greater(plane, best, out=better)
        np.maximum(plane, best, out=best)
        np.multiply(better, np.uint8(index), out=candidate)
        np.maximum(candidate, ids, out=ids)  # indices rise: a better one is the larger one
    return ids


class _Head(nn.Cell):
    """Network plus softmax, arg-max or nothing, compiled once for all image sizes."""

    def __init__(self, network: nn.Cell, output: str, fast_convolutions: bool) -> None:
        super().__init__(auto_prefix=False)
        if fast_convolutions:
            use_cpu_convolutions(network)  # not before: they depend on its precision
        self.network = network
        self.output = output
        self.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))

    def construct(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        if self.output == "probabilities":
            return ops.softmax(logits.astype(ms.float32), axis=1)  # N×C×H×W
        if self.output == "ids":
            return ops.Argmax(axis=1, output_type=ms.int32)(logits)  # N×H×W
        return logits.astype(ms.float32)


class Segmenter:
    """Predicts class ids of images of any size.

    An image is normalised, padded with zeros below and to the right to the next multiple of 32,
    run through the network, and the result is cut back to the image's size.

    Args:
        network: Images N×3×H×W float32 → logits N×C×H×W.
        normalization: What the network's weights expect.
        window: (H, W) of a sliding window in pixels; None runs the whole image at once.
        overlap: Share of a window that the next one covers again.
        scales: Factors at which the image is run; the probabilities of all are averaged.
        flip: Also runs the mirrored image at every scale.
        pad_to: (H, W), multiples of 32: images are padded to multiples of these instead, so that
            the network meets few sizes, where it is compiled for each. Scores near the lower and
            right border differ a little, as far as the network sees beyond it.
        fast_convolutions: The first image changes the network's convolutions on the CPU
            (`use_cpu_convolutions`).
    """

    def __init__(
        self,
        network: nn.Cell,
        normalization: Normalization,
        window: Sequence[int] | None = None,
        overlap: float = 0.5,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        pad_to: Sequence[int] | None = None,
        fast_convolutions: bool = True,
    ) -> None:
        if pad_to is not None and (
            len(pad_to) != 2 or any(size < MULTIPLE or size % MULTIPLE for size in pad_to)
        ):
            raise UserError(
                f"inference.pad_to={list(pad_to)}: expected [H, W], multiples of {MULTIPLE}"
            )
        if window is not None and (len(window) != 2 or min(window) < MULTIPLE):
            raise UserError(
                f"inference.window={list(window)}: expected [H, W], each at least {MULTIPLE}"
            )
        if not 0 <= overlap < 1:
            raise UserError(f"inference.overlap={overlap}: expected 0 to below 1")
        if not scales or min(scales) <= 0:
            raise UserError(f"inference.scales={list(scales)}: expected positive factors")
        self.network = network
        self.normalization = normalization
        self.window = None if window is None else tuple(window)
        self.overlap = overlap
        self.scales = tuple(scales)
        self.flip = flip
        self.multiples = (MULTIPLE, MULTIPLE) if pad_to is None else tuple(pad_to)
        self.fast_convolutions = fast_convolutions
        self._heads: dict[str, _Head] = {}

    @property
    def protocol(self) -> dict:
        """How predictions are made, for `eval.json`."""
        return {
            "resolution": "native",
            "padding": f"zeros below and right to multiples of {self.multiples}",
            "normalization": self.normalization.describe(),
            "window": self.window,
            "overlap": self.overlap if self.window else None,
            "scales": self.scales,
            "flip": self.flip,
        }

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Class ids H×W uint8 of an H×W×3 uint8 RGB image."""
        if self.window is None and self.scales == (1.0,) and not self.flip:
            height, width = image.shape[:2]
            return self.class_ids(self._padded(image))[0, :height, :width]
        return arg_max(self.probabilities(image))

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Softmax probabilities C×H×W float32, averaged over scales, mirror images and windows."""
        size = image.shape[1::-1]  # (W, H), as cv2 takes it
        total: np.ndarray | None = None
        for scale in self.scales:
            scaled = image
            if scale != 1.0:
                scaled = cv2.resize(image, [max(1, round(scale * s)) for s in size])
            for mirrored in (False, True) if self.flip else (False,):
                probabilities = self._windows(scaled[:, ::-1] if mirrored else scaled)
                if mirrored:
                    probabilities = probabilities[:, :, ::-1]
                if scale != 1.0:
                    probabilities = np.stack([cv2.resize(plane, size) for plane in probabilities])
                total = probabilities if total is None else total + probabilities
        return total / (len(self.scales) * (1 + self.flip))

    def _windows(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if self.window is None:
            return self._infer(self._padded(image), "probabilities")[0, :, :height, :width]
        total, count = None, np.zeros((height, width), np.float32)
        for top in window_starts(height, self.window[0], self.overlap):
            for left in window_starts(width, self.window[1], self.overlap):
                region = np.s_[top : top + self.window[0], left : left + self.window[1]]
                part = self._infer(self._padded(image[region]), "probabilities")[0]
                if total is None:
                    total = np.zeros((len(part), height, width), np.float32)
                h, w = count[region].shape
                total[(slice(None), *region)] += part[:, :h, :w]
                count[region] += 1
        return total / count

    def class_ids(self, images: np.ndarray) -> np.ndarray:
        """Class ids N×H×W uint8 of N×3×H×W normalised images, H and W multiples of 32."""
        if ms.get_context("device_target") == "CPU":
            return np.stack([arg_max(logits) for logits in self._infer(images, "logits")])
        # From a device the logits would have a long way, 4 C bytes a pixel
        return self._infer(images, "ids").astype(np.uint8)

    def _padded(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        below, beside = -height % self.multiples[0], -width % self.multiples[1]
        planes = self.normalization.apply(image)
        return np.pad(planes, ((0, 0), (0, below), (0, beside)))[None]

    def _infer(self, images: np.ndarray, output: str) -> np.ndarray:
        if output not in self._heads:
            self._heads[output] = _Head(self.network, output, self.fast_convolutions)
        head = self._heads[output]
        training = self.network.training
        head.set_train(False)
        try:
            return head(Tensor(images)).asnumpy()
        finally:
            self.network.set_train(training)


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First pixels of the windows that cover `size`; the last one ends at the border."""
    if size <= window:
        return [0]
    step = max(1, round(window * (1 - overlap)))
    return sorted({*range(0, size - window, step), size - window})
