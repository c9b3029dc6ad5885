"""Builds the objects of a run from its config, one function per object, in the order of use.

Where a config says null for what the data or the weights know (class names, normalisation), the
functions `resolve_…` return a config that has the answer; the composed one is left as it is.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from hydra.utils import instantiate
from mindspore import nn
from omegaconf import DictConfig, OmegaConf, open_dict

from src.data.datamodule import SegDataModule
from src.data.fetch.download import resolve_weights
from src.data.preparation.class_weights import class_weights
from src.data.preparation.label_statistics import report_table
from src.device import process_group, runtime
from src.device.precision import set_precision
from src.device.sync_batch_norm import synchronize_batch_norm
from src.engine.evaluator import Evaluator
from src.engine.segmenter import Segmenter
from src.engine.trainer import Trainer
from src.losses import WithAuxiliary
from src.metrics import ConfusionMatrix
from src.models.freezing import freeze, freeze_norms
from src.models.weights import load_weights
from src.runs.directory import RESOLVED_CONFIG, checkpoint_at, run_directory_of
from src.utils.console import console
from src.utils.errors import UserError, error_summary
from src.utils.normalization import IMAGENET_RGB, Normalization
from src.utils.processes import default_workers

log = logging.getLogger(__name__)

LR_SCALINGS = {
    "none": lambda world_size: 1,
    "linear": lambda world_size: world_size,
    "sqrt": math.sqrt,
}
NORMALIZATION_KEYS = ("color_order", "mean", "std")
TRAINING_KEYS = ("weights", "auxiliary_weight", "frozen", "frozen_norm")  # of model


def setup(cfg: DictConfig) -> None:
    """Chooses device, mode and seed of this process."""
    names = ("target", "id", "mode", "jit_level", "deterministic", "threads")
    values = {name: cfg.device[name] for name in names}
    values["id"] = process_group.local_device(cfg.device.target, cfg.device.id)
    if cfg.device.threads is None:
        values["threads"] = process_group.share_of_cores()
    runtime.setup_device(**values)
    runtime.seed_everything(cfg.seed)


def datamodule(cfg: DictConfig) -> SegDataModule:
    """The dataset."""
    node = _without(cfg.dataset, NORMALIZATION_KEYS)
    share = process_group.share_of_cores()
    if node.num_workers is None and share is not None:
        node.num_workers = default_workers(share)
    return instantiate(node, _convert_="all")


def resolve_classes(cfg: DictConfig, data: SegDataModule) -> DictConfig:
    """The config with the dataset's own class names and number of classes."""
    values = {"class_names": list(data.class_names), "num_classes": data.num_classes}
    return _with_values(cfg, {f"dataset.{key}": value for key, value in values.items()})


def resolve_normalization(cfg: DictConfig, normalization: Normalization) -> DictConfig:
    """The config with the chosen normalisation."""
    return _with_values(
        cfg,
        {
            "dataset.color_order": normalization.color_order,
            "dataset.mean": list(normalization.mean),
            "dataset.std": list(normalization.std),
        },
    )


def network(cfg: DictConfig, generated: bool = False) -> tuple[nn.Cell, Normalization]:
    """The network with its initial weights, and the normalisation of images they expect.

    Args:
        cfg: With the dataset's number of classes, see `resolve_classes`.
        generated: The images are made, not photographed: pretrained weights would help little.
    """
    net = bare_network(cfg)
    if cfg.device.sync_batch_norm:
        if cfg.device.target != "Ascend":
            raise UserError(
                f"device.sync_batch_norm=true with device.target={cfg.device.target}: MindSpore "
                "has it for Ascend alone; set it to false"
            )
        synchronize_batch_norm(net)
    of_weights = None
    if cfg.model.weights is not None:
        weights = checkpoint_at(cfg.model.weights)
        path = resolve_weights(weights, Path(cfg.paths.data_dir) / "weights")
        of_weights = load_weights(net, path).normalization or _normalization_of_run(path)
    elif cfg.model.backbone.get("pretrained", False):
        of_weights = getattr(net.backbone, "normalization", None)
    elif not generated:
        log.warning(
            "training from random weights: an FCN on real data wants an ImageNet backbone; give "
            "model.weights=FILE (VGG), or model.backbone.pretrained=true (EfficientNet-Lite, "
            "mindcv)"
        )
    freeze(net, cfg.model.get("frozen", ()))
    if cfg.model.get("frozen_norm"):
        freeze_norms(net.backbone)
    return net, _normalization(cfg, of_weights)


def bare_network(cfg: DictConfig) -> nn.Cell:
    """The network with randomly initialised (or its backbone's pretrained) weights.

    Raises:
        UserError: `model.num_classes` is not the dataset's.
    """
    if cfg.model.num_classes != cfg.dataset.num_classes:
        names = ", ".join((cfg.dataset.class_names or [])[:4])
        raise UserError(
            f"model.num_classes={cfg.model.num_classes}: the dataset has "
            f"{cfg.dataset.num_classes} classes ({names} …); choose the dataset that the network "
            "was trained on, or one of the same classes"
        )
    auxiliary = bool(cfg.model.get("auxiliary_weight"))
    return instantiate(_without(cfg.model, TRAINING_KEYS), auxiliary=auxiliary, _convert_="all")


def trained_network(cfg: DictConfig) -> tuple[nn.Cell, Normalization]:
    """The network of `ckpt_path`, whose parameters must all match, and its normalisation.

    Args:
        cfg: With the dataset's number of classes, see `resolve_classes`.
    """
    # Nothing to download, the checkpoint has it all; the auxiliary head serves training alone
    absent = {"model.backbone.pretrained": False, "model.auxiliary_weight": None}
    known = {key: value for key, value in absent.items() if OmegaConf.select(cfg, key)}
    net = bare_network(_with_values(cfg, known))
    path = checkpoint_path(cfg)
    report = load_weights(net, path, strict=True)
    # As validation had it in training
    set_precision(net, cfg.device.amp_level, cfg.device.amp_dtype)
    net.set_train(False)
    return net, _normalization(cfg, report.normalization or _normalization_of_run(path))


def trained(cfg: DictConfig, data: SegDataModule) -> tuple[DictConfig, nn.Cell, Normalization]:
    """The config with what dataset and checkpoint decide, the network and its normalisation."""
    cfg = resolve_classes(cfg, data)
    net, normalization = trained_network(cfg)
    return resolve_normalization(cfg, normalization), net, normalization


def for_export(cfg: DictConfig) -> DictConfig:
    """The config on the CPU in float32, so that a file is the same wherever the run was trained.

    Accelerators round the inputs of convolutions to ten bits, which the comparison of the file with
    the network would not pass; files hold compiled graphs.
    """
    values = {"target": "CPU", "jit_level": None, "mode": "graph", "amp_level": "O0"}
    return _with_values(cfg, {f"device.{key}": value for key, value in values.items()})


def checkpoint_path(cfg: DictConfig) -> Path:
    """The file that `ckpt_path` names; downloads it if it is an address or a known name."""
    return resolve_weights(cfg.ckpt_path, Path(cfg.paths.data_dir) / "weights")


def show_reports(data: SegDataModule, reports: dict[str, dict[str, Any]]) -> None:
    """Prints the preparation reports of the splits."""
    for report in reports.values():
        console.print(report_table(report, data.class_names))


def resolve_class_weights(cfg: DictConfig, data: SegDataModule) -> DictConfig:
    """The config with the class weights that a rule of the loss gives for the training split."""
    values = {}
    for node, key, path in _class_factors(cfg.loss, "loss"):
        if isinstance(node[key], str):
            report = data.prepare(data.train_split)[data.train_split]
            weights = class_weights(path, node[key], report["classes"])
            named = zip(data.class_names, weights, strict=True)
            log.info("%s: %s", node[key], ", ".join(f"{name} {value:g}" for name, value in named))
            values[path] = weights
    return _with_values(cfg, values)


def loss(cfg: DictConfig) -> nn.Cell:
    """The loss, including that of an auxiliary head; class weights must match the classes."""
    for node, key, path in _class_factors(cfg.loss, "loss"):
        factors = node[key]
        if OmegaConf.is_list(factors) and len(factors) != cfg.dataset.num_classes:
            raise UserError(
                f"{path} has {len(factors)} factors: expected one for each of the "
                f"{cfg.dataset.num_classes} classes"
            )
    chosen = instantiate(cfg.loss, _convert_="all")
    weight = cfg.model.get("auxiliary_weight")
    return WithAuxiliary(chosen, weight) if weight else chosen


def _class_factors(node: DictConfig, path: str) -> Iterator[tuple[DictConfig, str, str]]:
    """Per-class factors of a loss and of the losses it sums: node, key, dotted key."""
    for key, value in node.items():
        if OmegaConf.is_dict(value):
            yield from _class_factors(value, f"{path}.{key}")
        elif key in ("class_weights", "alpha"):
            yield node, key, f"{path}.{key}"


def steps_per_epoch(trainer: Trainer, batches: ms.dataset.Dataset) -> int:
    """How many updates an epoch has."""
    return min(batches.get_dataset_size(), trainer.limit_train_batches or 2**62)


def schedule(cfg: DictConfig, trainer: Trainer, batches: ms.dataset.Dataset) -> Any:
    """The learning-rate schedule over all steps of the run."""
    steps = steps_per_epoch(trainer, batches)
    factor = LR_SCALINGS[cfg.device.lr_scaling](trainer.process_group.world_size)
    if factor != 1:
        log.info("learning rate × %g for %d processes", factor, trainer.process_group.world_size)
    return instantiate(cfg.scheduler, _convert_="all")(
        learning_rate=cfg.optimizer.learning_rate * factor,
        total_steps=steps * trainer.max_epochs,
        steps_per_epoch=steps,
    )


def optimizer(
    cfg: DictConfig, net: nn.Cell, learning_rate: Any, steps_per_epoch: int = 1
) -> nn.Optimizer:
    """The optimizer over the network's trainable parameters, in parameter groups."""
    groups = instantiate(cfg.optimizer.parameters, _convert_="all")(
        net.trainable_params(),
        learning_rate,
        cfg.optimizer.weight_decay,
        steps_per_epoch=steps_per_epoch,
    )
    make = instantiate(_without(cfg.optimizer, ["parameters"]), _convert_="all")
    try:
        return make(params=groups, learning_rate=learning_rate)
    except UserError:
        raise
    except ValueError as error:
        kind = cfg.optimizer._target_.rpartition(".")[2]
        raise UserError(f"optimizer ({kind}): {error_summary(error)}") from error


def segmenter(cfg: DictConfig, net: nn.Cell, normalization: Normalization) -> Segmenter:
    """The inference path of the network."""
    return Segmenter(net, normalization, **OmegaConf.to_container(cfg.inference, resolve=True))


def evaluator(
    cfg: DictConfig,
    net: nn.Cell,
    normalization: Normalization,
    data: SegDataModule,
    split: str | None = None,
) -> Evaluator:
    """Evaluates the network on a split, by default the validation split."""
    split = split or data.val_split
    metric = ConfusionMatrix(data.num_classes, data.ignore_index)
    samples = data.eval_samples(split)
    return Evaluator(
        segmenter(cfg, net, normalization),
        samples,
        metric,
        data.class_names,
        split,
        data.palette,
        extra_metrics=_nodes(cfg.metrics),
        process_group=process_group.this_process(),
    )


def trainer(cfg: DictConfig, tracker_ids: Mapping[str, str] | None = None) -> Trainer:
    """The trainer with its callbacks and loggers, which have been started.

    Args:
        cfg: The resolved config.
        tracker_ids: Of the run that goes on, by logger name: see `Logger.run_id`.
    """
    this = process_group.this_process()
    loggers = _nodes(cfg.logger) if this.is_main_process else []
    for logger in loggers:
        resume_id = (tracker_ids or {}).get(logger.name)
        logger.start(OmegaConf.to_container(cfg, resolve=True), resume_id)
    return instantiate(
        cfg.trainer,
        output_dir=cfg.output_dir,
        callbacks=_nodes(cfg.callbacks),
        loggers=loggers,
        process_group=this,
        _convert_="all",
    )


def _nodes(group: DictConfig) -> list[Any]:
    """Instantiates the named nodes of a config group, in order; null drops one."""
    return [instantiate(node, _convert_="all") for node in group.values() if node is not None]


def _without(node: DictConfig, keys: Sequence[str]) -> DictConfig:
    """A resolved copy of a node, without some keys."""
    copy = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
    for key in keys:
        copy.pop(key, None)
    return copy


def _with_values(cfg: DictConfig, values: dict[str, Any]) -> DictConfig:
    """A copy of a config with some values, by dotted key."""
    copy = cfg.copy()
    with open_dict(copy):
        for key, value in values.items():
            OmegaConf.update(copy, key, value)
    return copy


def _normalization(cfg: DictConfig, of_weights: Normalization | None) -> Normalization:
    """Colour order, mean and std: the config's, else the weights', else ImageNet's RGB."""
    start = of_weights or IMAGENET_RGB
    given = [key for key in NORMALIZATION_KEYS if cfg.dataset[key] is not None]
    normalization = Normalization(
        **{
            key: OmegaConf.to_object(cfg.dataset)[key] if key in given else getattr(start, key)
            for key in NORMALIZATION_KEYS
        }
    )
    origin = "the weights bring it" if of_weights else "ImageNet's"
    if given:
        origin = f"{', '.join(given)} from the config"
    log.info("normalisation: %s (%s)", normalization.describe(), origin)
    return normalization


def _normalization_of_run(checkpoint: Path) -> Normalization | None:
    """The normalisation of the run whose directory holds a checkpoint."""
    run = run_directory_of(checkpoint)
    if run is None:
        return None
    dataset = OmegaConf.load(run / RESOLVED_CONFIG).dataset
    return Normalization(**{key: OmegaConf.to_object(dataset)[key] for key in NORMALIZATION_KEYS})
