"""The Hugging Face hub: `save_pretrained`, `from_pretrained` and `push_to_hub`, as its users know them.

A saved folder holds `model.safetensors` (a checkpoint of ours), `config.json` (timm's, so that timm's
`create_model("hf-hub:…")` and transformers read it too, see `models.hub_config`) and the model card `README.md`.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d.errors import CheckpointError, first_line
from sequencer2d.files import atomic_write, read_json, write_json
from sequencer2d.models.checkpoints import read_checkpoint, write_checkpoint
from sequencer2d.models.describing import check_names, describe_model
from sequencer2d.models.hub_config import CONFIG, to_hub_config
from sequencer2d.models.loading import restore
from sequencer2d.models.locate import HUB_PREFIXES
from sequencer2d.models.model_card import model_card

if TYPE_CHECKING:
    from sequencer2d.models.sequencer2d import Sequencer2D

WEIGHTS = "model.safetensors"


class HubMixin:
    """The hub's three methods, for `Sequencer2D`."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        run: str | os.PathLike[str] | None = None,
        repo_id: str | None = None,
    ) -> Path:
        """Write weights, configuration and model card into a folder, which `from_pretrained` loads offline.

        Args:
            save_directory: made if it does not exist.
            run: folder of the run that trained the model; the card states the results of its `summary.json`.
            repo_id: "owner/name", for the card's examples.

        Raises:
            CheckpointError: a run without a summary, or a folder that cannot be written.
            ConfigError: a model without a variant's name.
        """
        return save_pretrained(self, save_directory, run=run, repo_id=repo_id)  # type: ignore[arg-type]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> "Sequencer2D":
        """Load a model from a folder (what `save_pretrained` or timm wrote) or the hub ("owner/name"), in eval mode.

        Args:
            pretrained_model_name_or_path: a folder, which needs no network, or a repository.
            revision: branch, tag or commit of the repository; by default its main branch.
            token: of the hub; none: the one that is logged in, if any.
            cache_dir: where the hub's client keeps files; none: its own folder.
            local_files_only: read the cache and do not ask the hub.
            **overrides: fields of `ModelConfig` to change, such as `num_classes`.

        Raises:
            CheckpointError: nothing there, not to be reached, or not a model of ours.
        """
        options = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        given = {key: value for key, value in options.items() if value not in (None, False)}
        source = os.fspath(pretrained_model_name_or_path)
        is_complete = source.startswith(HUB_PREFIXES) or Path(source).expanduser().exists()
        source = source if is_complete else f"{HUB_PREFIXES[0]}{source}"
        checkpoint = read_checkpoint(source, hub_options=given)
        return restore(cls, checkpoint, **overrides)  # type: ignore[type-var, return-value]

    def push_to_hub(
        self,
        repo_id: str,
        *,
        run: str | os.PathLike[str] | None = None,
        commit_message: str = "Upload a Sequencer",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes; returns the commit's address.

        Args:
            repo_id: "owner/name"; made if it does not exist.
            run: as for `save_pretrained`.
            commit_message: of the upload's commit.
            private: whether a new repository is private; none: the owner's default.
            token: of the hub; none: the one that is logged in.
            branch: to commit to; none: the main branch.
            create_pr: whether to open a pull request with the files instead.

        Raises:
            CheckpointError: the hub cannot be reached or does not let you in.
        """
        import huggingface_hub

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, run=run, repo_id=repo_id)
            try:
                huggingface_hub.create_repo(repo_id, token=token, private=private, exist_ok=True)
                commit = huggingface_hub.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    commit_message=commit_message,
                    token=token,
                    revision=branch,
                    create_pr=create_pr,
                )
            except Exception as error:
                # The client lets through whatever its HTTP library raises, and that library differs between versions.
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise CheckpointError(
                    f"cannot upload to {repo_id!r} on the Hugging Face hub ({reason}). Log in with `hf auth login`, "
                    "and give the repository as owner/name"
                ) from error
        return str(commit.commit_url)


def save_pretrained(
    model: "Sequencer2D",
    folder: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
) -> Path:
    """What `HubMixin.save_pretrained` does."""
    summary = _summary(Path(run)) if run is not None else None
    description = describe_model(model)
    folder = Path(folder)
    check_names(model, type(model), folder / WEIGHTS)
    write_checkpoint(model.state_dict(), description, folder / WEIGHTS)
    write_json(folder / CONFIG, to_hub_config(model))
    with atomic_write(folder / "README.md", "w") as file:
        file.write(model_card(description, summary, repo_id))
    return folder


def _summary(run: Path) -> dict[str, Any]:
    path = run / "summary.json"
    if not path.is_file():
        raise CheckpointError(f"{run} holds no summary.json: expected the folder of a run that has ended")
    try:
        summary = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(summary, dict):
        raise CheckpointError(f"{path} is no summary of a run: expected an object")
    return summary
