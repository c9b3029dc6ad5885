"""Before anything else: no test writes to W&B, and MindSpore starts with the project's settings."""

import os

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("WANDB_SILENT", "true")

import src  # noqa: E402, F401  (settles oneDNN before a test imports mindspore)
