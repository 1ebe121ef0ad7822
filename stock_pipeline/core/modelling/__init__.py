"""Modelling: labels, purged walk-forward splits, model families, training, evaluation and the promotion rule."""
