"""Makes what AutoML Tabular exports, and answers with it: run by the environment's interpreter.

    python make_tabular_export.py make classification|regression DATA.csv FOLDER
    python make_tabular_export.py answer FOLDER < ROWS.json > ANSWERS.json

Layout, files, signature and ops are those of two real exports (TensorFlow 2.4 and 2.8): the graph
takes serialized ``google.protobuf.Value`` structs apart with struct2tensor's ops, reads numbers out
of strings, looks words up in the vocabularies of its assets, and copes with what is missing.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

TASKS: Mapping[str, Mapping[str, Any]] = {
    "classification": {
        "target": "Survived",
        "numbers": ("Age", "SibSp", "Parch", "Fare"),
        "words": ("Pclass", "Sex", "Embarked", "Cabin"),
    },
    "regression": {
        "target": "median_house_value",
        "numbers": (
            *("longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms"),
            *("population", "households", "median_income"),
        ),
        "words": ("ocean_proximity",),
    },
}
CONTAINER = "us-docker.pkg.dev/vertex-ai/automl-tabular/prediction-server:20221014_0525"
MADE_WITH = {"tensorflow": "2.8.0", "struct2tensor": "0.39.0", "tensorflow-addons": "0.16.1"}
WARMUPS = 30
_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
_MAX_WORDS = 64


def load_ops(tf: Any) -> dict[str, Any]:
    """The functions of struct2tensor's libraries; its Python code needs what is not installed."""
    spec = importlib.util.find_spec("struct2tensor")
    assert spec is not None
    found: dict[str, Any] = {}
    for folder in spec.submodule_search_locations or ():
        for library in sorted(Path(folder).glob("ops/*.so")):
            module = tf.load_op_library(str(library))
            found.update({n: getattr(module, n) for n in dir(module) if not n.startswith("_")})
    return found


def descriptor() -> bytes:
    """``google/protobuf/struct.proto`` as the ops want it."""
    from google.protobuf import descriptor_pb2, struct_pb2

    files = descriptor_pb2.FileDescriptorSet()
    struct_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    return files.SerializeToString()


class Table:
    """The rows of a CSV file, and what is learnt of them."""

    def __init__(self, task: str, data: Path) -> None:
        known = TASKS[task]
        self.target: str = known["target"]
        self.numbers: Sequence[str] = known["numbers"]
        self.words: Sequence[str] = known["words"]
        with data.open(newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.columns = (*self.numbers, *self.words)

    def vocabulary(self, column: str) -> list[str]:
        """The most frequent words; the others are unknown."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row[column]] = counts.get(row[column], 0) + 1
        counts.pop("", None)
        return sorted(counts, key=lambda word: (-counts[word], word))[:_MAX_WORDS]

    def statistics(self, column: str) -> tuple[float, float]:
        values = [float(row[column]) for row in self.rows if row[column]]
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        return mean, deviation or 1.0


def pack(row: Mapping[str, str | None]) -> bytes:
    """A row as clients of Google's container have it packed."""
    from google.protobuf import struct_pb2

    value = struct_pb2.Value()
    value.struct_value.update(dict(row))
    return value.SerializeToString()


def build(tf: Any, table: Table, folder: Path, task: str) -> Any:
    """The module that is saved; its variables are not trained yet."""
    ops = load_ops(tf)
    literal = descriptor()
    columns = list(table.columns)
    vocabularies = folder / "vocabularies"
    vocabularies.mkdir()
    sizes: dict[str, int] = {}
    tables: dict[str, Any] = {}
    for column in table.words:
        words = table.vocabulary(column)
        path = vocabularies / f"{column}_vocab"
        path.write_text("".join(f"{word}\n" for word in words))
        sizes[column] = len(words) + 1
        tables[column] = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                *(str(path), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
                *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
            ),
            default_value=len(words),
        )

    def fields(messages: Any, kind: str, names: Sequence[str]) -> Any:
        return ops["decode_proto_sparse_v4"](
            messages,
            [],
            descriptor_literal=literal,
            message_type=kind,
            num_fields=len(names),
            field_names=list(names),
            output_types=[tf.string] * len(names),
            message_format="binary",
            honor_proto3_optional_semantics=False,
        )

    def texts(packed: Any) -> list[Any]:
        """[rows] strings of each column; what is missing is empty."""
        count = tf.shape(packed, tf.int64)[0]
        (structs,), (row_of_struct,) = fields(packed, "google.protobuf.Value", ["struct_value"])
        (entries,), (struct_of_entry,) = fields(structs, "google.protobuf.Struct", ["fields"])
        found, structs_of = ops["decode_proto_map_v2"](
            entries,
            struct_of_entry,
            [],
            "google.protobuf.Struct.FieldsEntry",
            columns,
            len(columns),
            tf.string,
            literal,
        )
        made = []
        for values, struct_of in zip(found, structs_of, strict=True):
            (strings,), (value_of,) = fields(values, "google.protobuf.Value", ["string_value"])
            rows = tf.gather(row_of_struct, tf.gather(struct_of, value_of))
            places = tf.stack([rows, ops["run_length_before"](rows)], axis=1)
            sparse = tf.SparseTensor(places, strings, tf.stack([count, tf.constant(1, tf.int64)]))
            made.append(tf.sparse.to_dense(sparse, default_value="")[:, 0])
        return made

    def features(packed: Any) -> Any:
        """[rows, features]: numbers and whether they are missing, words as one of many."""
        parts = []
        for column, strings in zip(columns, texts(packed), strict=True):
            if column in tables:
                parts.append(tf.one_hot(tables[column].lookup(strings), sizes[column]))
                continue
            mean, deviation = table.statistics(column)
            there = tf.strings.regex_full_match(strings, _NUMBER)
            numbers = tf.strings.to_number(tf.where(there, strings, "0"), tf.float32)
            scaled = tf.clip_by_value((numbers - mean) / deviation, -5.0, 5.0)
            parts.append(tf.where(there, scaled, 0.0)[:, None])
            parts.append(tf.cast(~there, tf.float32)[:, None])
        return tf.concat(parts, axis=1)

    width = 2 * len(table.numbers) + sum(sizes.values())
    classes = sorted({row[table.target] for row in table.rows}) if task != "regression" else []

    class Export(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tables = list(tables.values())
            outputs = len(classes) or 1
            start = tf.random.Generator.from_seed(7)
            self.hidden = tf.Variable(start.normal([width, 16]) * 0.2, name="hidden")
            self.hidden_bias = tf.Variable(tf.zeros([16]), name="hidden_bias")
            self.out = tf.Variable(start.normal([16, outputs]) * 0.2, name="out")
            self.out_bias = tf.Variable(tf.zeros([outputs]), name="out_bias")
            self.spread = tf.Variable(0.0, name="spread", trainable=False)
            self.scale = tf.Variable([0.0, 1.0], name="scale", trainable=False)

        def raw(self, inputs: Any) -> Any:
            hidden = tf.nn.relu(inputs @ self.hidden + self.hidden_bias)
            return hidden @ self.out + self.out_bias

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
        def serve(self, inputs: Any) -> Any:
            raw = self.raw(features(inputs))
            if classes:
                scores = tf.nn.softmax(raw)
                names = tf.tile(tf.constant([classes]), [tf.shape(scores)[0], 1])
                # The graph of a real export does not know how many classes there are.
                return {
                    "scores": tf.compat.v1.placeholder_with_default(scores, [None, None]),
                    "classes": tf.compat.v1.placeholder_with_default(names, [None, None]),
                }
            value = raw * self.scale[1] + self.scale[0]
            return {
                "value": value,
                "lower_bound": value - self.spread,
                "upper_bound": value + self.spread,
            }

    return Export(), tf.function(features), classes


def train(tf: Any, table: Table, module: Any, features: Any, classes: Sequence[str]) -> None:
    # Twice: as they are, and with every fourth value missing, so that the model learns of that.
    chance = random.Random(7)
    rows = [{c: row[c] or None for c in table.columns} for row in table.rows]
    rows += [{c: v if chance.random() > 0.25 else None for c, v in row.items()} for row in rows]
    packed = tf.constant([pack(row) for row in rows])
    inputs = features(packed)
    if classes:
        wanted = tf.constant([classes.index(row[table.target]) for row in table.rows] * 2)
    else:
        values = tf.constant([float(row[table.target]) for row in table.rows] * 2)
        module.scale.assign([tf.reduce_mean(values), tf.math.reduce_std(values)])
        wanted = (values - module.scale[0]) / module.scale[1]
    optimizer = tf.keras.optimizers.Adam(0.02)
    variables = list(module.trainable_variables)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            raw = module.raw(inputs)
            if classes:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, raw)
            else:
                losses = (raw[:, 0] - wanted) ** 2
            loss = tf.reduce_mean(losses)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    for _ in range(150):
        step()
    if not classes:
        errors = tf.abs(module.raw(inputs)[:, 0] - wanted) * module.scale[1]
        module.spread.assign(tf.sort(errors)[int(0.95 * len(rows))])


def finish(path: Path, task: str) -> None:
    """Gives the signature the method of real exports, which TensorFlow 2 has no way to say."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["serving_default"]
    if task == "classification":
        signature.method_name = "tensorflow/serving/classify"
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    size, head = len(content), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + content


def write_warmups(tf: Any, path: Path, rows: Iterable[bytes]) -> None:
    """TensorFlow Serving's ``PredictionLog``s, a row each; its messages are not installed."""
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            tensor = tf.make_tensor_proto([row], tf.string, [1]).SerializeToString()
            inputs = field(2, field(1, b"inputs") + field(2, tensor))
            spec = field(1, field(3, b"serving_default"))
            writer.write(field(6, field(1, spec + inputs)))


def write_texts(table: Table, folder: Path, classes: Sequence[str]) -> None:
    """The files around the graph, as real exports have them."""

    def quoted(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    lines = ["type: object", "required:", *(f"- {c}" for c in table.columns), "properties:"]
    for column in table.columns:
        lines += [f"  {column}:", "    type: string", "    nullable: true"]
    lines += ["nullable: true", "example:"]
    lines += [f"  {c}: {quoted(table.rows[1][c])}" for c in table.columns]
    (folder / "instance.yaml").write_text("\n".join(lines) + "\n")
    number = ["type: number", "format: float"]
    if classes:
        lines = ["title: TabularClassification", "type: object", "properties:", "  classes:"]
        lines += ["    type: array", "    items:", "      type: string", "      enum:"]
        lines += [f"      - {quoted(name)}" for name in classes]
        lines += ["  scores:", "    type: array", "    items:"]
        lines += [f"      {line}" for line in (*number, "minimum: 0.0", "maximum: 1.0")]
    else:
        lines = ["title: TabularRegression", "type: object", "properties:"]
        for name in ("value", "lower_bound", "upper_bound"):
            lines += [f"  {name}:", *(f"    {line}" for line in number)]
    lines += [f"x-target-column-name: {table.target}"]
    (folder / "prediction_schema.yaml").write_text("\n".join(lines) + "\n")
    lines = [f"{column}: {1 / len(table.columns)}" for column in table.columns]
    (folder / "feature_attributions.yaml").write_text("\n".join(lines) + "\n")
    environment = {"container_uri": CONTAINER, **MADE_WITH}
    (folder / "environment.json").write_text(json.dumps(environment))
    named = b"".join(field(1, field(1, column.encode())) for column in table.columns)
    for name in ("final_model_structure", "transformations", "tables_server_metadata"):
        (folder / f"{name}.pb").write_bytes(named)


def make(task: str, data: Path, folder: Path) -> None:
    import tensorflow as tf

    tf.random.set_seed(7)
    table = Table(task, data)
    folder.mkdir(parents=True)
    module, features, classes = build(tf, table, folder, task)
    train(tf, table, module, features, classes)
    saved = folder / "predict" / "001"
    tf.saved_model.save(module, str(saved), signatures={"serving_default": module.serve})
    finish(saved, task)
    for path in sorted((folder / "vocabularies").iterdir()):
        path.unlink()
    (folder / "vocabularies").rmdir()
    for name in ("fingerprint.pb", "keras_metadata.pb"):  # no real one has these
        (saved / name).unlink(missing_ok=True)
    rows = [pack({c: row[c] or None for c in table.columns}) for row in table.rows[:WARMUPS]]
    write_warmups(tf, saved / "assets.extra" / "tf_serving_warmup_requests", rows)
    write_texts(table, folder, classes)


def answer(folder: Path, rows: Sequence[Mapping[str, str | None]]) -> dict[str, Any]:
    """TensorFlow's own answer, floats as they are."""
    import tensorflow as tf

    load_ops(tf)
    model = tf.saved_model.load(str(folder / "predict" / "001"))
    found = model.signatures["serving_default"](inputs=tf.constant([pack(row) for row in rows]))
    return {
        name: [[v.decode() if isinstance(v, bytes) else v for v in row] for row in array.tolist()]
        for name, array in ((n, t.numpy()) for n, t in found.items())
    }


def main() -> None:
    if sys.argv[1] == "make":
        make(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        json.dump(answer(Path(sys.argv[2]), json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
