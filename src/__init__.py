"""Fully convolutional networks for semantic segmentation on MindSpore.

Importing any module of this package first limits the instruction set of oneDNN: MindSpore reads
that variable once, when it is imported itself (see `src.device.runtime`).
"""

from src.device.runtime import limit_onednn_isa

limit_onednn_isa()
