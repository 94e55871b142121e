"""Where a checkpoint is: a file, a run folder, or a repository on the Hugging Face hub."""

import json
import os
from pathlib import Path
from typing import Any

from sequencer2d.errors import CheckpointError

HUB_PREFIXES = ("hf-hub:", "hf_hub:")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
RUN_FILES = (
    "best.safetensors",
    "checkpoints/best.safetensors",
    "checkpoints/best.pt",
    "checkpoints/last.pt",
    HUB_FILES[0],
)


def locate(source: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Find the file of a checkpoint, downloading it from the hub if it is there.

    Args:
        source: a file, a run folder (its best weights, else its last) or `hf-hub:owner/name`.

    Returns:
        The file, and what its surroundings say of the model: {"model": name} or {}.

    Raises:
        CheckpointError: nothing there, or the hub cannot be reached.
    """
    text = os.fspath(source)
    for prefix in HUB_PREFIXES:
        if text.startswith(prefix):
            return _from_hub(text.removeprefix(prefix))
    path = Path(text).expanduser()
    if path.is_dir():
        return _in_run_folder(path), {}
    if not path.is_file():
        raise CheckpointError(_missing(text))
    return path, {}


def _missing(text: str) -> str:
    hint = f"; for a repository on the Hugging Face hub write hf-hub:{text}" if _looks_like_hub_id(text) else ""
    return f"no checkpoint at {text!r}: expected a file, a run folder or hf-hub:owner/name{hint}"


def _looks_like_hub_id(text: str) -> bool:
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith((".pt", ".pth"))


def _in_run_folder(folder: Path) -> Path:
    for name in RUN_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} is a folder but no run folder: it holds none of {', '.join(RUN_FILES)}")


def _from_hub(repository: str) -> tuple[Path, dict[str, Any]]:
    for name in HUB_FILES:
        if path := _download(repository, name):
            return path, _hub_model(repository)
    raise CheckpointError(f"hf-hub:{repository} holds no weights: expected {' or '.join(HUB_FILES)} in it")


def _hub_model(repository: str) -> dict[str, Any]:
    config = _download(repository, "config.json")
    if config is None:
        return {}
    try:
        name = json.loads(config.read_text(encoding="utf-8")).get("architecture")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"hf-hub:{repository}: its config.json cannot be read ({error})") from error
    return {"model": name} if name else {}


def _download(repository: str, name: str) -> Path | None:
    """Return the local copy of a file of the repository, None if it has no such file."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(_unreachable(repository, error)) from error
    except errors.EntryNotFoundError:
        return None
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CheckpointError(f"no repository {repository!r} on the Hugging Face hub, or it is private") from error
    except Exception as error:
        # The hub's client lets through whatever its HTTP library raises, and that library differs between versions.
        raise CheckpointError(_unreachable(repository, error)) from error


def _unreachable(repository: str, error: Exception) -> str:
    first_line = (str(error).splitlines() or [""])[0]
    return (
        f"cannot fetch {repository!r} from the Hugging Face hub ({type(error).__name__}: {first_line}). "
        f"Without network: run `hf download {repository}` where there is one and copy its cache (HF_HOME) here, "
        "or copy the file model.safetensors here and give its path as checkpoint="
    )
