"""``medbolt issues``: find wrong labels by cross-validation."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from medbolt.core.cli.command import Command


def _configure(parser: ArgumentParser) -> None:
    parser.usage = "medbolt issues -c LAYER.yaml [-c LAYER.yaml ...] --output FOLDER [--folds K] [options of fit]"
    parser.description = (
        "Train the configured task on all folds but one and predict that one, for each fold; then find wrong labels by "
        "confident learning. Layers and options are those of medbolt fit. A killed run goes on where it was."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default: 5)")
    parser.add_argument("--fold-seed", type=int, default=0, help="another seed divides otherwise (default: 0)")
    parser.add_argument(
        "--network",
        default="model",
        help="attribute of the module that puts out logits, if predict_step returns no probability (default: model)",
    )


def _run(arguments: Namespace) -> int:
    from medbolt.noisy.quality.cross_validation import CrossValidation

    return CrossValidation(
        arguments.rest, arguments.output, arguments.folds, arguments.fold_seed, arguments.network
    ).run()


command = Command("issues", "Find wrong labels by cross-validation.", _configure, _run, takes_rest=True)
