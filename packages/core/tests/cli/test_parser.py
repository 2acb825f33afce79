from collections.abc import Callable

import pytest
import torch
from torch import nn

from medbolt.core.cli.parser import ConfigurationParser, refusals_of
from medbolt.core.errors import UserError


class Outer(nn.Module):
    """Holds another module, of a union of types as most parameters are, and a factory."""

    def __init__(
        self,
        inner: nn.Module | None = None,
        width: int = 1,
        make: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = torch.optim.SGD,
    ) -> None:
        super().__init__()
        self.inner, self.make = inner, make
        if width < 1:
            raise ValueError(f"width must be positive,\n  got {width}")


class Mended(Outer):
    def __init__(self, width: int = 1) -> None:
        raise UserError("Mended has said it.")


class Buggy(Outer):
    def __init__(self) -> None:
        _ = {}["missing"]


def made(class_path: str, **arguments) -> Outer:
    """Make an object as a configuration does."""
    parser = ConfigurationParser(exit_on_error=False)
    parser.add_argument("--module", type=nn.Module | None)
    spec = {"class_path": f"{__name__}.{class_path}", "init_args": arguments}
    config = parser.parse_object({"module": spec})
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    with parser.shown():
        return instantiate(config).module


def nested(class_path: str, **arguments) -> dict:
    return {"class_path": f"{__name__}.{class_path}", "init_args": arguments}


def test_a_refusal_names_the_class_in_one_line():
    with pytest.raises(UserError, match=r"^Outer: width must be positive, got 0\.$") as raised:
        made("Outer", width=0)
    assert type(raised.value.__cause__) is ValueError


def test_a_nested_class_is_the_one_that_is_named():
    with pytest.raises(UserError, match=r"^Outer: width must be positive, got -3\.$"):
        made("Outer", inner=nested("Outer", width=-3))


def test_a_sentence_and_a_bug_are_shown_as_they_are():
    with pytest.raises(UserError, match=r"^Mended has said it\.$"):
        made("Outer", inner=nested("Mended"))
    with pytest.raises(KeyError, match="missing"):
        made("Outer", inner=nested("Buggy"))


def test_a_factory_that_is_called_later_is_named_too():
    rate = {"class_path": "torch.optim.SGD", "init_args": {"lr": -1.0}}
    module = made("Outer", make=rate)
    with pytest.raises(UserError, match=r"^SGD: Invalid learning rate: -1\.0\.$"):
        module.make([nn.Parameter(torch.zeros(1))])


def test_what_nothing_refuses_is_made():
    assert isinstance(made("Outer", inner=nested("Outer")).inner, Outer)


def test_a_name_is_not_said_twice():
    with pytest.raises(UserError, match=r"^Outer needs two\.$"), refusals_of("Outer"):
        raise ValueError("Outer needs two")
