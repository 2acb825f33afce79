"""Turn the parser's nested error messages into one sentence with the nearest valid name."""

import inspect
import re
from importlib import import_module

from lightning.pytorch import Trainer

from medbolt.core.errors import did_you_mean

_TOP_LEVEL = ("seed_everything", "trainer", "model", "data", "ckpt_path", "weights_only", "config")
_LONGEST = 400


def explain(message: str) -> str:
    """Return one sentence for an error of the configuration parser.

    Args:
        message: What jsonargparse said, usually many lines.

    Returns:
        The unknown key or class with the nearest valid one where that is the problem; otherwise the message without its
        layout, shortened.

    Example:
        >>> explain("Subcommand 'fit' does not accept option 'trainer.max_epoch'")
        "unknown configuration key 'trainer.max_epoch' (did you mean 'trainer.max_epochs'?)."
    """
    class_paths = re.findall(r"Problem with given class_path '([\w.]+)'", message)
    if (key := re.search(r"[Oo]ption '([\w.]+)' is not accepted", message)) and class_paths:
        near = did_you_mean(key[1], _parameters(class_paths[-1]))
        return f"unknown configuration key '{key[1]}' of {class_paths[-1]}{near}."
    if key := re.search(r"does not accept option '([\w.]+)'", message):
        return f"unknown configuration key '{key[1]}'{_nearest_key(key[1])}."
    if missing := re.search(r"No ([\w.]+) attribute (\w+)", message):
        return f"{missing[1]} has no class '{missing[2]}'{did_you_mean(missing[2], _exports(missing[1]))}."
    if missing := re.search(r"No module named '([\w.]+)'", message):
        return f"no module '{missing[1]}' is installed or in the working directory, which class_path names."
    keys = re.findall(r'Parser key "([\w.]+)"', message)
    expected = [kind for kind in re.findall(r"Expected a <class '([\w.]+)'>", message) if kind != "NoneType"]
    value = re.search(r"(?:Given|Got) value: ([^\s{N].*?)(?:\. Got value|$)", message, re.MULTILINE)
    words = ", ".join(re.findall(r"Expected a typing\.Literal\[(.*?)\]", message)).split(", ")
    if keys and value and (allowed := list(dict.fromkeys([*expected, *filter(None, words)]))):
        *others, last = allowed
        is_number = re.fullmatch(r"-?\d+(\.\d+)?|[Tt]rue|[Ff]alse", value[1]) and "str" in allowed
        quotes = ", which needs quotes to be one" if is_number else ""
        return f"'{keys[-1]}' must be {', '.join(others)}{' or ' if others else ''}{last}, got {value[1]!r}{quotes}."
    problem = message.split("Problem with given class_path")[-1].split("- Expected a <class 'NoneType'>")[0]
    text = " ".join(line.strip() for line in problem.splitlines() if line.strip())
    where = f"in {class_paths[-1]}: {text.split(':', 1)[-1].strip()}" if class_paths else text
    return where if len(where) <= _LONGEST else f"{where[:_LONGEST]}..."


def _nearest_key(key: str) -> str:
    head, _, tail = key.partition(".")
    if head == "trainer" and tail:
        return did_you_mean(key, [f"trainer.{name}" for name in inspect.signature(Trainer.__init__).parameters])
    return did_you_mean(head, _TOP_LEVEL)


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    return list(inspect.signature(getattr(import_module(module), name)).parameters)


def _exports(module: str) -> list[str]:
    try:
        return dir(import_module(module))
    except ImportError:
        return []
