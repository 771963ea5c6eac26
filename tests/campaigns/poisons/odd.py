"""What is no file, or may not be read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from campaigns.poisons.building import Kind, jpeg
from hostile import SKIPPED, Maker

from mmsearch.records import Reason

KINDS: dict[str, Kind] = {}


def _odd(kind: str) -> Callable[[Callable[[Maker, bytes], str]], None]:
    """A kind that is more than bytes: a function that makes it at a path, and says its fate."""

    def register(function: Callable[[Maker, bytes], str]) -> None:
        def write(make: Maker, folder: str, number: int) -> None:
            name = f"{folder}/{kind}-{number}.jpg".encode()
            make.expected[name] = str(function(make, make.path(name)))

        KINDS[kind] = write

    return register


@_odd("fifo")
def _fifo(_: Maker, path: bytes) -> str:
    os.mkfifo(path)
    return SKIPPED


@_odd("socket")
def _socket(_: Maker, path: bytes) -> str:
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:  # a socket's path is 107 bytes at most; that of a folder may be longer
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path).decode()}")
    finally:
        os.close(folder)
    return SKIPPED


@_odd("device")
def _device(_: Maker, path: bytes) -> str:
    try:
        os.mknod(path, 0o020666, os.makedev(1, 5))  # zeros without end
    except PermissionError:  # for root alone
        os.symlink(b"/dev/zero", path)
    return SKIPPED


for _name, _target in {
    "link": b"../../secret.jpg", "dangling-link": b"nowhere.jpg", "link-to-zeros": b"/dev/zero",
    "link-to-root": b"/", "link-up": b"..", "link-here": b".",
}.items():  # fmt: skip

    @_odd(_name)
    def _link(_: Maker, path: bytes, target: bytes = _target) -> str:
        os.symlink(target, path)
        return SKIPPED


@_odd("link-to-itself")
def _loop(_: Maker, path: bytes) -> str:
    os.symlink(os.path.basename(path), path)
    return SKIPPED


@_odd("forbidden-file")
def _forbidden(make: Maker, path: bytes) -> str:
    with open(path, "wb") as file:
        file.write(jpeg(make))
    os.chmod(path, 0)
    return Reason.UNREADABLE


@_odd("forbidden-folder")
def _forbidden_folder(make: Maker, path: bytes) -> str:
    os.mkdir(path)
    with open(os.path.join(path, b"inside.jpg"), "wb") as file:
        file.write(jpeg(make))
    os.chmod(path, 0)
    return Reason.UNREADABLE
