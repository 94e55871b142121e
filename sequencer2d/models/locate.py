"""Where a checkpoint is: a file, a run folder, or a repository on the Hugging Face hub."""

import os
import socket
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sequencer2d.errors import CheckpointError, first_line
from sequencer2d.models.hub_config import CONFIG, read_hub_config
from sequencer2d.models.shipped import SHIPPED, shipped_file
from sequencer2d.models.variants import VARIANTS

HUB_PREFIXES = ("hf-hub:", "hf_hub:")
HUB_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""Names of the weights in a repository on the hub and in folders like one; the first that is there counts."""
RUN_FILES = (
    "best.safetensors",
    "checkpoints/best.safetensors",
    "checkpoints/best.pt",
    "checkpoints/last.pt",
)


def locate(source: str | os.PathLike[str], **options: Any) -> tuple[Path, dict[str, Any]]:
    """Find the file of a checkpoint, downloading it from the hub if it is there.

    Args:
        source: a file, a run folder (its best weights, otherwise its last), a folder as the hub holds them, the name of
            a variant whose weights come with the package, or `hf-hub:owner/name`, with `@revision` behind it for
            another than the newest.
        **options: for `huggingface_hub.hf_hub_download`: revision, token, cache_dir, local_files_only.

    Returns:
        The file, and what `config.json` beside it says of the model ({} without one).

    Raises:
        CheckpointError: nothing there, or the hub cannot be reached.
    """
    text = os.fspath(source)
    for prefix in HUB_PREFIXES:
        if text.startswith(prefix):
            return _from_hub(text.removeprefix(prefix), options)
    if not text.strip():
        raise CheckpointError("the checkpoint's path is empty: expected a file, a run folder or hf-hub:owner/name")
    path = Path(text).expanduser()
    if path.is_dir():
        path = _in_folder(path)
    elif not path.exists() and text in SHIPPED:
        return shipped_file(text), {}
    elif not path.is_file():
        raise CheckpointError(_missing(text))
    return path, read_hub_config(path.with_name(CONFIG)) if path.name in HUB_FILES else {}


def is_checkpoint_folder(folder: Path) -> bool:
    """Whether a folder holds weights where runs or the hub put them."""
    return any((folder / name).is_file() for name in (*RUN_FILES, *HUB_FILES))


def _missing(text: str) -> str:
    hint = f"; for a repository on the Hugging Face hub write hf-hub:{text}" if _looks_like_hub_id(text) else ""
    if text in VARIANTS:
        known = f"those of {', '.join(SHIPPED)} do" if SHIPPED else "none do in this version"
        hint = f"; {text} is a model whose weights do not come with the package ({known})"
    return f"no checkpoint at {text!r}: expected a file, a run folder or hf-hub:owner/name{hint}"


def _looks_like_hub_id(text: str) -> bool:
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith((".pt", ".pth"))


def _in_folder(folder: Path) -> Path:
    for name in (*RUN_FILES, *HUB_FILES):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} is no run folder, and no folder as the Hugging Face hub holds them: it holds none of "
        f"{', '.join((*RUN_FILES, *HUB_FILES))}"
    )


def _from_hub(repository: str, options: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    repository, _, revision = repository.partition("@")
    if revision:
        options = options | {"revision": revision}
    for name in HUB_FILES:
        if path := _download(repository, name, options):
            config = _download(repository, CONFIG, options)
            return path, read_hub_config(config) if config else {}
    raise CheckpointError(f"hf-hub:{repository} holds no weights: expected {' or '.join(HUB_FILES)} in it")


def _download(repository: str, name: str, options: dict[str, Any]) -> Path | None:
    """Return the local copy of a file of the repository, None if it has no such file."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    if not (constants.HF_HUB_OFFLINE or _is_reachable(constants.ENDPOINT)):
        options = options | {"local_files_only": True}
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, **options))
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(_unreachable(repository, error)) from error
    except errors.EntryNotFoundError:
        return None
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CheckpointError(f"no repository {repository!r} on the Hugging Face hub, or it is private") from error
    except Exception as error:
        # The hub's client lets through whatever its HTTP library raises, and that library differs between versions.
        raise CheckpointError(_unreachable(repository, error)) from error


def _is_reachable(endpoint: str) -> bool:
    """Whether the name of the hub's host resolves, or a proxy resolves it.

    Without network the hub's client retries for half a minute and prints each attempt. This check fails at once.
    """
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(endpoint).hostname, None)
    except OSError:
        return False
    return True


def _unreachable(repository: str, error: Exception) -> str:
    return (
        f"cannot fetch {repository!r} from the Hugging Face hub ({type(error).__name__}: {first_line(error)}). "
        f"Without network: run `hf download {repository}` where there is one and copy its cache (HF_HOME) here, "
        "or copy the file model.safetensors here and give its path as checkpoint="
    )
