"""Data: a source by name or path → batches of images and targets, in an order that can be continued anywhere."""
