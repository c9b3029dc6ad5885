"""`shapes`, the dataset that needs no download: scenes of six shapes, drawn from a seed and written as a VOC folder.

Shape is the only cue: background and all classes draw material, colour and lighting from the same distributions.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock
from PIL import Image

from src.data.sources import Sample
from src.utils.console import progress
from src.utils.errors import UserError
from src.utils.visualize import voc_palette

log = logging.getLogger(__name__)

CLASS_NAMES = ("background", "disc", "box", "triangle", "star", "ring", "cross")
VERSION = 1  # part of the folder's name: raise it with any change to the pictures
_VOID = 255
_SPLITS = {"train": 0, "val": 1}
_MIN_RADIUS, _MAX_RADIUS = 16, 60  # pixels; the area is about 2.2 r² for every class
_MIN_VISIBLE = 0.6  # of each object, after occlusion and the image border
_MANIFEST = "shapes.json"


class ShapesSource:
    """A VOC-layout folder in `root`, generated on the first `prepare`.

    Each combination of parameters has its own folder, so sets are never mixed and none is overwritten.

    Args:
        root: Folder of all generated sets.
        seed: Image i of a split is a function of (seed, split, i) and `size_range` alone.
        train, val: Number of images of the splits.
        size_range: Smallest and largest side in pixels; height and width are drawn one by one.
    """

    class_names: tuple[str, ...] | None = CLASS_NAMES
    palette: np.ndarray | None = None
    void_ids: tuple[int, ...] = ()

    def __init__(
        self,
        root: Path,
        seed: int = 0,
        train: int = 240,
        val: int = 48,
        size_range: Sequence[int] = (160, 240),
    ) -> None:
        smallest, largest = (int(side) for side in size_range)
        if seed < 0 or min(train, val) < 1:
            raise UserError(
                f"shapes seed={seed} train={train} val={val}: expected a seed of at least 0 and at least 1 image a split"
            )
        if not 2 * _MAX_RADIUS <= smallest <= largest:
            raise UserError(
                f"shapes size_range={list(size_range)}: expected [smallest, largest], both at least {2 * _MAX_RADIUS}"
            )
        self.seed = seed
        self.counts = {"train": train, "val": val}
        self.size_range = (smallest, largest)
        self.folder = (
            Path(root) / f"v{VERSION}_seed{seed}_train{train}_val{val}_{smallest}to{largest}px"
        )

    def prepare(self) -> None:
        """Writes the folder aside and renames it; does nothing when it is there.

        Raises:
            UserError: `root` cannot be written to.
        """
        if self._is_ready():
            return
        root = self.folder.parent
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / ".lock"):
                if not self._is_ready():
                    self._generate()
        except OSError as error:
            raise UserError(
                f"{self.folder}: the shapes dataset could not be written ({error}); "
                "make room or give another dataset.root"
            ) from error

    def samples(self, split: str) -> list[Sample]:
        """The samples of "train" or "val", sorted by name.

        Raises:
            UserError: There is no such split, or `prepare` has not been called.
        """
        if split not in self.counts:
            raise UserError(f"split={split}: shapes has {' and '.join(self.counts)}")
        if not self._is_ready():
            raise UserError(
                f"{self.folder}: shapes is not generated yet; run python -m src.prepare"
            )
        names = (self.folder / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        return [
            Sample(
                name,
                self.folder / f"JPEGImages/{name}.jpg",
                self.folder / f"SegmentationClass/{name}.png",
            )
            for name in names
        ]

    def _is_ready(self) -> bool:
        return (self.folder / _MANIFEST).is_file()

    def _generate(self) -> None:
        prefix = f".{self.folder.name}."
        for stale in self.folder.parent.glob(f"{prefix}*"):  # of killed runs: the lock is ours
            shutil.rmtree(stale, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder.parent))
        try:
            self._write(aside)
            aside.chmod(0o755)  # mkdtemp makes it private
            os.rename(aside, self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        log.info("shapes: wrote %s images to %s", sum(self.counts.values()), self.folder)

    def _write(self, folder: Path) -> None:
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (folder / name).mkdir(parents=True)
        palette = voc_palette().tobytes()
        with progress() as bar:
            for split, count in self.counts.items():
                task = bar.add_task(f"drawing shapes {split}", total=count)
                names = [f"{split}_{i:05d}" for i in range(count)]
                for i, name in enumerate(names):
                    image, label = draw_scene(self.seed, split, i, self.size_range)
                    Image.fromarray(image).save(folder / f"JPEGImages/{name}.jpg", quality=90)
                    indexed = Image.fromarray(label)
                    indexed.putpalette(palette)
                    indexed.save(folder / f"SegmentationClass/{name}.png")
                    bar.advance(task)
                listed = folder / f"ImageSets/Segmentation/{split}.txt"
                listed.write_text("\n".join(names) + "\n")
        (folder / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
        manifest = {"version": VERSION, "seed": self.seed, **self.counts, "size": self.size_range}
        (folder / _MANIFEST).write_text(json.dumps(manifest) + "\n")


def draw_scene(
    seed: int, split: str, index: int, size_range: Sequence[int] = (160, 240)
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene: an H×W×3 uint8 RGB image and its H×W uint8 label, with 255 along outlines.

    Labels are drawn with integers from a generator of their own and are the same on every machine; the image's
    values may differ by rounding between versions of OpenCV.
    """
    key = (seed, _SPLITS[split], index)
    geometry = np.random.default_rng((*key, 0))
    height, width = (int(v) for v in geometry.integers(*size_range, 2, endpoint=True))
    objects = _place(geometry, height, width)
    label = np.zeros((height, width), np.uint8)
    owner = np.zeros((height, width), np.uint8)  # 1, 2, … in the order of drawing
    for number, (class_id, mask) in enumerate(objects, 1):
        label[mask > 0] = class_id
        owner[mask > 0] = number
    square = np.ones((3, 3), np.uint8)
    label[cv2.dilate(owner, square) != cv2.erode(owner, square)] = _VOID
    masks = [mask for _, mask in objects]
    return _paint(np.random.default_rng((*key, 1)), height, width, masks), label


def _place(
    rng: np.random.Generator, height: int, width: int
) -> list[tuple[int, np.ndarray]]:
    """Chooses 3 to 7 objects from the back to the front: (class id, H×W uint8 mask of 0 and 1)."""
    pad = 2 * _MAX_RADIUS  # outlines that leave the image count in full when its share is measured
    inside = np.s_[pad : pad + height, pad : pad + width]
    count = int(rng.integers(3, 8))
    class_ids = 1 + np.concatenate([rng.permutation(6), rng.permutation(6)])[:count]
    placed: list[tuple[int, np.ndarray]] = []
    shares: list[np.ndarray] = []  # visible pixels of each placed object
    areas: list[int] = []
    for class_id in class_ids.tolist():
        for _ in range(12):
            radius = _MIN_RADIUS * (_MAX_RADIUS / _MIN_RADIUS) ** rng.random()
            center = pad + rng.random(2) * (width, height)
            contours = [center + radius * c for c in _contours(class_id, rng)]
            canvas = np.zeros((height + 2 * pad, width + 2 * pad), np.uint8)
            fixed = [np.rint(16 * c).astype(np.int32) for c in contours]
            cv2.fillPoly(canvas, fixed, 1, shift=4)  # even-odd: a second contour is a hole
            mask = np.ascontiguousarray(canvas[inside])
            area = cv2.countNonZero(canvas)
            left = [share & ~mask for share in shares] + [mask]
            if all(
                cv2.countNonZero(share) >= _MIN_VISIBLE * full
                for share, full in zip(left, [*areas, area], strict=True)
            ):
                placed.append((class_id, mask))
                shares, areas = left, [*areas, area]
                break
    return placed


def _contours(class_id: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Outline and hole of a shape of radius about 1, K×2, turned, squeezed and sheared at random."""

    def circle(points: int, radius: float | np.ndarray) -> np.ndarray:
        angles = np.arange(points) * (2 * np.pi / points)
        return np.stack([np.cos(angles), np.sin(angles)], 1) * np.reshape(radius, (-1, 1))

    name = CLASS_NAMES[class_id]
    if name == "disc":
        contours = [circle(64, 0.85)]
    elif name == "box":
        contours = [circle(4, 1.05)]
    elif name == "triangle":
        contours = [circle(3, 1.25)]
    elif name == "star":
        contours = [circle(10, np.tile([1.25, rng.uniform(0.5, 0.6)], 5))]
    elif name == "ring":
        contours = [circle(64, 1.0), circle(64, rng.uniform(0.48, 0.58))]
    else:
        arm, half = 1.1, rng.uniform(0.28, 0.36)
        corner = np.array([[arm, -half], [arm, half], [half, half]])
        turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        contours = [np.concatenate([corner @ turn.T for turn in turns])]
    first, second = rng.uniform(0, 2 * np.pi, 2)
    squeeze = np.diag([rng.uniform(1.0, 1.15), rng.uniform(0.8, 1.0)])
    matrix = _turn(first) @ squeeze @ _turn(second)
    return [contour @ matrix.T for contour in contours]


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _paint(
    rng: np.random.Generator, height: int, width: int, masks: Sequence[np.ndarray]
) -> np.ndarray:
    """Renders the masks from back to front over a textured ground; H×W×3 uint8 RGB."""
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([np.cos(angle), np.sin(angle)])  # x, y: where it shines to
    canvas = _material(rng, height, width, _color(rng))
    if rng.random() < 0.5:  # a table before a wall, or two lawns
        direction = rng.uniform(0, 2 * np.pi)
        side = columns * np.cos(direction) + rows * np.sin(direction) - rng.uniform(-0.5, 0.5)
        share = np.clip(side * 40, 0, 1)[..., None]
        canvas += share * (_material(rng, height, width, _color(rng)) - canvas)
    for mask in masks:
        _lay(rng, canvas, mask, light)
    if rng.random() < 0.4:  # the shadow of something outside the picture
        edge = np.clip(_noise(rng, height, width, rng.uniform(60, 120), 2) * 2, 0, 1)
        canvas *= (1 - rng.uniform(0.2, 0.45) * cv2.GaussianBlur(edge, (0, 0), 3))[..., None]
    slope = rng.uniform(0.05, 0.3)
    lamp = 1 - slope * (columns * light[0] + rows * light[1])
    vignette = 1 - rng.uniform(0.05, 0.25) * (columns**2 + rows**2) / 2
    balance = rng.uniform(0.92, 1.08, 3).astype(np.float32)
    canvas *= (lamp * vignette)[..., None].astype(np.float32) * balance * rng.uniform(0.85, 1.15)
    canvas = cv2.GaussianBlur(np.clip(canvas, 0, 1), (0, 0), rng.uniform(0.4, 0.8))
    grain = rng.standard_normal(canvas.shape, np.float32) * rng.uniform(0.01, 0.035)
    canvas += grain * np.sqrt(canvas + 0.1)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def _lay(
    rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray, light: np.ndarray
) -> None:
    """Puts one object on the canvas: its shadow on what lies below, then its lit material."""
    size = mask.shape[::-1]
    cover = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.6)
    reach = light * rng.uniform(2, 7)
    shift = np.array([[1, 0, reach[0]], [0, 1, reach[1]]])
    shadow = cv2.GaussianBlur(
        cv2.warpAffine(mask.astype(np.float32), shift, size), (0, 0), rng.uniform(1.5, 4)
    )
    below = canvas[mask > 0].mean(0)
    for _ in range(8):  # an object as its ground could not be seen by anyone
        color = _color(rng)
        if np.abs(color - below).sum() > 0.5:
            break
    depth = cv2.distanceTransform(np.pad(mask, 1, "edge"), cv2.DIST_L2, 3)[1:-1, 1:-1]
    bevel = rng.uniform(2, 8)
    height = cv2.GaussianBlur(np.sqrt(np.minimum(depth / bevel, 1)), (0, 0), 1.0)
    facing = cv2.Sobel(height, cv2.CV_32F, 1, 0) * light[0]
    facing += cv2.Sobel(height, cv2.CV_32F, 0, 1) * light[1]
    lit = 1 + rng.uniform(0.1, 0.3) * np.clip(facing, -1, 1)
    canvas *= (1 - rng.uniform(0.3, 0.6) * shadow)[..., None]
    texture = _material(rng, *mask.shape, color) * lit[..., None]
    canvas += cover[..., None] * (texture - canvas)


def _color(rng: np.random.Generator) -> np.ndarray:
    """One RGB colour in 0..1, the same distribution for ground and objects."""
    hue, saturation, value = rng.uniform([0, 0.2, 0.25], [360, 0.8, 0.95])
    saturation *= saturation  # strong colours are rare in photographs
    return cv2.cvtColor(np.float32([[[hue, saturation, value]]]), cv2.COLOR_HSV2RGB)[0, 0]


def _material(
    rng: np.random.Generator, height: int, width: int, color: np.ndarray
) -> np.ndarray:
    """A textured surface around `color`; H×W×3 float32."""
    kind = rng.integers(5)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
    across = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
    clouds = _noise(rng, height, width, rng.uniform(20, 60), 4)
    if kind == 0:  # clouds, plaster
        pattern = clouds
    elif kind == 1:  # wood
        pattern = 0.6 * np.sin(along / rng.uniform(1.5, 4) + 6 * clouds) + 0.5 * clouds
    elif kind == 2:  # grass, fur
        blades = rng.standard_normal((height, width), np.float32)
        kernel = np.zeros((11, 11), np.float32)
        tip = np.rint(5 * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        cv2.line(kernel, (5 - int(tip[0]), 5 - int(tip[1])), (5 + int(tip[0]), 5 + int(tip[1])), 1.0)
        pattern = cv2.filter2D(blades, -1, kernel / np.sqrt(kernel.sum())) + 0.5 * clouds
    elif kind == 3:  # granite, sand
        pattern = _noise(rng, height, width, rng.uniform(2, 5), 2) + 0.5 * clouds
    else:  # cloth
        pitch = rng.uniform(1.2, 3)
        pattern = np.sin(along / pitch) * np.sin(across / pitch) + 0.6 * clouds
    strength = rng.uniform(0.03, 0.12)
    tint = color * rng.uniform(0.6, 1.4, 3)  # the colour between grains
    surface = color + strength * np.clip(pattern, -2, 2)[..., None] * (0.5 + tint)
    return surface.astype(np.float32)


def _noise(
    rng: np.random.Generator, height: int, width: int, cell: float, octaves: int
) -> np.ndarray:
    """Value noise of about unit variance whose coarsest octave has cells of `cell` pixels."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1)
        grid = rng.standard_normal((int(height / step) + 3, int(width / step) + 3), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total
