"""Tables of classes as annotation tools write them: names, colours, numbers in the label files.

classes.txt            a name a line
labelmap.txt           CVAT's: name:red,green,blue:parts:actions
<split>/_classes.csv   Roboflow's: pixel value, class; in each split's folder
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.data.sources.file_lists import read_lines
from src.utils.errors import UserError

_VOID = "ignored"  # VOC's void in tables in its manner


@dataclass(frozen=True)
class ClassTable:
    """The table of classes that a dataset comes with.

    Attributes:
        names: In the order of the ids; None if it says nothing.
        palette: Their colours, N×3 uint8 RGB, then those of void.
        ids: The numbers that stand for them in label files.
        label_suffix: What the tool puts behind an image's name in that of the label file.
    """

    names: tuple[str, ...] | None = None
    palette: np.ndarray | None = None
    ids: tuple[int, ...] | None = None
    label_suffix: str = ""


def read_class_table(folder: Path) -> ClassTable:
    """The table of classes in a dataset's folder; an empty one if there is none.

    Raises:
        UserError: It cannot be read, or the splits have tables that differ.
    """
    if (folder / "classes.txt").is_file():
        return ClassTable(tuple(read_lines(folder / "classes.txt")))
    if (folder / "labelmap.txt").is_file():
        return _read_labelmap(folder / "labelmap.txt")
    paths = sorted(folder.glob("*/_classes.csv"))
    tables = [_read_values(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if table != tables[0]:
            raise UserError(f"{path}: differs from {paths[0]}; export the splits together")
    return tables[0] if tables else ClassTable()


def _read_labelmap(path: Path) -> ClassTable:
    names, colors, voids = [], [], []
    for line in read_lines(path):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(part) for part in rest.partition(":")[0].split(","))
            bytes([red, green, blue])
        except ValueError as error:
            raise UserError(
                f"{path}: the line '{line}'; expected name:red,green,blue:parts:actions, with "
                "colours of 0 to 255"
            ) from error
        if name == _VOID:
            voids.append([red, green, blue])
        else:
            names.append(name)
            colors.append([red, green, blue])
    if len({tuple(color) for color in colors + voids}) < len(colors + voids):
        raise UserError(f"{path}: two classes of one colour; give each its own in CVAT")
    return ClassTable(tuple(names), np.array(colors + voids, np.uint8))


def _read_values(path: Path) -> ClassTable:
    try:
        rows = list(csv.reader(read_lines(path), skipinitialspace=True))[1:]
        values = {int(value): name.strip() for value, name in rows}
    except ValueError as error:
        raise UserError(
            f"{path}: expected a head and lines of a pixel value and a class ({error})"
        ) from error
    return ClassTable(tuple(values.values()), ids=tuple(values), label_suffix="_mask")
