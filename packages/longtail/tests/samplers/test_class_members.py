import torch

from medbolt.longtail.samplers.class_members import ClassMembers


def test_samples_of_a_class_are_drawn_alike(assert_frequencies, targets):
    members = ClassMembers(targets)
    drawn = members.draw(torch.tensor([0.0, 0.0, 0.0, 1.0]), 20000, torch.Generator().manual_seed(0))
    assert (targets[drawn] == 3).all()
    counts = torch.bincount(drawn)[targets.eq(3).nonzero().flatten()].double()
    assert_frequencies(counts, torch.ones(10).double())


def test_labels_have_their_samples_and_those_without_form_one_more_class(labels):
    members = ClassMembers(labels)
    assert members.sizes.tolist() == [3000, 1000, 300, 0, 1000]
    generator = torch.Generator().manual_seed(0)
    for c, expected in enumerate([range(3000), range(3000, 4000), range(300), None, range(4000, 5000)]):
        if expected is not None:
            drawn = members.draw(torch.eye(5)[c], 500, generator)
            assert set(drawn.tolist()) <= set(expected)
