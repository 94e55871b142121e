"""What is measured: our models under one of their implementations, timm's Sequencer, and other models (the peers).

A contender is written as NAME, NAME@IMPLEMENTATION, timm:NAME or timm:NAME@fuse:

    sequencer2d_s              ours, with implementation "auto"
    sequencer2d_s@cudnn        ours, with a named implementation of the recurrence
    sequencer2d_s@recompute    ours, "auto", the gates computed again in backward (gates="recomputed")
    timm:sequencer2d_s         timm's own module
    timm:sequencer2d_s@fuse    timm's module after `sequencer2d.fuse`
    convnext_tiny              a peer: any model name of timm's, or of the table in `sequencer2d.peers`
"""

import dataclasses
from typing import Any

import torch
from torch import nn

from sequencer2d.benchmark.published import TABLE
from sequencer2d.errors import ConfigError, did_you_mean
from sequencer2d.models import create_model, list_models
from sequencer2d.models.fusing_mixers import fuse_mixers
from sequencer2d.models.peers import create_peer
from sequencer2d.models.specs import PREFIX
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops import IMPLEMENTATIONS, choose_implementation
from sequencer2d.peers import PEERS as PEER_TABLE

SEED = 0
HEAD_STD = 0.02
FUSE = "fuse"
RECOMPUTE = "recompute"
TIMM = "timm"
PLAIN = "plain"

PEERS = tuple(row.model for row in TABLE if not row.fine_tuned and row.family != "Seq.")
"""The peers of the paper's Table 1, at 224²."""

FINE_TUNED_PEERS = tuple(row.model for row in TABLE if row.fine_tuned and row.family != "Seq.")
"""Those of its lower part, at 384²."""

SHORT = {name.split("_patch")[0].removesuffix("_224"): name for name in PEERS}
"""Short names that may be given for them: swin_tiny, deit_small, mixer_b16."""

# Families as the paper's Table 1 calls them (LMLP mixes locally, GMLP globally), by prefix of the name.
FAMILIES = {
    "sequencer": "Seq.",
    "vsequencer": "Seq.",
    "convnext": "CNN",
    "regnet": "CNN",
    "resnet": "CNN",
    "efficientnet": "CNN",
    "swin": "Trans.",
    "deit": "Trans.",
    "vit": "Trans.",
    "poolformer": "LMLP",
    "mixer": "GMLP",
    "gmlp": "GMLP",
    "resmlp": "GMLP",
    "t2t": "Trans.",
    "pvt": "Trans.",
    "vip": "GMLP",
    "cyclemlp": "LMLP",
    "gfnet": "FFT",
}


@dataclasses.dataclass(frozen=True)
class Contender:
    """One model as it is measured.

    Attributes:
        model: its name in our table or in timm's.
        library: "sequencer2d", "timm", or "peers" for the table of `sequencer2d.peers`.
        implementation: of our recurrence, or "recompute"; for timm's models "timm", or "fuse" after `sequencer2d.fuse`;
            for the table's "plain".
    """

    model: str
    library: str
    implementation: str

    @property
    def family(self) -> str:
        """The kind of token mixing, in the words of the paper's Table 1; "other" where we have none."""
        return next((family for prefix, family in FAMILIES.items() if self.model.startswith(prefix)), "other")

    @property
    def runs_our_code(self) -> bool:
        """Whether its speed depends on this package's kernels, and its correctness has to be checked."""
        return self.library == "sequencer2d" or self.implementation == FUSE

    @property
    def is_sequencer(self) -> bool:
        return self.family == "Seq."

    def __str__(self) -> str:
        if self.library == "sequencer2d":
            return f"{self.model}@{self.implementation}"
        prefix = PREFIX if self.model in list_models() else ""
        return f"{prefix}{self.model}" + (f"@{FUSE}" if self.implementation == FUSE else "")


def parse_contender(text: str) -> Contender:
    """The contender that `text` names (see the top of this file).

    Raises:
        ConfigError: a model or an implementation that does not exist.
    """
    name, _, implementation = text.partition("@")
    if name.startswith(PREFIX):
        return _timm_contender(name.removeprefix(PREFIX), implementation)
    if name in list_models():
        implementation = implementation or "auto"
        known = (*IMPLEMENTATIONS, RECOMPUTE)
        if implementation not in known:
            raise ConfigError(f"{text!r}: no implementation {implementation!r}; there are {', '.join(known)}")
        return Contender(name, "sequencer2d", implementation)
    if name in PEER_TABLE:
        if implementation not in ("", PLAIN):
            raise ConfigError(f"{text!r}: {name} has no recurrence to choose an implementation of; write {name}")
        return Contender(name, "peers", PLAIN)
    return _timm_contender(name, implementation)


def build(contender: Contender, size: int) -> nn.Module:
    """The model with random weights, in fp32 on the CPU, without stochastic depth, for images of size² pixels.

    Weights follow from a fixed seed, so that equal architectures get equal weights. Sequencer's head, which starts at
    zero, is drawn at random: otherwise every implementation would give the same logits.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        if contender.library == "sequencer2d":
            recompute = contender.implementation == RECOMPUTE
            model: Any = create_model(contender.model, gates="recomputed" if recompute else "stored")
            model.set_implementation("auto" if recompute else contender.implementation)
        else:
            name = contender.model if contender.library == "peers" else PREFIX + contender.model
            model = create_peer(name, img_size=size, drop_path_rate=0.0)
        if contender.is_sequencer:
            nn.init.normal_(model.get_submodule("head.fc").weight, std=HEAD_STD)
        if contender.implementation == FUSE:
            fuse_mixers(model)
    return model


def resolved(model: nn.Module, device: torch.device, dtype: torch.dtype) -> str:
    """What a model's recurrences run as, "auto" resolved: "" for a model without ours, "a+b" where blocks differ."""
    found: set[str] = set()
    for module in model.modules():
        if isinstance(module, RNN2D):
            x = torch.empty(1, 1, 1, module.dim, device=device, dtype=dtype)
            name = module.implementation
            found.add(
                choose_implementation(x, module.hidden_dim, scans=module.scans, cell=module.cell, implementation=name)
            )
    return "+".join(sorted(found))


def _timm_contender(name: str, implementation: str) -> Contender:
    import timm

    name = SHORT.get(name, name)
    if not timm.is_model(name):
        known = dict.fromkeys([*list_models(), *PEER_TABLE, *SHORT, *timm.list_models()])
        hint = did_you_mean(name, known, otherwise="see `sequencer2d models` and timm.list_models()")
        raise ConfigError(f"no model {name!r}, neither ours nor timm's; {hint}")
    if implementation not in ("", TIMM, FUSE):
        raise ConfigError(f"timm:{name}@{implementation}: timm's models run as they are, or as timm:{name}@{FUSE}")
    if implementation == FUSE and not name.startswith("sequencer"):
        raise ConfigError(f"{name}@{FUSE}: only timm's Sequencer models have recurrences to replace")
    return Contender(name, TIMM, implementation or TIMM)
