"""Updates: as torch's own loop makes them, the same in parts, and never from a NaN."""

from __future__ import annotations

import copy
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.core import checkpoint
from crossfade.training.core.optimise import NotFinite, Optimisation, Updates, groups
from crossfade.training.core.schedules import Schedule

CPU = torch.device("cpu")
CONSTANT = Schedule(kind="constant")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def rows(seed: int = 1, count: int = 8) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def error_of(module: nn.Module, seed: int = 1) -> torch.Tensor:
    """In fp32, as losses are computed."""
    found: torch.Tensor = module(rows(seed)).float().square().mean()
    return found


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_an_update_is_torchs() -> None:
    ours, theirs = network(), network()
    config = Optimisation(learning_rate=0.1, clip_norm=0.05, schedule=Schedule(kind="cosine"))
    updates = Updates(ours, config, 5, CPU)
    optimizer = torch.optim.AdamW(groups(theirs, 0.1, config.weight_decay))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    for seed in range(5):
        updates.take(lambda seed=seed: ours(rows(seed)).square().mean())  # type: ignore[misc]
        optimizer.zero_grad()
        theirs(rows(seed)).square().mean().backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        optimizer.step()
        schedule.step()
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-6)
    assert updates.step == 5


def test_batches_that_are_gathered_count_as_one() -> None:
    whole, parts = network(), network()
    config = Optimisation(optimizer="sgd", learning_rate=0.1, schedule=CONSTANT)
    Updates(whole, config, 1, CPU).take(lambda: whole(rows()).square().mean())
    gathered = Updates(parts, config.model_copy(update={"accumulate": 4}), 1, CPU)
    for part in rows().split(2):
        gathered.take(lambda part=part: parts(part).square().mean())  # type: ignore[misc]
        assert gathered.between == (gathered.step == 1)
    assert torch.allclose(weights(whole), weights(parts), atol=1e-6)


def test_no_checkpoint_in_the_middle_of_an_update() -> None:
    module = network()
    updates = Updates(module, Optimisation(accumulate=2), 1, CPU)
    updates.take(lambda: module(rows()).sum())
    with pytest.raises(RuntimeError, match="would lose gradients"):
        updates.state_dict()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("kind", ["one_cycle", "plateau"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_restored_run_goes_on_to_the_same_weights(
    tmp_path: Path, optimizer: Any, kind: Any, precision: Any
) -> None:
    """In fp16 with updates that were skipped before and after, so that the scale matters."""
    config = Optimisation(
        optimizer=optimizer,
        learning_rate=0.05,
        schedule=Schedule(kind=kind, patience=0),
        precision=precision,
    )

    def go_on(module: nn.Module, updates: Updates, until: int) -> None:
        while updates.step < until:
            seed = updates.step
            large = 1e6 if precision == "fp16" and seed in (1, 5) else 1.0
            updates.take(
                lambda seed=seed, large=large: large * error_of(module, seed)  # type: ignore[misc]
            )
            updates.look(float(seed % 3))

    module = network()
    updates = Updates(module, config, 8, CPU)
    go_on(module, updates, 4)
    state = {"weights": module.state_dict(), "updates": updates.state_dict()}
    checkpoint.write(tmp_path, 4, state)
    go_on(module, updates, 8)
    again = network()
    with torch.no_grad():
        again[0].weight.zero_()
    resumed = Updates(again, config, 8, CPU)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    again.load_state_dict(found[1]["weights"])
    resumed.load_state_dict(found[1]["updates"])
    go_on(again, resumed, 8)
    assert torch.equal(weights(module), weights(again))
    assert updates.state_dict()["scaler"] == resumed.state_dict()["scaler"]
    assert updates.state_dict()["scaler"].get("scale") == {"fp16": 2.0**14}.get(precision)


def test_a_loss_that_is_nan_is_told_with_its_step_and_changes_nothing() -> None:
    module = network()
    updates = Updates(module, Optimisation(accumulate=2), 9, CPU)
    for _ in range(2):
        updates.take(lambda: module(rows()).square().mean())
    before = copy.deepcopy(weights(module))
    updates.take(lambda: module(rows()).square().mean())
    with pytest.raises(NotFinite, match="the loss is nan at step 1"):
        updates.take(lambda: module(rows()).square().mean() * float("nan"))
    assert torch.equal(weights(module), before)
    assert updates.between
    assert all(p.grad is None for p in module.parameters())


def test_a_gradient_that_is_infinite_is_told_too() -> None:
    parameter = nn.Linear(1, 1)
    with torch.no_grad():
        parameter.weight.zero_()
        parameter.bias.zero_()
    updates = Updates(parameter, Optimisation(), 9, CPU)
    with pytest.raises(NotFinite, match=r"the gradient is (nan|inf) at step 0"):
        updates.take(lambda: parameter(torch.ones(1, 1)).abs().pow(0.5).sum())
    assert float(parameter.weight.detach()) == 0


def test_bf16_computes_in_it_and_keeps_weights_in_fp32() -> None:
    module = network()
    updates = Updates(module, Optimisation(precision="bf16"), 9, CPU)
    seen = []

    def loss() -> torch.Tensor:
        out = module(rows())
        seen.append(out.dtype)
        value: torch.Tensor = out.float().square().mean()
        return value

    updates.take(loss)
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_fp16_is_near_to_fp32() -> None:
    half, whole = network(), network()
    config = Optimisation(optimizer="sgd", learning_rate=0.1, clip_norm=None, schedule=CONSTANT)
    seen = []

    def loss() -> torch.Tensor:
        out = half(rows())
        seen.append(out.dtype)
        value: torch.Tensor = out.float().square().mean()
        return value

    scaled = Updates(half, config.model_copy(update={"precision": "fp16"}), 1, CPU)
    scaled.take(loss)
    Updates(whole, config, 1, CPU).take(lambda: whole(rows()).square().mean())
    assert seen == [torch.float16]
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert torch.allclose(weights(half), weights(whole), atol=1e-3)
    assert not torch.equal(weights(whole), weights(network()))


def test_an_update_that_overflows_is_skipped_and_halves_the_scale() -> None:
    """It counts as a step: the schedule goes by the place in the run."""
    module = network()
    updates = Updates(module, Optimisation(precision="fp16"), 9, CPU)
    updates.take(lambda: error_of(module))
    before, scale = weights(module), updates.state_dict()["scaler"]["scale"]
    updates.take(lambda: error_of(module) * 1e6)
    assert torch.equal(weights(module), before)
    assert updates.step == 2
    assert updates.between
    assert updates.state_dict()["scaler"]["scale"] == scale / 2
    moments = updates.state_dict()["optimizer"]["state"].values()
    assert {int(moment["step"]) for moment in moments} == {1}
    updates.take(lambda: error_of(module))
    assert not torch.equal(weights(module), before)


def test_a_scale_that_has_nowhere_to_fall_ends_the_run() -> None:
    """A gradient that is infinite by itself, though the loss is finite: no scale helps."""
    module = nn.Linear(4, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    updates = Updates(module, Optimisation(precision="fp16"), 99, CPU)

    def steep() -> torch.Tensor:
        found: torch.Tensor = module(rows()).float().abs().sqrt().sum()
        return found

    for halved in range(16):
        updates.take(steep)
        assert updates.state_dict()["scaler"]["scale"] == 2.0 ** (15 - halved)
    with pytest.raises(NotFinite, match=r"the gradient is (inf|nan) at step 16 though"):
        updates.take(steep)
    assert int(torch.count_nonzero(weights(module))) == 0


def test_what_cannot_be_is_refused() -> None:
    frozen = network().requires_grad_(False)
    with pytest.raises(InvalidArgument, match="all weights are frozen"):
        Updates(frozen, Optimisation(), 1, CPU)


def test_vectors_are_not_decayed() -> None:
    decayed, kept = groups(network(), 0.1, 0.5)
    assert [p.ndim for p in decayed["params"]] == [2, 2]
    assert [p.ndim for p in kept["params"]] == [1, 1]
    assert kept["weight_decay"] == 0


PROGRAM = """
import sys, torch
from torch import nn
from crossfade.training.core.devices import place
from crossfade.training.core.optimise import Optimisation, Updates
from crossfade.training.core.schedules import Schedule

torch.manual_seed(0)
module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
data = torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(1))
config = Optimisation(
    optimizer="sgd", learning_rate=0.1, accumulate=2, schedule=Schedule(kind="constant")
)
with place("cpu") as here:
    wrapped = here.wrap(module)
    updates = Updates(wrapped, config, 9, here.device)
    for batch in data:
        mine = batch[here.rank :: here.world]
        updates.take(lambda: wrapped(mine).square().mean())
    assert here.total(1.0, here.rank) == [here.world, sum(range(here.world))]
    assert here.gather(here.rank) == list(range(here.world))
    if here.first:
        torch.save([p.detach() for p in module.parameters()], sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_come_to_what_one_comes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    alone, together = tmp_path / "alone.pt", tmp_path / "together.pt"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, str(program), str(together)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "argv", [str(program), str(alone)])
    runpy.run_path(str(program))
    for one, two in zip(torch.load(alone), torch.load(together), strict=True):
        assert torch.allclose(one, two, atol=1e-6)
