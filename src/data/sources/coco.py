"""COCO's format: a JSON file of polygons and run-length codes for all images of a split."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import Any

import numpy as np

from src.data.preparation.problem import Problem
from src.data.sources.annotations import VOID, AnnotationSource, LabelIds, is_background
from src.data.sources.file_lists import Sample, few, pair
from src.utils.errors import UserError

OVERLAPS = ("later", "smaller", "void")
_FILES = (  # of one split, below the root
    "annotations/instances_{split}.json",
    "annotations/instances_{split}[0-9]*.json",
    "{split}/_annotations.coco.json",
    "annotations/{split}.json",
    "{split}.json",
)
_IMAGE_DIRS = ("images/{split}*", "{split}*", "images", "JPEGImages")
_UNREADABLE = "unreadable annotation"


class CocoSource(AnnotationSource):
    """Images and COCO's instances files.

    A split has a file of its own: `annotations/instances_<split>.json`, also with a year behind the
    split, `<split>/_annotations.coco.json`, `annotations/<split>.json` or `<split>.json`. Without
    these, the only JSON file in the root or in `annotations` has all samples, divided as in
    `FolderSource`. An image without annotations is background.

    The classes are `background` and the categories in the file's order, unless `class_names` says
    otherwise.

    Args:
        root: The folder.
        instances: The file, below `root`; `{split}` in it stands for the split. None takes those
            above.
        overlap: Which annotation counts where two overlap: the `later` in the file, the `smaller`,
            or none (`void`).
        others: See `AnnotationSource`; an `image_dir` of None takes the folder of the file,
            `images/<split>…`, `<split>…`, `images`, `JPEGImages` or the root.
    """

    def __init__(
        self,
        root: str | Path,
        instances: str | None = None,
        overlap: str = "later",
        **others: Any,
    ) -> None:
        super().__init__(root, **others)
        if overlap not in OVERLAPS:
            raise UserError(
                f"dataset.source.overlap={overlap}: expected one of {', '.join(OVERLAPS)}"
            )
        self.instances, self.overlap = instances, overlap

    def samples(self, split: str) -> list[Sample]:
        """See `Source.samples`.

        Raises:
            UserError: A file is missing or no instances file, or pycocotools is not installed.
        """
        self.prepare()
        _rasterizer()
        file, whole = self._file(split)
        content = _read(file)
        ids = self._label_ids()
        folder = self._image_folder(split, file, content.images[0])
        images, labels = {}, {}
        for name, image in content.images_by_name().items():
            images[name] = [folder / image["file_name"]]
            annotations = tuple(content.annotations[image["id"]])
            drawn = CocoAnnotation(file, image, annotations, content.categories, ids, self.overlap)
            labels[name] = [drawn]
        entries, origin = self._entries(split, images, whole)
        return pair(entries, images, labels, origin)

    def _names_in_files(self) -> tuple[str, ...] | None:
        patterns = _FILES if self.instances is None else (self.instances,)
        groups = [self._matching(pattern, "*") for pattern in patterns]
        files = next(filter(None, [*groups, self._all_files()]), None)
        if files is None:  # reported with the split
            return None
        categories = _read(min(files, key=lambda file: file.stat().st_size)).categories
        left_out = {*self.void_labels, *self.skipped_labels}
        names = [name for name in dict.fromkeys(categories.values()) if name not in left_out]
        named = self.unlabeled is not None or any(map(is_background, names))
        return tuple(names if named else ["background", *names])

    def _file(self, split: str) -> tuple[Path, bool]:
        """The instances file of a split, and whether it is of this split alone."""
        if self.instances is not None:
            found, whole = self._matching(self.instances, split), "{split}" in self.instances
        elif (found := self._own_files(split)) or any(map(self._own_files, ("train", "val"))):
            whole = True
        else:
            found, whole = self._all_files(), False
        if found and (whole or len(found) == 1):
            return found[0], whole
        there = few(str(path.relative_to(self.root)) for path in self.root.rglob("*.json"))
        raise UserError(
            f"split '{split}': {self.root} has no {self.instances or _FILES[0]} (JSON files: "
            f"{there or 'none'}); name the file by dataset.source.instances, with "
            "{split} in it for the split"
        )

    def _own_files(self, split: str) -> list[Path]:
        return [path for pattern in _FILES for path in self._matching(pattern, split)]

    def _all_files(self) -> list[Path]:
        return [*self._matching("*.json"), *self._matching("annotations/*.json")]

    def _matching(self, pattern: str, split: str = "") -> list[Path]:
        return sorted(self.root.glob(pattern.replace("{split}", split)))

    def _image_folder(self, split: str, file: Path, image: Mapping[str, Any]) -> Path:
        """The folder that has the first image."""
        if self.image_dir is not None:
            folders = [self.root / self.image_dir.replace("{split}", split)]
        else:
            found = (self._matching(pattern, split) for pattern in _IMAGE_DIRS)
            folders = [file.parent, *chain.from_iterable(found), self.root]
        for folder in folders:
            if (folder / image["file_name"]).is_file():
                return folder
        tried = ", ".join(dict.fromkeys(str(folder) for folder in folders))
        raise UserError(
            f"{file}: its first image, {image['file_name']}, is in none of {tried}; name the "
            "folder of the images by dataset.source.image_dir"
        )


@dataclass(frozen=True)
class CocoAnnotation:
    """The annotations of one image, drawn as pycocotools draws them one by one.

    Crowds (`iscrowd`) are void, below all others: what is annotated within one counts.

    Attributes:
        path: The instances file.
        image, annotations: As they are in it.
        categories: Names by id.
        ids: What these stand for.
        overlap: See `CocoSource`.
    """

    path: Path
    image: Mapping[str, Any]
    annotations: Sequence[Mapping[str, Any]]
    categories: Mapping[int, str]
    ids: LabelIds
    overlap: str

    def __fspath__(self) -> str:
        return str(self.path)

    def read_bytes(self) -> bytes:
        """See `Annotation.read_bytes`."""
        content = (self.image, self.annotations, sorted(self.categories.items()), self.overlap)
        return json.dumps([*content, repr(self.ids)]).encode()

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """See `Annotation.draw`."""
        masks = _rasterizer()
        stated: tuple[Any, Any] = self.image.get("height"), self.image.get("width")
        height, width = stated if all(stated) else size
        crowds, objects = [], []
        for annotation in self.annotations:
            number = self._number(annotation)
            if number is None:
                continue
            code = self._encoded(annotation, height, width)
            if annotation.get("iscrowd"):
                crowds.append(code)
            else:
                objects.append((number, code))
        if self.overlap == "smaller":
            objects.sort(key=lambda each: -int(masks.area(each[1])))
        drawn = np.full((height, width), self.ids.unlabeled, np.uint8)
        for code in crowds:
            drawn[masks.decode(code) > 0] = VOID
        covered = np.zeros(drawn.shape, bool)
        for number, code in objects:
            region = masks.decode(code) > 0
            drawn[region] = number
            if self.overlap == "void":
                drawn[region & covered] = VOID
                covered |= region
        return drawn

    def _number(self, annotation: Mapping[str, Any]) -> int | None:
        try:
            label = self.categories[annotation["category_id"]]
        except KeyError as error:
            raise self._problem(annotation, f"no category of the id {error}") from error
        return self.ids.number(label, self.path)

    def _encoded(self, annotation: Mapping[str, Any], height: int, width: int) -> Any:
        """The region as pycocotools' run-length code."""
        masks = _rasterizer()
        stored = annotation.get("segmentation")
        if not stored:
            raise self._problem(annotation, "no segmentation, a box at most; export polygons")
        try:
            if isinstance(stored, list):
                if any(len(polygon) < 6 or len(polygon) % 2 for polygon in stored):
                    raise ValueError("a polygon that is no list of three points at least")
                return masks.merge(masks.frPyObjects(stored, height, width))
            if stored["size"] != [height, width]:
                raise ValueError(f"a mask of {stored['size']} in an image of {[height, width]}")
            whole = isinstance(stored["counts"], list)
            return masks.frPyObjects(stored, height, width) if whole else stored
        except (ValueError, TypeError, KeyError) as error:
            raise self._problem(annotation, str(error)) from error

    def _problem(self, annotation: Mapping[str, Any], detail: str) -> Problem:
        where = f"annotation {annotation.get('id')} of {self.image['file_name']}"
        return Problem(_UNREADABLE, self.path, f"{where}: {detail}")


@dataclass(frozen=True)
class _Instances:
    images: list[dict[str, Any]]
    annotations: Mapping[Any, list[dict[str, Any]]]  # by image id
    categories: dict[int, str]

    def images_by_name(self) -> dict[str, dict[str, Any]]:
        """The images by the stems of their files, or by paths where stems are equal."""
        paths = [Path(image["file_name"]).with_suffix("") for image in self.images]
        shared = max(Counter(path.name for path in paths).values()) > 1
        names = [path.as_posix() if shared else path.name for path in paths]
        return dict(zip(names, self.images, strict=True))


def _read(file: Path) -> _Instances:
    try:
        content = json.loads(file.read_bytes())
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        images = content["images"]
        for image in images:  # Windows' separators
            image["file_name"] = PureWindowsPath(image["file_name"]).as_posix()
        categories = {c["id"]: str(c["name"]) for c in content["categories"]}
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: no instances file of COCO's ({type(error).__name__}: {error}); expected JSON "
            "with images, annotations and categories"
        ) from error
    if not images:
        raise UserError(f"{file}: lists no images; export it again")
    return _Instances(images, annotations, categories)


def _rasterizer() -> ModuleType:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(
            "dataset=coco needs pycocotools, which is not installed: make setup EXTRAS=coco"
        ) from error
    return mask
