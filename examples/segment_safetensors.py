"""Segments a picture with exported weights of an FCN with a VGG backbone, without this project.

python examples/segment_safetensors.py fcn8s.safetensors photo.jpg ids.png
"""

import json
import os
import sys

import cv2
import numpy as np
from safetensors import safe_open

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")  # MindSpore 2.9 and 2.10 are slow without
from mindspore import Tensor, nn, ops  # noqa: E402

BATCH_NORM = ("moving_mean", "moving_variance", "gamma", "beta")


def convolution(x, name):
    return ops.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), pad_mode="same")


def block(x, name):
    """The convolutions of a block, each with ReLU, and batch normalisation if the file has it."""
    for i in range(20):
        if f"{name}.{i}.weight" in w:
            x = convolution(x, f"{name}.{i}")
            norm = [w.get(f"{name}.{i + 1}.{key}") for key in BATCH_NORM]
            x = ops.relu(x if norm[0] is None else ops.batch_norm(x, *norm, eps=1e-5))
    return x


def enlarge(x, name, like):
    kernel = w[f"{name}.weight"]  # C×C×2f×2f enlarges f times
    c, f = kernel.shape[0], kernel.shape[2] // 2
    up = nn.Conv2dTranspose(c, c, 2 * f, f, "pad", f // 2, weight_init=kernel)
    return up(x)[:, :, : like.shape[2], : like.shape[3]]


weights, picture, output = sys.argv[1:]
with safe_open(weights, framework="np") as file:
    w = {name: Tensor(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    about = file.metadata()

image = cv2.imread(picture, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
image = image[:, :, ::-1]  # H×W×3 RGB, as src.predict reads it
order = slice(None, None, -1 if about["color_order"] == "bgr" else 1)
mean, std = (np.float32(json.loads(about[key])) for key in ("mean", "std"))
height, width = image.shape[:2]
step = int(about["padding_multiple"])  # padded as in the project's own evaluation
pixels = (image[:, :, order] - mean) / std
pixels = np.pad(pixels, ((0, -height % step), (0, -width % step), (0, 0)))
images = Tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))  # 1×3×H×W

pool, pools = nn.MaxPool2d(2, 2, "same"), [images]
for number in range(1, 6):
    pools.append(pool(block(pools[-1], f"backbone.conv{number}")))
logits = convolution(block(block(pools[5], "backbone.conv6"), "backbone.conv7"), "score_fr")
scale4, scale3 = json.loads(about["skip_scales"])
if "score_pool4.weight" in w:  # stride 16 or 8
    scores = convolution(pools[4] * scale4, "score_pool4")
    logits = enlarge(logits, "upscore2", scores) + scores
if "score_pool3.weight" in w:
    scores = convolution(pools[3] * scale3, "score_pool3")
    logits = enlarge(logits, "upscore_pool4", scores) + scores
logits = enlarge(logits, f"upscore{about['stride']}", images)

ids = logits[0].argmax(axis=0).asnumpy()[:height, :width]
cv2.imwrite(output, ids.astype(np.uint8))
names = json.loads(about["class_names"])
print("found:", ", ".join(names[i] for i in np.unique(ids)))
