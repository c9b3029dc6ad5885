"""The examples of docs/extending.md, taken out of it and trained with as they stand."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S))
OVERRIDES = re.findall(r"python -m src\.train ([^#\n]*)", PAGE)


def test_each_kind_is_one_file_one_yaml_and_one_command():
    kinds = re.findall(r"^## (?:A|An) (\w+)$", PAGE, re.M)
    assert kinds == ["dataset", "backbone", "loss", "metric", "callback", "logger", "schedule"]
    assert [Path(name).suffix for name in FILES] == [".py", ".yaml"] * 7
    assert len(OVERRIDES) == 7


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the project with the examples' files in it, and a dataset of that layout."""
    root = tmp_path_factory.mktemp("extended")
    for folder in ("src", "conf"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, content in FILES.items():
        assert not (root / name).exists(), f"{name} exists: the example would replace it"
        (root / name).write_text(content, encoding="utf-8")
    rng = np.random.default_rng(0)
    for split, count in {"train": 4, "val": 2}.items():
        for i in range(count):
            label = np.repeat(rng.integers(0, 4, (8, 1), np.uint8), 96, axis=1).repeat(8, axis=0)
            label[:4] = 255
            image = np.stack([label * 50] * 3, axis=-1)
            folder = root / "harbour"
            folder.mkdir(exist_ok=True)
            Image.fromarray(image).save(folder / f"{split}_{i}.jpg")
            Image.fromarray(label).save(folder / f"{split}_{i}_mask.png")
    return root


@pytest.mark.slow
def test_all_seven_together_train_and_evaluate(workshop, extended):
    with type(workshop)(extended, project=extended) as workshop:
        chosen = " ".join(OVERRIDES).replace("DIR", "harbour").split()
        workshop.run(
            "train", *chosen, "dataset.crop_size=[64,64]", "dataset.batch_size=2",
            "trainer.max_epochs=1", "output_dir=run",
        )  # fmt: skip
        run = extended / "run"
        metrics = (run / "metrics.csv").read_text().splitlines()[0].split(",")
        assert {"train/weight_norm", "val/foreground_iou"} <= set(metrics)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        assert any("val/foreground_iou" in json.loads(line) for line in lines)
        summary = json.loads((run / "summary.json").read_text())
        assert summary["status"] == "completed" and "val/foreground_iou" in summary["best"]
        during = json.loads((run / "eval.json").read_text())
        assert list(during["per_class"])[-1] == "buoy"
        workshop.run("eval", f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}", "output_dir=again")
        again = json.loads((extended / "again" / "eval.json").read_text())
        assert again["foreground_iou"] == during["foreground_iou"]
