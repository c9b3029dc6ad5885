"""The one way from an image to class ids: for validation, evaluation and prediction alike."""

from collections.abc import Sequence

import cv2
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.utils.errors import UserError
from src.utils.normalization import Normalization

MULTIPLE = 32  # the deepest stride of the backbones


class _Head(nn.Cell):
    """Network plus arg-max or softmax, compiled once for all image sizes."""

    def __init__(self, network: nn.Cell, probabilities: bool) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.probabilities = probabilities
        self.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))

    def construct(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        if self.probabilities:
            return ops.softmax(logits.astype(ms.float32), axis=1)  # N×C×H×W
        return ops.Argmax(axis=1, output_type=ms.int32)(logits)  # N×H×W


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
    """

    def __init__(
        self,
        network: nn.Cell,
        normalization: Normalization,
        window: Sequence[int] | None = None,
        overlap: float = 0.5,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
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
        self._heads: dict[bool, _Head] = {}

    @property
    def protocol(self) -> dict:
        """How predictions are made, for `eval.json`."""
        return {
            "resolution": "native",
            "padding": f"zeros below and right to a multiple of {MULTIPLE}",
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
            return self._run(image, probabilities=False)[0, :height, :width].astype(np.uint8)
        return self.probabilities(image).argmax(axis=0).astype(np.uint8)

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
            return self._run(image, probabilities=True)[0, :, :height, :width]
        total, count = None, np.zeros((height, width), np.float32)
        for top in _starts(height, self.window[0], self.overlap):
            for left in _starts(width, self.window[1], self.overlap):
                region = np.s_[top : top + self.window[0], left : left + self.window[1]]
                part = self._run(image[region], probabilities=True)[0]
                if total is None:
                    total = np.zeros((len(part), height, width), np.float32)
                h, w = count[region].shape
                total[(slice(None), *region)] += part[:, :h, :w]
                count[region] += 1
        return total / count

    def class_ids(self, images: np.ndarray) -> np.ndarray:
        """Class ids N×H×W of N×3×H×W normalised images, H and W multiples of 32."""
        return self._infer(images, probabilities=False)

    def _run(self, image: np.ndarray, probabilities: bool) -> np.ndarray:
        height, width = image.shape[:2]
        pad_h, pad_w = -height % MULTIPLE, -width % MULTIPLE
        planes = self.normalization.apply(image)
        padded = np.pad(planes, ((0, 0), (0, pad_h), (0, pad_w)))[None]
        return self._infer(padded, probabilities)

    def _infer(self, images: np.ndarray, probabilities: bool) -> np.ndarray:
        if probabilities not in self._heads:
            self._heads[probabilities] = _Head(self.network, probabilities)
        head = self._heads[probabilities]
        training = self.network.training
        head.set_train(False)
        try:
            return head(Tensor(images)).asnumpy()
        finally:
            self.network.set_train(training)


def _starts(size: int, window: int, overlap: float) -> list[int]:
    """First pixels of the windows that cover `size`; the last one ends at the border."""
    if size <= window:
        return [0]
    step = max(1, round(window * (1 - overlap)))
    return sorted({*range(0, size - window, step), size - window})
