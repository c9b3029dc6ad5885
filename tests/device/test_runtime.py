"""The oneDNN cap: for the versions and CPUs that need it, before MindSpore, never over the user's.

And the memory that malloc keeps.
"""

import os
import platform
import subprocess
import sys

import pytest

from src.device import runtime

ISA = "ONEDNN_MAX_CPU_ISA"


@pytest.fixture
def limited_isa(monkeypatch):
    """Calls the function as on another machine; returns what the variable is afterwards."""

    def call(mindspore="2.10.0", avx512=True, value=None, imported=False):
        monkeypatch.setattr(runtime, "version", lambda name: mindspore)
        monkeypatch.setattr(runtime, "_cpu_has_avx512", lambda: avx512)
        monkeypatch.setattr(runtime, "_note", "")
        monkeypatch.delenv(ISA, raising=False)
        if value is not None:
            monkeypatch.setenv(ISA, value)
        modules = dict(sys.modules) | ({"mindspore": None} if imported else {})
        if not imported:
            modules.pop("mindspore", None)
        monkeypatch.setattr(sys, "modules", modules)
        runtime.limit_onednn_isa()
        return runtime.os.environ.get(ISA)

    return call


@pytest.mark.parametrize("version", ["2.9.0", "2.10.0", "2.10.1rc1"])
def test_affected_versions_on_avx512_are_capped(limited_isa, version):
    assert limited_isa(mindspore=version) == "AVX2"
    assert "AVX2" in runtime._note


@pytest.mark.parametrize("version", ["2.7.0", "2.8.0"])
def test_older_versions_keep_avx512(limited_isa, version):
    assert limited_isa(mindspore=version) is None and version in runtime._note


def test_cpus_without_avx512_need_nothing(limited_isa):
    assert limited_isa(avx512=False) is None and "no AVX-512" in runtime._note


def test_a_value_of_the_user_stays_and_is_reported(limited_isa):
    assert limited_isa(value="AVX512_CORE") == "AVX512_CORE"
    assert "AVX512_CORE" in runtime._note


def test_too_late_is_said_instead_of_done(limited_isa):
    assert limited_isa(imported=True) is None
    assert "imported first" in runtime._note


def test_in_this_very_process_the_cap_was_set_before_mindspore():
    import mindspore  # noqa: F401

    if runtime._cpu_has_avx512():
        assert runtime.os.environ[ISA]


FAULTS = """
import ctypes, resource

from src.device.runtime import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
BLOCKS, BYTES = 6, 10 << 20

def share_of_pages_cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # Nothing of Python's lies between them or behind, which could keep malloc from giving them back
    blocks = (ctypes.c_void_p * BLOCKS)()
    for i in range(BLOCKS):
        blocks[i] = libc.malloc(ctypes.c_size_t(BYTES))
        ctypes.memset(blocks[i], 1, BYTES)
    for block in blocks:
        libc.free(ctypes.c_void_p(block))
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return faults / (BLOCKS * BYTES / resource.getpagesize())

share_of_pages_cleared()  # malloc adapts its thresholds to the first blocks
before = share_of_pages_cleared()
keep_freed_memory()
share_of_pages_cleared()
print(before, share_of_pages_cleared())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
@pytest.mark.parametrize("users", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_memory_of_freed_arrays_is_used_again_unless_the_user_says_otherwise(users):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=environment | users, capture_output=True, check=True)
    before, after = map(float, done.stdout.split())
    assert before > 0.1  # else malloc does so by itself, and ours is of no use
    assert after > 0.1 if users else after < 0.05
