"""Codecs and files that misbehave, in decoder processes.

Python imports this module when it starts with its folder in PYTHONPATH. A picture that ends in
`evil:` and a name below is decoded by that evil; a file whose own name begins with `evil-` is
changed as it is opened. Each picture that is met so is noted, by a byte of the file $EVIL_LOG.
"""

import os
import signal
import sys
import time
from contextlib import contextmanager, suppress


def swell():
    hoard = []
    while True:
        hoard.append(bytes(1 << 26))


def spin():
    while True:
        pass


def babble():
    os.write(1, b"\xff" * 64)  # what a codec prints
    print("libfoo: warning", flush=True)


def lie():
    for answers in range(3, 20):  # a frame of four gigabytes, to whoever reads
        with suppress(OSError):
            os.write(answers, b"\xff" * 8 + b"{" * 65536)
    time.sleep(3600)


def orphan():
    """Take the process with it that forks decoders, and no other."""
    with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
        if b"mmsearch.decoding.server" in file.read():
            os.kill(os.getppid(), signal.SIGKILL)
    os._exit(9)


def recurse():
    recurse()


EVILS = {
    b"segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    b"abort": os.abort,
    b"exit-0": lambda: os._exit(0),
    b"sys-exit": lambda: sys.exit(7),
    b"close-all": lambda: os.closerange(0, 64),
    b"spin": spin,
    b"sleep": lambda: time.sleep(3600),
    b"deaf": lambda: [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)] and spin(),
    b"swell": swell,
    b"recurse": recurse,
    b"babble": babble,
    b"lie": lie,
    b"orphan": orphan,
}


def grow(path):
    with open(path, "ab") as file:
        file.write(b"more")


def grow_once(path):
    if os.path.getsize(path) % 2 == 0:  # so it is written
        with open(path, "ab") as file:
            file.write(b"!")


def link(path):
    os.unlink(path)
    os.symlink(b"/dev/zero", path)


MEANWHILE = {  # by the first words of a file's name: before it is opened, or while it is read
    b"evil-vanishes": (os.unlink, None),
    b"evil-is-a-link": (link, None),
    b"evil-grows": (None, grow),
    b"evil-once": (None, grow_once),
}


def install():
    """Put the evils in the place of what a decoder process reads with."""
    from mmsearch import files, loaders

    honest, opened = loaders.load_image, files.opened

    def load_image(data, *args, **kwargs):
        if evil := EVILS.get(bytes(data[-32:]).rpartition(b"evil:")[2]):
            if log := os.environ.get("EVIL_LOG"):
                with open(log, "ab", 0) as file:
                    file.write(b"x")
            evil()
        return honest(data, *args, **kwargs)

    @contextmanager
    def opened_meanwhile(path):
        name = b"-".join(os.path.basename(path).split(b"-")[:-1])
        before, during = MEANWHILE.get(name, (None, None))
        if before:
            before(path)
        with opened(path) as (file, status):
            if during:
                during(path)
            yield file, status

    loaders.load_image, files.opened = load_image, opened_meanwhile


if any("mmsearch.decoding." in argument for argument in sys.orig_argv):
    install()
