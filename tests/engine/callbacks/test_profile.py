"""The profiler's table, from made numbers and from real steps."""

import io

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import nn
from rich.console import Console

from src.engine.callbacks import profile
from src.engine.callbacks.profile import Profile, operators_table
from src.engine.trainer import Trainer
from src.losses import CrossEntropy
from src.utils.errors import UserError


def printed(thing) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(thing)
    return console.export_text()


def test_the_table_has_times_by_step_the_slowest_first_and_sums_the_rest(tmp_path):
    path = tmp_path / "operators.csv"
    path.write_text(
        "op_type,type_occurrences,total_compute_time\n"
        "ReLU,4,1.0\nConv2D,8,7.0\nMul,2,0.5\nAdd,2,1.5\n"
    )
    lines = printed(operators_table(path, steps=2, rows=2)).splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert "5.0 ms" in lines[0]  # 10 ms in two steps
    assert rows == [
        ["Conv2D", "4", "3.50", "70.0%"],
        ["Add", "1", "0.75", "15.0%"],
        ["2 others", "3", "0.75", "15.0%"],
    ]


def test_the_steps_after_the_skipped_ones_are_watched(tmp_path, monkeypatch, capfd):
    console = Console(width=100, record=True, file=io.StringIO())
    monkeypatch.setattr(profile, "console", console)
    ms.set_context(mode=ms.GRAPH_MODE)
    network = nn.Conv2d(3, 2, 3, has_bias=False)
    images = np.zeros((4, 3, 16, 16), np.float32)
    data = ds.NumpySlicesDataset((images, np.zeros((4, 16, 16), np.int32)), ["images", "labels"])
    trainer = Trainer(tmp_path, [Profile(skip=1, steps=2, rows=30)])
    optimizer = nn.Momentum(network.trainable_params(), 0.1, 0.9)
    trainer.fit(network, CrossEntropy(), optimizer, data.batch(1))
    text = console.export_text()
    row = next(line for line in text.splitlines() if "ApplyMomentum" in line)
    assert row.split("│")[2].strip() == "1"  # one weight, once a step
    assert "Conv2D" in text
    assert list((tmp_path / "profile").rglob("trace_view.json"))
    assert "Parsing" not in capfd.readouterr().out


def test_a_profile_of_nothing_is_refused():
    with pytest.raises(UserError, match="skip=0 steps=5: expected at least 1 of each"):
        Profile(skip=0)
