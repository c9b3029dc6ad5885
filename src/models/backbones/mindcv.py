"""Any mindcv model that hands out its features, as a backbone."""

import atexit
import os
import sys
from pathlib import Path

from mindspore import Tensor, nn

from src.models.weights import read_parameters
from src.utils.errors import UserError, error_summary, nearest
from src.utils.normalization import IMAGENET_RGB

STRIDES = (8, 16, 32)
_ORIGIN = "https://download.mindspore.cn"
# What the feature version of HRNet keeps of the classifier and never runs
_UNUSED = ("classifier", "final_layer", "downsample_modules")
# Hands out features but fails when run: «The Tensor is uninitialized» (mindcv 0.3)
_BROKEN = "rexnet"


@atexit.register
def _let_cells_die_quietly() -> None:
    # mindcv loads dill, which keeps `__main__`: cells that are still held at exit then outlive
    # MindSpore's modules, and each prints «Exception ignored in Cell.__del__»
    nn.Cell.__del__ = lambda cell: None


class MindCVBackbone(nn.Cell):
    """The last features at strides 8, 16 and 32 of a mindcv model.

    `channels` are their numbers of channels; `mindcv_names` maps the name of each parameter in this
    cell to that in mindcv's own checkpoints; `normalization` is what these expect of an image.

    Args:
        name: The model's name in mindcv, as `resnet50` or `mobilenet_v3_small_100`.
        pretrained: Starts from mindcv's ImageNet weights (RGB images), downloading them if need be.
        mirror: The address that these are fetched from; the paths below it are those of mindcv's.

    Raises:
        UserError: mindcv has no such model, no features or no weights of it, or no network to it.
    """

    normalization = IMAGENET_RGB

    def __init__(self, name: str, pretrained: bool = False, mirror: str = _ORIGIN) -> None:
        super().__init__()
        model = _create(name)
        info = model.feature_info
        strides = [stage["reduction"] for stage in info]
        if not set(STRIDES) <= set(strides):
            raise UserError(f"backbone {name!r}: has features at {strides}, not at {STRIDES}")
        last = [max(i for i, s in enumerate(strides) if s == stride) for stride in STRIDES]
        self.channels = tuple(info[i]["chs"] for i in last)

        from mindcv.models.features import FeatureExtractWrapper

        plain_names = {id(parameter): parameter.name for parameter in model.get_parameters()}
        self.features = FeatureExtractWrapper(model, out_indices=last)
        self.mindcv_names = {own: plain_names[id(p)] for own, p in self.parameters_and_names()}

        if pretrained:
            self._load(_download(name, mirror))

    def _load(self, path: Path) -> None:
        weights = read_parameters(path)
        missing = set(self.mindcv_names.values()) - weights.keys()
        if missing:
            raise UserError(
                f"{path}: not mindcv's weights of this model (no {min(missing)}); delete the file"
            )
        for own, parameter in self.parameters_and_names():
            parameter.set_data(Tensor(weights[self.mindcv_names[own]]))

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f8, f16, f32 = self.features(images)
        return f8, f16, f32


def _create(name: str) -> nn.Cell:
    """The whole mindcv model; it has `feature_info`."""
    # mindcv costs a second to import: only networks that need it pay
    from mindcv.models import registry

    family = {n: registry.model_entrypoint(n).__module__ for n in registry.list_models()}
    # Families built by this function hand out features, the others do not take the keyword
    usable = [
        n
        for n in family
        if hasattr(sys.modules[family[n]], "build_model_with_cfg")
        and not family[n].endswith(_BROKEN)
    ]
    if not registry.is_model(name):
        raise UserError(f"backbone {name!r}: mindcv has no such model{nearest(name, usable)}")
    create = registry.model_entrypoint(name)
    if name not in usable:
        families = sorted({family[n].rpartition(".")[2] for n in usable})
        vgg = "for a VGG take model/backbone=vgg16; " if name.startswith("vgg") else ""
        raise UserError(
            f"backbone {name!r}: this mindcv model hands out no features; {vgg}"
            f"families that do: {', '.join(families)}"
        )
    model = create()
    if not hasattr(model, "feature_info"):  # HRNet has a class of its own for features
        model = create(features_only=True).net
        for cell in _UNUSED:
            delattr(model, cell)
    return model


def _download(name: str, mirror: str) -> Path:
    """The file of mindcv's ImageNet weights, in the folder where mindcv itself keeps it."""
    import pooch
    import requests
    from mindcv.models.helpers import get_checkpoint_download_root
    from mindcv.models.registry import get_pretrained_cfg_value, is_model_pretrained

    if not is_model_pretrained(name):
        raise UserError(
            f"backbone {name!r}: pretrained=true, but mindcv has no weights of it; give "
            "model.weights=FILE or pretrained=false"
        )
    url = get_pretrained_cfg_value(name, "url").replace(_ORIGIN, mirror.rstrip("/"))
    path = Path(get_checkpoint_download_root(), os.path.basename(url))
    try:
        pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent)
    except (requests.RequestException, OSError) as error:
        reason = error_summary(error)
        raise UserError(
            f"backbone {name!r}: pretrained=true, but {url} could not be fetched ({reason:.120}); "
            f"give model.backbone.mirror=ADDRESS, put the file at {path}, or give "
            "model.weights=FILE"
        ) from error
    return path
