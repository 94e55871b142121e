"""From a specification such as `digits` or a folder's path to a `Source`."""

import os
from pathlib import Path

from sequencer2d.data.config import DataConfig
from sequencer2d.data.digits import DigitsSource
from sequencer2d.data.external import open_external
from sequencer2d.data.folders import FolderSource
from sequencer2d.data.images import UPRIGHT, Decoding
from sequencer2d.data.joined import JoinedSource
from sequencer2d.data.packed.source import PackedSource, Streaming
from sequencer2d.data.parts import hold_out
from sequencer2d.data.shards import TarSource
from sequencer2d.data.sources import Source, shorten
from sequencer2d.errors import DataError

NAMED_KINDS = ("wds", "hfds", "torch")
"""Kinds of sources that need a path or a name after a colon."""
PACKED = "packed"
"""The kind of sources that are given by their address."""


def open_source(
    spec: str,
    split: str = "train",
    *,
    root: str = "",
    download: bool = False,
    decoding: Decoding = UPRIGHT,
    streaming: Streaming | None = None,
) -> Source:
    """Open one split of a data set.

    Args:
        spec: one of

            * `folder`: `root/<split>/<class>/**/*`, with `root` given, or the path of such a folder;
            * `digits`: scikit-learn's 1,797 handwritten digits, 8×8 pixels, in splits train (80 %) and val = test
              (20 %);
            * `wds:PATH`: WebDataset shards, see `shards.TarSource`;
            * `hfds:NAME`: a data set of the Hugging Face hub or a folder in its layout, read by timm and `datasets`;
            * `torch:NAME`: a data set of torchvision (cifar10, mnist, …) under `root`, read by timm; flowers102 and
              stanford_cars are read from the files of their authors, see `fine_grained`;
            * `https://…`, `http://…`, `s3://…` or `file://…`: the address of what `sequencer2d pack` wrote.
        split: its name; for a folder, "" means that the classes stand in the folder itself. Splits joined by "+" are
            read as one: "train+val".
        root: the folder that `folder`, `wds:` and `torch:` look in.
        download: let `hfds:` and `torch:` fetch what is missing.
        decoding: how image files become pixels.
        streaming: how packed shards are fetched and kept.

    Raises:
        DataError: the source is unknown, missing or empty, or a class has no images.
    """
    if "+" in split:
        same = {"root": root, "download": download, "decoding": decoding, "streaming": streaming}
        return JoinedSource([open_source(spec, part, **same) for part in split.split("+")])  # type: ignore[arg-type]
    kind, name = split_spec(spec)
    if kind == "digits":
        return DigitsSource(split)
    if kind == PACKED:
        return PackedSource(name, split, decoding, streaming)
    if kind == "wds":
        return TarSource(str(Path(root, name)), split, decoding)
    if kind != "folder":
        return open_external(kind, name, split, root=root, download=download, decoding=decoding)
    if not name and not root:
        raise DataError("no folder of images given; set data.root to one laid out as root/<split>/<class>/<images>")
    check_spec(spec)
    return FolderSource(name or root, split, decoding)


def split_spec(spec: str) -> tuple[str, str]:
    """A specification as its kind and its name, path or address ("" where it has none).

    The kinds are folder, digits, wds, hfds, torch and packed.
    """
    if spec in ("folder", "digits"):
        return spec, ""
    if "://" in spec:
        return PACKED, spec
    kind, _, name = spec.partition(":")
    return (kind, name) if kind in NAMED_KINDS and name else ("folder", spec)


def check_spec(spec: str) -> None:
    """Raise `DataError` for what is neither a kind of source nor a folder that exists."""
    kind, name = split_spec(spec)
    if kind == "folder" and name and not Path(name).exists():
        raise DataError(
            f"unknown data source {spec!r}: neither a folder nor one of folder, digits, wds:<shards>.tar, hfds:<name>, "
            "torch:<name>, https://<address>, s3://<bucket>/<prefix>"
        )


def open_split(config: DataConfig, split: str) -> Source:
    """The split of a configuration's source, to train or evaluate on. Raises `DataError`, for a single class too.

    With `data.val_fraction` the two splits are parts of the training split.
    """
    is_part = config.val_fraction > 0 and split in (config.train_split, config.val_split)
    source = open_source(
        config.source,
        config.train_split if is_part else split,
        root=config.root,
        download=config.download,
        decoding=config.decoding,
        streaming=config.streaming,
    )
    check_several_classes(source)
    if not is_part:
        return source
    kept, held_out = hold_out(source, config.val_fraction, config.val_seed)
    return held_out if split == config.val_split else kept


def check_several_classes(source: Source) -> None:
    """Raise `DataError` for a single class, of which any model is right; usually the folders stand a level off."""
    if len(source.class_names) != 1:
        return
    (name,) = source.class_names
    message = f"there is a single class, {name!r}: any model would be right about every image"
    if isinstance(source, FolderSource):
        below = sorted({Path(path).parts[1] for path in source.paths() if path.count(os.sep) > 1})
        inside = source.folder / name
        message += (
            f". If the classes are the folders in {inside} ({shorten(below)}), move them one level up, or take "
            f"{inside} itself as the split's folder"
            if below
            else f"; expected several folders, {source.folder}/<class>/<images>"
        )
    raise DataError(message)
