"""The compiler's budget of activations: less memory for a compiled training step, for some computation in backward."""

import contextlib
from collections.abc import Iterator

import torch
from torch import fx
from torch._functorch import config as functorch_config
from torch.utils.checkpoint import CheckpointPolicy


@contextlib.contextmanager
def memory_budget(share: float) -> Iterator[None]:
    """What is compiled inside the block keeps this share of its activations for backward, 0 < share ≤ 1.

    Code compiled before is not used inside, nor that compiled inside after it: torch's cache does not tell them apart.
    """
    if share == 1:
        yield
        return
    from torch._inductor import config as inductor_config

    torch.compiler.reset()
    try:
        with (
            functorch_config.patch(activation_memory_budget=share),
            inductor_config.patch(joint_custom_post_pass=_random_numbers_kept()),
        ):
            yield
    finally:
        torch.compiler.reset()


def keep_random_numbers(graph: fx.Graph) -> None:
    """Mark what draws random numbers, or seeds of them, as never to be computed again.

    Below a budget that its allow-list can meet, the compiler would draw masks (stochastic depth) anew in backward: the
    gradients would be those of another network than the one that gave the loss.
    """
    for node in graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            node.meta["recompute"] = CheckpointPolicy.MUST_SAVE


def _random_numbers_kept() -> object:
    """`keep_random_numbers` as inductor takes it, with its part in the key of inductor's cache."""
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class Pass(CustomGraphPass):
        def __call__(self, graph: fx.Graph) -> None:
            keep_random_numbers(graph)

        def uuid(self) -> bytes:
            return get_hash_for_files((__file__,))

    return Pass()
