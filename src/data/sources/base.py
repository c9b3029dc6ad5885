"""The base class of dataset layouts."""

from pathlib import Path

import numpy as np

from src.data.sources.file_lists import Sample


class Source:
    """A dataset layout: the images and labels of each split. Only `samples` must be implemented.

    Attributes:
        class_names: Names in the order of the ids; None if the layout does not say.
        palette: Class colours, C×3 uint8 RGB, more rows are colours of void; None takes VOC's.
        void_ids, ids: Numbers in label files that mean void, or the classes; see `LabelRules`.
        generated: True for synthetic images, for which ImageNet weights help little.
    """

    class_names: tuple[str, ...] | None = None
    palette: np.ndarray | None = None
    void_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] | None = None
    generated: bool = False

    def prepare(self) -> None:
        """Downloads or generates what is absent; any number of processes may call it at once."""

    def samples(self, split: str) -> list[Sample]:
        """The samples of a split, sorted by name.

        Raises:
            UserError: The root, the split or a listed file is missing, or the split is empty.
        """
        raise NotImplementedError

    def record_file(self, split: str) -> Path | None:
        """The MindRecord file of a split, in a layout of such files; None: convert `samples`."""
        return None

    def is_drawn(self, split: str) -> bool:
        """Whether a split is drawn at random, as it has neither a list nor a folder."""
        return False
