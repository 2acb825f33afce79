import numpy as np
import pytest

from medbolt.core.synthetic.cameras import CAMERAS
from medbolt.core.synthetic.grading import LESIONS, draw_counts
from medbolt.core.synthetic.retina import POPULATIONS, paint
from medbolt.core.synthetic.scene import draw_scene

SIZE = 128


def draw(grade):
    counts = draw_counts(0, np.full(30, grade))
    return [draw_scene(0, i, counts.take(i), CAMERAS[0], SIZE) for i in range(30)]


@pytest.fixture(scope="module")
def scenes():
    return draw(4)


def colours(scenes, where):
    """Mean colour over all pixels chosen in all scenes."""
    return np.concatenate([paint(scene, 1)[:, where(scene)] for scene in scenes], axis=1).mean(1)


def off_disc(scene):
    y, x = np.mgrid[:SIZE, :SIZE]
    disc = scene.view.pixels(scene.anatomy.disc)
    return np.hypot(x - disc[0], y - disc[1]) > 0.3 * scene.view.scale


def bare(scene):
    return off_disc(scene) & (scene.vessels == 0) & (scene.lesions.max(0) == 0)


def test_retina_is_orange_red(scenes):
    red, green, blue = colours(scenes, bare)
    assert red > 1.5 * green > 1.5 * 1.5 * blue


@pytest.mark.parametrize("name", ["microaneurysm", "haemorrhage", "preretinal haemorrhage", "neovascularisation"])
def test_blood_is_darker_and_redder_than_the_retina(scenes, name):
    least = 0.5 if name == "neovascularisation" else 0.9
    red, green, _ = colours(scenes, lambda scene: off_disc(scene) & (scene.lesions[LESIONS.index(name)] > least))
    background = colours(scenes, bare)
    assert red < 0.9 * background[0]
    assert green < 0.7 * background[1]
    assert red / green > background[0] / background[1]


def test_exudates_are_bright_the_hard_ones_yellower(scenes):
    background = colours(scenes, bare)
    hard, soft = (colours(scenes, lambda scene, k=k: scene.lesions[k] > 0.9) for k in (2, 3))
    assert hard[1] > 1.5 * background[1]
    assert soft[1] > 1.5 * background[1]
    assert hard[2] / hard[1] < soft[2] / soft[1]


def test_vessels_are_darker_veins_more_so(scenes):
    background = colours(scenes, bare)
    artery = colours(scenes, lambda scene: (abs(scene.vessels - 0.55) < 0.04) & (scene.lesions.max(0) == 0))
    vein = colours(scenes, lambda scene: (scene.vessels > 0.9) & (scene.lesions.max(0) == 0))
    assert vein[1] < artery[1] < background[1]


def test_disc_is_bright_cup_brightest_macula_darkest():
    for scene in draw(0):
        image = paint(scene, 0)
        grid, anatomy = scene.grid, scene.anatomy
        disc, cup = grid.radii(anatomy.disc_outline[None], anatomy.cup_outline[None])
        clear = scene.vessels[grid.window] == 0
        patch = image[:, *grid.window]
        inside = patch[1, clear & (grid.distance < 0.7 * cup[0])]
        rim = patch[1, clear & (grid.distance < 0.9 * disc[0]) & (grid.distance > 1.1 * cup[0])]
        x, y = scene.view.pixels(anatomy.fovea).astype(int)
        assert inside.mean() > rim.mean() > image[1, bare(scene)].mean() > image[1, y, x]


def test_populations_differ_in_brightness(scenes):
    brightness = [paint(scenes[0], number).mean() for number in range(len(POPULATIONS))]
    assert brightness == sorted(brightness, reverse=True)
    assert brightness[0] > 1.3 * brightness[2]
