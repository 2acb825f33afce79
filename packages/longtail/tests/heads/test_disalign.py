import torch

from medbolt.longtail import DisAlignHead


def test_starts_by_stretching_each_sample_s_logits(features, linear):
    head = DisAlignHead.from_linear(linear)
    confidence = (0.1 * features.sum(1, keepdim=True)).sigmoid()
    torch.testing.assert_close(head(features), (1 + confidence) * linear(features))
    assert torch.equal(head(features).argmax(1), linear(features).argmax(1))


def test_equals_the_formula_entry_by_entry(features, linear):
    head = DisAlignHead.from_linear(linear)
    generator = torch.Generator().manual_seed(3)
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    v, b = head.confidence.weight[0], head.confidence.bias[0]
    for x, row in zip(features, head(features), strict=True):
        sigma = 1 / (1 + torch.exp(-(v @ x + b)))
        for c in range(4):
            z = linear.weight[c] @ x + linear.bias[c]
            torch.testing.assert_close(row[c], (1 + sigma * head.alpha[c]) * z + sigma * head.beta[c])


def test_confidence_and_two_numbers_a_class_are_trained_all_of_them(features, linear):
    head = DisAlignHead.from_linear(linear)
    head(features).square().sum().backward()
    trained = dict(head.named_parameters())
    assert set(trained) == {"alpha", "beta", "confidence.weight", "confidence.bias"}
    assert all((parameter.grad != 0).all() for parameter in trained.values())


def test_half_precision_and_zeros(finite_in_half_precision):
    finite_in_half_precision(DisAlignHead(6, 4))
