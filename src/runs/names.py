"""Names of runs and weights in titles."""

from pathlib import Path


def run_name(directory: Path) -> str:
    """The name of a run in titles: its directory's; for a job of a sweep, with the sweep's."""
    directory = directory.absolute()
    if directory.name.isdigit():
        return f"{directory.parent.name}/{directory.name}"
    return directory.name


def weights_name(ckpt_path: str) -> str:
    """The name of weights in titles: `<run>/best` in a run directory, else the file's name."""
    path = Path(ckpt_path)
    if path.parent.name != "checkpoints":
        return path.stem
    return f"{run_name(path.parent.parent)}/{path.stem}"
