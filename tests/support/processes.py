"""Run a function on several processes, as torchrun would, for tests of what is distributed or killed.

    first, second = run(scenario, argument)  # what ``scenario(argument)`` returned on process 0 and on process 1

The processes are forked from a server that has imported Lightning once, so that a run costs about as much as its work.
The function is found again by its file and name: it stands at the top of a test file and takes plain arguments.
"""

import inspect
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["lightning.pytorch", "torchvision.transforms.v2", "medbolt.core.objective.callback"])


@dataclass(frozen=True)
class Outcome:
    """How a process ended: what it returned or the traceback it died of, and its exit code (-9 when killed)."""

    value: Any
    error: str | None
    exitcode: int | None


def run(function: Callable[..., Any], *arguments: Any, processes: int = 2, timeout: float = 120) -> list[Any]:
    """Return what the function returned on each process.

    Raises:
        RuntimeError: if it failed on one of them; the message is the traceback.
        TimeoutError: if it did not end in time.
    """
    outcomes = attempt(function, *arguments, processes=processes, timeout=timeout)
    if any(outcome.exitcode or outcome.error for outcome in outcomes):
        raise RuntimeError("\n".join(f"process {rank}: {o.error or o.exitcode}" for rank, o in enumerate(outcomes)))
    return [outcome.value for outcome in outcomes]


def attempt(function: Callable[..., Any], *arguments: Any, processes: int = 2, timeout: float = 120) -> list[Outcome]:
    """Return how each process ended.

    Raises:
        TimeoutError: if one did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{rank}.pt") for rank in range(processes)]
        task = (inspect.getfile(function), function.__name__, arguments)
        running = [
            _CONTEXT.Process(target=_work, args=(*task, environment, file))
            for environment, file in zip(_environments(processes), files, strict=True)
        ]
        for process in running:
            process.start()
        end = time.monotonic() + timeout
        try:
            for process in running:
                process.join(max(0.0, end - time.monotonic()))
            if any(process.is_alive() for process in running):
                raise TimeoutError(f"{function.__name__} did not end within {timeout} s")
        finally:
            for process in running:
                process.kill()
                process.join()
        return [_outcome(file, process.exitcode) for file, process in zip(files, running, strict=True)]


def _outcome(file: Path, exitcode: int | None) -> Outcome:
    import torch

    value, error = torch.load(file, weights_only=False) if file.exists() else (None, None)
    return Outcome(value, error, exitcode)


def _environments(processes: int) -> list[dict[str, str]]:
    """Return the variables that torchrun would set; none for a single process."""
    if processes == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
    }
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _work(path: str, name: str, arguments: tuple[Any, ...], environment: dict[str, str], file: Path) -> None:
    import torch

    # seed_everything in an earlier test leaves it behind, and DDP, but not one process, would seed by it once more
    os.environ.pop("PL_GLOBAL_SEED", None)
    os.environ.update(environment)
    set_start_method("fork", force=True)  # of the workers of data loaders; a new fork server would import all anew
    torch.set_num_threads(1)
    result: tuple[Any, str | None]
    try:
        result = getattr(_module(path), name)(*arguments), None
    except BaseException:
        result = None, traceback.format_exc()
    partial = file.with_suffix(".partial")
    torch.save(result, partial)
    partial.replace(file)


def _module(path: str) -> Any:
    spec = spec_from_file_location("scenario", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["scenario"] = module
    spec.loader.exec_module(module)
    return module
