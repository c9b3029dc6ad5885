"""Random tensors of the configured sizes; NumPy only, since PyTorch's candidate takes them too."""

import numpy as np
from omegaconf import DictConfig


def random_batch(cfg: DictConfig, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images N×3×H×W float32 and labels N×H×W int32; N is `count` or `dataset.batch_size`."""
    rng = np.random.default_rng(cfg.seed)
    shape = (count or cfg.dataset.batch_size, *cfg.dataset.crop_size)
    images = rng.standard_normal((shape[0], 3, *shape[1:]), np.float32)
    return images, rng.integers(cfg.dataset.num_classes, size=shape, dtype=np.int32)
