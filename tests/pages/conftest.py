"""Synthetic studies for the tests of this package."""

from made_studies import arms, samples, study

__all__ = ["arms", "samples", "study"]
