"""Mutation sampling: random one-point changes of the package, and the share of them that the tests notice.

    python -m tools.mutations map                      # once: which test runs which line; takes as long as the tests
    python -m tools.mutations run --seed 1 --count 20 --folder analysis --folder export

`map` runs the tests under coverage and writes `.mutations/map.json`; paths after it measure those tests anew. `run`
draws changes by the seed, makes each in a copy of the checkout, and runs the tests that reach the changed line, fastest
first, until one fails. It prints the share noticed by folder; `--output` writes every change with its outcome as JSON.
Changes that nothing can notice are listed in `equivalent.json`, each with its reason.

mutmut was tried first. It changes bodies of functions alone, so neither defaults of data classes nor tables of
constants; it does not drop conversions; and it runs every change of a file where a sample by seed is wanted.
"""
