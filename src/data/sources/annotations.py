"""Labels drawn from annotated shapes: the common part of LabelMe's and COCO's formats."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.data.preparation.problem import Problem
from src.data.sources.folder import FolderSource
from src.utils.errors import UserError, nearest

VOID = 255  # as a number in what is drawn: class ids end at 254


@dataclass(frozen=True)
class LabelIds:
    """The class id of a shape's label.

    Attributes:
        class_names: Labels that are classes, in the order of the ids.
        unlabeled: The number of pixels that no shape covers, a class id or `VOID`.
        void: Labels that are void.
        skipped: Labels whose shapes are not drawn.
    """

    class_names: tuple[str, ...]
    unlabeled: int
    void: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def number(self, label: str, file: Path) -> int | None:
        """The class id, `VOID`, or None if the shape is not to be drawn.

        Raises:
            Problem: The label is unknown.
        """
        if label in self.skipped:
            return None
        if label in self.void:
            return VOID
        if label in self.class_names:
            return self.class_names.index(label)
        known = (*self.class_names, *self.void, *self.skipped)
        raise Problem(
            "unknown label",
            file,
            f"'{label}' is no class{nearest(label, known) or ';'} name it in dataset.class_names, "
            "or list it in dataset.source.void_labels (counts for nothing) or "
            "dataset.source.skipped_labels (not drawn)",
        )


class AnnotationSource(FolderSource):
    """Images with annotations that are drawn as labels when the dataset is prepared.

    Args:
        root: The folder.
        class_names: Labels that are classes, in the order of the ids; None takes what the files
            say.
        unlabeled: The class of pixels that no shape covers, or `void`; None takes the class
            `background` or `_background_`.
        void_labels: Labels of regions that count for nothing.
        skipped_labels: Labels whose shapes are not drawn.
        image_dir, label_dir, val_fraction, split_seed: See `FolderSource`.
    """

    palette = None
    ids = None

    def __init__(
        self,
        root: str | Path,
        class_names: Sequence[str] | None = None,
        unlabeled: str | None = None,
        void_labels: Sequence[str] = (),
        skipped_labels: Sequence[str] = (),
        image_dir: str | None = None,
        label_dir: str | None = None,
        val_fraction: float | None = 0.2,
        split_seed: int = 0,
    ) -> None:
        super().__init__(
            root,
            image_dir,
            label_dir,
            val_fraction=val_fraction,
            split_seed=split_seed,
            void_ids=[VOID],
        )
        self._configured_names = tuple(map(str, class_names or ()))
        self.unlabeled = unlabeled
        self.void_labels = tuple(map(str, void_labels))
        self.skipped_labels = tuple(map(str, skipped_labels))

    @property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The configured names, else those in the files."""
        return self._configured_names or self._names_in_files()

    @abstractmethod
    def _names_in_files(self) -> tuple[str, ...] | None:
        """The class names that files of the dataset list; None if none does."""

    def _label_ids(self, labels: Iterable[str] = ()) -> LabelIds:
        """What labels stand for.

        Args:
            labels: Those in the files, once for each file; named if nothing lists the classes.
        """
        names = self.class_names
        if not names:
            left_out = {*self.void_labels, *self.skipped_labels}
            files = Counter(labels)
            found = [n for n in sorted(files.keys() - left_out) if not is_background(n)]
            counts = ", ".join(f"{name} in {files[name]}" for name in found)
            raise UserError(
                f"{self.folder}: nothing names the classes in their order; set "
                f"'dataset.class_names=[{','.join(['background', *found])}]'"
                + (f" (files that have a label: {counts})" if counts else "")
            )
        for key in ("void_labels", "skipped_labels"):
            if both := set(getattr(self, key)).intersection(names):
                raise UserError(
                    f"dataset.source.{key}: {min(both)} is a class, too; remove it there, or from "
                    "dataset.class_names"
                )
        unlabeled = self._number_of_unlabeled(names)
        return LabelIds(names, unlabeled, self.void_labels, self.skipped_labels)

    def _number_of_unlabeled(self, names: Sequence[str]) -> int:
        if self.unlabeled is None:
            wanted = [n for n in names if is_background(n)]
        else:
            wanted = [n for n in names if n == self.unlabeled]
        if wanted:
            return names.index(wanted[0])
        if self.unlabeled == "void":
            return VOID
        near = nearest(self.unlabeled, names) if self.unlabeled else ""
        raise UserError(
            f"dataset.source.unlabeled={self.unlabeled or 'null'}: pixels that no shape covers are "
            f"of the class {self.unlabeled or 'background'}, which is not among the classes "
            f"({', '.join(names)}){near}; name it in dataset.class_names, or set "
            "dataset.source.unlabeled=void, and they count for nothing"
        )


def is_background(name: str) -> bool:
    """Whether a class is the background by its name."""
    return name.strip("_").casefold() == "background"
