"""Exports a network: `python -m src.export ckpt_path=FILE format=mindir|onnx|safetensors`."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.cli.command import begin, command
from src.runs.directory import RunDirectory
from src.utils.errors import UserError

log = logging.getLogger("src.export")  # not __name__, which is __main__ here


@command("export", from_checkpoint=True)
def export(cfg: DictConfig, run: RunDirectory) -> None:
    """Writes the file, compares it with the network, writes `export.json` beside the log."""
    from src.cli import build  # imports MindSpore
    from src.exporting.exporter import Exporter, check_output
    from src.exporting.specification import Specification
    from src.utils.files import write_json

    specification = Specification(
        cfg.format, fixed_size(cfg), cfg.batch_size, cfg.normalize, cfg.argmax
    )
    stride = cfg.model.get("stride")
    name = f"fcn{stride}s" if stride else "network"
    output = Path(cfg.output or run.path / f"{name}.{cfg.format}")
    check_output(output, cfg.format)

    cfg = build.for_export(cfg)
    build.setup(cfg)
    data = build.datamodule(cfg)
    cfg, network, normalization = build.trained(cfg, data)
    begin(cfg, run)

    def rebuild(weights: Path) -> Any:
        return build.trained_network(OmegaConf.merge(cfg, {"ckpt_path": str(weights)}))[0]

    about = {
        "class_names": data.class_names,
        "ignore_index": data.ignore_index,
        "stride": stride,
        "skip_scales": cfg.model.get("skip_scales", (1.0, 1.0)),
    }
    exporter = Exporter(network, normalization, specification, about, rebuild)
    parity = exporter.export(output)
    write_json(run.path / "export.json", {"metadata": exporter.metadata, "parity_check": parity})
    log.info("%s, %.1f MB → %s", cfg.format, output.stat().st_size / 1e6, output)


def fixed_size(cfg: DictConfig) -> tuple[int, int] | None:
    """(H, W) of the one size that the file is to take; None: any.

    Raises:
        UserError: Both a size and any size are asked for, or one size without saying which.
    """
    size = OmegaConf.to_object(cfg.size) if cfg.size is not None else None
    if size is not None and cfg.dynamic:
        raise UserError(f"size={size}: dynamic=true takes any size; leave one of them out")
    if size is None and cfg.dynamic is False:
        size = cfg.dataset.crop_size
        if size is None:
            raise UserError("dynamic=false: which size? give size=[H,W]")
    return None if size is None else tuple(size)


if __name__ == "__main__":
    export()
