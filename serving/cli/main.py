"""``crossfade``: the command and its subcommands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from crossfade import __version__
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.serving.cli import (
    convert,
    doctor,
    ensemble,
    env,
    fade,
    importing,
    infer,
    inspect,
    models,
    serve,
    token,
    train,
    weights,
)

_EPILOG = """\
exit codes:
  0  done
  1  it failed; the reason is on stderr
  2  the command line is wrong
  3  train gate: the data have to be fixed
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        "crossfade",
        description="Serve AutoML exports beside the models that replace them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"crossfade {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        serve,
        inspect,
        importing,
        convert,
        train,
        ensemble,
        infer,
        models,
        fade,
        env,
        token,
        doctor,
        weights,
    ):
        command.add(commands)
    try:
        options = parser.parse_args(map(_dashed, sys.argv[1:] if arguments is None else arguments))
        code: int = options.run(options)
        return code
    except CrossfadeError as error:
        sys.stderr.write(f"crossfade: {error.message}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `crossfade inspect … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dashed(argument: str) -> str:
    """Writes an option as it is declared: TensorFlow Serving's and KServe's have underscores."""
    name, equals, value = argument.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if name.startswith("--") else argument
