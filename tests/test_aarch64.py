"""Hosts of Ascend cards are often aarch64: what is installed there, and what the CPU path does."""

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
