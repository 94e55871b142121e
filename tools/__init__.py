"""Scripts for those who develop the package: none of them is part of it. Each is run as `python -m tools.<name>`."""
