"""A manifest's check as text for the terminal and as one HTML page with pictures."""

from pathlib import Path

from medbolt.core.data.check import ManifestCheck
from medbolt.core.files import atomic_write
from medbolt.core.page import page_template
from medbolt.core.thumbnail import thumbnail

_SIDE = 128  # pixels of a picture in the page


def render_text(check: ManifestCheck) -> str:
    """Return the counts and the findings as plain text.

    Example:
        >>> from medbolt.core.data.check import check_manifest
        >>> print(render_text(check_manifest("metadata.csv")))  # doctest: +SKIP
        metadata.csv: 4 images, 1 error, 0 warnings
        ...
    """
    lines = [_summary(check), "", check.class_counts.to_string(), ""]
    lines += [f"{finding.severity.upper():<8} {finding.message}" for finding in check.findings]
    return "\n".join(lines) + "\n"


def write_html(check: ManifestCheck, path: Path | str) -> None:
    """Write the counts, the findings and pictures of both into one self-contained page.

    Raises:
        UserError: if the file cannot be written.
    """
    page = page_template("medbolt.core.data", "check.html.j2").render(
        check=check,
        summary=_summary(check),
        picture=lambda position: thumbnail(check.images[position], _SIDE),
        name=lambda position: f"{check.images.references[position]}, {check.manifest.place(position)}",
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _summary(check: ManifestCheck) -> str:
    errors = sum(finding.severity == "error" for finding in check.findings)
    warnings = len(check.findings) - errors
    return (
        f"{check.manifest.path.name}: {len(check.manifest)} images, {errors} error{'' if errors == 1 else 's'}, "
        f"{warnings} warning{'' if warnings == 1 else 's'}"
    )
