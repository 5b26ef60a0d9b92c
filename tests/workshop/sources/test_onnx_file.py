"""ONNX files as models: the same answers as the network they were made from, however they were exported."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tightrope.errors import SourceError, UnsupportedError
from tightrope.workshop.graph import Graph
from tightrope.workshop.load import load
from tightrope.workshop.model import Task
from tightrope.workshop.network import family
from tightrope.workshop.reference import reference

pytestmark = pytest.mark.engine


def edit(path, change):
    proto = onnx.load(path)
    changed = change(proto)
    onnx.save(proto if changed is None else changed, path)
    return str(path)


def same(path, network, answers, texts, close):
    graph = load(str(path))
    assert isinstance(graph, Graph)
    assert close(answers(graph, texts), answers(network, texts)) < 1e-6
    return graph


def test_a_hidden_state_is_pooled_and_normalised_inside(bert_onnx, tiny_bert, answers, texts, close):
    graph = same(bert_onnx, tiny_bert, answers, texts, close)
    assert [(port.name, port.dtype, port.shape) for port in graph.inputs] == [
        ("input_ids", "int64", ("batch", "length")),
        ("attention_mask", "int64", ("batch", "length")),
    ]
    assert [(port.name, port.dtype, port.shape) for port in graph.outputs] == [("embedding", "float32", ("batch", 32))]
    assert [linear.weight for linear in graph.linears()] == [linear.weight for linear in tiny_bert.linears()]
    assert [table.is_vocabulary for table in graph.tables()][:1] == [True]
    assert graph.task == tiny_bert.task
    assert graph.digest == load(str(bert_onnx)).digest


@pytest.mark.parametrize("pooling", ["cls", "max", "mean_sqrt_len"])
def test_the_pooling_beside_it_is_honoured(bert_onnx, tiny_bert, answers, texts, close, write_json, pooling):
    write_json(bert_onnx.parent / "1_Pooling" / "config.json", {"pooling_mode": pooling})
    pooled = replace(tiny_bert, task=replace(tiny_bert.task, pooling=pooling))
    same(bert_onnx, pooled, answers, texts, close)


def test_a_vector_that_is_pooled_already_is_taken_as_it_is(bert_onnx, tiny_bert, answers, texts, close):
    onnx.save(reference(tiny_bert), bert_onnx)  # its output is called embedding, as ours will be
    graph = same(bert_onnx, tiny_bert, answers, texts, close)
    assert not any(node.name == "tail.pooled" for node in graph.proto.graph.node)


def test_dense_layers_beside_it_are_appended(bert_onnx, tiny_bert, answers, texts, close, write_json, modules_of):
    from safetensors.numpy import save_file

    weight, folder = np.random.default_rng(0).normal(0, 0.3, (8, 32)).astype(np.float32), bert_onnx.parent
    write_json(folder / "modules.json", modules_of("Transformer", "Pooling", "Dense"))
    settings = {"activation_function": "torch.nn.modules.activation.Tanh"}
    save_file(
        {"linear.weight": weight}, write_json(folder / "2_Dense" / "config.json", settings).parent / "model.safetensors"
    )
    task = Task(name="embedding", width=8, normalize=False, dense=("tanh",))
    weights = {**tiny_bert.weights, "dense.0.weight": weight, "dense.0.bias": np.zeros(8, np.float32)}
    graph = same(bert_onnx, replace(tiny_bert, task=task, weights=weights), answers, texts, close)
    assert graph.task == task


def test_a_file_in_a_subfolder_finds_its_tokenizer_above(bert_onnx, tiny_bert, answers, texts, close):
    (bert_onnx.parent / "onnx").mkdir()
    same(bert_onnx.rename(bert_onnx.parent / "onnx" / "model.onnx"), tiny_bert, answers, texts, close)


def test_external_data_beside_it_is_read(bert_onnx, tiny_bert, answers, texts, close):
    whole = load(str(bert_onnx))
    onnx.save(
        onnx.load(bert_onnx), bert_onnx, save_as_external_data=True, location="model.onnx_data", size_threshold=64
    )
    assert (bert_onnx.parent / "model.onnx_data").stat().st_size > bert_onnx.stat().st_size
    assert same(bert_onnx, tiny_bert, answers, texts, close).digest == whole.digest


def test_inputs_of_int32_and_outputs_of_half_precision_are_cast(bert_onnx, tiny_bert, answers, texts, close):
    def narrow(proto):
        graph = proto.graph
        for item in graph.input:
            item.type.tensor_type.elem_type = TensorProto.INT32
        half = helper.make_node("Cast", ["last_hidden_state"], ["half"], to=TensorProto.FLOAT16)
        graph.node.append(half)
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("half", TensorProto.FLOAT16, ("b", "l", 32)))

    graph = load(edit(bert_onnx, narrow))
    assert {port.dtype for port in (*graph.inputs, *graph.outputs)} == {"int64", "float32"}
    assert close(answers(graph, texts), answers(tiny_bert, texts)) < 1e-3


def test_constants_copies_and_transposes_of_weights_are_seen_through(bert_onnx, tiny_bert, answers, texts, close):
    def hide(proto):
        graph, kept = proto.graph, []
        nodes = []
        for number, tensor in enumerate(graph.initializer):
            if len(tensor.dims) != 2:
                kept.append(tensor)
            elif number % 2:
                nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
            else:
                turned = numpy_helper.from_array(numpy_helper.to_array(tensor).T.copy(), f"{tensor.name}.turned")
                kept.append(turned)
                nodes.append(helper.make_node("Transpose", [turned.name], [f"{tensor.name}.back"], perm=[1, 0]))
                nodes.append(helper.make_node("Identity", [f"{tensor.name}.back"], [tensor.name]))
        nodes += graph.node
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend(kept)
        graph.node.extend(nodes)

    graph = same(edit(bert_onnx, hide), tiny_bert, answers, texts, close)
    assert len(graph.linears()) == len(tiny_bert.linears())


def test_what_the_answer_does_not_need_is_cut_off(bert_onnx, tiny_bert, answers, texts, close):
    def pooler(proto):
        graph = proto.graph
        graph.initializer.append(numpy_helper.from_array(np.eye(32, dtype=np.float32), "pooler"))
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "zero"))
        graph.node.append(helper.make_node("Gather", ["last_hidden_state", "zero"], ["first"], axis=1))
        graph.node.append(helper.make_node("MatMul", ["first", "pooler"], ["pooler_output"]))
        graph.output.append(helper.make_tensor_value_info("pooler_output", TensorProto.FLOAT, ("b", 32)))

    graph = same(edit(bert_onnx, pooler), tiny_bert, answers, texts, close)
    assert "pooler" not in graph.weights and len(graph.linears()) == len(tiny_bert.linears())


def test_scores_are_scores(bert_onnx, tiny_bert, answers, close):
    random = np.random.default_rng(0)
    head = {
        "pooler.dense.weight": (32, 32),
        "pooler.dense.bias": (32,),
        "classifier.weight": (1, 32),
        "classifier.bias": (1,),
    }
    weights = {
        **tiny_bert.weights,
        **{name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in head.items()},
    }
    logits = replace(tiny_bert, weights=weights, task=Task(name="scoring", width=1))
    folder = bert_onnx.parent
    proto = reference(logits)
    for node in proto.graph.node:
        node.output[:] = ["logits" if name == "scores" else name for name in node.output]
    proto.graph.output[0].name = "logits"
    onnx.save(proto, bert_onnx)
    (folder / "modules.json").unlink()
    config = dict(tiny_bert.config) | {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a"}}
    (folder / "config.json").write_text(json.dumps(config))
    graph, pairs = load(str(bert_onnx)), [("the cat", "a dog"), ("rain", "")]
    assert (graph.task.name, graph.task.width, graph.task.activation) == ("scoring", 1, "sigmoid")
    assert [port.name for port in graph.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    wanted = answers(replace(logits, task=replace(logits.task, activation="sigmoid")), pairs)
    assert close(answers(graph, pairs), wanted) < 1e-6
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b", "2": "c"}}))
    with pytest.raises(SourceError, match="gives 1 scores"):
        load(str(bert_onnx))


@pytest.mark.torch
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter warns about itself
@pytest.mark.parametrize("opset", [11, 14, 17])
def test_what_torch_exports_is_raised_to_our_opset(minilm, answers, texts, close, tmp_path, opset):
    import torch
    import transformers
    from safetensors.numpy import save_file

    save_file(dict(minilm.weights), tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(dict(minilm.config)), encoding="utf-8")
    (tmp_path / "tokenizer.json").write_bytes(minilm.senses.tokenizer)
    inner = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()

    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, ids, mask):
            return self.inner(input_ids=ids, attention_mask=mask).last_hidden_state

    ones, names = torch.ones(2, 7, dtype=torch.long), ["input_ids", "attention_mask"]
    options = {"dynamo": False, "opset_version": opset, "input_names": names, "output_names": ["last_hidden_state"]}
    axes = {name: {0: "b", 1: "l"} for name in (*names, "last_hidden_state")}
    torch.onnx.export(Hidden(), (ones, ones), str(tmp_path / "model.onnx"), dynamic_axes=axes, **options)
    graph = same(tmp_path / "model.onnx", minilm, answers, texts, close)
    assert len(graph.linears()) == len(minilm.linears())
    assert graph.proto.opset_import[0].version == 21


# What is refused ---------------------------------------------------------------------------------------


def rename_input(old, new):
    def change(proto):
        for item in proto.graph.input:
            item.name = new if item.name == old else item.name
        for node in proto.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]

    return change


def fixed(proto):
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 128


def extra_input(proto):
    proto.graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ("b", "l")))


def custom(proto):
    proto.graph.node.append(helper.make_node("Tokenize", ["input_ids"], ["x"], domain="some.library"))
    proto.opset_import.append(helper.make_opsetid("some.library", 1))


def flat_output(proto):
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("length", TensorProto.INT64, (1,)))


def no_output(proto):
    del proto.graph.output[:]


def dangling(proto):
    proto.graph.node[3].input[0] = "nowhere"


def wrong_data(proto):
    proto.graph.initializer[0].dims[0] += 1


def old(proto):
    proto.opset_import[0].version = 3


def few_positions(proto):
    for tensor in proto.graph.initializer:
        if tensor.name == "embeddings.position_embeddings.weight":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:16], tensor.name))


def not_a_number(proto):
    for tensor in proto.graph.initializer:
        if tensor.name == "embeddings.LayerNorm.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(32, np.nan, np.float32), tensor.name))


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (rename_input("input_ids", "tokens"), UnsupportedError, "no input 'input_ids'"),
        (rename_input("attention_mask", "mask"), UnsupportedError, "no input 'attention_mask'"),
        (extra_input, UnsupportedError, "'position_ids'"),
        (fixed, UnsupportedError, "fixed shape"),
        (custom, UnsupportedError, "some.library.Tokenize"),
        (flat_output, UnsupportedError, "no output"),
        (no_output, SourceError, "no graph"),
        (dangling, SourceError, "sound"),
        (wrong_data, SourceError, "broken"),
        (old, (SourceError, UnsupportedError), "opset 3|sound"),
        (few_positions, UnsupportedError, "fails on a text of 64 tokens"),
        (not_a_number, SourceError, "nan"),
    ],
)
def test_foreign_or_broken_files_are_refused_in_two_lines(bert_onnx, two_lines, change, kind, said):
    with pytest.raises(kind, match=said) as raised:
        load(edit(bert_onnx, change))
    two_lines(raised)


def test_a_tokenizer_is_needed_and_must_be_the_models_own(bert_onnx, two_lines):
    tokenizer = bert_onnx.parent / "tokenizer.json"
    data = json.loads(tokenizer.read_text())
    data["model"]["vocab"]["zebra"] = 60
    tokenizer.write_text(json.dumps(data))
    with pytest.raises(SourceError, match="61 tokens; the model's table has 60") as raised:
        load(str(bert_onnx))
    two_lines(raised)
    tokenizer.unlink()
    with pytest.raises(SourceError, match=r"no tokenizer\.json") as raised:
        load(str(bert_onnx))
    two_lines(raised)


def test_family_is_not_asked(bert_onnx, write_json):
    """An ONNX file may be of any architecture: its config.json is only read for limits."""
    write_json(bert_onnx.parent / "config.json", {"model_type": "mystery", "max_position_embeddings": 32})
    assert load(str(bert_onnx)).senses.max_length == 32
    with pytest.raises(Exception, match="mystery"):
        family("mystery")
