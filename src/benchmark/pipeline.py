"""Ours: training input and native-resolution evaluation, without the network."""

import functools
import tempfile
import weakref
from pathlib import Path

import cv2
import numpy as np
from mindspore import nn
from omegaconf import DictConfig

from src.benchmark.workers import Work
from src.cli import build
from src.data.datamodule import SegDataModule
from src.data.sources.folder import FolderSource
from src.engine.evaluator import Evaluator
from src.engine.segmenter import Segmenter
from src.metrics import ConfusionMatrix
from src.utils.normalization import IMAGENET_RGB

SAMPLES = 64  # images that a run reads


def datamodule(cfg: DictConfig) -> SegDataModule:
    """The configured dataset, or generated images of VOC's size if its files are absent."""
    cfg.dataset.limit_samples = SAMPLES
    generated = cfg.dataset.source._target_.endswith("ShapesSource")
    if generated or Path(cfg.dataset.root).exists():
        return build.datamodule(cfg)
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    root = Path(folder.name)
    _make_images(root, cfg.dataset.num_classes)
    keys = ("num_classes", "ignore_index", "batch_size", "crop_size", "scale_range", "flip")
    module = SegDataModule(
        root,
        functools.partial(FolderSource, val_fraction=0.5),
        prepared_dir=root / "prepared",
        **{key: cfg.dataset[key] for key in keys},
        num_workers=cfg.dataset.num_workers,
    )
    weakref.finalize(module, folder.cleanup)
    return module


def _make_images(root: Path, num_classes: int) -> None:
    """JPEGs and labels of 500×375 pixels, about as many bytes as VOC's."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (root / name).mkdir()
    for i in range(2 * SAMPLES):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        image = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC)
        grain = cv2.GaussianBlur(rng.normal(0, 40, image.shape), (0, 0), 1.0)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
        label = cv2.resize(
            rng.integers(0, num_classes, (4, 5), np.uint8), (500, 375), interpolation=0
        )
        cv2.imwrite(str(root / "images" / f"{i:03}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(root / "labels" / f"{i:03}.png"), label)


def data(cfg: DictConfig) -> Work:
    """An epoch of decoded, augmented, normalised batches, with `dataset.num_workers` threads."""
    build.setup(cfg)
    module = datamodule(cfg)
    batches = module.train_batches(IMAGENET_RGB)

    def run() -> None:
        for _ in batches.create_tuple_iterator(num_epochs=1, output_numpy=True):
            pass

    return Work(run, batches.get_dataset_size() * module.batch_size)


class ReadyLogits(Segmenter):
    """A segmenter without a network: it returns random logits that are prepared once."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Cell(), IMAGENET_RGB)
        self.num_classes = num_classes
        self.ready: dict[tuple[int, ...], np.ndarray] = {}

    def _infer(self, images: np.ndarray, output: str) -> np.ndarray:
        shape = (len(images), self.num_classes, *images.shape[2:])
        if shape not in self.ready:
            self.ready[shape] = np.random.default_rng(0).standard_normal(shape, np.float32)
        return self.ready[shape]


def evaluation(cfg: DictConfig) -> Work:
    """Decodes, normalises, pads, takes the arg-max of ready logits, counts: at native size."""
    build.setup(cfg)
    module = datamodule(cfg)
    segmenter = ReadyLogits(module.num_classes)
    metric = ConfusionMatrix(module.num_classes, module.ignore_index)
    samples = module.eval_samples()
    evaluator = Evaluator(segmenter, samples, metric, module.class_names, module.val_split)
    count = len(samples)

    def run() -> None:
        evaluator.run(count)

    return Work(run, count)
