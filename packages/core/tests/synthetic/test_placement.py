import numpy as np

from medbolt.core.synthetic.anatomy import DISC, FOVEA
from medbolt.core.synthetic.counter import Stream, generator
from medbolt.core.synthetic.grading import draw_counts
from medbolt.core.synthetic.placement import cells, place


def layouts(number, grade):
    counts = draw_counts(0, np.full(number, grade))
    return [(counts.take(i), place(counts.take(i), generator(0, Stream.LESIONS, i))) for i in range(number)]


def extents(blobs):
    return blobs.radii * (1 + np.abs(blobs.waves).sum(1))


def gaps(blobs):
    """Least distance between two blobs of a kind."""
    apart = np.hypot(*(blobs.centres[:, None] - blobs.centres).transpose(2, 0, 1))
    apart -= extents(blobs)[:, None] + extents(blobs)
    return apart[np.triu_indices(len(apart), 1)]


def test_cells_spare_disc_and_fovea_and_fill_every_quadrant():
    places, quadrants = cells()
    assert np.hypot(*(places - DISC).T).min() > 0.2
    assert np.hypot(*(places - FOVEA).T).min() > 0.1
    assert np.bincount(quadrants).min() >= 12
    np.testing.assert_array_equal(quadrants, (places[:, 0] < 0) + 2 * (places[:, 1] > 0))


def test_counts_are_exact_and_haemorrhages_lie_in_their_quadrants():
    for counts, layout in layouts(100, 3) + layouts(100, 4):
        blobs = (layout.microaneurysms, layout.haemorrhages, layout.hard_exudates, layout.soft_exudates)
        numbers = [len(each.centres) for each in blobs]
        numbers += [len(layout.neovascularisations), len(layout.preretinal_haemorrhages)]
        assert numbers == counts.totals()[0].tolist()
        x, y = layout.haemorrhages.centres.T
        np.testing.assert_array_equal(np.bincount((x < 0) + 2 * (y > 0), minlength=4), counts.haemorrhages[0])


def test_lesions_of_a_kind_never_touch():
    for _, layout in layouts(200, 3):
        for blobs in (layout.microaneurysms, layout.haemorrhages, layout.hard_exudates, layout.soft_exudates):
            assert gaps(blobs).min(initial=1) > 0


def test_microaneurysms_keep_off_haemorrhages():
    for _, layout in layouts(50, 3):
        apart = layout.microaneurysms.centres[:, None] - layout.haemorrhages.centres
        reach = extents(layout.microaneurysms)[:, None] + extents(layout.haemorrhages)
        assert (np.hypot(*apart.transpose(2, 0, 1)) > reach).all()
