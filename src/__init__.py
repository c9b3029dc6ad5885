"""Fully convolutional networks for semantic segmentation on MindSpore.

Importing any module of this package settles the oneDNN environment first: MindSpore reads it
once, when it is imported itself (see `src.device.runtime`).
"""

from src.device.runtime import limit_onednn_isa

limit_onednn_isa()
