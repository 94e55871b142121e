"""Evaluation: a model and a data source → numbers."""
