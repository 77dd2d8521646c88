"""Is ARR-COC better than its detector alone, by how much, and how fast is it served?

    make bench-arrcoc DATA=BCCD/ BENCH='--plots docs/pictures'

Three seeds on the shipped split, then one on each of three redrawn splits (``--splits``) and one
on blocks of neighbours (``--contiguous``). Each run is trained, evaluated on its test split once,
and kept in ``--runs``: the same command goes on where it was stopped. The first one is written
into a repository, served by ``crossfade serve`` and asked over gRPC. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from crossfade.benchmarks.processes import HOST, Launch, ServerProcess, free_ports
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.training.arr_coc import command, digits, entry, report, run
from crossfade.training.arr_coc.config import ArrCocConfig
from crossfade.training.arr_coc.data import Source
from crossfade.training.arr_coc.run import Trained
from crossfade.training.arr_coc.summary import card_metrics, summarise
from crossfade.training.core.publishing import publish

NAME: Final = "arr-coc"
_READY_S: Final = 60.0
_WARM_CALLS: Final = 20
_HALF: Final = 18_816  # of 196 tokens for each of 192 patches


def runs(options: argparse.Namespace) -> list[tuple[str, Trained, dict[str, Any]]]:
    """Trains and evaluates what is not there yet; returns name, run and evaluation of each."""
    config = ArrCocConfig.load(command.config_file(options.config), options.set)
    asked = [(f"seed-{n}", n, Source(options.data)) for n in range(options.seeds)]
    asked += [
        (f"split-{n}", 0, Source(options.data, split_seed=n)) for n in range(1, options.splits + 1)
    ]
    if options.contiguous:
        asked.append(("blocks", 0, Source(options.data, contiguous=True)))
    out = []
    with command.export_of(options.export) as export:
        for name, seed, source in asked:
            folder = options.runs / name
            seeded = config.model_copy(update={"seed": seed})
            trained = run.train(source, seeded, folder, export)
            evaluation = command.evaluated(trained, folder)
            sys.stderr.write(f"{name}: {json.dumps(summarise([(name, evaluation)]))}\n")
            out.append((name, trained, evaluation))
    return out


def served(trained: Trained, metrics: dict[str, float], calls: int) -> dict[str, float]:
    """Publishes and serves a run; returns latencies over gRPC of a JPEG file and a text."""
    with tempfile.TemporaryDirectory(prefix="crossfade-") as scratch:
        repository = Path(scratch) / "models"
        version = publish(
            entry.maker(trained, metrics, []), repository, NAME, entry.model_yaml(trained)
        )
        size_mb = (version / "model.onnx").stat().st_size / 1e6
        grpc_port, http_port, metrics_port = free_ports(3)
        line = [sys.executable, "-m", "crossfade", "serve", "--host", HOST]
        line += ["--model-repository", str(repository), "--grpc-port", str(grpc_port)]
        line += ["--http-port", str(http_port), "--metrics-port", str(metrics_port)]
        server = ServerProcess(NAME, Launch(line, grpc_port), Path(scratch) / "server.log")
        server.start()
        try:
            with triton.InferenceServerClient(f"{HOST}:{grpc_port}") as client:
                _wait(client, server)
                times_ms = _ask(client, trained, calls)
        finally:
            server.stop()
    p50, p95 = np.percentile(times_ms, [50, 95])
    return {"p50_ms_grpc": float(p50), "p95_ms_grpc": float(p95), "size_mb": size_mb}


def _wait(client: triton.InferenceServerClient, server: ServerProcess) -> None:
    until_s = time.monotonic() + _READY_S
    while True:
        try:
            if client.is_model_ready(NAME):
                return
        except (InferenceServerException, grpc.RpcError):
            pass
        if time.monotonic() > until_s or not server.running():
            raise RuntimeError(f"the server is not ready: {server.log_tail()}")
        time.sleep(0.1)


def _ask(client: triton.InferenceServerClient, trained: Trained, calls: int) -> list[float]:
    """Asks for other pictures and texts in turn; checks that each budget is met."""
    files = [picture.path.read_bytes() for picture in trained.data.of("test")]
    queries = trained.language.queries
    texts = [trained.language.phrases(query)[0] for query in queries]
    times_ms = []
    for number in range(_WARM_CALLS + calls):
        values = {
            "image_bytes": ("BYTES", np.array([files[number % len(files)]], dtype=object)),
            "query": ("BYTES", np.array([[texts[number % len(texts)]]], dtype=object)),
            "token_budget": ("INT32", np.array([[_HALF]], dtype=np.int32)),
        }
        inputs = []
        for name, (dtype, array) in values.items():
            tensor = triton.InferInput(name, array.shape, dtype)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        began_s = time.perf_counter()
        answer = client.infer(NAME, inputs)
        took_ms = (time.perf_counter() - began_s) * 1000
        given = int(answer.as_numpy("patch_tokens").sum())
        if given != _HALF:
            raise AssertionError(f"{given} tokens for a budget of {_HALF}")
        if number >= _WARM_CALLS:
            times_ms.append(took_ms)
    return times_ms


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--data", type=Path, help="the folder of BCCD, or another detection set")
    option("--digits", action="store_true", help="compose scenes of digits, and take those")
    option("--config", default="bccd", help="a shipped configuration or a file (%(default)s)")
    option("--set", action="append", default=[], metavar="KEY=VALUE", help="changes it")
    option("--export", help="what the detectors begin with, instead of nothing")
    option("--runs", type=Path, default=Path(".bench/arr-coc"), help="(%(default)s)")
    option("--seeds", type=int, default=3, help="on the shipped split (%(default)s)")
    option("--splits", type=int, default=3, help="redrawn splits (%(default)s)")
    option("--contiguous", action="store_true", help="and one of blocks of neighbours")
    option("--calls", type=int, default=300, help="over gRPC (%(default)s)")
    option("--plots", type=Path, metavar="DIR", help="write the report's pictures there")
    option("--report", type=Path, metavar="FILE", help="write the report's tables as Markdown")
    options = parser.parse_args(arguments)
    if options.digits:
        options.data = digits.compose(options.runs / "data", (300, 100, 100), seed=0)
    if options.data is None:
        parser.error("give --data, or --digits")
    try:
        done = runs(options)
        shipped = [(name, found) for name, _, found in done if name.startswith("seed-")]
        others = [(name, found) for name, _, found in done if not name.startswith("seed-")]
        _, first, evaluation = done[0]
        result: dict[str, Any] = dict(summarise(shipped or others))
        result["seeds"] = len(shipped)
        result["splits"] = {name: summarise([(name, found)]) for name, found in others}
        result |= served(first, card_metrics(evaluation), options.calls)
        if options.report:
            parts = [report.tables(part) for part in (shipped, others) if part]
            options.report.write_text("\n".join(parts), "utf-8")
        if options.plots:
            from crossfade.training.arr_coc import plots

            plots.write(first, done, options.plots)
    except CrossfadeError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
