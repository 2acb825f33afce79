import numpy as np

from medbolt.core.synthetic.cameras import CAMERAS
from medbolt.core.synthetic.labels import SHARED_GRADE, draw_domains, draw_grades, draw_populations

PREVALENCE = np.array([0.5, 0.15, 0.2, 0.1, 0.05])


def test_grades_follow_the_prevalence():
    size = 200_000
    shares = np.bincount(draw_grades(0, size, PREVALENCE), minlength=5) / size
    # Two eyes of a patient agree beyond chance with probability SHARED_GRADE**2, which widens the error.
    sigma = np.sqrt(PREVALENCE * (1 - PREVALENCE) * (1 + SHARED_GRADE**2) / size)
    assert (np.abs(shares - PREVALENCE) < 4 * sigma).all()


def test_the_eyes_of_a_patient_agree_as_often_as_documented():
    right, left = draw_grades(1, 100_000, PREVALENCE).reshape(-1, 2).T
    chance = (PREVALENCE**2).sum()
    expected = SHARED_GRADE**2 + (1 - SHARED_GRADE**2) * chance
    assert abs((right == left).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(right))
    shuffled = np.roll(left, 1)
    assert abs((right == shuffled).mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / len(right))


def test_a_class_of_prevalence_zero_never_occurs():
    grades = draw_grades(0, 50_000, np.array([0.0, 0.5, 0.0, 0.5, 0.0]))
    assert set(grades.tolist()) == {1, 3}


def test_domains_are_equally_frequent_and_shared_by_a_patient():
    domains = draw_domains(0, 60_000, np.array([0, 2, 3]))
    counts = np.bincount(domains, minlength=4)
    assert counts[1] == 0
    assert (np.abs(counts[[0, 2, 3]] / 60_000 - 1 / 3) < 4 * np.sqrt(2 / 9 / 30_000)).all()
    np.testing.assert_array_equal(domains[::2], domains[1::2])


def test_populations_follow_the_mix_of_the_camera():
    domains = draw_domains(0, 80_000, np.arange(4))
    populations = draw_populations(0, domains)
    for number, camera in enumerate(CAMERAS):
        shares = np.bincount(populations[domains == number], minlength=3) / (domains == number).sum()
        assert (np.abs(shares - camera.populations) < 4 * np.sqrt(0.25 / 10_000)).all()
