"""What tests share: what they need and may lack, and the real model."""

import importlib.util
import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import settings

from tightrope import plugins
from tightrope.device import engine
from tightrope.device.serve import logs
from tightrope.errors import MissingExtraError, SourceError
from tightrope.workshop.convert._artefact import Section, file
from tightrope.workshop.load import load
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.network import Network

settings.register_profile("whatever the machine is doing", settings(), deadline=None)
settings.load_profile("whatever the machine is doing")

INSTALL = {
    "torch": "pip install torch==2.13.0 && pip install 'tightrope[torch]'",
    "openvino": "pip install 'tightrope[openvino]'",
    "PIL": "pip install 'tightrope[image]'",
    "browser": "install Chromium (Debian: apt-get install chromium)",
    "clang": "apt-get install clang libclang-rt-14-dev",
    "jdk": "apt-get install default-jdk-headless",
    "data": "set TIGHTROPE_DATA to the folder of evaluation data",
    "qemu": "apt-get install cmake g++-aarch64-linux-gnu qemu-user-static",
    "index": "allow pip to reach a package index",
}


def lacking(what: str) -> NoReturn:
    """Skip, saying what to install; or fail, if TIGHTROPE_REQUIRE says that it must be here."""
    message = f"needs {what}: {INSTALL[what]}"
    if what in os.environ.get("TIGHTROPE_REQUIRE", "").split(","):
        pytest.fail(message)
    pytest.skip(message)


def need(*modules: str) -> None:
    """Go on only if these modules can be imported."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            lacking("torch" if name == "transformers" else name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `torch` needs torch and transformers."""
    if item.get_closest_marker("torch"):
        need("torch", "transformers")


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> Iterator[None]:
    """Servers in this process log to nobody: their threads would write in between what pytest says."""
    with Path(os.devnull).open("w") as nowhere:
        before = logs.write_to(logs.Log(nowhere))
        yield
        logs.write_to(before)


@pytest.fixture(scope="session", name="need")
def _need() -> Callable[..., None]:
    """`need`, for tests in folders of their own, which cannot import this file."""
    return need


@pytest.fixture(scope="session")
def need_engine() -> Callable[[str], None]:
    """`need_engine(name)`: go on only if an engine's converter and runtime can be loaded."""

    def check(name: str) -> None:
        try:
            for room in ("converters", "runtimes"):
                plugins.load(room, name)
            if name == "native":
                engine.library()
        except MissingExtraError as error:
            message = f"needs {name}: {error.hint}"
            pytest.fail(message) if name in os.environ.get("TIGHTROPE_REQUIRE", "").split(",") else pytest.skip(message)

    return check


TITLED = re.compile(r"^```\w+ title=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENGINE_GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "adding-an-engine.md"


@pytest.fixture(scope="session")
def toy_engine() -> Callable[..., dict[str, str]]:
    """`toy_engine(folder, modules)`: what the guide on engines writes, as pip would lay it into a folder.

    `modules` are further engines: for each name the sources of its converter and its runtime, which may take from the
    guide's. Returns the environment in which Python finds them all.
    """

    def install(folder: Path, modules: Mapping[str, tuple[str, str]] | None = None) -> dict[str, str]:
        files = dict(TITLED.findall(ENGINE_GUIDE.read_text(encoding="utf-8")))
        project = tomllib.loads(files.pop("pyproject.toml"))["project"]
        groups = {room: dict(names) for room, names in project["entry-points"].items()}
        for name, sources in (modules or {}).items():
            for room, part, source in zip(("converters", "runtimes"), ("converter", "runtime"), sources, strict=True):
                files[f"toy/{name}_{part}.py"] = source
                groups[f"tightrope.{room}"][name] = f"toy.{name}_{part}"
        about = {"Metadata-Version": "2.4", "Name": project["name"], "Version": project["version"]}
        about |= {"License-Expression": project["license"], "Requires-Python": project["requires-python"]}
        named = [
            f"[{room}]\n" + "".join(f"{key} = {value}\n" for key, value in names.items())
            for room, names in groups.items()
        ]
        information = f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        files[f"{information}/METADATA"] = "".join(f"{key}: {value}\n" for key, value in about.items())
        files[f"{information}/entry_points.txt"] = "\n".join(named)
        files[f"{information}/RECORD"] = "".join(f"{name},,\n" for name in files)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        return os.environ | {"PYTHONPATH": str(folder)}

    return install


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    return found or lacking("browser")


@pytest.fixture(scope="session")
def javac() -> str:
    """The path of a Java compiler."""
    return shutil.which("javac") or lacking("jdk")


@pytest.fixture(scope="session")
def clang() -> str:
    """The path of clang's C++ compiler."""
    return shutil.which("clang++") or lacking("clang")


@pytest.fixture(scope="session")
def qemu() -> None:
    """Go on only if programs for 64-bit ARM can be built and run."""
    if not all(shutil.which(name) for name in ("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64-static")):
        lacking("qemu")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of evaluation data, which is not part of the project."""
    folder = Path(os.environ.get("TIGHTROPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    return folder if folder.is_dir() else lacking("data")


@pytest.fixture(scope="session")
def minilm() -> Network:
    """The real all-MiniLM-L6-v2."""
    try:
        model = load("all-MiniLM-L6-v2")
    except SourceError:
        lacking("index")
    assert isinstance(model, Network)
    return model


def wordpiece(words: tuple[str, ...] = ("the", "cat", "sat")) -> bytes:
    """A real WordPiece tokenizer.json that spells whatever is not one of the words: 57 pieces and the words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    engine = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer()
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return json.dumps(json.loads(engine.to_str())).encode()


class NativeWordPiece:
    """The native engine's tokenizer, for packed bytes that may be spoilt and texts that may not be UTF-8."""

    def encode(self, packed: bytes, text: str | bytes, max_length: int) -> tuple[list[int], bool]:
        """The ids of a text, and whether it was cut."""
        ids, _, _, cut = _opened(packed).tokenize([_raw(text)], pairs=False, max_length=max_length)
        return ids.tolist(), bool(cut)

    def encode_pair(
        self, packed: bytes, first: str | bytes, second: str | bytes, max_length: int
    ) -> tuple[list[int], list[int], bool]:
        """The ids of a pair, their types, and whether it was cut."""
        texts = [_raw(first), _raw(second)]
        ids, types, _, cut = _opened(packed).tokenize(texts, pairs=True, max_length=max_length)
        return ids.tolist(), types.tolist(), bool(cut)


class _Bytes(bytes):
    """Bytes in the place of a text: the engine's door takes what they are."""

    def encode(self) -> bytes:
        return self


def _raw(text: str | bytes) -> Any:
    return _Bytes(text) if isinstance(text, bytes) else text


@lru_cache(maxsize=16)
def _opened(packed: bytes) -> engine.Model:
    descriptor = os.memfd_create("wordpiece")
    try:
        os.write(descriptor, file({"wordpiece": Section(packed)}))
        return engine.Model(descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture(scope="session", name="wordpiece")
def _wordpiece() -> NativeWordPiece:
    """The native tokenizer, where the library is."""
    try:
        engine.library()
    except MissingExtraError as error:
        pytest.skip(error.message)
    return NativeWordPiece()


@pytest.fixture(scope="session")
def tiny_bert() -> Network:
    """A random BERT of 2 layers, 32 wide, 4 heads, 60 word pieces, with a few large features as real ones have."""
    config = {
        "model_type": "bert",
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "vocab_size": 60,
        "max_position_embeddings": 64,
    }
    random = np.random.default_rng(7)
    names = {"embeddings.word_embeddings.weight": (60, 32), "embeddings.position_embeddings.weight": (64, 32)}
    names |= {"embeddings.token_type_embeddings.weight": (2, 32)}
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        inner = {f"{layer}.attention.self.{part}.weight": (32, 32) for part in ("query", "key", "value")}
        inner |= {f"{layer}.attention.output.dense.weight": (32, 32)}
        inner |= {f"{layer}.intermediate.dense.weight": (64, 32), f"{layer}.output.dense.weight": (32, 64)}
        names |= inner | {name.replace(".weight", ".bias"): shape[:1] for name, shape in inner.items()}
    weights = {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in names.items()}
    for norm in [
        "embeddings",
        *(f"encoder.layer.{i}.{part}" for i in (0, 1) for part in ("attention.output", "output")),
    ]:
        gain = random.uniform(0.5, 1.5, 32).astype(np.float32)
        gain[3] = 8.0
        bias = random.normal(0, 0.3, 32).astype(np.float32)
        weights |= {f"{norm}.LayerNorm.weight": gain, f"{norm}.LayerNorm.bias": bias}
    senses, task = TextSenses(tokenizer=wordpiece(), max_length=64), Task(name="embedding", width=32)
    return Network(
        family="bert", config=config, weights=weights, senses=senses, task=task, origin="0" * 64, digest="0" * 64
    )


@pytest.fixture(scope="session")
def encoder_folder(tiny_bert: Network) -> Callable[[Path], Path]:
    """`encoder_folder(path)`: the tiny BERT as a folder there, as people have their models."""
    from safetensors.numpy import save_file

    def make(path: Path) -> Path:
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(dict(tiny_bert.config)))
        (path / "tokenizer.json").write_bytes(tiny_bert.senses.tokenizer)
        save_file(dict(tiny_bert.weights), path / "model.safetensors")
        return path

    return make


@pytest.fixture(scope="session")
def native_bundle(tiny_bert: Network) -> Callable[..., Any]:
    """`native_bundle(path, noise=0.0, …)`: the tiny BERT for the native engine, sealed in this process.

    `noise` is added to its weights, relative to their spread; `claim` changes the answers that it records (float32
    [n, 32]); `origin` says what it was made of. It records its own answers and, as the original's, those without noise,
    or its own if it is `vain`.
    """
    from dataclasses import replace

    from tightrope.bundle import Writer
    from tightrope.device.model import open_bundle
    from tightrope.device.proof import answers
    from tightrope.recipe import Recipe
    from tightrope.workshop.assemble import Origin, _content, _npy
    from tightrope.workshop.converted import convert

    texts = ["the cat sat", "cat", "a cat sat on the mat", "the the", "sat", "dogs bark", "no", "seven of nine"]
    plain: list[Any] = []

    def make(
        path: Path, *, noise: float = 0.0, seed: int = 1, claim: Any = None, origin: str = "0" * 64, vain: bool = False
    ) -> Any:
        random = np.random.default_rng(seed)
        weights = {
            name: (value + noise * value.std() * random.normal(0, 1, value.shape)).astype(np.float32)
            for name, value in tiny_bert.weights.items()
            if noise and name.endswith("weight") and value.ndim == 2
        }
        network = replace(tiny_bert.rewrite(weights=weights), origin=origin)
        with Writer(path, force=True) as writer:
            about = Origin(source="tiny", recipe=Recipe.parse("original -> native"), calibration={})
            content = _content(network, convert(network, "native"), about, writer)
            with open_bundle(writer.draft(content)) as model:
                found = answers(model, texts)
            plain.extend([] if plain or noise else [found])
            rows = {
                "expected": found if claim is None else claim(found),
                "original": found if vain or not plain else plain[0],
            }
            recorded = {name: writer.add(_npy(value), "npy") for name, value in rows.items()}
            vectors = {"inputs": texts, "tolerance": 0.999, **recorded}
            return writer.seal(replace(content, vectors=vectors, files=writer.files))

    try:
        engine.library()
    except MissingExtraError as error:
        pytest.skip(error.message)
    return make


@pytest.fixture(scope="session")
def tiny_cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier of images of 16 x 16 pixels as an ONNX file with its settings beside it.

    It has what such networks have: zeros around the image, batch normalisations, a block of three branches, a depthwise
    convolution in a residual block, Relu and Clip, a pool, and a softmax at its end.
    """
    from onnx import TensorProto, helper, numpy_helper, save

    random, weights, nodes = np.random.default_rng(5), {}, []

    def node(op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(name: str, *shape: int, low: float = -1.0) -> str:
        weights[name] = (random.uniform(low, 1, shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
        return name

    def norm(x: str, name: str, width: int) -> str:
        parts = [weight(f"{name}.{part}", width, low=0.3 if part in "gv" else -0.3) for part in "gbmv"]
        return node("BatchNormalization", [x, *parts], name)

    def conv(x: str, name: str, out: int, inner: int, side: int, **attributes: Any) -> str:
        attributes = {"pads": [side // 2] * 4} | attributes
        return node("Conv", [x, weight(f"{name}.weight", out, inner, side, side)], name, **attributes)

    weights |= {"around": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "low": np.float32(0), "high": np.float32(6)}
    x = conv(node("Pad", ["image", "around"], "pad"), "stem", 8, 3, 3, pads=[0] * 4, strides=[2, 2])
    x = node("Relu", [norm(x, "stem.norm", 8)], "stem.relu")
    wide = norm(conv(x, "wide", 8, 8, 3), "wide.norm", 8)
    point = norm(conv(x, "point", 8, 8, 1), "point.norm", 8)
    x = node("Relu", [node("Add", [node("Add", [wide, point], "two"), norm(x, "same", 8)], "three")], "block")
    y = node("Clip", [norm(conv(x, "deep", 8, 1, 3, group=8), "deep.norm", 8), "low", "high"], "deep.clip")
    x = node("Add", [norm(conv(y, "project", 8, 8, 1), "project.norm", 8), x], "residual")
    x = conv(node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2]), "head", 12, 8, 1)
    x = node("Flatten", [node("GlobalAveragePool", [node("Relu", [x], "head.relu")], "average")], "flat")
    x = node("Gemm", [x, weight("dense.weight", 5, 12), weight("dense.bias", 5)], "dense", transB=1)
    node("Softmax", [x], "probabilities", axis=1)
    ports = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 16, 16])]
    results = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 5])]
    graph = helper.make_graph(nodes, "tiny", ports, results)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    folder = tmp_path_factory.mktemp("cnn")
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    preprocessing = {"do_resize": True, "size": {"shortest_edge": 18}, "do_center_crop": True, "crop_size": 16}
    preprocessing |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25], "resample": 2}
    preprocessing["crop_size"] = {"height": 16, "width": 16}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    labels = {str(place): name for place, name in enumerate(("ant", "bee", "cat", "dog", "eel"))}
    (folder / "config.json").write_text(json.dumps({"id2label": labels}))
    return folder / "model.onnx"
