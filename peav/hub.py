"""Where a model's files are: a folder, or a repository on the Hugging Face hub.

Nothing is fetched unless the user names a hub id, and only what loading reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .errors import UserError, shown

FILES = ("*.json", "*.safetensors", "*.pt", "*.bin", "*.txt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(model: str | Path, revision: str | None = None, allow: Sequence[str] = FILES) -> Path:
    """Folder with the files of ``model``, fetched to the hub's cache if it is no folder but a hub id.

    Args:
        model: a folder, or a hub id such as ``facebook/pe-av-small``. A folder of that name is preferred.
        revision: branch, tag or commit on the hub; the published ones have their other layout in
            ``perception_models``.
        allow: patterns of the files to fetch.

    Raises:
        UserError: there is no such folder, repository or revision, access is refused, or the network is absent.
    """
    folder = Path(model)
    if os.fspath(model) and folder.is_dir():
        if revision is not None:
            raise UserError(f"{shown(model)} is a folder, which has no revision {shown(revision)}; leave it out")
        return folder
    if isinstance(model, Path) or not _HUB_ID.fullmatch(os.fspath(model)):
        raise UserError(f"{shown(model)}: no such folder; give one, or a hub id such as facebook/pe-av-small")
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=list(allow)))
    except errors.GatedRepoError:
        raise UserError(
            f"{model}: its owners give access on request only; ask for it on its page, then run `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{model} has no revision {shown(revision or 'main')}; leave it out for the newest") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{model}: neither a folder here nor a public model on the hub; check the name") from None
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError, OSError) as error:
        why = shown((str(error).splitlines() or [type(error).__name__])[0], 90)
        raise UserError(
            f"{model}: cannot be fetched ({why}); connect to the network, or give a folder with its files"
        ) from None
