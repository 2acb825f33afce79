import pytest

from medbolt.core.synthetic.grading import GRADES
from medbolt.core.synthetic.report_text import sentence


@pytest.mark.parametrize("wording", [0.0, 0.4, 0.9])
def test_every_wording_tells_eye_grade_and_findings(wording):
    text = sentence(4, [13, 6, 5, 1, 2, 1], "right", wording).lower()
    for part in (
        "right eye",
        GRADES[4],
        "many microaneurysms",
        "several haemorrhages",
        "a few hard exudates",
        "one soft exudate",
        "a few areas of neovascularisation and one preretinal haemorrhage",
    ):
        assert part in text
    assert text.endswith(".")
    assert text.count(".") == 1


def test_wordings_differ_and_start_with_a_capital():
    texts = {sentence(1, [3, 0, 0, 0, 0, 0], "left", wording) for wording in (0.0, 0.4, 0.9)}
    assert len(texts) == 3
    assert all(text[0].isupper() for text in texts)


def test_a_healthy_eye_names_no_lesion():
    text = sentence(0, [0] * 6, "left", 0.0)
    assert text == "Left eye: no diabetic retinopathy with a normal disc, macula and vessels."
