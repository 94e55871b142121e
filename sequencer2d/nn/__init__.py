"""Modules: the recurrent token mixer, its block, the stem, and how they are initialized."""
