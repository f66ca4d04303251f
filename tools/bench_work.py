"""The work: what one engine does with one kind of input, from a new repository to its end.

Every kind of work is a life: a repository is made, versions come in, they are listed, given back, checked,
forgotten. Each command becomes one row. What comes back is compared with what went in, byte by byte; a
command that fails, or gives back anything else, makes a row that says so, and never counts as a time.
"""

import contextlib
import os
import shutil
import time

import bench_engines
import bench_measure
from bench_engines import UNCHANGED

KEPT = 2
LISTED = 3
# Engines do not rely on the times of files that changed a moment ago; nobody backs those up in life.
YOUNG_SECONDS = 2.5


class Failed(Exception):
    """An engine did not do its work; the rest of this life would mean nothing."""


class Life:
    """One engine, one kind of work, one round; rows go to `record`."""

    def __init__(self, engine_class, program, scratch, kind, number, record, place="engine"):
        self.kind, self.number, self.record = kind, number, record
        self.home = os.path.join(scratch, place)
        shutil.rmtree(self.home, ignore_errors=True)
        os.makedirs(self.home)
        self.engine = engine_class(program, self.home)

    def do(self, work, argv, *, folder=None, source=None, expected=None, size=None, judge=None):
        """Runs one piece of work, unless the engine has no such thing; judge says whether a restore is right."""
        if argv is None:
            return
        before = bench_measure.bytes_below(self.engine.repository)
        row = {
            "row": "measured",
            "kind": self.kind,
            "work": work,
            "engine": self.engine.name,
            "round": self.number,
            "input": size,
        }
        row |= bench_measure.run(
            argv, environment=self.engine.environment, notes=self.home, folder=folder, source=source, expected=expected
        )
        row |= {"before": before, "after": bench_measure.bytes_below(self.engine.repository)}
        if judge and row["status"] == 0:
            row["right"] = judge()
        self.record(row)
        if row["status"] != 0:
            with open(os.path.join(self.home, "messages"), errors="replace") as file:
                told = file.read().strip()[-400:]
            raise Failed(f"{self.engine.name} failed with exit code {row['status']} at {work}\n  {told}")

    @contextlib.contextmanager
    def key_kept(self):
        """Lets an engine that can do so remember its key, and says whether it does."""
        self.engine.key_kept = self.engine.keeps_key
        if self.engine.keeps_key:
            self.do("remember", self.engine.list())
        yield self.engine.keeps_key
        self.engine.key_kept = False

    def close(self):
        shutil.rmtree(self.home, ignore_errors=True)

    def streams_of_a_series(self, dumps):
        """Versions of one dump through pipes, then all that is done with a repository."""
        engine, names = self.engine, []
        self.do("init", engine.begin())
        for place, dump in enumerate(dumps):
            name = os.path.splitext(os.path.basename(dump))[0]
            bench_measure.warm(dump)
            self.do(
                f"{'later' if place else 'first'} {name}", engine.take_stream(name), source=dump, size=os.path.getsize(dump)
            )
            names.append(name)
            if place == 2 and len(dumps) > 3:
                self.give(name, dump)
        newest, size = dumps[-1], os.path.getsize(dumps[-1])
        self.do(f"again {names[-1]}", engine.take_stream(UNCHANGED), source=newest, size=size)
        for _ in range(LISTED):
            self.do("list", engine.list())
        with self.key_kept() as kept:
            for _ in range(LISTED if kept else 0):
                self.do("list-kept", engine.list())
        self.give(names[-1], newest, by=UNCHANGED)
        self.do("check", engine.check(), size=sum(map(os.path.getsize, dumps)))
        names.append(UNCHANGED)
        if len(names) > KEPT:
            self.do("forget", engine.forget(names[:-KEPT], names[-KEPT:]))
            self.give(names[-2], newest, by=UNCHANGED, why="after")

    def give(self, name, dump, by=None, why="give"):
        size = os.path.getsize(dump)
        self.do(f"{why} {name}", self.engine.give_stream(by or name), expected=dump, size=size)

    def folders(self, folders):
        """Versions of one data directory that stays in its place, and one restore."""
        engine = self.engine
        place = os.path.join(self.home, "data")
        engine.prepare(place)
        names, size = [], 0
        for number, folder in enumerate(folders):
            name = os.path.basename(folder)
            bench_measure.lay(folder, place)
            if number == 0:
                self.do("init", engine.begin())
            bench_measure.warm(place)
            size = bench_measure.bytes_below(place)
            time.sleep(YOUNG_SECONDS)
            inside, _ = engine.starts_in(place, None)
            self.do(f"{'later' if number else 'first'} {name}", engine.take_folder(name, place), folder=inside, size=size)
            names.append(name)
        inside, _ = engine.starts_in(place, None)
        self.do(f"again {names[-1]}", engine.take_folder(UNCHANGED, place), folder=inside, size=size)
        with self.key_kept() as kept:
            if kept:
                self.do(f"again-kept {names[-1]}", engine.take_folder("kept", place), folder=inside, size=size)
        target = os.path.join(self.home, "target")
        os.makedirs(target, mode=0o700)
        _, inside = engine.starts_in(place, target)

        def right():
            return engine.digest(engine.restored(place, target)) == engine.digest(place)

        self.do(f"give {names[-1]}", engine.give_folder(UNCHANGED, place, target), folder=inside, size=size, judge=right)

    def single_stream(self, path):
        """One stream in and out."""
        name = os.path.splitext(os.path.basename(path))[0]
        bench_measure.warm(path)
        self.do("init", self.engine.begin())
        self.do(f"first {name}", self.engine.take_stream(name), source=path, size=os.path.getsize(path))
        self.give(name, path)


class Machine(bench_engines.Engine):
    """What the machine can do at all with an input: the same pipes, and programs that do one thing each."""

    name = "machine"

    def __init__(self, program, home):
        super().__init__(program, home)
        self.repository = os.path.join(home, "out")
        os.makedirs(self.repository)
        self.packed = os.path.join(self.repository, "packed.zst")
        cores = str(os.cpu_count())
        self.tools = {"limit pipe": ["cat"]}
        if zstd := shutil.which("zstd"):
            self.tools["limit zstd"] = [zstd, "-q", "-3", "-T" + cores, "-o", self.packed]
        if name_of_hash() == "BLAKE3":
            self.tools["limit hash"] = [shutil.which("b3sum")]
        elif openssl := shutil.which("openssl"):
            self.tools["limit hash"] = [openssl, "dgst", "-sha256"]
        else:
            self.tools["limit hash"] = ["sha256sum"]
        self.tools["limit write"] = [
            "dd",
            "bs=1M",
            "conv=fsync",
            "status=none",
            "of=" + os.path.join(self.repository, "written"),
        ]


def name_of_hash():
    return "BLAKE3" if shutil.which("b3sum") else "SHA-256"


def limits(life, path):
    """Measures the machine itself with one input; a folder goes through tar."""
    bench_measure.warm(path)
    size = bench_measure.bytes_below(path)
    name = os.path.splitext(os.path.basename(path))[0]
    machine = life.engine
    for work, argv in machine.tools.items():
        life.do(f"{work} {name}", argv, source=path, size=size)
        if work == "limit zstd" and os.path.isfile(path):
            unpack = [argv[0], "-q", "-d", "-c", machine.packed]
            life.do(f"limit unzstd {name}", unpack, expected=path, size=size)


def live(life, kind, inputs):
    """The life for a kind of work; streams have one for each input, so inputs holds a single one then."""
    if life.engine.name == "machine":
        limits(life, inputs[0])
    elif kind == "directories":
        life.folders(inputs)
    elif kind == "streams":
        life.single_stream(inputs[0])
    else:
        life.streams_of_a_series(inputs)
