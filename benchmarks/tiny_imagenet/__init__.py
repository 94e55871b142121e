"""Do the paper's comparisons hold at small scale? Trains plans of models on Tiny-ImageNet, each plan under one recipe.

    python -m benchmarks.tiny_imagenet ablations --data /data/tiny-imagenet
    python -m benchmarks.tiny_imagenet table1 --data /data/tiny-imagenet --gpus 2 --seeds 0 1 2 --time-limit 590

Every model and seed is a run of `tiny_imagenet_paper` in a process of its own. A run that was stopped goes on when the
command is repeated; finished runs are not repeated. Rows are added to `benchmarks/results/tiny-imagenet-PLAN.json` as
runs end, each with its own date, device and commit.

`python -m benchmarks.tiny_imagenet.moving` moves runs to another machine, `….resolution` measures finished runs at
other sizes, `….plots` draws accuracy against GPU time.
"""
