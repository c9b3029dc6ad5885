"""A second head that helps training and is gone afterwards."""

from mindspore import Tensor, nn, ops

from src.models.layers import conv_norm_relu


class AuxiliaryHead(nn.Cell):
    """Scores intermediate features, so that their gradient need not come from the end alone.

    torchvision's: a 3×3 convolution to a quarter of the channels, norm, ReLU, dropout 0.1, and a
    1×1 convolution to the classes, enlarged bilinearly.

    Args:
        channels: Of the features.
        num_classes: C.
    """

    training_only = True  # its parameters do not go into checkpoints

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        convolution = nn.Conv2d(
            channels, inner, 3, pad_mode="pad", padding=1, has_bias=False, weight_init="HeNormal"
        )
        self.features = nn.SequentialCell(
            [*conv_norm_relu(convolution, batch_norm=True), nn.Dropout(p=0.1)]
        )
        self.scores = nn.Conv2d(inner, num_classes, 1, pad_mode="valid", has_bias=True)

    def construct(self, maps: Tensor, images: Tensor) -> Tensor:
        """Logits N×C×H×W at the size of the images."""
        scores = self.scores(self.features(maps))
        return ops.interpolate(scores, size=images.shape[2:], mode="bilinear")
