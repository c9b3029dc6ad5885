"""The tutorial's way: eager network, augmentation of whole images, a matrix for each metric."""

import cv2
import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore import Tensor, nn
from omegaconf import DictConfig

from src.benchmark.networks import step_work
from src.benchmark.pipeline import datamodule
from src.benchmark.random_batch import random_batch
from src.benchmark.workers import Work
from src.cli import build
from src.utils.normalization import TUTORIAL_BGR

METRICS = 4  # each builds the same confusion matrix from the logits


def train_step(cfg: DictConfig) -> Work:
    """Forward, backward and update, eagerly, with MindSpore's own loss and convolutions."""
    network = _network(cfg)
    loss = nn.WithLossCell(network, nn.CrossEntropyLoss(ignore_index=cfg.dataset.ignore_index))
    optimizer = nn.Momentum(network.trainable_params(), 0.01, momentum=0.9, weight_decay=1e-4)
    step = nn.TrainOneStepCell(loss, optimizer)
    step.set_train()
    return step_work(step, network, *random_batch(cfg))


def inference(cfg: DictConfig, count: int | None = None) -> Work:
    """Images to logits on the device, arg-max in NumPy."""
    network = _network(cfg)
    network.set_train(False)
    images, _ = random_batch(cfg, count)

    def run() -> None:
        network(Tensor(images)).asnumpy().argmax(axis=1)

    return Work(run, len(images))


def inference_batch1(cfg: DictConfig) -> Work:
    """The same for a single image."""
    return inference(cfg, count=1)


def _network(cfg: DictConfig) -> nn.Cell:
    cfg.device.mode = "pynative"
    build.setup(cfg)
    return build.bare_network(cfg)


def data(cfg: DictConfig) -> Work:
    """Scales the whole image bicubically, normalises all of it, pads, crops; with `num_workers`."""
    module = datamodule(cfg)
    samples = len(module.train_crops())
    augmentation = _Augmentation(cfg)

    def run() -> None:
        batches = ds.MindDataset(
            str(module.record_file(module.train_split)),
            columns_list=["data", "label"],
            shuffle=True,
            num_parallel_workers=1,
            num_samples=samples,
        )
        columns = ["data", "label"]
        batches = batches.map(augmentation, columns, num_parallel_workers=module.num_workers)
        batches = batches.batch(module.batch_size, drop_remainder=True)
        for _ in batches.create_tuple_iterator(num_epochs=1, output_numpy=True):
            pass

    return Work(run, samples // module.batch_size * module.batch_size)


class _Augmentation:
    def __init__(self, cfg: DictConfig) -> None:
        self.height, self.width = cfg.dataset.crop_size
        self.scale_range = cfg.dataset.scale_range or (1.0, 1.0)
        self.ignore_index = cfg.dataset.ignore_index
        self.mean = np.array(TUTORIAL_BGR.mean, np.float32)
        self.std = np.array(TUTORIAL_BGR.std, np.float32)

    def __call__(self, data: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        label = cv2.imdecode(np.frombuffer(label, np.uint8), cv2.IMREAD_GRAYSCALE)
        scale = np.random.uniform(*self.scale_range)
        height, width = (int(scale * side) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
        image = (image - self.mean) / self.std
        pad = [0, max(0, self.height - height), 0, max(0, self.width - width)]
        if any(pad):
            image = cv2.copyMakeBorder(image, *pad, cv2.BORDER_CONSTANT, value=0)
            border = {"borderType": cv2.BORDER_CONSTANT, "value": self.ignore_index}
            label = cv2.copyMakeBorder(label, *pad, **border)
        top = np.random.randint(image.shape[0] - self.height + 1)
        left = np.random.randint(image.shape[1] - self.width + 1)
        crop = np.s_[top : top + self.height, left : left + self.width]
        image, label = image[crop], label[crop]
        if np.random.uniform() > 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        return image.transpose(2, 0, 1).copy(), label.astype(np.int32)


def evaluation(cfg: DictConfig) -> Work:
    """The four metrics alone, from logits of a batch of whole images."""
    ms.set_device("CPU")
    module = datamodule(cfg)
    classes, samples = module.num_classes, list(module.eval_samples())
    rng = np.random.default_rng(0)
    batches = [
        (Tensor(rng.standard_normal((1, classes, *s.label.shape), np.float32)), s.label[None])
        for s in samples
    ]

    def run() -> None:
        for logits, target in batches:
            for _ in range(METRICS):
                pred = logits.asnumpy().argmax(axis=1)
                valid = target < classes
                index = classes * target[valid].astype(int) + pred[valid]
                np.bincount(index, minlength=classes**2)

    return Work(run, len(samples))
