"""What Linux on aarch64 installs for the pins of `requirements.lock`: hosts of Ascend cards are such.

    python -m tests.aarch64_wheels

asks pip for the pins that are new, with each Python that the project runs on, and brings
`aarch64_wheels.txt` up to date: a pin and the platforms of its wheel a line. "any" is a wheel for
all; "source" has none and is built. `make lock` runs it after it has changed the pins.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from tests import ROOT

TABLE = Path(__file__).with_suffix(".txt")
PYTHONS = ("3.10", "3.11", "3.12")
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)]  # by glibc's version
PLATFORMS.append("manylinux2014_aarch64")  # the older name of 2_17
SOURCE = "source"


def pins(python: str) -> set[str]:
    """What is installed there with this Python, as `name==version`."""
    machine = {
        "implementation_name": "cpython",
        "platform_machine": "aarch64",
        "python_full_version": f"{python}.9",
        "python_version": python,
        "sys_platform": "linux",
    }
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines]
    return {f"{r.name}{r.specifier}" for r in wanted if not r.marker or r.marker.evaluate(machine)}


def table() -> dict[str, str]:
    """The committed table: pin → platforms."""
    return dict(line.split() for line in TABLE.read_text(encoding="utf-8").splitlines())


def wheels(wanted: set[str], python: str) -> dict[str, str]:
    """The platforms of the wheels that pip chooses."""
    found: dict[str, str] = {}
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report=-"]
    command += ["--ignore-installed", "--no-deps", "--only-binary=:all:", "--target=none"]
    command += [f"--python-version={python}.9", *(f"--platform={name}" for name in PLATFORMS)]
    while wanted:
        done = subprocess.run([*command, *wanted], capture_output=True, text=True)
        if done.returncode == 0:
            break
        absent = re.search(r"No matching distribution found for (\S+)", done.stderr)
        if absent is None:
            sys.exit(done.stderr)
        found[absent[1]] = SOURCE
        wanted = wanted - {absent[1]}
    if not wanted:
        return found
    by_name = {pin.partition("==")[0]: pin for pin in wanted}
    for package in json.loads(done.stdout)["install"]:
        name = re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()
        file = package["download_info"]["url"].rpartition("/")[2]
        found[by_name[name]] = file.removesuffix(".whl").rpartition("-")[2]
    return found


def main() -> None:
    """Brings the table up to date."""
    known, rows = table(), {}
    for python in PYTHONS:
        wanted = pins(python)
        rows |= {pin: known[pin] for pin in wanted & known.keys()}
        for pin, platforms in wheels(wanted - known.keys(), python).items():
            rows[pin] = SOURCE if rows.get(pin) == SOURCE else platforms
    TABLE.write_text("".join(f"{pin} {rows[pin]}\n" for pin in sorted(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
