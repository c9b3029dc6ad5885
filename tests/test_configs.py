"""Every YAML composes, passes the check and gives the objects it names."""

import functools
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.cli import build
from src.cli.command import compose_config
from src.cli.schema import check
from src.engine.loggers.csv import CsvLogger
from src.engine.trainer import Trainer
from src.utils.errors import UserError

CONF = Path(__file__).resolve().parents[1] / "conf"


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@functools.cache
def primary(name: str):
    return compose_config(name, [])


def compose(*overrides: str, name: str = "train"):
    cfg = compose_config(name, list(overrides))
    check(cfg, primary(name))
    return cfg


GROUPS = [
    "dataset", "model", "model/backbone", "optimizer", "optimizer/parameters", "scheduler", "loss",
    "device", "trainer", "callbacks", "logger", "inference", "metrics", "paths", "debug", "experiment",
    "sweep",
]  # fmt: skip


def test_the_groups_tested_here_are_all_there_are():
    folders = {str(p.parent.relative_to(CONF)) for p in CONF.rglob("*.yaml")}
    folders -= {".", "dataset/base"}  # no choices: primary configs, what all datasets share
    assert {f for f in folders if f.partition("/")[0] != "hydra"} == set(GROUPS)


@pytest.mark.parametrize(
    "choice", [f"{group}={option}" for group in GROUPS for option in options(group)]
)
def test_every_option_of_every_group_composes_and_passes_the_check(choice):
    cfg = compose(choice, "dataset.num_classes=3" if "dataset" not in choice else "seed=1")
    OmegaConf.to_container(cfg, resolve=False)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_primary_config_composes_and_resolves(name):
    extra = ["input=x"] if name == "predict" else []
    cfg = compose_config(name, extra)
    cfg.output_dir = "somewhere"
    assert OmegaConf.to_container(cfg, resolve=True)["task_name"]


@pytest.mark.parametrize(("model", "stride"), [("fcn8s", 8), ("fcn16s", 16), ("fcn32s", 32)])
def test_a_model_is_the_same_as_its_stride(model, stride):
    assert compose(f"model={model}").model == compose(f"model.stride={stride}").model


@pytest.mark.parametrize("dataset", options("dataset"))
def test_every_dataset_gives_its_module_without_touching_data(dataset, tmp_path):
    asks = ("folder", "mindrecord", "labelme", "coco")  # the data for the classes
    extra = ["dataset.num_classes=4"] if dataset in asks else []
    cfg = compose(f"dataset={dataset}", f"paths.data_dir={tmp_path}", *extra)
    data = build.datamodule(cfg)
    assert data.num_classes == cfg.dataset.num_classes == len(data.class_names)
    assert len(data.palette) >= data.num_classes
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("backbone", options("model/backbone"))
def test_every_backbone_gives_a_network_of_the_datasets_classes(backbone):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    width = ["model.backbone.width=0.03"] if backbone.startswith("vgg") else []
    cfg = compose("dataset=voc2012", f"model/backbone={backbone}", *width)
    network = build.bare_network(cfg)
    shapes = {p.name: p.shape for p in network.get_parameters()}
    assert shapes["upscore8.weight"] == (21, 21, 16, 16)


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_every_optimizer_takes_every_schedule(optimizer, scheduler):
    cfg = compose(f"optimizer={optimizer}", f"scheduler={scheduler}", "trainer.max_epochs=3")
    trainer = Trainer("somewhere", max_epochs=3)
    batches = ms.dataset.NumpySlicesDataset(list(range(40))).batch(4)
    schedule = build.schedule(cfg, trainer, batches)
    network = ms.nn.Conv2d(3, 2, 1, has_bias=True)
    built = build.optimizer(cfg, network, schedule)
    assert len(built.parameters) == 2
    peak = cfg.optimizer.learning_rate
    assert schedule.value(0) < schedule.value(14) == pytest.approx(peak)  # warmed up by half of it
    assert 0 <= schedule.value(29) <= peak * (1 + 1e-6)


@pytest.mark.parametrize("loss", options("loss"))
def test_every_loss_is_a_number_on_logits(loss):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    cfg = compose(f"loss={loss}", "dataset.num_classes=3")
    value = build.loss(cfg)(ms.ops.randn(1, 3, 4, 4), ms.ops.ones((1, 4, 4), ms.int32))
    assert value.shape == () and float(value.asnumpy()) > 0


@pytest.mark.parametrize(
    ("loss", "key"),
    [
        ("cross_entropy", "loss.class_weights"),
        ("cross_entropy_dice", "loss.losses.cross_entropy.class_weights"),
        ("focal", "loss.alpha"),
    ],
)
def test_class_weights_by_rule_become_numbers_in_the_config(loss, key):
    cfg = compose(f"loss={loss}", f"{key}=median_frequency", "dataset.num_classes=2")
    rows = [{"pixels": 75, "image_pixels": 100}, {"pixels": 25, "image_pixels": 100}]
    data = SimpleNamespace(
        train_split="train", class_names=("a", "b"), prepare=lambda s: {s: {"classes": rows}}
    )
    cfg = build.resolve_class_weights(cfg, data)
    assert OmegaConf.select(cfg, key) == [0.6667, 2.0]  # 0.5 / 0.75 and 0.5 / 0.25
    build.loss(cfg)
    OmegaConf.update(cfg, key, [1.0, 1.0, 1.0])
    with pytest.raises(UserError, match=f"{key} has 3 factors: expected one for each of the 2"):
        build.loss(cfg)


def test_overfitting_is_judged_on_the_images_it_learns():
    cfg = compose("debug=overfit", "dataset=camvid")
    assert cfg.dataset.val_split == cfg.dataset.train_split == "train"
    assert (cfg.dataset.limit_samples, cfg.dataset.scale_range, cfg.dataset.flip) == (8, None, 0)


def test_overfitting_does_without_a_recipes_augmentations_and_sampling():
    assert len(compose("experiment=camvid").dataset.augmentations) == 1
    assert compose("experiment=camvid", "debug=overfit").dataset.augmentations == []
    recipe = {"max_class_share": 0.75, "rare_class_sampling": 0.01, "copy_paste": ["Pole"]}
    debug = OmegaConf.load(CONF / "debug" / "overfit.yaml")
    found = OmegaConf.merge({"dataset": recipe}, debug).dataset
    assert {key: found[key] for key in recipe} == dict.fromkeys(recipe)


@pytest.mark.parametrize("callbacks", options("callbacks"))
@pytest.mark.parametrize("logger", options("logger"))
def test_every_set_of_callbacks_and_loggers_gives_a_trainer(callbacks, logger, tmp_path):
    cfg = compose(f"callbacks={callbacks}", f"logger={logger}", f"output_dir={tmp_path}")
    trainer = build.trainer(cfg)
    assert len(trainer.callbacks) == len(cfg.callbacks)
    assert len(trainer.loggers) == len(cfg.logger)


def test_null_drops_a_callback_and_a_stock_one_can_be_added(tmp_path):
    cfg = compose(
        "callbacks.top_k=null", "+callbacks.stock._target_=mindspore.train.TimeMonitor",
        f"output_dir={tmp_path}",
    )  # fmt: skip
    kinds = [type(callback).__name__ for callback in build.trainer(cfg).callbacks]
    assert "TopKCheckpoints" not in kinds and kinds[-1] == "TimeMonitor"


def test_ascend_brings_graph_mode_mixed_precision_loss_scaling_and_sinking(tmp_path, monkeypatch):
    """Up to the device itself, which no test machine has."""
    cfg = compose("model=fcn8s", "device=ascend", f"output_dir={tmp_path}")
    asked = {}
    monkeypatch.setattr(ms, "set_device", lambda target, id: asked.update(target=target, id=id))
    monkeypatch.setattr(ms, "set_context", lambda **kwargs: asked.update(kwargs))
    build.setup(cfg)
    assert asked == {"target": "Ascend", "id": 0, "mode": ms.GRAPH_MODE}
    trainer = build.trainer(cfg)
    assert trainer.amp_level == "O2" and trainer.sink_mode is trainer.lazy_inline is True
    scaler = trainer.loss_scaler()
    assert isinstance(scaler, ms.amp.DynamicLossScaler)
    assert float(scaler.scale_value.asnumpy()) == 65536
    assert scaler.scale_factor == 2 and scaler.scale_window == 3000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["device=ascend", "device.jit_level=O2"], "device.jit_level=O2 with device.target=Ascend"),
        (["device.amp_level=O2", "device.amp_dtype=bfloat16"], "device.amp_dtype=bfloat16"),
        (
            ["device=ascend", "dataset.crop_size=null", "dataset.batch_size=1"],
            "dataset.crop_size=null with device.sink_mode=true",
        ),
    ],
)
def test_what_a_device_cannot_do_is_refused_before_it_is_asked_for(overrides, message):
    with pytest.raises(UserError, match=message) as refused:
        compose(*overrides)
    # The repair that the line names is right
    repair = [
        word.rstrip(",;") for word in str(refused.value).split("; set ")[1].split() if "=" in word
    ]
    compose(*overrides, *(repair or ["device.jit_level=O1"]))


def test_bfloat16_on_ascend_brings_no_loss_scaler(tmp_path):
    cfg = compose("device=ascend", "device.amp_dtype=bfloat16", f"output_dir={tmp_path}")
    trainer = build.trainer(cfg)
    assert (trainer.amp_level, trainer.amp_dtype, trainer.loss_scaler) == ("O2", "bfloat16", None)


@pytest.mark.parametrize("loss", options("loss"))
@pytest.mark.parametrize(("device", "one_hot"), [("cpu", False), ("ascend", True), ("gpu", True)])
def test_losses_take_one_hot_labels_off_the_cpu(loss, device, one_hot):
    built = build.loss(compose(f"loss={loss}", f"device={device}", "dataset.num_classes=3"))
    losses = [cell for _, cell in built.cells_and_names() if hasattr(cell, "at_target")]
    gathering = [
        cell for cell in losses if type(cell).__name__ in ("CrossEntropy", "Focal", "Ohem")
    ]
    assert all(cell.one_hot is one_hot for cell in gathering)


def test_fast_convolutions_are_switched_off_by_one_key(tmp_path):
    cfg = compose(
        "device.fast_convolutions=false", f"output_dir={tmp_path}", "model/backbone=compact"
    )
    trainer, segmenter = build.trainer(cfg), build.segmenter(cfg, None, None)
    assert trainer.fast_convolutions is segmenter.fast_convolutions is False


def test_workers_are_as_many_as_cores_up_to_eight_or_a_ranks_share(monkeypatch, tmp_path):
    from src.data import datamodule
    from src.device import process_group

    cfg = compose("dataset=shapes", f"paths.data_dir={tmp_path}")
    for cores, workers in ((2, 2), (192, 8)):
        monkeypatch.setattr(datamodule, "available_cores", lambda cores=cores: cores)
        assert build.datamodule(cfg).num_workers == workers
    monkeypatch.setattr(process_group, "share_of_cores", lambda: 3)
    assert build.datamodule(cfg).num_workers == 3
    cfg.dataset.num_workers = 5
    assert build.datamodule(cfg).num_workers == 5


def test_a_trainer_without_a_config_has_the_default_callbacks_and_writes_the_csv():
    configured = [instantiate(node) for node in compose().callbacks.values()]
    trainer = Trainer("somewhere")
    assert list(map(type, trainer.callbacks)) == list(map(type, configured))
    assert [type(logger) for logger in trainer.loggers] == [CsvLogger]
