"""Weakly supervised semantic segmentation by pixel-level domain adaptation (PLDA)."""

__version__ = "0.1.0"
