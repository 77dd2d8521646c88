"""The front of the served graph: text to token numbers, in ONNX operators alone."""

from __future__ import annotations

from typing import Any, Final

from crossfade.training.arr_coc.queries import MAX_WORDS, Language

OPSET: Final = 20  # the first with StringSplit
ML_OPSET: Final = 3
IR_VERSION: Final = 10


def text_graph(language: Language) -> Any:
    """Returns an ``onnx.ModelProto``: BYTES ``query [N, Q]`` to INT64 ``tokens [N, Q, MAX_WORDS]``.

    The same numbers as ``Language.tokens``: letters of ASCII in lower case, words split at spaces.
    The second output counts the words that are not known, INT32 ``[N, Q]``.
    """
    from onnx import checker, parser

    numbers = language.numbers
    keys = ", ".join(_quoted(word) for word in numbers)
    values = ", ".join(map(str, numbers.values()))
    # Locale "C" is on every machine; the default of the operator, en_US.UTF-8, is not.
    model = parser.parse_model(
        f"""
<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}, "ai.onnx.ml": {ML_OPSET}]>
text (string[N, Q] query) => (int64[N, Q, {MAX_WORDS}] tokens, int32[N, Q] unknown_words)
<int64[1] flat = {{-1}}, int64[4] ends = {{0, 0, 0, {MAX_WORDS}}}, int64[1] first = {{0}},
 int64[1] last = {{{MAX_WORDS}}}, int64[1] axis = {{1}}, int64 pad = {{0}}>
{{
  texts = Reshape(query, flat)
  lower = StringNormalizer<locale = "C", case_change_action = "LOWER">(texts)
  words, count = StringSplit(lower)
  numbers = ai.onnx.ml.LabelEncoder<
    keys_strings = [{keys}], values_int64s = [{values}], default_int64 = 0>(words)
  padded = Pad(numbers, ends)
  kept = Slice(padded, first, last, axis)
  shape = Shape(query)
  width = Constant<value_ints = [{MAX_WORDS}]>()
  full = Concat<axis = 0>(shape, width)
  tokens = Reshape(kept, full)
  known = Greater(numbers, pad)
  known_numbers = Cast<to = 7>(known)
  n_known = ReduceSum<keepdims = 0>(known_numbers, axis)
  n_unknown = Sub(count, n_known)
  unknown_flat = Cast<to = 6>(n_unknown)
  unknown_words = Reshape(unknown_flat, shape)
}}
"""
    )
    checker.check_model(model)
    return model


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
