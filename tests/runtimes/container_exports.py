"""SavedModels with the signatures of AutoML's container exports, made by TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossfade.runtimes.savedmodel.library import tensorflow

LABELS = ("red", "green", "blue")


def classifier(folder: Path) -> None:
    """``image_bytes``, ``key`` in; ``labels``, ``scores`` (how red, green, blue), ``key`` out."""
    tf = tensorflow()

    def colours(content: Any) -> Any:
        picture = tf.io.decode_image(content, channels=3, expand_animations=False)
        return tf.reduce_mean(tf.image.resize(picture, [8, 8]), axis=[0, 1]) / 255

    class Classifier(tf.Module):  # type: ignore[misc]
        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.string, name="image_bytes"),
                tf.TensorSpec([None], tf.string, name="key"),
            ]
        )
        def serve(self, image_bytes: Any, key: Any) -> Any:
            row = tf.TensorSpec([3], tf.float32)
            scores = tf.map_fn(colours, image_bytes, fn_output_signature=row)
            labels = tf.tile(tf.constant([LABELS]), [tf.shape(scores)[0], 1])
            return {"labels": labels, "scores": scores, "key": key}

    module = Classifier()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def detector(folder: Path) -> None:
    """``encoded_image``, ``key`` in; one box around everything out, as detectors answer."""
    tf = tensorflow()

    class Detector(tf.Module):  # type: ignore[misc]
        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.string, name="encoded_image"),
                tf.TensorSpec([None], tf.string, name="key"),
            ]
        )
        def serve(self, encoded_image: Any, key: Any) -> Any:
            ones = tf.ones_like(tf.strings.length(encoded_image), tf.float32)[:, None]
            return {
                "detection_boxes": tf.stack([0 * ones, 0 * ones, ones, ones], axis=2),
                "detection_scores": 0.5 * ones,
                "detection_classes": ones,
                "detection_classes_as_text": tf.fill(tf.shape(ones), "cat"),
                "num_detections": ones[:, 0],
                "key": key,
            }

    module = Detector()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def record(folder: Path, *requests: dict[str, list[bytes]]) -> None:
    """Writes warm-up requests with TensorFlow's own writer and TensorFlow Serving's messages."""
    tf = tensorflow()
    from tensorflow_serving.apis import prediction_log_pb2

    (folder / "assets.extra").mkdir(exist_ok=True)
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            for name, values in inputs.items():
                tensor = tf.make_tensor_proto(values, tf.string, [len(values)])
                log.predict_log.request.inputs[name].CopyFrom(tensor)
            writer.write(log.SerializeToString())
