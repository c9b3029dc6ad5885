"""Objects of one training crop pasted into another."""

from collections.abc import Sequence

import numpy as np

from src.data.transforms import Region
from src.utils.errors import UserError, nearest


class CopyPaste:
    """Simple copy-paste (Ghiasi et al. 2021) for labels without instances.

    The pixels of chosen classes in a second crop, scaled, mirrored and augmented by itself, take
    the place of those of the first, in image and label. Nothing is blended, which gained nothing in
    the paper, and what is pasted stays where it was in its own crop.

    Args:
        classes: Names of the classes that are pasted, without the background: whole crops would
            replace each other.
        class_names: Names of all classes in the order of their ids.
        probability: Of drawing a second crop, above 0 to 1.
    """

    def __init__(
        self, classes: Sequence[str], class_names: Sequence[str], probability: float
    ) -> None:
        if not 0 < probability <= 1:
            raise UserError(
                f"dataset.copy_paste_probability={probability}: expected a number above 0 and up "
                "to 1, as 0.5"
            )
        for name in classes:
            if name not in class_names:
                raise UserError(
                    f"dataset.copy_paste=[{','.join(classes)}]: the dataset has no class '{name}'"
                    + (nearest(name, class_names) or f"; its classes: {', '.join(class_names)}")
                )
        self.probability = probability
        self._pasted = np.zeros(256, bool)  # by id
        self._pasted[[class_names.index(name) for name in classes]] = True

    def __call__(
        self,
        image: np.ndarray,
        label: np.ndarray,
        padding: Sequence[Region],
        other_image: np.ndarray,
        other_label: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pastes from the other crop; both are H×W×3 uint8 with H×W uint8 labels.

        The padding of the first crop stays as it is.
        """
        pasted = self._pasted[other_label]
        for region in padding:
            pasted[region] = False
        return (
            np.where(pasted[..., None], other_image, image),
            np.where(pasted, other_label, label),
        )
