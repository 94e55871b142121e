"""Which images a source holds, in few numbers: to notice when a run goes on with other data than it began with."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sequencer2d.data.sources import Source, shorten

_SAMPLED = 256
"""Images whose sizes are looked up; of all of them it would take minutes on a slow disk."""
_DIGEST_BYTES = 8


def fingerprint(source: Source) -> dict[str, Any]:
    """Plain values that are the same wherever the same data lie.

    Entries: `images` (how many), `classes` (for each class name the images it has and a digest of their names; the name
    is a path below the class folder, a key in a shard, or nothing where images have no names), `order` (a digest of the
    classes' order among the images) and `sizes` (a digest of the sizes of up to 256 of them, in bytes or pixels).

    Raises `DataError` for a source that cannot say which images it holds.
    """
    names, targets = source.identities()
    counts = np.bincount(targets, minlength=len(source.class_names))
    order = np.argsort(targets, kind="stable")
    ends = np.cumsum(counts)
    classes = {}
    for number, class_name in enumerate(source.class_names):
        members = order[ends[number] - counts[number] : ends[number]]
        classes[class_name] = [int(counts[number]), _digest(names[index] for index in members)]
    sampled = np.unique(np.linspace(0, len(source) - 1, min(_SAMPLED, len(source))).astype(int))
    return {
        "images": len(source),
        "classes": classes,
        "order": _digest([np.ascontiguousarray(targets, dtype="<i8").tobytes()]),
        "sizes": _digest(str(source.size_of(int(index))).encode() for index in sampled),
    }


def difference(stored: Any, now: dict[str, Any]) -> str | None:
    """What differs between two fingerprints, in words; None if they agree. `stored` may be anything a file holds."""
    if not isinstance(stored, dict) or not isinstance(stored.get("classes"), dict):
        return "the checkpoint's record of the data is damaged"
    classes = stored["classes"]
    if list(classes) != list(now["classes"]):
        return _other_names(list(map(str, classes)), list(now["classes"]))
    if stored.get("images") != now["images"]:
        changed = [f"{name} {_count(classes[name])} → {row[0]}" for name, row in now["classes"].items()
                   if _count(classes[name]) != row[0]]  # fmt: skip
        return f"{stored.get('images')} images then, {now['images']} now ({shorten(changed, 5)})"
    changed = [name for name, row in now["classes"].items() if classes[name] != row]
    if changed:
        return f"as many images, but others in {len(changed)} of {len(classes)} classes: {shorten(changed, 5)}"
    if stored.get("order") != now["order"]:
        return "the same images in another order"
    return None if stored.get("sizes") == now["sizes"] else "images of the same names with other contents"


def _other_names(then: Sequence[str], now: Sequence[str]) -> str:
    only_then, only_now = sorted(set(then) - set(now)), sorted(set(now) - set(then))
    sides = (("only then", only_then), ("only now", only_now))
    parts = [f"{when}: {shorten(names, 5)}" for when, names in sides if names]
    return f"{len(then)} classes then, {len(now)} now; " + ("; ".join(parts) or "the names agree, their order does not")


def _count(row: Any) -> Any:
    return row[0] if isinstance(row, (list, tuple)) and row else None


def _digest(parts: Any) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()
