import pytest
import torch
from sklearn.neighbors import NearestCentroid

from medbolt.core import UserError
from medbolt.longtail import NearestClassMeanHead


@pytest.fixture
def target():
    return torch.tensor([0, 0, 1, 3, 3, 3, 1])


def loop(features, target, query, space, similarity):
    """The definition, sample by sample; class 2 has none."""
    center = sum(features) / len(features)

    def place(x):
        x = x - center if space == "cl2n" else x
        return x if space == "un" else x / x.norm()

    scores = []
    for x in query:
        row = []
        for c in (0, 1, 3):
            mine = [place(f) for f, y in zip(features, target, strict=True) if y == c]
            mean = sum(mine) / len(mine)
            distance = (place(x) - mean).square().sum()
            row.append(-distance if similarity == "euclidean" else place(x) @ mean / place(x).norm() / mean.norm())
        scores.append(row)
    return torch.tensor(scores).double()


@pytest.mark.parametrize("space", ["un", "l2n", "cl2n"])
@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
def test_equals_the_definition(features, target, space, similarity):
    head = NearestClassMeanHead(6, 4, space, similarity).double()
    head.fit(features, target)
    query = features.flip(0) + 0.1
    scores = head(query)
    torch.testing.assert_close(
        scores[:, [0, 1, 3]], loop(features, target, query, space, similarity), atol=1e-6, rtol=0
    )
    assert (scores.argmax(1) != 2).all()
    assert scores.softmax(1).isfinite().all()


def test_agrees_with_scikit_learn(features, target):
    head = NearestClassMeanHead(6, 4, space="un")
    head.fit(features, target)
    query = torch.randn(50, 6)
    expected = NearestCentroid().fit(features.numpy(), target.numpy()).predict(query.numpy())
    assert head(query).argmax(1).tolist() == expected.tolist()


def test_how_many_samples_a_class_has_does_not_matter(features, target):
    once, often = NearestClassMeanHead(6, 4, "l2n"), NearestClassMeanHead(6, 4, "l2n")
    once.fit(features, target)
    many = target == 3
    often.fit(torch.cat([features, *[features[many]] * 9]), torch.cat([target, *[target[many]] * 9]))
    torch.testing.assert_close(once(features), often(features))


def test_the_means_are_in_its_state(features, target):
    head, copy = NearestClassMeanHead(6, 4), NearestClassMeanHead(6, 4)
    head.fit(features, target)
    copy.load_state_dict(head.state_dict())
    assert torch.equal(copy(features), head(features))
    assert not list(head.parameters())


def test_unfitted_it_says_so(features):
    with pytest.raises(UserError, match="knows no class means"):
        NearestClassMeanHead(6, 4)(features)


def test_half_precision_and_zeros(finite_in_half_precision):
    head = NearestClassMeanHead(6, 4)
    head.fit(torch.randn(8, 6), torch.arange(8) % 4)
    finite_in_half_precision(head)


def test_one_output_is_no_two_classes():
    with pytest.raises(UserError, match="NearestClassMeanHead compares classes, but the network has one output"):
        NearestClassMeanHead(6, 1).fit(torch.randn(8, 6), torch.arange(8) % 2)
