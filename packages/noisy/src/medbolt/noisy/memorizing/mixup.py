"""MixUp, which long tails want as much: it lives in medbolt.core, and is exported here as a method for noisy labels."""

from medbolt.core import MixUp as MixUp
