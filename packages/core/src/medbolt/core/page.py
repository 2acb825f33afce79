"""Templates of the HTML pages that packages carry with them."""

import jinja2


def page_template(package: str, name: str) -> jinja2.Template:
    """Return a template that escapes what it is given and refuses what it is not given.

    Args:
        package: Package whose folder holds the template.
        name: File name, ``<page>.html.j2``.

    Example:
        >>> page_template("medbolt.core.data", "check.html.j2").name
        'check.html.j2'
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)
