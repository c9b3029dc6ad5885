"""The files in `data` were written by PyTorch 2.13: `python -m tests.models.test_torch_files`."""

import io
import os
import pickle
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest

from src.models.torch_files import is_torch_file, read_torch_file
from src.utils.errors import UserError
from tests.models.torch_writer import View, save_torch

DATA = Path(__file__).parent / "data"
FORMATS = ("zip", "legacy")
BASE = np.arange(12, dtype=np.float32).reshape(3, 4)
EXPECTED = {
    "weight": BASE,
    "transposed": BASE.T,
    "window": BASE[1:, ::2],
    "parameter": BASE,
    "expanded": np.float32([[1, 1], [2, 2]]),
    "empty": np.zeros((0, 3), np.float32),
    "half": np.float32([[0.5, -65504]]),
    # Of a float32's 23 bits of mantissa bfloat16 keeps 7, of its range all: 1/3 becomes 171/512
    "bfloat16": np.float32([171 / 512, -2, 2.0**100]),
    "double": np.float64([1 / 3]),
    "bool": np.array([True, False]),
    "uint8": np.uint8([255]),
    "int8": np.int8([-1]),
    "int16": np.int16([-300]),
    "int32": np.int32([70000]),
    "num_batches_tracked": np.int64(1 << 40),
}


def saved(torch):
    """What a training script may save: wrapped parameters, some sharing memory, and much else."""
    base = torch.from_numpy(BASE.copy())
    parameters = OrderedDict(
        weight=base,
        transposed=base.t(),
        window=base[1:, ::2],
        parameter=torch.nn.Parameter(base),
        expanded=torch.tensor([[1.0], [2.0]]).expand(2, 2),
        empty=torch.zeros(0, 3),
        half=torch.tensor([[0.5, -65504]], dtype=torch.half),
        bfloat16=torch.tensor([1 / 3, -2, 2.0**100], dtype=torch.bfloat16),
        double=torch.tensor([1 / 3], dtype=torch.double),
        bool=torch.tensor([True, False]),
        uint8=torch.tensor([255], dtype=torch.uint8),
        int8=torch.tensor([-1], dtype=torch.int8),
        int16=torch.tensor([-300], dtype=torch.int16),
        int32=torch.tensor([70000], dtype=torch.int32),
        num_batches_tracked=torch.tensor(1 << 40),
    )
    parameters._metadata = OrderedDict({"": {"version": 2}})
    optimizer = torch.optim.Adam([parameters["parameter"]])
    parameters["parameter"].grad = torch.ones(3, 4)
    optimizer.step()
    base.copy_(torch.from_numpy(BASE))
    return {
        "epoch": 3,
        "optimizer": optimizer.state_dict(),
        "best_score": np.float64(0.5),
        "class_weights": np.ones(3),
        "args": Namespace(lr=0.1, device=torch.device("cpu")),
        "milestones": Counter([30, 60]),
        "size": torch.Size([3, 4]),
        "step": torch.tensor(7),
        "model_state_dict": parameters,
    }


def save(torch, content, path, kind, **options):
    torch.save(content, path, _use_new_zipfile_serialization=kind == "zip", **options)
    return path


def assert_as_expected(arrays):
    assert list(arrays) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        assert arrays[name].dtype == expected.dtype, name
        assert np.array_equal(arrays[name], expected), name


@pytest.mark.parametrize("kind", FORMATS)
def test_files_of_torch_give_its_numbers(kind):
    path = DATA / f"training_{kind}.pth"
    assert is_torch_file(path)
    assert_as_expected(read_torch_file(path))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_installed_torch_writes_what_is_read(tmp_path, kind, protocol):
    torch = pytest.importorskip("torch")
    path = save(torch, saved(torch), tmp_path / "x.pth", kind, pickle_protocol=protocol)
    assert_as_expected(read_torch_file(path))


@pytest.mark.parametrize("kind", FORMATS)
def test_shared_storage_is_read_once(kind):
    arrays = read_torch_file(DATA / f"training_{kind}.pth")
    assert np.shares_memory(arrays["weight"], arrays["window"])
    assert np.shares_memory(arrays["weight"], arrays["parameter"])
    assert not arrays["weight"].flags.writeable


def assert_named_as_model(path):
    with pytest.raises(UserError) as error:
        read_torch_file(path)
    message = str(error.value)
    assert "a whole pickled model (torch.nn.modules.conv.Conv2d)" in message
    assert "torch.save(model.state_dict(), " in message
    assert "\n" not in message


def test_pickled_model_is_named_with_the_repair():
    assert_named_as_model(DATA / "module.pth")


@pytest.mark.parametrize("kind", FORMATS)
def test_pickled_model_of_installed_torch_is_named(tmp_path, kind):
    torch = pytest.importorskip("torch")
    assert_named_as_model(save(torch, torch.nn.Conv2d(1, 1, 1), tmp_path / "x.pth", kind))


def test_lightning_checkpoint_is_named_with_the_repair():
    with pytest.raises(UserError, match=r"a PyTorch Lightning checkpoint; .*model\.state_dict\(\)"):
        read_torch_file(DATA / "lightning.ckpt")


# --- files that torch does not write, put together by hand -----------------------------------


def legacy_file(path, content, keys=(), storages=b"", little_endian=True):
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little_endian})
    pickles = [pickle.dumps(part, protocol=2) for part in head]
    body = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
    path.write_bytes(b"".join([*pickles, body, pickle.dumps(list(keys), protocol=2), storages]))
    return path


def zip_file(path, content, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        body = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
        archive.writestr("x/data.pkl", body)
        for name, value in entries.items():
            archive.writestr(f"x/{name}", value)
    return path


WRITERS = {"zip": zip_file, "legacy": legacy_file}


class Call:
    """Pickled, a call of any function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("function", [os.system, eval, getattr, io.open, np.load, pickle.loads])
def test_malicious_file_is_refused_and_nothing_runs(tmp_path, monkeypatch, kind, function):
    mark = tmp_path / "ran"
    code = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    path = WRITERS[kind](tmp_path / "x.pth", {"state_dict": Call(function, code)})
    with pytest.raises(UserError, match=f"holds Python objects .*{function.__name__}"):
        read_torch_file(path)
    assert not mark.exists()


def test_names_with_dots_do_not_reach_into_what_is_allowed(tmp_path):
    body = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93."
    assert pickle.loads(body) is OrderedDict.__init__
    with pytest.raises(UserError, match=r"collections\.OrderedDict\.__init__"):
        read_torch_file(zip_file(tmp_path / "x.pth", body))


def test_big_endian_files_are_refused(tmp_path):
    for path in (
        zip_file(tmp_path / "zip.pth", {}, byteorder=b"big"),
        legacy_file(tmp_path / "legacy.pth", {}, little_endian=False),
    ):
        with pytest.raises(UserError, match=f"{path.name}: written by a big-endian machine"):
            read_torch_file(path)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (10, (3,), (1,)),
        (0, (3, 5), (4, 1)),
        (-1, (2,), (1,)),
        (2, (2,), (-1,)),
        (0, (2, 2), (4,)),
        (0, (1 << 40,), (1,)),
    ],
)
def test_tensors_that_reach_outside_their_storage_are_refused(tmp_path, offset, shape, strides):
    path = save_torch({"a": View(BASE, offset, shape, strides)}, tmp_path / "x.pth")
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        read_torch_file(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_off_files_are_no_weights(tmp_path, kind):
    whole = (DATA / f"training_{kind}.pth").read_bytes()
    path = tmp_path / "x.pth"
    for size in (40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(Exception) as error:
            read_torch_file(path)
        assert not isinstance(error.value, UserError)


def test_other_files_are_not_torchs(tmp_path):
    np.savez(tmp_path / "x.npz", a=BASE)
    (tmp_path / "page.pth").write_text("<html>")
    (tmp_path / "empty.pth").touch()
    assert not any(is_torch_file(path) for path in tmp_path.iterdir())


# --- the parameters among what else was saved ------------------------------------------------


ONE = {"conv.weight": np.ones(1)}


@pytest.mark.parametrize(
    "keys",
    [(), ("state_dict",), ("model_state_dict",), ("net",), ("model",), ("mine",), ("a", "model")],
)
def test_dictionaries_around_the_parameters_are_opened(tmp_path, keys):
    content = ONE
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "loss": np.array(0.1)}
    path = save_torch(content, tmp_path / "best.pth.tar")
    assert list(read_torch_file(path)) == ["conv.weight"]


def test_averaged_parameters_come_before_those_they_average(tmp_path):
    content = {"state_dict": {"w": np.zeros(1)}, "state_dict_ema": {"w": np.ones(1)}}
    assert read_torch_file(save_torch(content, tmp_path / "x.pth"))["w"] == 1


@pytest.mark.parametrize(
    ("content", "names", "first"),
    [
        ({"student": ONE, "teacher": ONE}, "student, teacher", "['student']"),
        ({"g": {"net": ONE}, "d": {"net": ONE}, "x": ONE}, "g.net, d.net, x", "['g']['net']"),
    ],
)
def test_of_several_networks_none_is_guessed(tmp_path, content, names, first):
    with pytest.raises(UserError) as error:
        read_torch_file(save_torch(content, tmp_path / "x.pth"))
    assert f"several networks ({names})" in str(error.value)
    assert f"torch.load(FILE){first}" in str(error.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_with_a_name_is_no_parameter(tmp_path, kind):
    for content in ([], 7, {}, {"state_dict": {}}, None):
        assert read_torch_file(WRITERS[kind](tmp_path / "x.pth", content)) == {}


if __name__ == "__main__":
    import torch

    for kind in FORMATS:
        save(torch, saved(torch), DATA / f"training_{kind}.pth", kind)
    save(torch, torch.nn.Conv2d(1, 1, 1), DATA / "module.pth", "zip")
    lightning = {"state_dict": {"w": torch.ones(1)}, "pytorch-lightning_version": "2.0"}
    save(torch, lightning, DATA / "lightning.ckpt", "zip")
