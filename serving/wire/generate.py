"""Makes ``wire.binpb`` and the type stubs from the ``.proto`` files (``make proto``)."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

HERE = Path(__file__).parent
# The files of google.protobuf that ours import; they come along, for a pool of its own has none.
_WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def generate(target: Path) -> None:
    """Writes ``wire.binpb`` and one ``.pyi`` for each ``.proto`` into ``target``.

    Raises:
        RuntimeError: protoc refused a file; its message is on stderr.
    """
    protos = sorted(p.name for p in HERE.glob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [f"-I{HERE}", f"-I{_WELL_KNOWN}", "--include_imports"]
        arguments.append(f"--descriptor_set_out={target}/wire.binpb")
        if protoc.main(["protoc", *arguments, f"--pyi_out={scratch}", *protos]):
            raise RuntimeError("protoc failed")
        for stub in Path(scratch).glob("*_pb2.pyi"):
            text = re.sub(
                r"^import (\w+)_pb2 as",
                r"from crossfade.serving.wire import \1 as",
                stub.read_text(),
                flags=re.MULTILINE,
            )
            (target / f"{stub.name.removesuffix('_pb2.pyi')}.pyi").write_text(text)


if __name__ == "__main__":
    generate(HERE)
    sys.stdout.write("wire: descriptors and stubs are up to date\n")
