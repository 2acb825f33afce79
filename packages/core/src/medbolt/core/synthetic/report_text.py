"""The report sentence of an eye, made of what is drawn in it."""

from medbolt.core.synthetic.grading import GRADES, LESIONS

_SINGULARS = (*LESIONS[:4], "area of neovascularisation", LESIONS[5])
_PLURALS = (*(f"{name}s" for name in LESIONS[:4]), "areas of neovascularisation", f"{LESIONS[5]}s")


def _quantity(count: int, singular: str, plural: str) -> str:
    if count == 1:
        return f"one {singular}"
    return f"{'a few' if count <= 5 else 'several' if count <= 12 else 'many'} {plural}"


def sentence(grade: int, counts: list[int], side: str, wording: float) -> str:
    """Return one report sentence: eye, grade, and every lesion kind that is there.

    Args:
        grade: 0 to 4.
        counts: Lesions of each of the six kinds, in the order of :data:`~medbolt.core.synthetic.grading.LESIONS`.
        side: ``"right"`` or ``"left"``.
        wording: In [0, 1), picks among equivalent wordings.

    Returns:
        The sentence. Up to 5 lesions are "a few", up to 12 "several", more are "many".

    Example:
        >>> sentence(2, [3, 1, 0, 0, 0, 0], "left", wording=0.0)
        'Left eye: moderate non-proliferative diabetic retinopathy with a few microaneurysms and one haemorrhage.'
    """
    found = [
        _quantity(count, singular, plural)
        for count, singular, plural in zip(counts, _SINGULARS, _PLURALS, strict=True)
        if count
    ]
    findings = " and ".join(filter(None, [", ".join(found[:-1]), *found[-1:]])) or "a normal disc, macula and vessels"
    frames = (
        "{Side} eye: {grade} with {findings}.",
        "Fundus photograph of the {side} eye with {findings}: {grade}.",
        "{Findings} in the {side} eye, {grade}.",
    )
    return frames[int(wording * len(frames))].format(
        side=side,
        Side=side.capitalize(),
        grade=GRADES[grade],
        findings=findings,
        Findings=findings[0].upper() + findings[1:],
    )
