from dataclasses import replace

import numpy as np
import pytest

from medbolt.core.synthetic.cameras import CAMERAS, Camera, field_of_view, photograph

PLAIN = Camera("plain", (1.0, 0.0, 0.0), vignette=0.0, gradient=0.0, noise=0.0)


def grey(value=0.5, size=64):
    return np.full((3, size, size), value, np.float32)


def shoot(camera, retina=None):
    return photograph(camera, grey() if retina is None else retina, np.random.default_rng(0)).astype(float)


def test_populations_sum_to_one():
    assert all(sum(camera.populations) == pytest.approx(1) for camera in CAMERAS)
    assert len({camera.populations for camera in CAMERAS}) == len(CAMERAS)


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)
def test_all_is_black_outside_the_field(camera):
    image = shoot(replace(camera, quality=None), grey(0.8, 96))
    field, _ = field_of_view(camera, 96)
    assert (image[:, field == 0] == 0).all()
    assert image[:, field == 1].max() > 60


def test_field_is_a_disc_cut_above_and_below():
    field, _ = field_of_view(replace(PLAIN, field=0.9), 200)
    assert field.sum() / 100**2 == pytest.approx(np.pi * 0.9**2, rel=1e-3)
    cut, _ = field_of_view(replace(PLAIN, field=0.9, cut=0.5), 200)
    assert not cut[:49].any()
    assert cut[100].sum() == field[100].sum()
    with pytest.raises(ValueError, match="read-only"):
        field[0, 0] = 1


def test_each_effect_changes_the_picture_as_named():
    centre = (slice(None), slice(28, 36), slice(28, 36))
    plain = shoot(PLAIN)
    assert shoot(replace(PLAIN, gamma=2.0))[centre].mean() < plain[centre].mean() - 30
    assert shoot(replace(PLAIN, exposure=0.5))[centre].mean() == pytest.approx(plain[centre].mean() / 2, abs=1)
    vignetted = shoot(replace(PLAIN, vignette=0.6))
    assert vignetted[:, 32, 4].mean() < 0.6 * vignetted[centre].mean()
    tilted = shoot(replace(PLAIN, gradient=0.4))
    assert np.ptp(tilted[0, 10:54, 10:54]) > 40 > np.ptp(plain[0, 10:54, 10:54])
    assert shoot(replace(PLAIN, noise=0.04))[centre].std(axis=(1, 2)).mean() == pytest.approx(0.04 * 255, rel=0.2)
    assert shoot(replace(PLAIN, reflex=0.5)).max() > plain.max() + 50
    swapped = shoot(
        replace(PLAIN, matrix=((0, 1, 0), (1, 0, 0), (0, 0, 1))), grey() * np.float32([[[1]], [[0.2]], [[1]]])
    )
    assert swapped[0, 32, 32] < swapped[1, 32, 32]
    hazy = shoot(replace(PLAIN, contrast=0.5, haze=(0.4, 0.4, 0.4)), grey(0.0))
    assert hazy[centre].mean() > 70


def test_blur_spreads_a_point_and_keeps_its_light():
    point = grey(0.0)
    point[:, 32, 32] = 1.0
    sharp = shoot(PLAIN, point.copy())
    soft = shoot(replace(PLAIN, blur=0.05), 20 * point)
    assert (sharp > 0).sum() == 3
    assert (soft[0] > 0).sum() > 20


def test_compression_leaves_artefacts():
    retina = np.random.default_rng(1).random((3, 64, 64), dtype=np.float32)
    assert np.abs(shoot(replace(PLAIN, quality=10), retina.copy()) - shoot(PLAIN, retina.copy())).mean() > 10
