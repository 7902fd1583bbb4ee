"""Which files of this machine this process has hashed and found right, so that none is hashed twice as it is.

A file is known by device, inode, size, mtime and ctime. Whoever writes to it, cuts it, replaces it or sets
its times back changes one of them, and it is hashed again. What this does not see is decay: bytes that the
disk itself spoils after they were hashed, with nobody writing; the next process sees that. On a network file
system a write from another machine is seen as late as that system's cache of times allows; the file is opened
for each look, upon which NFS asks its server.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cross_lora_core.turns import Turns

__all__ = ["VERIFIED", "FileIdentity", "VerifiedFiles"]

_MOST = 65_536
_SECOND = 1_000_000_000


class FileIdentity(NamedTuple):
    """What differs when a file's bytes may; times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, file: BinaryIO) -> FileIdentity:
        """Of an open file."""
        found = os.fstat(file.fileno())
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def is_settled(self, now: int) -> bool:
        """Whether a write from `now` on would get another ctime.

        Clocks of file systems tick: every few milliseconds, or each second on old ones, whose times have
        no fraction. Two writes within a tick look alike.
        """
        tick = _SECOND // 10 if self.ctime % _SECOND else 2 * _SECOND
        return now - max(self.ctime, self.mtime) > tick


class VerifiedFiles:
    """A bounded memory of files and their sha256; threads that ask for one file at once hash it once.

    Args:
        most: files remembered; the ones asked for longest ago are forgotten first.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: dict[FileIdentity, str] = {}
        self._turns = Turns()
        self.forget_lock()

    def forget_lock(self) -> None:
        """A new one: that of a forked process may be held by a thread that it does not have."""
        self._memory = threading.Lock()

    def sha256_of(self, path: Path, expected: str) -> tuple[str, int]:
        """Hex sha256 and size of a file, from memory where it was hashed before and was the expected one.

        A file that was written within the last moment, or is not as expected, is hashed each time.

        Raises:
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            identity = FileIdentity.of(file)
            if self._knows(identity, expected):
                return expected, identity.size
            with self._turns.of(identity):
                if self._knows(identity, expected):
                    return expected, identity.size
                settled = identity.is_settled(time.time_ns())
                found = hashlib.file_digest(file, "sha256").hexdigest()
                if settled and found == expected:
                    self._remember(identity, found)
                return found, file.tell()

    def _knows(self, identity: FileIdentity, expected: str) -> bool:
        with self._memory:
            found = self._known.pop(identity, None)
            if found is not None:
                self._known[identity] = found
            return found == expected

    def _remember(self, identity: FileIdentity, sha256: str) -> None:
        with self._memory:
            self._known[identity] = sha256
            while len(self._known) > self._most:
                del self._known[next(iter(self._known))]


VERIFIED = VerifiedFiles()
"""Of this process."""

os.register_at_fork(after_in_child=VERIFIED.forget_lock)
