"""Scores of segmentations, counted over whole splits. NumPy only."""

from src.metrics.boundary_iou import BoundaryIoU
from src.metrics.confusion_matrix import ConfusionMatrix, per_class, scores

__all__ = ["BoundaryIoU", "ConfusionMatrix", "per_class", "scores"]
