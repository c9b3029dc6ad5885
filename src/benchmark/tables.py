"""The tables of a benchmark on the screen."""

from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from src.utils.console import console, percent

RIVALS = {
    "pytorch": "PyTorch",
    "pytorch_keeping": "… kept",  # below PyTorch's own row
    "tutorial": "tutorial",
    "bare": "Model.train",
    "two_workers": "2 workers",
    "kept_graph": "kept graph",
}
NOTES = {
    "pytorch_keeping": "kept: with a malloc that keeps freed memory, like MindSpore's pool",
    "bare": "Model.train: the ratio assumes equal time for the step itself, which is the same",
}
LAYOUTS = {"contiguous": "NCHW", "channels_last": "NHWC"}


def show(found: dict[str, Any], cfg: DictConfig) -> None:
    """Prints the tables of all that was measured."""
    if "model" in found:
        console.print(_model_table(found["model"], cfg))
    timed = {name: row for name, row in found.items() if "seconds" in row}
    if timed:
        console.print(_times_table(timed, found, cfg))


def _model_table(model: dict[str, Any], cfg: DictConfig) -> Table:
    table = Table(title="Network", title_justify="left")
    for column in ("backbone", "stride", "classes", "parameters", "MACs", "of an image"):
        table.add_column(column, justify="left" if column == "backbone" else "right")
    table.add_row(
        _backbone(cfg),
        str(cfg.model.stride),
        str(cfg.model.num_classes),
        f"{model['parameters'] / 1e6:.2f} M",
        f"{model['macs'] / 1e9:.2f} G",
        f"{model['height']}×{model['width']}",
    )
    return table


def _times_table(timed: dict[str, Any], found: dict[str, Any], cfg: DictConfig) -> Table:
    height, width = cfg.dataset.crop_size
    title = f"Batch {cfg.dataset.batch_size}, {height}×{width}, {cfg.device.target}"
    if "sgemm" in found:
        title += f"; matrix products {found['sgemm']['gflops']:.0f} GFLOP/s"
        title += f", memory {found['bandwidth']['gigabytes_per_second']:.0f} GB/s"
    table = Table(title=title, title_justify="left", caption_justify="left")
    rivals = {rival for row in timed.values() for rival in row}
    table.caption = "\n".join(note for rival, note in NOTES.items() if rival in rivals) or None
    for column in ("what", "by", "median", "spread", "first", "images/s",
                   "ours / theirs", "peak MB", "of SGEMM", "of memory"):  # fmt: skip
        left = column in ("what", "by")
        table.add_column(column, justify="left" if left else "right", no_wrap=left)
    for name, row in timed.items():
        _add_row(table, name, "ours", row)
        for rival, title in RIVALS.items():
            if rival in row:
                _add_row(table, "", title, row[rival])
    return table


def _add_row(table: Table, name: str, by: str, row: dict[str, Any]) -> None:
    if "seconds" not in row:
        message = row.get("error") or f"more than {row['beyond_seconds']:g} s"
        table.add_row(name, by, message)
        return
    layout = row.get("layout")
    table.add_row(
        name,
        f"{by} {LAYOUTS[layout]}" if layout else by,
        seconds(row["seconds"]),
        f"{seconds(row['fastest'])}–{seconds(row['slowest'])}",
        seconds(row["first_seconds"]),
        "" if row["images_per_second"] is None else f"{row['images_per_second']:.2f}",
        "" if row.get("ratio") is None else f"{row['ratio']:.3f}",
        "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}",
        f"{percent(row['sgemm_share'])} %" if "sgemm_share" in row else "",
        f"{percent(row['bandwidth_share'])} %" if "bandwidth_share" in row else "",
    )


def seconds(value: float) -> str:
    """A duration with three digits."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _backbone(cfg: DictConfig) -> str:
    node = cfg.model.backbone
    kind = node["_target_"].rpartition(".")[2]
    if kind == "VGG":
        return f"VGG-{node.depth}" + ("" if node.width == 1 else f", width {node.width:g}")
    return node.get("name", kind)
