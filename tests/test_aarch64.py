"""Hosts of Ascend cards are often aarch64: what is installed there, and what the CPU path does."""

import os
import sys
from types import SimpleNamespace

from src.device import runtime
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
    cpuinfo = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics\n"
    monkeypatch.setattr(runtime, "Path", lambda _: SimpleNamespace(read_text=lambda: cpuinfo))
    modules = {name: module for name, module in sys.modules.items() if name != "mindspore"}
    monkeypatch.setattr(sys, "modules", modules)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    runtime.limit_onednn_isa()
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ
