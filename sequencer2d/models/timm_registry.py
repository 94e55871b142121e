"""Our models under timm's registry, for those who ask for it."""

from typing import Any

from sequencer2d.errors import ConfigError
from sequencer2d.models.factory import create_model
from sequencer2d.models.variants import VARIANTS

PREFIX = "s2d_"


def register_timm(prefix: str = PREFIX) -> list[str]:
    """Register every variant with timm, so that `timm.create_model("s2d_sequencer2d_s", ...)` creates ours.

    timm has models named sequencer2d_s, _m and _l of its own; the prefix keeps them as they are. Calling it again
    changes nothing.

    Returns:
        The registered names.

    Raises:
        ConfigError: a prefix that makes a name which timm already has, or one with a dot (timm's mark of a tag).
    """
    import timm.models

    names = {f"{prefix}{name}": name for name in VARIANTS}
    if "." in prefix:
        raise ConfigError(f"prefix={prefix!r}: timm takes what follows a dot as the name of weights; leave it out")
    for registered, name in names.items():
        if not timm.models.is_model(registered):
            timm.models.register_model(_entrypoint(registered, name))
        elif timm.models.model_entrypoint(registered).__module__ != __name__:
            raise ConfigError(f"prefix={prefix!r}: timm has a model {registered!r} already; choose another prefix")
    return list(names)


def _entrypoint(registered: str, name: str) -> Any:
    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        **options: Any,
    ) -> Any:
        # timm passes its own description of weights to every model; ours come from our table.
        return create_model(name, pretrained=pretrained, **options)

    create.__name__ = create.__qualname__ = registered
    create.__doc__ = f"{name} of the package sequencer2d."
    return create
