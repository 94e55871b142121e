"""Analysis: what a model sees and remembers, as arrays first, then as figures, a report and a local page."""
