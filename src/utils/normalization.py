"""The normalisation of images that weights expect: colour order, mean, standard deviation."""

from dataclasses import dataclass

import cv2
import numpy as np

from src.utils.errors import UserError


@dataclass(frozen=True)
class Normalization:
    """Channel statistics on the 0–255 scale, in the colour order that the network sees.

    Images are RGB everywhere in the project; `apply` alone reorders them.
    """

    color_order: str = "rgb"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        if self.color_order not in ("rgb", "bgr"):
            raise UserError(f"color_order={self.color_order!r}: expected 'rgb' or 'bgr'")
        for name in ("mean", "std"):
            values = tuple(float(v) for v in getattr(self, name))
            if len(values) != 3 or (name == "std" and min(values) <= 0):
                kind = "positive numbers" if name == "std" else "numbers"
                raise UserError(f"{name}={values}: expected three {kind} on the 0–255 scale")
            if 0 < max(values) < 1 or (name == "mean" and max(values) == 1):
                given, scaled = (",".join(f"{k * v:g}" for v in values) for k in (1, 255))
                raise UserError(
                    f"dataset.{name}=[{given}]: on the 0–1 scale; expected the 0–255 scale: "
                    f"dataset.{name}=[{scaled}]"
                )
            object.__setattr__(self, name, values)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turns an H×W×3 uint8 RGB image into 3×H×W float32, contiguous."""
        scale = (1.0 / np.array(self.std)).astype(np.float32)
        shift = (-np.array(self.mean) / np.array(self.std)).astype(np.float32)
        channels = cv2.split(image)  # contiguous planes, which NumPy goes through twice as fast
        planes = np.empty((3, *image.shape[:2]), np.float32)
        for i, channel in enumerate(channels[::-1] if self.color_order == "bgr" else channels):
            np.multiply(channel, scale[i], out=planes[i], dtype=np.float32)
            planes[i] += shift[i]
        return planes

    def describe(self) -> str:
        """One phrase for logs and picture captions."""
        numbers = (
            " ".join(f"{v:g}" for v in self.mean) + " / " + " ".join(f"{v:g}" for v in self.std)
        )
        return f"{self.color_order.upper()} {numbers}"


IMAGENET_RGB = Normalization()
TUTORIAL_BGR = Normalization("bgr", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
