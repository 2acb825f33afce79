"""The configuration parser, which shows what a class raises while it is made from a configuration."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from medbolt.core.errors import UserError


class ConfigurationParser(LightningArgumentParser):
    """Lightning's parser; a value that a class refuses is the user's mistake.

    The parser tries the types of a union one after another, and whatever a class raises meanwhile becomes a part of the
    parser's own error, a page on types. :meth:`shown` raises the original.

    Example:
        >>> from lightning.pytorch import Callback
        >>> parser = ConfigurationParser()
        >>> _ = parser.add_argument("--callback", type=Callback | None)
        >>> config = parser.parse_object({"callback": {"class_path": "medbolt.core.MixUp", "init_args": {"alpha": -1}}})
        >>> instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # the name before 4.49
        >>> with parser.shown():
        ...     objects = instantiate(config)
        Traceback (most recent call last):
        medbolt.core.errors.UserError: MixUp: alpha must be positive, got -1.0.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._raised: list[Exception] = []

    def add_instantiator(
        self, instantiator: Callable[..., Any], class_type: type, subclasses: bool = True, prepend: bool = False
    ) -> None:
        """Add how objects of a class are made, and name the class in a refusal."""

        @wraps(instantiator)  # the parser reads the signature
        def make(kind: type, *args: Any, **options: Any) -> Any:
            try:
                with refusals_of(kind.__name__):
                    return instantiator(kind, *args, **options)
            except Exception as error:
                self._raised.append(error)
                raise

        with warnings.catch_warnings():  # jsonargparse 4.49 has a successor for it, which Lightning 2.6 does not call
            warnings.simplefilter("ignore", DeprecationWarning)
            super().add_instantiator(make, class_type, subclasses, prepend)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Raise, while objects are made, what a class raises instead of the parser's error about it."""
        self.add_instantiator(lambda kind, *args, **options: kind(*args, **options), object)  # those not added before
        try:
            yield
        except ValueError as error:
            if isinstance(error.__cause__, UserError):  # of what computes a linked value
                raise error.__cause__ from error.__cause__.__cause__
            text = _one_line(error)
            for hidden in self._raised:
                if _one_line(hidden) in text:
                    raise hidden from hidden.__cause__  # without the parser's in its traceback
            raise


@contextmanager
def refusals_of(name: str) -> Iterator[None]:
    """Turn a ``ValueError`` into a sentence that begins with what refused a value.

    Args:
        name: A class or a key of the configuration.

    Raises:
        UserError: instead of another ``ValueError``.

    Example:
        >>> with refusals_of("MixUp"):
        ...     raise ValueError("alpha must be positive, got -1.0")
        Traceback (most recent call last):
        medbolt.core.errors.UserError: MixUp: alpha must be positive, got -1.0.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        text = _one_line(error).rstrip(".") or "it refuses a value"
        raise UserError(f"{text}." if text.startswith(name) else f"{name}: {text}.") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
