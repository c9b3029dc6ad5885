"""Writes a network to a file for use elsewhere, and keeps it if it computes the same."""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

from src.device.cpu_convolutions import use_own_convolutions
from src.exporting.deployment import Deployment
from src.exporting.parity_check import ParityCheck, Runner, mindspore_runner
from src.exporting.specification import Specification
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.normalization import Normalization

log = logging.getLogger(__name__)


def check_output(path: Path, format: str) -> None:
    """Refuses a path that cannot become the file: before the work, and again after it.

    Raises:
        UserError: It has another suffix, exists, or lies in a folder that cannot be written.
    """
    if path.suffix != f".{format}":
        raise UserError(
            f"output={path}: format={format} writes a .{format} file; give another name or format="
        )
    if path.exists() or path.is_symlink():
        raise UserError(f"output={path}: exists already; give another name, or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"output={path}: its folder cannot be written ({error.strerror})"
        ) from error


class Exporter:
    """Writes one network.

    Args:
        network: Images N×3×H×W float32, normalised → logits N×C×H×W of the same H and W.
        normalization: What the network expects of an image.
        specification: Of the file.
        metadata: Keyword arguments of `Specification.metadata` that neither of these knows.
        rebuild: Makes a fresh network from a file of weights.
    """

    def __init__(
        self,
        network: nn.Cell,
        normalization: Normalization,
        specification: Specification,
        metadata: dict[str, Any],
        rebuild: Callable[[Path], nn.Cell],
    ) -> None:
        use_own_convolutions(network)
        self._network = network
        self._inside = normalization if specification.normalize else None
        self._specification = specification
        self._rebuild = rebuild
        self._parity_check = ParityCheck(network, normalization, specification)
        self.metadata = specification.metadata(
            normalization, multiple=self._parity_check.multiple, **metadata
        )

    def export(self, path: Path) -> dict[str, Any]:
        """Writes a temporary file, checks its parity with the network, then renames it.

        Returns what was compared.

        Raises:
            UserError: The file does not compute what the network computes, or cannot be written.
        """
        write, load = {
            "mindir": (self._write_mindir, self._load_mindir),
            "onnx": (self._write_onnx, self._load_onnx),
            "safetensors": (self._write_safetensors, self._load_safetensors),
        }[self._specification.format]
        check_output(path, self._specification.format)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as directory:
            difference = 0.0
            # Class ids may agree by chance, one class being everywhere: logits are compared first
            for argmax in (False, True) if self._specification.argmax else (False,):
                temporary = Path(directory, f"{'class_ids' if argmax else 'logits'}{path.suffix}")
                try:
                    write(Deployment(self._network, self._inside, argmax), temporary)
                except OSError as error:
                    raise UserError(f"output={path}: could not be written ({error})") from error
                difference = max(
                    difference, self._parity_check.check(load(temporary), path.name, argmax)
                )
            check_output(path, self._specification.format)
            atomic_write(path, temporary.rename)
        summary = self._parity_check.summary(difference)
        log.info(
            "agrees with the network on %s: largest difference %.2g, logits up to %.3g",
            ", ".join(summary["inputs"]),
            difference,
            summary["largest_logit"],
        )
        return summary

    def _write_mindir(self, cell: Deployment, path: Path) -> Any:
        """Writes the file; returns its protobuf message, weights and all."""
        messages: list[Any] = []

        def annotate(message: Any) -> None:
            if hasattr(message.user_info, "update"):
                message.user_info.update(self.metadata)
            else:  # before MindSpore 2.10 the map shows as what it is on the disk
                for key, value in self.metadata.items():
                    message.user_info.add(key=key, value=value)
            messages.append(message)

        shape = list(self._specification.input_shape)
        folder = os.getcwd()
        # MindSpore refuses paths with a blank or a letter outside ASCII: it gets the bare name
        os.chdir(path.parent)
        try:
            ms.export(
                cell,
                Tensor(shape=shape, dtype=ms.float32),
                file_name=path.name,
                file_format="MINDIR",
                custom_func=annotate,
            )
        finally:
            os.chdir(folder)
        if not path.exists():
            raise UserError(
                "the network is larger than 1 GB, which MindSpore splits into several files; "
                "use format=safetensors"
            )
        return messages[0]

    def _load_mindir(self, path: Path) -> Runner:
        cell = nn.GraphCell(ms.load(str(path)))
        return lambda images: cell(Tensor(images)).asnumpy()

    def _write_onnx(self, cell: Deployment, path: Path) -> None:
        # onnx costs a third of a second to import
        import onnx

        from src.exporting.mindir_graph import MindIRGraph
        from src.exporting.onnx_graph import onnx_model

        mindir = path.with_suffix(".mindir")
        graph = MindIRGraph(self._write_mindir(cell, mindir))
        mindir.unlink()
        shape = self._specification.input_shape
        onnx.save(onnx_model(graph, shape, cell.output_name, self.metadata), path)

    def _load_onnx(self, path: Path) -> Runner:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"images": images})[0]

    def _write_safetensors(self, cell: Deployment, path: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {name: p.asnumpy() for name, p in cell.parameters_dict().items()}
        save_file(arrays, path, {"format": "ms", **self.metadata})

    def _load_safetensors(self, path: Path) -> Runner:
        return mindspore_runner(Deployment(self._rebuild(path)), (None, 3, None, None))
