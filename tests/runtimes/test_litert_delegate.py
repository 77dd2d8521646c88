"""A delegate made here: it claims no nodes, but is loaded, given options and kept alive."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Session

pytest.importorskip("ai_edge_litert")
from tests.runtimes import tflite_models as tm

# The layout of TfLiteDelegate in tensorflow/lite/core/c/common.h; a zero status is success.
SOURCE = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct Delegate {
    void *data;
    int (*prepare)(void *context, struct Delegate *self);
    void *copy_from, *copy_to, *free_handle;
    int64_t flags;
    void *builder;
} Delegate;
static int prepare(void *context, Delegate *self) {
    fprintf(stderr, "prepared with %s\\n", (char *)self->data);
    return 0;
}
Delegate *tflite_plugin_create_delegate(
    char **keys, char **values, size_t count, void (*report)(const char *)) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(keys[i], "device") && !strcmp(values[i], "missing")) {
            report("no device at /dev/apex_0");
            return NULL;
        }
    Delegate *made = calloc(1, sizeof(Delegate));
    made->data = count ? strdup(keys[0]) : "nothing";
    made->prepare = prepare;
    return made;
}
void tflite_plugin_destroy_delegate(Delegate *made) {
    fprintf(stderr, "destroyed\\n");
    free(made);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    built = tmp_path_factory.mktemp("delegate") / "libdelegate.so"
    source = built.with_suffix(".c")
    source.write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, source], check=True)
    return built


def test_each_interpreter_has_a_delegate_with_the_options(
    library: Path, tmp_path: Path, load: Callable[..., Session], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(tm.build(tm.affine(2, 1)))
    options = {"delegate": str(library), "delegate_options": {"speed": "fast"}}
    session = load("tflite", path, instances=2, **options)
    # Nothing is tried out on a device: the shapes stay.
    assert session.signatures["serving_default"].inputs[0].shape == (1, 3)
    y = session.run({"x": np.ones((1, 3), np.float32)}, "serving_default", ("y",))["y"]
    assert y.tolist() == [[3, 3, 3]]
    assert capfd.readouterr().err.count("prepared with speed") >= 2
    session.close()
    assert capfd.readouterr().err.count("destroyed") == 2


def test_a_device_that_is_missing(
    library: Path, tmp_path: Path, load: Callable[..., Session]
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(tm.build(tm.affine(2, 1)))
    with pytest.raises(LoadFailed, match="is its device plugged in") as failed:
        load("tflite", path, delegate=str(library), delegate_options={"device": "missing"})
    assert "no device at" in failed.value.message
    assert str(library.parent) not in failed.value.message
