"""The fully convolutional network: class scores at several strides, added and enlarged."""

from collections.abc import Sequence

from mindspore import Tensor, nn

from src.models.auxiliary import AuxiliaryHead
from src.models.layers import BilinearUpsample, cut
from src.utils.errors import UserError

STRIDES = (4, 8, 16, 32)


class FCN(nn.Cell):
    """FCN-32s, FCN-16s and FCN-8s over any backbone (Long, Shelhamer, Darrell 2015).

    The deepest features are scored (`score_fr`); each finer prediction stride doubles the scores
    and adds those of the features there (`score_pool4`, `score_pool3`, `score_pool2`); the last
    layer enlarges to the size of the input. Maps of odd sizes round up and are cut back at the
    bottom and right.

    Args:
        backbone: Images N×3×H×W → features at strides 8, 16 and 32, or 4, 8, 16 and 32, sizes
            rounded up; its `channels` tells how many channels each has.
        num_classes: C.
        stride: Prediction stride: 32 has no skip, 16 adds one, 8 two, and 4, which goes on beyond
            the paper, three.
        learn_upsampling: Trains the upsampling kernels; False keeps bilinear interpolation.
        score_bias: Gives the score layers a bias: the paper's have one, the tutorial's none.
        auxiliary: Adds an `AuxiliaryHead` to the stride-16 features: in training the network then
            gives two logits, its own and the head's.
        skip_scales: Factors on the stride-16 and stride-8 features before they are scored; the
            original at-once training takes 0.01 and 0.0001.

    Raises:
        UserError: The stride is none that the backbone has features at; num_classes is not a
            positive number; the backbone does not publish its channels.
    """

    def __init__(
        self,
        backbone: nn.Cell,
        num_classes: int,
        stride: int = 8,
        learn_upsampling: bool = True,
        score_bias: bool = False,
        auxiliary: bool = False,
        skip_scales: Sequence[float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise UserError(
                f"num_classes={num_classes}: expected a positive number; set dataset.num_classes"
            )
        if len(skip_scales) != 2:
            raise UserError(
                f"model.skip_scales={list(skip_scales)}: expected two factors, strides 16 and 8"
            )
        channels = getattr(backbone, "channels", ())
        if len(channels) not in (3, 4):
            raise UserError(
                f"backbone {type(backbone).__name__}: expected an attribute `channels` with the "
                "numbers of channels at strides 8, 16 and 32, or 4, 8, 16 and 32"
            )
        width = dict(zip(STRIDES[-len(channels) :], channels, strict=True))
        if stride not in width:
            raise UserError(
                f"model.stride={stride}: expected one of {', '.join(map(str, width))}, at which "
                "the backbone has features"
            )

        def score(in_channels: int) -> nn.Conv2d:
            return nn.Conv2d(
                in_channels,
                num_classes,
                1,
                pad_mode="valid",
                has_bias=score_bias,
                weight_init="zeros",
                bias_init="zeros",
            )

        def upscore(factor: int) -> BilinearUpsample:
            return BilinearUpsample(num_classes, factor, frozen=not learn_upsampling)

        self.stride = stride
        self.scale_pool4, self.scale_pool3 = skip_scales
        self.backbone = backbone
        self.score_fr = score(width[32])
        if stride <= 16:
            self.upscore2 = upscore(2)
            self.score_pool4 = score(width[16])
        if stride <= 8:
            self.upscore_pool4 = upscore(2)
            self.score_pool3 = score(width[8])
        if stride == 4:
            self.upscore_pool3 = upscore(2)
            self.score_pool2 = score(width[4])
            self.upscore4 = upscore(4)
        elif stride == 8:
            self.upscore8 = upscore(8)
        elif stride == 16:
            self.upscore16 = upscore(16)
        else:
            self.upscore32 = upscore(32)
        self.auxiliary = AuxiliaryHead(width[16], num_classes) if auxiliary else None

    def construct(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.backbone(images)
        logits = self.logits(images, features)
        if self.auxiliary is not None and self.training:
            return logits, self.auxiliary(features[-2], images)
        return logits

    def logits(self, images: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Scores of every pixel, N×C×H×W, from the backbone's features, the finest first."""
        pool3, pool4, fc7 = features[-3:]
        scores = self.score_fr(fc7)
        if self.stride == 32:
            return cut(self.upscore32(scores), images)
        if self.scale_pool4 != 1.0:
            pool4 = pool4 * self.scale_pool4
        scores = cut(self.upscore2(scores), pool4) + self.score_pool4(pool4)
        if self.stride == 16:
            return cut(self.upscore16(scores), images)
        if self.scale_pool3 != 1.0:
            pool3 = pool3 * self.scale_pool3
        scores = cut(self.upscore_pool4(scores), pool3) + self.score_pool3(pool3)
        if self.stride == 8:
            return cut(self.upscore8(scores), images)
        scores = cut(self.upscore_pool3(scores), features[0]) + self.score_pool2(features[0])
        return cut(self.upscore4(scores), images)
