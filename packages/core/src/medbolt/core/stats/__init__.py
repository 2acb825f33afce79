"""Statistics of prediction tables: plain functions on arrays, every number of every report comes from here.

The unit of resampling is the patient (``groups``) wherever there are patients.
"""

from medbolt.core.stats.accuracy import accuracy, balanced_accuracy, confusion_matrix, precision, recall
from medbolt.core.stats.auroc import auroc, class_auroc, macro_auroc
from medbolt.core.stats.bootstrap import bootstrap_difference, bootstrap_interval
from medbolt.core.stats.calibration import Reliability, brier_score, calibration_error, reliability
from medbolt.core.stats.delong import DelongTest, delong_covariance, delong_interval, delong_test
from medbolt.core.stats.friedman import FriedmanTest, NemenyiTest, friedman, nemenyi
from medbolt.core.stats.holm import holm
from medbolt.core.stats.interval import Difference, Interval
from medbolt.core.stats.kappa import quadratic_kappa
from medbolt.core.stats.resample import Statistic, from_samples
from medbolt.core.stats.seeds import seed_interval, seeds_bootstrap, seeds_difference
from medbolt.core.stats.wilcoxon import WilcoxonTest, wilcoxon

__all__ = [
    "DelongTest",
    "Difference",
    "FriedmanTest",
    "Interval",
    "NemenyiTest",
    "Reliability",
    "Statistic",
    "WilcoxonTest",
    "accuracy",
    "auroc",
    "balanced_accuracy",
    "bootstrap_difference",
    "bootstrap_interval",
    "brier_score",
    "calibration_error",
    "class_auroc",
    "confusion_matrix",
    "delong_covariance",
    "delong_interval",
    "delong_test",
    "friedman",
    "from_samples",
    "holm",
    "macro_auroc",
    "nemenyi",
    "precision",
    "quadratic_kappa",
    "recall",
    "reliability",
    "seed_interval",
    "seeds_bootstrap",
    "seeds_difference",
    "wilcoxon",
]
