"""``crossfade weights``: the weights of an export, each with its role; and its port to PyTorch."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.cli.progress import bar
from crossfade.serving.exports.recognise import recognise
from crossfade.serving.exports.source import opened

_EPILOG = """\
examples:
  crossfade weights models/flowers/1
  crossfade weights export.zip --json --output weights.safetensors
  crossfade weights model.onnx --parity parity.json --images pictures/
"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "weights",
        help="list the weights of an export with their roles; prove a port to PyTorch",
        description="List every weight of a SavedModel, TFLite or ONNX file with the role that"
        " the graph gives it, in the order of computing.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("place", metavar="EXPORT", help="a file, a folder, an archive or a URL")
    parser.add_argument("--signature", default="", help="of a SavedModel; default serving_default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write them as safetensors")
    parser.add_argument(
        "--parity",
        type=Path,
        metavar="FILE",
        help="port the graph to PyTorch, compare it layer by layer, write the report",
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="pictures to compare on, besides made-up ones"
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="REGEX",
        help="names of weights that a port may leave behind; may be repeated",
    )
    parser.add_argument("--side", type=int, default=224, help="pixels, where sizes are free")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the weights; returns 1 where a port was asked for and does not answer alike."""
    from crossfade.training.weights.inventory import inventory, save, table
    from crossfade.training.weights.read import read

    with opened(options.place, progress=bar("copying")) as place:
        model = recognise(place).model
        graph = read(model, options.signature)
        found = inventory(graph)
        if options.output is not None:
            save(found, options.output)
        if options.json:
            rows = [weight.row() for weight in found.weights]
            unread = {
                n: {"dtype": s.dtype, "shape": list(s.shape)} for n, s in found.unread.items()
            }
            listed = {"source": found.source, "weights": rows, "unread": unread}
            sys.stdout.write(json.dumps(listed, indent=2) + "\n")
        else:
            sys.stdout.write(table(found.weights))
            for name in found.unread:
                sys.stdout.write(f"not read by the signature: {name}\n")
        return 0 if options.parity is None else _parity(options, model, graph, found)


def _parity(options: argparse.Namespace, model: Path, graph: Any, found: Any) -> int:
    from crossfade.training.torch_port.proof import prove

    report = prove(
        model,
        graph,
        found,
        signature=options.signature,
        images=options.images,
        side=options.side,
        allow=options.allow,
    )
    try:
        options.parity.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        reason = f"'{options.parity.name}' cannot be written: {error.strerror}"
        raise InvalidArgument(reason) from error
    parity = report["parity"]
    wrong = f"; first wrong: {parity['wrong'][0]}" if parity["wrong"] else ""
    sys.stderr.write(
        f"{'passed' if report['passed'] else 'FAILED'}: {report['coverage']['carried']} of"
        f" {report['coverage']['weights']} weights, {len(parity['layers'])} layers on"
        f" {len(parity['probes'])} probes, outputs differ by at most"
        f" {parity['max_abs_output']:.1e}{wrong}\n"
    )
    return 0 if report["passed"] else 1
