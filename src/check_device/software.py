"""What a device's results depend on: driver, toolkit, MindSpore, environment variables."""

import contextlib
import io
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from src.utils.versions import version, versions

ASCEND = Path("/usr/local/Ascend")
PARTS = ("driver", "firmware")
TOOLKIT_HOMES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")  # as CANN's set_env.sh sets them
TOOLKIT_FILES = ("version.cfg", "compiler/version.info", "*/ascend_toolkit_install.info")
VARIABLES = re.compile(
    "(ASCEND|HCCL|MS|GLOG|CUDA|NVIDIA|NCCL|ONEDNN|MALLOC|OMP|RANK|DEVICE)_"
    "|(LD_LIBRARY_PATH|PYTHONPATH)$"
)


def software() -> dict[str, Any]:
    """Versions and settings found on this machine, for a bug report."""
    homes = {os.environ[name] for name in TOOLKIT_HOMES if os.environ.get(name)}
    files = [ASCEND / part / "version.info" for part in PARTS]
    files += [path for home in homes for name in TOOLKIT_FILES for path in Path(home).glob(name)]
    return {
        "versions": {**versions(), "protobuf": version("protobuf")},
        "platform": platform.platform(),
        "files": {str(p): p.read_text(errors="replace") for p in sorted(files) if p.is_file()},
        "npu-smi info": _output("npu-smi", "info"),
        "nvidia-smi": _output("nvidia-smi"),
        "environment": {k: v for k, v in sorted(os.environ.items()) if VARIABLES.match(k)},
    }


def _output(*command: str) -> str | None:
    """What a command prints; None where there is no such command, or no answer."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout


def run_check() -> str:
    """What `mindspore.run_check()` prints.

    Raises:
        RuntimeError: It found that MindSpore does not work on the device.
    """
    import mindspore as ms

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ms.run_check()
    text = printed.getvalue().strip()
    if "successfully" not in text:
        raise RuntimeError(text)
    return text
