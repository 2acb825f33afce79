"""The directive ``exports``: the API of a package, read from its stub, so that an export is documented by being one.

    .. exports:: medbolt.core
       :modules: data synthetic

documents the public names of ``medbolt.core`` that come from its modules ``data`` and ``synthetic``; without
``:modules:`` all of them. References to where a name is defined are led to where it is documented.
"""

import importlib
import inspect
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from workspace import exports, packages

PACKAGES = {f"medbolt.{name}": package for name, package in packages().items()}
HOMES = {
    f"{module}.{origin}.{name}": f"{module}.{name}"
    for module, package in PACKAGES.items()
    for name, origin in exports(package).items()
}
"""Where a name is documented, by where it is defined."""


def documented(module: str, name: str) -> str:
    """Return the reStructuredText that documents one public name."""
    exported = getattr(importlib.import_module(module), name)
    if inspect.ismodule(exported):
        return f".. automodule:: {module}.{name}\n   :imported-members:\n"
    # what another package defines has its place there
    option = "" if getattr(exported, "__module__", module).startswith(module) else "   :no-index:\n"
    kind = "class" if inspect.isclass(exported) else "function" if callable(exported) else "data"
    return f".. auto{kind}:: {module}.{name}\n{option}"


class Exports(SphinxDirective):
    """Document the public names of a package."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"modules": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Write an autodoc directive for each name and parse it."""
        (module,) = self.arguments
        chosen = self.options.get("modules", "").split()
        origins = exports(PACKAGES[module]).items()
        names = [name for name, origin in origins if not chosen or origin.split(".")[0] in chosen]
        return self.parse_text_to_nodes("\n".join(documented(module, name) for name in names))


def led_home(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Element | None:
    """Resolve a reference to a name's definition as one to its documentation."""
    home = HOMES.get(node.get("reftarget", ""))
    if home is None:
        return None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, node["reftype"], home, node, text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("exports", Exports)
    app.connect("missing-reference", led_home)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
