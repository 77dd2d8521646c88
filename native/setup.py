"""Builds the extension against the system's libnghttp2; see README.md."""

from pathlib import Path

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "crossfade_native._h2",
            sources=sorted(str(path) for path in Path("src").glob("*/*.cpp")),
            depends=sorted(str(path) for path in Path("src").glob("*/*.h")),
            libraries=["nghttp2"],
            extra_compile_args=["-std=c++17", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
