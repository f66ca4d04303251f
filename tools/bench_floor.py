"""How much is new in a version at all: what no engine that keeps whole rows or pages can go below.

Rows of a dump, or pages of a data directory, that stood in no earlier version are packed by zstd -3; their
order, and where they stand, cost nothing here. So this is a floor to be measured against, not one to reach.
"""

import os
import shutil
import subprocess

import bench_measure

PAGE = 8192
LONG_LINE = 1 << 16


def rows(path):
    """Lines of a dump; of the long ones that hold many rows each, the rows."""
    with open(path, "rb", buffering=1 << 20) as file:
        for line in file:
            if len(line) < LONG_LINE:
                yield line
            else:
                yield from line.split(b"),(")


def pages(path):
    """Pages of all files of a data directory."""
    for file in sorted(bench_measure.files_below(path)):
        if os.path.isfile(file) and not os.path.islink(file):
            with open(file, "rb") as handle:
                while page := handle.read(PAGE):
                    yield page


def truly_new(inputs, scratch):
    """For each version in turn, the bytes that its new rows or pages take; nothing without zstd."""
    zstd = shutil.which("zstd")
    if not zstd:
        return
    # 64 bits for each piece: with a hundred million of them, a false repetition is still unlikely.
    seen = set()
    for path in inputs:
        packed = os.path.join(scratch, "new.zst")
        with (
            open(packed, "wb") as file,
            subprocess.Popen([zstd, "-q", "-3", "-c"], stdin=subprocess.PIPE, stdout=file) as packer,
        ):
            for piece in pages(path) if os.path.isdir(path) else rows(path):
                key = hash(piece)
                if key not in seen:
                    seen.add(key)
                    packer.stdin.write(piece)
            packer.stdin.close()
        yield os.path.splitext(os.path.basename(path))[0], os.path.getsize(packed)
        os.unlink(packed)
