"""Whether a module is what its class says and nothing more, so that a replacement computes the same."""

from torch import nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

# Where `nn.Module` keeps what users registered to run around forward, backward, saving and loading. A handle removes
# its hook from these very tables.
HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def peculiarity(module: nn.Module, *, ignore_hooks: bool = False) -> str | None:
    """What makes a module more than an instance of its class, as the end of a sentence; None if nothing does.

    That is a hook (unless `ignore_hooks`), weights that are computed from others, pruned or quantized, or a forward set
    on the instance.
    """
    hooks = [] if ignore_hooks else own_hooks(module)
    if parametrize.is_parametrized(module):
        names = ", ".join(module.parametrizations)  # type: ignore[arg-type]
        return (
            f"has parametrized weights ({names}): torch.nn.utils.parametrize.remove_parametrizations makes them plain"
        )
    if hooks:
        return (
            f"has hooks ({', '.join(hooks)}), which would be lost: remove them, those of weight norms and pruning by "
            "their own remove functions, and register them again afterwards"
        )
    if "forward" in vars(module):
        return "has a forward of its own, set on the instance: delete it there"
    for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if is_traceable_wrapper_subclass(value):
            kind = type(value).__name__
            return f"holds {name} as a {kind} (quantized or sharded): take the model with plain weights"
    return None


def unusual_state(layer: nn.RNNBase) -> str | None:
    """What else a recurrent layer has that a replacement would lose, as the end of a sentence; None if nothing.

    That is a compilation in place, or parameters, buffers and modules other than those of its class.
    """
    if layer._compiled_call_impl is not None:
        return "was compiled in place: call its compile() afterwards"
    odd = {*layer._parameters} ^ {*layer._flat_weights_names} | {*layer._buffers} | {*layer._modules}
    return f"does not hold just the parameters of its class ({', '.join(sorted(odd))} differ)" if odd else None


def is_plain(module: nn.Module) -> bool:
    """Whether it and all modules in it are instances of their classes and nothing more."""
    return all(peculiarity(part) is None for part in module.modules())


def is_exactly(module: object, *names: str) -> bool:
    """Whether its class has one of the full names, inheriting ones excepted, and it is plain."""
    return isinstance(module, nn.Module) and full_name(type(module)) in names and is_plain(module)


def own_hooks(module: nn.Module, ignore_package: str | None = None) -> list[str]:
    """Names of the hooks around a module's forward, without those that `ignore_package` defines."""
    tables = (getattr(module, table, None) or {} for table in ("_forward_pre_hooks", "_forward_hooks"))
    hooks = [hook for table in tables for hook in table.values()]
    kept = (hook for hook in hooks if ignore_package is None or not type(hook).__module__.startswith(ignore_package))
    return [_name(hook) for hook in kept]


def share_hooks(module: nn.Module, replacement: nn.Module) -> nn.Module:
    """Give the replacement the hooks of a module, in the same tables: their handles still remove them."""
    # Without the flag PyTorch takes hooks of backward for those of the older kind, and calls none.
    for table in (*HOOKS, "_is_full_backward_hook"):
        if table in vars(module):
            setattr(replacement, table, vars(module)[table])
    return replacement


def _name(hook: object) -> str:
    return getattr(hook, "__qualname__", type(hook).__name__)
