"""The error a user can mend: one sentence that names the culprit and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in the user's data, configuration or module.

    The message is one sentence that names the file, row, key or class at fault and what to do about it. The command
    line prints it without a traceback and exits with code 2.

    Example:
        >>> raise UserError("labels.csv has no column 'grade'; it has 'image', 'label'.")
        Traceback (most recent call last):
        medbolt.core.errors.UserError: labels.csv has no column 'grade'; it has 'image', 'label'.
    """


def listed(names: Iterable[object], most: int = 8) -> str:
    """Return names as a quoted, comma-separated list that stays readable when there are many.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        "'a', 'b' and 1 more"
    """
    names = [f"'{name}'" for name in names]
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest candidate, or an empty string when none is near.

    Example:
        >>> did_you_mean("lable", ["label", "image"])
        " (did you mean 'label'?)"
    """
    near = get_close_matches(name, list(candidates), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
