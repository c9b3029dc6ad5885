"""The benchmark as it is typed."""

import json

import pytest


@pytest.mark.slow
def test_the_command_measures_and_writes_its_file(workshop):
    screen = workshop.run(
        "benchmark", "only=[train_step,model,first_step]", "steps=2", "model/backbone=compact",
        "dataset.crop_size=[64,64]", "output=speed.json",
    )  # fmt: skip
    found = json.loads((workshop.path / "speed.json").read_text())
    step = found["train_step"]
    assert step["fastest"] <= step["seconds"] <= step["slowest"] < step["first_seconds"]
    assert step["peak_mb"] > 100 and step["runs"] == 2
    assert step["images_per_second"] == pytest.approx(4 / step["seconds"])
    assert 0 < step["sgemm_share"] < 1 and 0 < step["bandwidth_share"] < 1
    assert step["tutorial"]["ratio"] > 0
    assert found["model"]["parameters"] == step["parameters"]
    assert "train_step" in screen and "1.34 M" in screen
    first = found["first_step"]
    for result in (first, first["kept_graph"]):
        assert 0 < result["seconds"] < result["first_seconds"]
        assert result["images_per_second"] is None  # it is no rate
    assert first["kept_graph"]["ratio"] == first["seconds"] / first["kept_graph"]["seconds"]
