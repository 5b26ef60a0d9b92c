"""The bridge to torch: the same answers as the reference, the weights under their own names, and the way back."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from tightrope.errors import UnsupportedError
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Task, TextSenses
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Quantized, Scheme, kept_name, values
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.reference import opened, reference

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
bridge = pytest.importorskip("tightrope.workshop.torch_bridge")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, while it exports
QUERY = "encoder.layer.0.attention.self.query.weight"
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture
def batch():
    """Three texts of 9, 4 and 1 tokens, padded."""
    ids = np.random.default_rng(3).integers(5, 60, (3, 9))
    mask = (np.arange(9) < np.array([[9], [4], [1]])).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


def run(module, feeds):
    """What the module answers."""
    with torch.no_grad():
        return module(*(torch.from_numpy(feeds[name]) for name in module.inputs)).numpy()


def true(model, feeds):
    """What the reference answers."""
    return opened(reference(model), threads=1).run(None, feeds)[0]


def graph(nodes, weights, inputs, output) -> Graph:
    """A graph of a few nodes from x to y."""
    ports = [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()]
    end = [helper.make_tensor_value_info("y", 1, output)]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", ports, end), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    senses, task = TextSenses(tokenizer=b"", max_length=8), Task(name="embedding", width=1)
    return Graph(proto=proto, weights=weights, senses=senses, task=task, origin="0" * 64, digest="0" * 64)


def test_it_answers_as_the_reference_does(tiny_bert, batch, close):
    assert close(run(bridge.present(tiny_bert), batch), true(tiny_bert, batch)) <= 1e-5


def test_parameters_bear_the_weights_own_names(tiny_bert):
    names = {name for name, _ in bridge.present(tiny_bert).named_parameters()}
    assert names == set(tiny_bert.weights) - {"embeddings.token_type_embeddings.weight"}  # it is added to the positions


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(bits=8),
        Scheme(bits=8, granularity="tensor", symmetric=False),
        Scheme(bits=8, static=(-3.0, 4.0), symmetric=False, shift=np.linspace(-1, 1, 32, dtype=np.float32)),
        Scheme(bits=8, smooth=np.linspace(0.5, 2, 32, dtype=np.float32), kept=np.array([3, 7])),
        Scheme(bits=8, kept=np.array([3, 7])),
        Scheme(bits=8, rotation=16),
    ],
)
@pytest.mark.parametrize("rounded", [True, False])
def test_schemes_are_followed_with_their_rounding_or_without(tiny_bert, batch, close, scheme, rounded):
    weight = round_to_nearest(tiny_bert.weights[QUERY], bits=8, block=None, symmetric=True)
    extra = {kept_name(QUERY): np.full((2, 32), 0.1, np.float32)} if scheme.kept is not None else {}
    model = tiny_bert.rewrite(weights={QUERY: weight, **extra}, schemes={QUERY: scheme})
    truth = model if rounded else model.rewrite(schemes={QUERY: replace(scheme, bits=None)})
    assert close(run(bridge.present(model, rounded=rounded), batch), true(truth, batch)) <= 1e-5


@pytest.mark.parametrize(("bits", "block", "symmetric"), [(8, None, True), (8, 16, False), (4, 16, True)])
def test_weights_on_a_grid_are_parameters_with_their_values(tiny_bert, batch, close, bits, block, symmetric):
    grid = {"bits": bits, "block": block, "symmetric": symmetric}
    changed = {name: round_to_nearest(tiny_bert.weights[name], **grid) for name in (QUERY, WORDS)}
    model = tiny_bert.rewrite(weights=changed)
    module = bridge.present(model)
    assert np.array_equal(dict(module.named_parameters())[WORDS].detach().numpy(), values(changed[WORDS]))
    assert close(run(module, batch), true(model, batch)) <= 1e-5


def test_halves_are_widened(tiny_bert, batch, close):
    model = tiny_bert.rewrite(
        weights={QUERY: tiny_bert.weights[QUERY].astype(np.float16), WORDS: tiny_bert.weights[WORDS].astype(np.float16)}
    )
    assert close(run(bridge.present(model), batch), true(model, batch)) <= 1e-5


def test_gradients_reach_every_parameter_through_the_rounding(tiny_bert, batch):
    model = tiny_bert.rewrite(schemes={linear.weight: Scheme(bits=8) for linear in tiny_bert.linears()})
    module = bridge.present(model, rounded=True)
    answer = module(*map(torch.from_numpy, batch.values()))
    (answer * torch.randn(answer.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    silent = [name for name, item in module.named_parameters() if item.grad is None or not item.grad.abs().sum() > 0]
    assert silent == [name for name in silent if name.endswith("key.bias")]  # a softmax does not see it


def test_what_did_not_change_is_the_same_model(tiny_bert):
    assert bridge.written_back(bridge.present(tiny_bert), tiny_bert) is tiny_bert


def test_changed_weights_are_written_back_in_their_own_layout(tiny_bert, batch, close):
    module = bridge.present(tiny_bert)
    for name, item in module.named_parameters():
        if "LayerNorm" not in name:
            item.data += 0.01 * torch.randn(item.shape, generator=torch.Generator().manual_seed(len(name)))
    model = bridge.written_back(module, tiny_bert)
    assert model.digest != tiny_bert.digest and model.origin == tiny_bert.origin
    assert all(value.shape == tiny_bert.weights[name].shape for name, value in model.weights.items())
    norm = "encoder.layer.0.output.LayerNorm.weight"
    assert model.weights[norm] is tiny_bert.weights[norm]
    assert close(run(module, batch), true(model, batch)) <= 1e-5
    assert bridge.written_back(module, tiny_bert).digest == model.digest


def test_a_changed_half_stays_a_half_and_a_changed_grid_becomes_floats(tiny_bert, batch, close):
    model = tiny_bert.rewrite(
        weights={
            QUERY: tiny_bert.weights[QUERY].astype(np.float16),
            WORDS: round_to_nearest(tiny_bert.weights[WORDS], bits=8, block=None, symmetric=True),
        }
    )
    module = bridge.present(model)
    for name in (QUERY, WORDS):
        dict(module.named_parameters())[name].data += 0.01
    found = bridge.written_back(module, model)
    assert found.weights[QUERY].dtype == np.float16
    assert not isinstance(found.weights[WORDS], Quantized)
    assert close(run(module, batch), true(found, batch)) <= 1e-3  # a half is coarse


def test_another_models_module_is_refused(tiny_bert, two_lines):
    other = tiny_bert.rewrite(weights={WORDS: np.zeros((61, 32), np.float32)})
    with pytest.raises(UnsupportedError) as caught:
        bridge.written_back(bridge.present(other), tiny_bert)
    assert WORDS in two_lines(caught)[0]


def test_a_weight_under_two_names_is_one_parameter(close):
    shared = np.random.default_rng(1).normal(0, 1, (4, 4)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "a.w"], ["h"], name="first")]
    nodes.append(helper.make_node("MatMul", ["h", "b.w"], ["y"], name="second"))
    model = graph(nodes, {"a.w": shared, "b.w": shared}, {"x": [2, 4]}, [2, 4])
    module = bridge.present(model)
    (only,) = module.parameters()
    only.data *= 2
    assert set(bridge.written_back(module, model).weights) == {"a.w", "b.w"}
    given = {"x": np.ones((2, 4), np.float32)}
    assert close(run(module, given), true(bridge.written_back(module, model), given)) <= 1e-4


def test_names_that_torch_cannot_use_are_told(close):
    weights = {name: np.full((4, 4), 0.5, np.float32) for name in ("w", "w.kept", "forward", "a..b", "x.for.if")}
    nodes, last = [], "x"
    for index, name in enumerate(weights):
        nodes.append(helper.make_node("MatMul", [last, name], [f"h{index}" if index < 4 else "y"], name=f"n{index}"))
        last = f"h{index}"
    model = graph(nodes, weights, {"x": [1, 4]}, [1, 4])
    module = bridge.present(model)
    assert set(module.names.values()) == set(weights)
    given = {"x": np.ones((1, 4), np.float32)}
    assert close(run(module, given), true(model, given)) <= 1e-5


def test_an_unknown_operator_is_named(two_lines):
    node = helper.make_node("STFT", ["x"], ["y"], name="the spectrum")
    with pytest.raises(UnsupportedError) as caught:
        bridge.present(graph([node], {}, {"x": [1, 4]}, [1, 4]))
    assert "the spectrum is a STFT" in two_lines(caught)[0]


def test_it_can_be_exported_with_batch_and_length_left_open(tiny_bert, batch, close):
    module = bridge.present(tiny_bert).eval()
    shape = {0: torch.export.Dim("batch", max=16), 1: torch.export.Dim("length", min=2, max=64)}
    given = tuple(map(torch.from_numpy, batch.values()))
    exported = torch.export.export(module, given, dynamic_shapes=((shape, shape),))
    ids = np.random.default_rng(4).integers(5, 60, (2, 17))
    other = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    with torch.no_grad():
        found = exported.module()(*map(torch.from_numpy, other.values())).numpy()
    assert close(found, true(tiny_bert, other)) <= 1e-5


def convolution(
    stride: int, group: int, pads: list[int], seed: int
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A small network with everything that image classifiers are made of."""
    random = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        return random.normal(0, 0.4, shape).astype(np.float32)

    weights = {"c1.w": some(8, 3, 3, 3), "c1.b": some(8), "c2.w": some(8, 8 // group, 3, 3), "fc.w": some(5, 8)}
    weights |= {"bn.g": some(8) + 1, "bn.b": some(8), "bn.m": some(8), "bn.v": np.abs(some(8)) + 0.5, "fc.b": some(5)}
    weights |= {"six": np.array(6, np.float32), "zero": np.array(0, np.float32)}
    weights |= {"slope": np.full((8, 1, 1), 0.1, np.float32), "rows": np.array([0, -1])}
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "c1.w", "c1.b"], ["a"], strides=[stride, stride], pads=pads),
        make("BatchNormalization", ["a", "bn.g", "bn.b", "bn.m", "bn.v"], ["b"], epsilon=1e-3),
        make("Clip", ["b", "zero", "six"], ["c"]),
        make("Conv", ["c", "c2.w"], ["d"], group=group, auto_pad="SAME_UPPER"),
        make("HardSwish", ["d"], ["e"]),
        make("Add", ["e", "c"], ["f"]),
        make("MaxPool", ["f"], ["g"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        make("AveragePool", ["g"], ["h"], kernel_shape=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0], count_include_pad=1),
        make("HardSigmoid", ["h"], ["i"], alpha=1 / 6, beta=0.5),
        make("Mul", ["h", "i"], ["j"]),
        make("PRelu", ["j", "slope"], ["k"]),
        make("GlobalAveragePool", ["k"], ["l"]),
        make("Reshape", ["l", "rows"], ["m"]),
        make("Gemm", ["m", "fc.w", "fc.b"], ["n"], transB=1),
        make("Softmax", ["n"], ["y"]),
    ]
    return nodes, weights


@pytest.mark.parametrize(
    ("stride", "group", "pads"), [(1, 1, [1, 1, 1, 1]), (2, 8, [0, 0, 1, 1]), (2, 2, [2, 1, 0, 1])]
)
def test_a_convolutional_network_answers_as_the_reference_does(close, stride, group, pads):
    model = graph(*convolution(stride, group, pads, 5), {"x": [2, 3, 15, 15]}, [2, 5])
    given = {"x": np.random.default_rng(6).normal(0, 1, (2, 3, 15, 15)).astype(np.float32)}
    assert close(run(bridge.present(model), given), true(model, given)) <= 1e-5


def test_sizes_that_an_exporter_computes_are_followed(close):
    """[batch, length, 4] to [batch * length, 4] and back by shapes taken apart, a mask by Range, Expand and Where."""
    make = helper.make_node
    weights = {"i0": np.array(0), "i1": np.array(1), "ax": np.array([0]), "four": np.array([4]), "one": np.array(1)}
    weights |= {"minus": np.array(-1e4, np.float32), "all": np.array([-1]), "w": np.eye(4, dtype=np.float32)}
    nodes = [
        make("Shape", ["x"], ["s"]),
        make("Gather", ["s", "i0"], ["b"]),
        make("Gather", ["s", "i1"], ["l"]),
        make("Mul", ["b", "l"], ["n"]),
        make("Unsqueeze", ["n", "ax"], ["nn"]),
        make("Concat", ["nn", "four"], ["flat"], axis=0),
        make("Reshape", ["x", "flat"], ["r"]),
        make("MatMul", ["r", "w"], ["p"]),
        make("Reshape", ["p", "s"], ["q"]),
        make("Range", ["i0", "l", "one"], ["range"]),
        make("Less", ["range", "one"], ["first"]),
        make("Unsqueeze", ["first", "all"], ["column"]),
        make("Expand", ["column", "s"], ["wide"]),
        make("Where", ["wide", "minus", "q"], ["y"]),
    ]
    model = graph(nodes, weights, {"x": ["b", "l", 4]}, ["b", "l", 4])
    given = {"x": np.random.default_rng(6).normal(0, 1, (2, 3, 4)).astype(np.float32)}
    assert close(run(bridge.present(model), given), true(model, given)) <= 1e-6


@pytest.mark.torch
@pytest.mark.network
@pytest.mark.slow
def test_the_real_model(minilm, batch, close):
    module = bridge.present(minilm)
    assert close(run(module, batch), true(minilm, batch)) <= 1e-5
    assert len(lower(minilm).linears()) == 36
