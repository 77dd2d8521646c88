"""Which operations of a graph are quantised beside a text, and that merged graphs are renewed."""

from __future__ import annotations

from onnx import parser

from crossfade.serving.conversion import onnx_graph

# A picture of two convolutions with a scale between them; its text chooses what to look for.
MODEL = """
<ir_version: 9, opset_import: ["": 20, "ai.onnx.ml": 3]>
g (float[N, 3, 8, 8] image, string[N] query) => (float[N, 4] scores, float brightness)
<float[4, 3, 1, 1] a, float[4, 4, 1, 1] b, float half = {0.5}, float[2, 4] words>
{
  bright = Mul(image, half)
  brightness = ReduceMean<keepdims = 0>(bright)
  one = Conv(bright, a)
  relu = Relu(one)
  scaled = Mul(relu, half)
  two = Conv(scaled, b)
  seen = Add(two, scaled)
  mean = GlobalAveragePool(seen)
  flat = Flatten(mean)
  number = ai.onnx.ml.LabelEncoder<keys_strings = ["cat"], values_int64s = [1]>(query)
  word = Gather(words, number)
  scores = Mul(flat, word)
}
"""


def test_what_lies_between_convolutions_is_found() -> None:
    model = parser.parse_model(MODEL)
    names = onnx_graph.between_convolutions(model)
    found = [node.output[0] for node in model.graph.node if node.name in names]
    assert found == ["one", "relu", "scaled", "two"]
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    del model.graph.node[:]
    assert onnx_graph.between_convolutions(model) == []


def test_an_opset_that_is_named_twice_is_named_once() -> None:
    model = parser.parse_model(MODEL)
    model.opset_import.extend(list(model.opset_import))
    renewed = onnx_graph.renewed(model, 13)
    assert [(o.domain, o.version) for o in renewed.opset_import] == [("", 20), ("ai.onnx.ml", 3)]
