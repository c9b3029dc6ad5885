"""Segments a picture with an exported MindIR file, without this project.

python examples/segment_mindir.py fcn8s.mindir photo.jpg ids.png
"""

import json
import os
import sys

import cv2
import numpy as np

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")  # MindSpore 2.9 and 2.10 are slow without
import mindspore as ms  # noqa: E402
from mindspore.train.mind_ir_pb2 import ModelProto  # noqa: E402

model, picture, output = sys.argv[1:]
with open(model, "rb") as file:
    about = ModelProto.FromString(file.read()).user_info
if not hasattr(about, "update"):  # before MindSpore 2.10
    about = {entry.key: entry.value for entry in about}
network = ms.nn.GraphCell(ms.load(model))

image = cv2.imread(picture, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
image = image[:, :, ::-1]  # H×W×3 RGB, as src.predict reads it
order = slice(None, None, -1 if about["color_order"] == "bgr" else 1)
mean, std = (np.float32(json.loads(about[key]))[order] for key in ("mean", "std"))
height, width = image.shape[:2]
step = int(about["padding_multiple"])  # padded as in the project's own evaluation
pixels = np.pad(image - mean, ((0, -height % step), (0, -width % step), (0, 0)))
pixels = pixels + mean if about["normalize"] == "true" else (pixels / std)[:, :, order]

images = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)  # 1×3×H×W
prediction = network(ms.Tensor(images)).asnumpy()[0, ..., :height, :width]
ids = prediction if about["argmax"] == "true" else prediction.argmax(axis=0)
cv2.imwrite(output, ids.astype(np.uint8))
names = json.loads(about["class_names"])
print("found:", ", ".join(names[i] for i in np.unique(ids)))
