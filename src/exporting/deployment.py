"""The network in the form that is exported."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.utils.normalization import Normalization


class Deployment(nn.Cell):
    """A network in inference mode, with normalisation before it and arg-max behind it if wanted.

    Args:
        network: Images N×3×H×W float32, normalised → logits N×C×H×W.
        normalization: Done inside: images are RGB of 0 to 255 then; None: they come normalised.
        argmax: Gives class ids N×H×W int32 instead of logits.
    """

    def __init__(
        self, network: nn.Cell, normalization: Normalization | None = None, argmax: bool = False
    ) -> None:
        super().__init__(auto_prefix=False)  # parameters keep their names
        self.network = network
        self.output_name = "class_ids" if argmax else "logits"
        self.normalize = normalization is not None
        self.argmax = ops.Argmax(axis=1, output_type=ms.int32) if argmax else None
        if normalization is not None:
            std = np.array(normalization.std).reshape(1, 3, 1, 1)
            mean = np.array(normalization.mean).reshape(1, 3, 1, 1)
            self.reorder = normalization.color_order == "bgr"
            self.bgr = Tensor([2, 1, 0], ms.int32)
            self.scale = Tensor((1 / std).astype(np.float32))
            self.shift = Tensor((-mean / std).astype(np.float32))
        self.set_train(False)

    def construct(self, images: Tensor) -> Tensor:
        if self.normalize:
            if self.reorder:
                images = ops.gather(images, self.bgr, 1)
            images = images * self.scale + self.shift
        output = self.network(images)
        if self.argmax is not None:
            output = self.argmax(output)
        return output
