import xml.etree.ElementTree as ElementTree

import numpy as np

from medbolt.core.report.figures import confusion_figure, curves_figure, reliability_figure
from medbolt.core.stats import reliability

SPACE = "{http://www.w3.org/2000/svg}"
HOSTILE = ("$\\frac{x", "<script>f(1)</script>", "näevus & Co")


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SPACE}text")]


def test_a_panel_has_training_and_validation_together():
    svg = curves_figure({"train/loss_epoch": {0: 1.0, 1: 0.5}, "val/loss": {0: 1.1, 1: 0.8}, "lr": {0: 0.1, 1: 0.1}})
    found = texts(svg)
    assert found.count("loss") == 1
    assert {"train", "val", "lr"} <= set(found)


def test_steps_and_single_classes_are_left_out():
    assert curves_figure({"train/loss_step": {0: 1.0}, "val/recall/mild": {0: 0.5}}) is None
    assert curves_figure({}) is None


def test_the_number_of_panels_is_bounded_and_the_loss_comes_first():
    svg = curves_figure({f"val/metric{i}": {0: 1.0} for i in range(30)} | {"val/loss": {0: 1.0}})
    found = texts(svg)
    assert sum(text.startswith("metric") for text in found) == 8
    assert found.index("loss") < found.index("metric0")


def test_a_curve_with_gaps_and_nan_is_drawn():
    assert "<svg" in curves_figure({"val/loss": {0: float("nan"), 5: 1.0}})


def test_counts_and_names_are_in_the_confusion_matrix():
    found = texts(confusion_figure(np.array([[31, 2, 0], [4, 27, 1], [0, 0, 9]]), HOSTILE))
    assert {"31", "27", "predicted", "true"} <= set(found)
    assert found.count(HOSTILE[1]) == 2


def test_names_cannot_become_markup_or_mathematics():
    svg = confusion_figure(np.eye(3, dtype=int), HOSTILE)
    assert "<script>" not in svg
    assert HOSTILE[0] in texts(svg)


def test_many_classes_are_colours_only():
    found = texts(confusion_figure(np.full((40, 40), 777), tuple(f"class {i}" for i in range(40))))
    assert "777" not in found


def test_a_class_without_samples_is_no_division_by_zero():
    assert "<svg" in confusion_figure(np.array([[0, 0], [1, 1]]), ("a", "b"))


def test_empty_bins_are_drawn_empty():
    assert "<svg" in reliability_figure(reliability([0, 1], [[0.9, 0.1], [0.8, 0.2]]))


def test_the_same_numbers_give_the_same_picture():
    first, second = (confusion_figure(np.eye(2, dtype=int), ("a", "b")) for _ in range(2))
    assert first == second
