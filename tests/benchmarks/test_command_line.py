"""How fast the command line answers, against a bare LightningCLI with the same classes."""

import resource
import subprocess
import sys

_OURS = "import sys; sys.argv = ['medbolt', {args}]; from medbolt.core.cli.main import main; sys.exit(main())"
_BARE = (
    "import sys; sys.argv = ['bare', {args}]; from lightning.pytorch.cli import LightningCLI;"
    "from lightning.pytorch import LightningModule, LightningDataModule;"
    "from medbolt.core import ClassificationTask, ImageDataModule;"
    "LightningCLI(LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True)"
)


def cpu_seconds(code: str, *args: str) -> float:
    """Return the CPU time of a fresh interpreter, the smallest of three after a warm start."""
    quoted = ", ".join(map(repr, args))
    times = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code.format(args=quoted)], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times[1:])


def test_help(figures):
    seconds = cpu_seconds(_OURS, "--help")
    figures.add("medbolt --help, CPU seconds", f"{seconds:.2f} s", seconds, "<= 1")


def test_fit_help(figures):
    ours, bare = cpu_seconds(_OURS, "fit", "--help"), cpu_seconds(_BARE, "fit", "--help")
    figures.add("medbolt fit --help / bare LightningCLI", f"{ours:.2f} s / {bare:.2f} s", ours / bare, "<= 1")
