"""Losses over the pixels of a batch: logits N×C×H×W, labels N×H×W of class ids."""

from src.losses.auxiliary import WithAuxiliary
from src.losses.base import SegmentationLoss
from src.losses.cross_entropy import CrossEntropy
from src.losses.dice import Dice
from src.losses.focal import Focal
from src.losses.lovasz import Lovasz
from src.losses.ohem import Ohem
from src.losses.tversky import Tversky
from src.losses.weighted_sum import WeightedSum

__all__ = [
    "CrossEntropy",
    "Dice",
    "Focal",
    "Lovasz",
    "Ohem",
    "SegmentationLoss",
    "Tversky",
    "WeightedSum",
    "WithAuxiliary",
]
