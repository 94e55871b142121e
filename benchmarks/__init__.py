"""Benchmarks: a script or a package for each question, and their results, the source of the tables in the docs."""
