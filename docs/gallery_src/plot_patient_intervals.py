"""
Intervals count patients, not images
====================================

Two eyes of a patient, or ten lesions, are not independent samples. An interval that resamples images takes them for
independent and comes out too narrow. Here the truth is known, so we can count how often intervals contain it.
"""

# %%
# A study of 60 patients with 6 images each. A patient is easy or hard to diagnose: the classifier's share of correct
# images varies between patients around 0.75.

import matplotlib.pyplot as plt
import numpy as np

from medbolt.core.stats import accuracy, bootstrap_interval

PATIENTS, IMAGES, TRUTH = 60, 6, 0.75
patient = np.repeat(np.arange(PATIENTS), IMAGES)
target = np.ones(PATIENTS * IMAGES)


def study(seed: int) -> np.ndarray:
    """Return which images of a new set of patients are classified correctly."""
    rng = np.random.default_rng(seed)
    difficulty = np.repeat(rng.beta(3 * TRUTH, 3 * (1 - TRUTH), PATIENTS), IMAGES)
    return rng.random(len(patient)) < difficulty


# %%
# One study, both intervals.

correct = study(seed=0)
print("resampling images:  ", bootstrap_interval(accuracy, target, correct))
print("resampling patients:", bootstrap_interval(accuracy, target, correct, groups=patient))

# %%
# Two hundred studies. A 95 % interval should contain the truth in 95 of 100 studies.

studies = [study(seed) for seed in range(200)]
by_image = [bootstrap_interval(accuracy, target, s, replicates=500) for s in studies]
by_patient = [bootstrap_interval(accuracy, target, s, groups=patient, replicates=500) for s in studies]

figure, axes = plt.subplots(1, 2, figsize=(9, 5), sharex=True, sharey=True, layout="constrained")
for axis, intervals, unit in zip(axes, (by_image, by_patient), ("images", "patients"), strict=True):
    inside = np.array([interval.low <= TRUTH <= interval.high for interval in intervals])
    for row, (interval, hit) in enumerate(zip(intervals, inside, strict=True)):
        axis.plot([interval.low, interval.high], [row, row], color="tab:blue" if hit else "tab:red", linewidth=1)
    axis.axvline(TRUTH, color="black", linewidth=1)
    axis.set(title=f"resampling {unit}: {100 * inside.mean():.1f} % contain the truth", xlabel="accuracy")
axes[0].set_ylabel("study")
plt.show()

# %%
# Every interval in medbolt's reports resamples patients as soon as the data name them.
