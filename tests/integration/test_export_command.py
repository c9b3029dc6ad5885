"""The export command on a finished run, and the examples on what it writes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="session")
def checkpoint(workshop):
    scales = "model.skip_scales=[3,0.5]"
    workshop.train("to_export", "trainer.max_epochs=1", "dataset.color_order=bgr", scales)
    return f"ckpt_path={workshop.path / 'to_export' / 'checkpoints' / 'best.ckpt'}"


@pytest.fixture(scope="session")
def predicted(workshop, checkpoint):
    """A picture, whose sides are no multiples of 32, and its class ids as the project predicts."""
    picture = workshop.data / "JPEGImages" / "v00.jpg"
    workshop.run("predict", checkpoint, f"input={picture}", "output=to_compare")
    return picture, np.array(Image.open(workshop.path / "to_compare" / "v00.png"))


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("mindir", []),
        ("onnx", ["dynamic=true"]),
        ("onnx", ["normalize=true", "argmax=true"]),
        ("safetensors", []),
    ],
)
def test_an_example_script_repeats_the_prediction(
    workshop, checkpoint, predicted, tmp_path, format, options
):
    # a blank and a letter outside ASCII: MindSpore itself refuses such paths
    file = tmp_path / "my é file" / f"net.{format}"
    run = tmp_path / "run"
    printed = workshop.run(
        "export", checkpoint, f"format={format}", f'output="{file}"', f"output_dir={run}", *options
    )
    assert "agrees with the network" in printed and "Exception ignored" not in printed
    report = json.loads((run / "export.json").read_text())
    assert report["parity_check"]["largest_difference"] < report["parity_check"]["tolerance"]
    assert report["metadata"]["class_names"] == '["background", "square", "disc"]'

    picture, expected = predicted
    ids = ids_of_example(file, picture, tmp_path)
    assert ids.shape == expected.shape and (ids == expected).mean() > 0.999


def ids_of_example(file, picture, folder):
    script = EXAMPLES / f"segment_{file.suffix[1:]}.py"
    result = subprocess.run(
        [sys.executable, str(script), str(file), str(picture), "ids.png"],
        cwd=folder,  # not the project: nothing of it can be imported
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return np.array(Image.open(folder / "ids.png"))


def test_a_fixed_size_file_lies_in_the_run_directory_and_is_never_overwritten(workshop, checkpoint):
    arguments = [checkpoint, "format=onnx", "size=[70,90]"]
    workshop.run("export", *arguments, "output_dir=fixed")
    file = workshop.path / "fixed" / "fcn8s.onnx"
    picture = workshop.data / "JPEGImages" / "v00.jpg"  # of that size
    assert ids_of_example(file, picture, workshop.path).shape == (70, 90)
    before = file.stat().st_mtime_ns
    printed = workshop.run("export", *arguments, "output=fixed/fcn8s.onnx", code=1)
    assert "exists already" in printed and "Traceback" not in printed
    assert file.stat().st_mtime_ns == before


def test_a_run_of_an_accelerator_is_exported_without_one(workshop, checkpoint):
    run = shutil.copytree(workshop.path / "to_export", workshop.path / "of_ascend")
    config = yaml.safe_load((run / "config.resolved.yaml").read_text())
    config["device"] |= {"target": "Ascend", "jit_level": "O1", "amp_level": "O2"}
    (run / "config.resolved.yaml").write_text(yaml.safe_dump(config))
    best = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    printed = workshop.run("export", best, "format=safetensors", "output_dir=exported_of_ascend")
    assert "agrees with the network" in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["format=onx"], "did you mean 'onnx'?"),
        (["size=64"], "size=64: expected a list of two"),
        (["size=[64,64]", "dynamic=true"], "leave one of them out"),
        (["output=net.onnx"], "format=mindir writes a .mindir file"),
        (["output=shapes_and_discs/classes.txt/net.mindir"], "folder cannot be written"),
        (["format=safetensors", "argmax=true"], "holds weights alone"),
        (["ckpt_path=to_export/checkpoints/gone.ckpt"], "gone.ckpt"),
    ],
)
def test_mistakes_get_one_line(workshop, checkpoint, arguments, expected):
    if not any("ckpt_path" in argument for argument in arguments):
        arguments = [checkpoint, *arguments]
    printed = workshop.run("export", *arguments, code=1)
    assert expected in printed and "Traceback" not in printed
