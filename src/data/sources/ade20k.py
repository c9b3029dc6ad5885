"""ADE20K of the scene parsing challenge 2016 (Zhou et al. 2017)."""

from pathlib import Path

from src.data.fetch.archive import fetch_dataset
from src.data.sources.folder import FolderSource

ADE20K_URL = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
ADE20K_CHECKSUM = "md5:7328b3957e407ddae1d3cbf487f149ef"


class Ade20kSource(FolderSource):
    """150 classes; splits `training` and `validation`; fetched where `root` is absent.

    In the label files 0 is void and the classes are 1 to 150.

    Args:
        root: The folder that holds `ADEChallengeData2016`, or that folder itself.
        url: Address of the archive.
        checksum: See `src.data.fetch.download.fetch`.
    """

    def __init__(
        self, root: str | Path, url: str = ADE20K_URL, checksum: str | None = ADE20K_CHECKSUM
    ) -> None:
        super().__init__(
            root, "images", "annotations", val_fraction=None, void_ids=[0], ids=range(1, 151)
        )
        self.url, self.checksum = url, checksum

    @property
    def folder(self) -> Path:
        """The folder that holds `images`."""
        inner = self.root / "ADEChallengeData2016"
        return inner if inner.is_dir() else self.root

    def prepare(self) -> None:
        """Downloads the archive (about 1 GB) unless the dataset is there."""
        fetch_dataset(self.url, self.root, self.checksum)
