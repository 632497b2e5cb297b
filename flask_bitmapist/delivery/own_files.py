"""Files that this process may write: never a link, never another user's file.

Other users may be able to write to the folder. If they plant a link there, a process running as
root would overwrite the link's target or give it away.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def ensure_own(file: Path) -> None:
    """Create `file`, and its folder, if it is missing.

    A file that root creates is given to the folder's owner, so that root's shell and the
    application's workers share it.

    :raises PermissionError: if it is a link, not a file, or another user's.
    """
    status = _status(file)
    if status is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _create(file)
        status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError(f"{file.name} is a link, or no file: remove it, or name the file")
    if hasattr(os, "geteuid") and status.st_uid not in _owners(file.parent):
        raise PermissionError(f"{file.name} belongs to the user {status.st_uid}, who is another")


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.lstat()
    except FileNotFoundError:
        return None


def _create(file: Path) -> None:
    try:
        # With O_EXCL a link is not followed either, wherever it leads.
        created = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:  # another process was faster
        return
    try:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            folder = file.parent.stat()
            os.fchown(created, folder.st_uid, folder.st_gid)
    finally:
        os.close(created)


def _owners(folder: Path) -> set[int]:
    """Whose files this process may write in `folder`: its own; root also those of its owner."""
    own = os.geteuid()
    return {own} if own else {own, folder.stat().st_uid}
