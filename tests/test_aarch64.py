"""Hosts of Ascend cards are often aarch64: what is installed there, and what the CPU path does."""

import os
import sys

import mindspore as ms
from mindspore import nn

from src.device import runtime
from src.device.cpu_convolutions import use_cpu_convolutions
from tests.aarch64_wheels import PYTHONS, SOURCE, pins, table

# Pure Python, of which the index has the source alone
BUILT = {"antlr4-python3-runtime"}


def test_each_pin_was_looked_up_for_aarch64():
    """`make lock` does so."""
    assert table().keys() == set().union(*map(pins, PYTHONS))


def test_each_pin_has_a_wheel_for_aarch64_but_those_of_python_sources():
    rows = table()
    built = {pin.partition("==")[0] for pin, files in rows.items() if files == SOURCE}
    assert built == BUILT
    assert all(files in (SOURCE, "any") or files.endswith("_aarch64") for files in rows.values())


def test_its_cpus_keep_onednn_as_it_is(monkeypatch):
    """Kunpeng's features."""
    cpuinfo = (
        "processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics asimdhp\n"
    )
    monkeypatch.setattr(runtime.Path, "read_text", lambda self: cpuinfo)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    modules = {name: module for name, module in sys.modules.items() if name != "mindspore"}
    monkeypatch.setattr(sys, "modules", modules)
    runtime.limit_onednn_isa()
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ


def test_convolutions_of_an_accelerator_are_not_touched(monkeypatch):
    network = nn.SequentialCell([nn.Conv2d(256, 256, 3), nn.Conv2d(256, 256, 7)])
    own = [cell.conv2d for cell in network]
    monkeypatch.setattr(ms, "get_context", lambda name: "Ascend")
    use_cpu_convolutions(network)
    assert [cell.conv2d for cell in network] == own
