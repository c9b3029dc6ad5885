import numpy as np
import pytest
from PIL import Image

from src.data.datamodule import SegDataModule
from src.data.sources.cityscapes import CityscapesSource
from src.utils.errors import UserError

# id: train id of cityscapesscripts' labels.py; what is not here is void
TABLE = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11,
         25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """Two cities; a row of all ids, and the same as train ids."""
    ids = np.arange(34, dtype=np.uint8)[None].repeat(2, axis=0)
    train_ids = np.vectorize(lambda i: TABLE.get(i, 255))(ids).astype(np.uint8)
    for city in ("aachen", "zurich"):
        name = f"{city}_000000_000019"
        for path, array in {
            f"leftImg8bit/val/{city}/{name}_leftImg8bit.png": np.zeros((2, 34, 3), np.uint8),
            f"gtFine/val/{city}/{name}_gtFine_labelIds.png": ids,
            f"gtFine/val/{city}/{name}_gtFine_labelTrainIds.png": train_ids,
        }.items():
            (tmp_path / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "raw" / path)
    return tmp_path / "raw"


@pytest.mark.parametrize("labels", ["labelIds", "labelTrainIds"])
def test_both_kinds_of_label_files_give_the_train_ids(root, tmp_path, labels):
    data = SegDataModule(
        root, lambda root: CityscapesSource(root, labels), tmp_path, num_classes=19
    )
    samples = data.eval_samples("val")
    assert [sample.name for sample in samples] == ["aachen_000000_000019", "zurich_000000_000019"]
    assert samples[0].label[0].tolist() == [TABLE.get(i, 255) for i in range(34)]


def test_what_is_missing_says_where_it_comes_from(root, tmp_path):
    with pytest.raises(
        UserError, match="no folder leftImg8bit in it; register at https://www.city"
    ):
        CityscapesSource(tmp_path / "none").prepare()
    with pytest.raises(UserError, match="expected one of train, val; did you mean 'val'"):
        CityscapesSource(root).samples("valid")
    with pytest.raises(UserError, match="Cityscapes keeps its labels; take split=val"):
        CityscapesSource(root).samples("test")
    with pytest.raises(UserError, match="labels=trainIds: expected labelIds or labelTrainIds"):
        CityscapesSource(root, "trainIds")
