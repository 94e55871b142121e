"""Packed shards: tar files of images with an index and checksums, read from a folder, a web server or S3."""
