from medbolt.noisy.noise.pair_flip import PairFlipNoise


def test_labels_become_the_next_one_at_the_rate(targets):
    noisy = PairFlipNoise(0.3)(targets, 5)
    changed = noisy != targets
    assert (noisy[changed] == (targets[changed] + 1) % 5).all()
    assert abs(changed.double().mean() - 0.3) < 0.02
