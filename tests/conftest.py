"""Before anything else: no test writes to W&B, and MindSpore starts with the project's settings."""

import os
import signal

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest  # noqa: E402

from src.device.runtime import choose_device  # noqa: E402  (src limits oneDNN first)

choose_device("CPU")  # a test that does may come after the first kernel of another

# A suite that a shell started in the background inherits an ignored Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    from matplotlib.figure import Figure

    kept, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (kept.append(self), save(self, *a, **k))
    )
    return kept
