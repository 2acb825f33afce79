"""``medbolt data``: look at data before training, and prepare them for fast reading."""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medbolt.core.cli.command import Command
from medbolt.core.cli.own_code import find_own_code
from medbolt.core.errors import UserError, listed

if TYPE_CHECKING:
    from medbolt.core.data.base import ImageDataModule


def _configure(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|prepare")
    check = actions.add_parser("check", help="find missing images, duplicates, leakage and bad labels")
    check.add_argument("manifest", help="CSV or Parquet file with one image a row")
    _add_image_arguments(check)
    check.add_argument("--label", nargs="+", help="column of the class, or columns of findings (default: label)")
    check.add_argument("--class-names", nargs="+", help="the allowed labels (default: any)")
    check.add_argument("--group", help="column of patients or lesions (default: group)")
    check.add_argument("--split", help="column of train, val and test (default: split)")
    check.add_argument("--output", type=Path, help="write an HTML page with pictures to this file")
    prepare = actions.add_parser("prepare", help="decode, crop and resize once, into a store that data modules read")
    prepare.add_argument("source", help="CSV or Parquet manifest, folder of class folders, or YAML with a data section")
    _add_image_arguments(prepare)
    prepare.add_argument("--mask", help="column or pattern that names masks")
    prepare.add_argument("--output", type=Path, required=True, help="folder of the store")
    prepare.add_argument("--size", type=_at_least(1), default=224, help="height and width in pixels (default: 224)")
    prepare.add_argument("--crop-circle", action="store_true", help="crop fundus photographs to their field of view")


def _add_image_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--image", help="column that names the images (default: image), or 'images.zip/{image_id}.jpg'")
    parser.add_argument("--root", help="folder that the names are relative to (default: the manifest's)")
    parser.add_argument("--id", help="column of unique names")
    workers = min(8, os.cpu_count() or 1)
    parser.add_argument(
        "--workers", type=_at_least(0), default=workers, help=f"processes that decode (default: {workers})"
    )


def _at_least(lowest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < lowest:
            raise ArgumentTypeError(f"'{text}' is no whole number from {lowest} on; correct it.")
        return int(text)

    return number


def _run(arguments: Namespace) -> int:
    return _check(arguments) if arguments.action == "check" else _prepare(arguments)


def _check(arguments: Namespace) -> int:
    from medbolt.core.data.check import check_manifest
    from medbolt.core.data.check_report import render_text, write_html

    labels = arguments.label
    check = check_manifest(
        arguments.manifest,
        arguments.image or "image",
        label=labels[0] if labels and len(labels) == 1 else labels,
        root=arguments.root,
        class_names=arguments.class_names,
        id=arguments.id,
        group=arguments.group,
        split=arguments.split,
        workers=arguments.workers,
    )
    sys.stdout.write(render_text(check))
    if arguments.output is not None:
        write_html(check, arguments.output)
        sys.stdout.write(f"\nwritten: {arguments.output}\n")
    return 1 if check.has_errors else 0


def _prepare(arguments: Namespace) -> int:
    from medbolt.core.data.prepare import prepare

    data = _data_module(arguments)
    plan = prepare(data, arguments.output, arguments.size, arguments.crop_circle, arguments.workers)
    sys.stdout.write(
        f"{len(plan.ids)} images of {arguments.size} pixels ({plan.size / 1e6:.0f} MB) are in {arguments.output}; "
        f"read them with data.init_args.store: {arguments.output}\n"
    )
    return 0


def _data_module(arguments: Namespace) -> "ImageDataModule":
    from medbolt.core.data.folder import FolderDataModule
    from medbolt.core.data.locate import locate
    from medbolt.core.data.table import TableDataModule

    source = locate(arguments.source)
    named = {name: value for name in ("image", "root", "id", "mask") if (value := getattr(arguments, name)) is not None}
    is_layer = source.suffix in (".yaml", ".yml")
    if not is_layer and not source.is_dir():
        return TableDataModule(source, label=None, **named)
    if named:
        remedy = "say it in the layer's data section" if is_layer else "leave it out or name a manifest"
        raise UserError(f"{listed(f'--{name}' for name in named)} is for manifests, and {source} is none; {remedy}.")
    return _configured(source) if is_layer else FolderDataModule(source)


def _configured(path: Path) -> "ImageDataModule":
    from jsonargparse import ArgumentError

    from medbolt.core.cli.explain import explain
    from medbolt.core.cli.layers import read_layer
    from medbolt.core.cli.parser import ConfigurationParser
    from medbolt.core.data.base import ImageDataModule

    find_own_code()
    content = read_layer(path)
    if not isinstance(content, dict) or "data" not in content:
        raise UserError(f"{path} has no data section; it must name a data module.")
    parser = ConfigurationParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    try:
        config = parser.parse_object({"data": content["data"]})
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # the name before 4.49
        with parser.shown():
            return instantiate(config)["data"]
    except ArgumentError as error:
        raise UserError(f"{path}: {explain(str(error))}") from error


command = Command("data", "Check data, and prepare them for fast reading.", _configure, _run)
