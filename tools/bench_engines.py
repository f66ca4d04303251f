"""The engines that are compared: how each is told to do the same piece of work.

An adapter turns a piece of work into a command line, or into None where the engine has no such thing. Every
engine encrypts, keeps its own defaults, and compresses with zstd 3 where that is a choice; what is not a
default is said in `settings`, which the report prints. A home of its own keeps the user's caches and
configuration out.
"""

import json
import os
import re
import shutil
import subprocess

import bench_measure

# The name of a backup for which nothing changed since the one before.
UNCHANGED = "again"
PASSWORD = "correct horse battery staple"


class Engine:
    """What all adapters share. Methods that return None are works the engine cannot do."""

    name = ""
    program_name = ""
    settings = ""
    install = ""
    keeps_key = False  # whether the engine can remember for a while what the password opened

    def __init__(self, program, home):
        self.key_kept = False
        self.program = program
        self.home = home
        self.repository = os.path.join(home, "repository")
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "HOME": home,
            "TMPDIR": home,
            "XDG_CACHE_HOME": os.path.join(home, "cache"),
            "XDG_CONFIG_HOME": os.path.join(home, "config"),
            **self.variables(),
        }

    def variables(self):
        """Environment variables of this engine."""
        return {}

    def prepare(self, folder):
        """Writes what the engine needs before its repository can be made; folder is what will be backed up."""

    def begin(self):
        """Makes the repository."""

    def take_stream(self, name):
        """Backs up standard input."""

    def take_folder(self, name, folder):
        """Backs up a folder."""

    def list(self):
        """Lists what is there."""

    def give_stream(self, name):
        """Writes a backed up stream to standard output."""

    def give_folder(self, name, folder, target):
        """Restores a folder."""

    def restored(self, folder, target):
        """Where give_folder puts what was below the folder."""
        return os.path.join(target, folder.lstrip("/"))

    def digest(self, folder):
        """What stands in a folder, as far as the engine means to keep it."""
        return bench_measure.tree_digest(folder)

    def check(self):
        """Checks everything, all data read."""

    def forget(self, drop, keep):
        """Forgets snapshots and frees their space; both lists are names, the oldest first."""

    def starts_in(self, folder, target):
        """The working directories of take_folder and give_folder, where an engine is particular about them."""
        return None, None

    def serve(self, server):
        """Gets ready for the cluster of a running server, and says whether the engine knows clusters at all."""
        return False

    def begin_cluster(self):
        """Makes the repository for a cluster."""

    def push(self):
        """Archives a segment of the log; its path follows."""

    def get(self):
        """Brings a segment back; its name and a path follow."""

    def get_ahead(self, count):
        """Brings a segment back and has so many that follow fetched ahead; its name and a path follow."""

    def ahead(self):
        """The names of the segments that are fetched ahead and lie ready."""

    def take_cluster(self, name):
        """Takes a base backup of the running server."""

    def give_cluster(self, number, target, over):
        """Restores base backup number 0, 1, 2, ... to a folder, over what is there or not."""

    def told(self, server, argv):
        """What a command of the engine's writes; it is not measured."""
        argv = server.as_its_user(argv)
        return subprocess.run(argv, env=self.environment, capture_output=True, check=True, text=True).stdout


class Chronolith(Engine):
    name = "chronolith"
    program_name = "chronolith"
    settings = (
        "defaults, but --no-key-cache: every command stretches the password anew, as in a nightly job and as restic, "
        "rustic and borg do; where a key was kept from the command before, the work says so"
    )
    install = "cargo build --release"
    keeps_key = True

    def variables(self):
        return {"CHRONOLITH_REPO": self.repository, "CHRONOLITH_PASSWORD": PASSWORD}

    def command(self, verb, *arguments):
        return [self.program, verb, "-q", *([] if self.key_kept else ["--no-key-cache"]), *arguments]

    def begin(self):
        return self.command("init")

    def backup(self, name, *what):
        return self.command("backup", "--host", "bench", "--label", "series", "--tag", name, *what)

    def take_stream(self, name):
        return self.backup(name, "--stdin", "dump.sql")

    def take_folder(self, name, folder):
        return self.backup(name, folder)

    def list(self):
        return self.command("snapshots")

    def give_stream(self, name):
        return self.command("cat", "series:dump.sql")

    def give_folder(self, name, folder, target):
        return self.command("restore", "series", "--target", target)

    def check(self):
        return self.command("check", "--read-data")

    def forget(self, drop, keep):
        return self.command("forget", "--keep-last", str(len(keep)), "--prune", "--grace", "0s")

    def serve(self, server):
        self.key = os.path.join(self.home, "key")
        self.server = server
        del self.environment["CHRONOLITH_PASSWORD"]
        self.environment["CHRONOLITH_KEY_FILE"] = self.key
        return True

    def begin_cluster(self):
        return ["env", "-u", "CHRONOLITH_KEY_FILE", self.program, "init", "-q", "--new-key-file", self.key]

    def cluster(self, verb, *arguments):
        return [self.program, "pg", verb, "-q", "--cluster", "bench", *arguments]

    def push(self):
        return self.cluster("archive-push")

    def get(self):
        return self.cluster("archive-get")

    def get_ahead(self, count):
        return self.cluster("archive-get", "--prefetch", str(count), "--spool", os.path.join(self.home, "ahead"))

    def ahead(self):
        return segments_below(os.path.join(self.home, "ahead"))

    def take_cluster(self, name):
        where = ["--host", self.server.sockets, "--user", "postgres", "--pgdata", self.server.data]
        return self.cluster("backup", "--tag", name, "--wal", "archive", *where)

    def give_cluster(self, number, target, over):
        told = self.told(self.server, [self.program, "snapshots", "--json", "--tag", f"c{number}"])
        found = [json.loads(line) for line in told.splitlines()]
        base = next(line["id"] for line in found if "id" in line)
        delta = ["--delta", "--confirm", "bench"] if over else []
        return self.cluster("restore", "--target", "immediate", "--base", base, "--pgdata", target, *delta)


class Restic(Engine):
    name = program_name = "restic"
    settings = "defaults"
    install = "apt-get install restic"

    def variables(self):
        return {"RESTIC_REPOSITORY": self.repository, "RESTIC_PASSWORD": PASSWORD}

    def begin(self):
        return [self.program, "init", "-q"]

    def take_stream(self, name):
        return [self.program, "backup", "-q", "--host", "bench", "--tag", name, "--stdin", "--stdin-filename", "dump.sql"]

    def take_folder(self, name, folder):
        return [self.program, "backup", "-q", "--host", "bench", "--tag", name, folder]

    def list(self):
        return [self.program, "snapshots", "-q"]

    def give_stream(self, name):
        return [self.program, "dump", "-q", "--tag", name, "latest", "/dump.sql"]

    def give_folder(self, name, folder, target):
        return [self.program, "restore", "-q", "--tag", name, "latest", "--target", target]

    def check(self):
        return [self.program, "check", "-q", "--read-data"]

    def forget(self, drop, keep):
        return [self.program, "forget", "-q", "--group-by", "host", "--keep-last", str(len(keep)), "--prune"]


class Rustic(Engine):
    name = program_name = "rustic"
    settings = (
        "defaults; backup of streams with --force, since 0.11.4 takes a second stream of one name for unchanged and "
        "stores nothing; prune with --instant-delete"
    )
    install = "cargo install rustic-rs"

    def variables(self):
        return {
            "RUSTIC_REPOSITORY": self.repository,
            "RUSTIC_PASSWORD": PASSWORD,
            "RUSTIC_NO_PROGRESS": "true",
            "RUSTIC_LOG_LEVEL": "warn",
        }

    def begin(self):
        return [self.program, "init"]

    def take_stream(self, name):
        return [self.program, "backup", "--force", "--host", "bench", "--tag", name, "--stdin-filename", "dump.sql", "-"]

    def take_folder(self, name, folder):
        return [self.program, "backup", "--host", "bench", "--tag", name, folder]

    def list(self):
        return [self.program, "snapshots"]

    def give_stream(self, name):
        return [self.program, "dump", "--filter-tags", name, "latest:dump.sql"]

    def give_folder(self, name, folder, target):
        return [self.program, "restore", "--filter-tags", name, "latest:" + folder, target]

    def restored(self, folder, target):
        return target

    def check(self):
        return [self.program, "check", "--read-data"]

    def forget(self, drop, keep):
        return [self.program, "forget", "--group-by", "host", "--keep-last", str(len(keep)), "--prune", "--instant-delete"]


class Borg(Engine):
    name = program_name = "borg"
    settings = "repokey-blake2, --compression zstd,3; delete, then compact"
    install = "apt-get install borgbackup"

    def variables(self):
        return {"BORG_REPO": self.repository, "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": self.home}

    def begin(self):
        return [self.program, "init", "--encryption", "repokey-blake2"]

    def create(self, name, *what):
        return [self.program, "create", "--compression", "zstd,3", *what[:-1], "::" + name, what[-1]]

    def take_stream(self, name):
        return self.create(name, "--stdin-name", "dump.sql", "-")

    def take_folder(self, name, folder):
        return self.create(name, ".")

    def list(self):
        return [self.program, "list"]

    def give_stream(self, name):
        return [self.program, "extract", "--stdout", "::" + name]

    def give_folder(self, name, folder, target):
        return [self.program, "extract", "::" + name]

    def starts_in(self, folder, target):
        return folder, target

    def restored(self, folder, target):
        return target

    def check(self):
        return [self.program, "check", "--verify-data"]

    def forget(self, drop, keep):
        # One archive behind the repository's name, the others as arguments: so borg 1.x wants it.
        archives = " ".join(["::" + drop[0], *drop[1:]])
        return ["sh", "-c", f'"$0" delete {archives} && "$0" compact', self.program]


class Bupstash(Engine):
    name = program_name = "bupstash"
    settings = "defaults (a key file, no password to stretch); it has no check; rm, then gc"
    install = "cargo install bupstash (with libsodium-dev and pkg-config)"

    def variables(self):
        return {"BUPSTASH_REPOSITORY": self.repository, "BUPSTASH_KEY": os.path.join(self.home, "key")}

    def begin(self):
        return ["sh", "-c", '"$0" new-key -o "$BUPSTASH_KEY" && "$0" init', self.program]

    def take_stream(self, name):
        return [self.program, "put", "-q", "name=" + name, "-"]

    def take_folder(self, name, folder):
        return [self.program, "put", "-q", "name=" + name, folder]

    def list(self):
        return [self.program, "list", "-q"]

    def give_stream(self, name):
        return [self.program, "get", "-q", "name=" + name]

    def give_folder(self, name, folder, target):
        return [self.program, "restore", "-q", "--into", target, "name=" + name]

    def restored(self, folder, target):
        return target

    def forget(self, drop, keep):
        removals = " && ".join(f'"$0" rm -q name={name}' for name in drop)
        return ["sh", "-c", f'{removals} && "$0" gc -q', self.program]


class PgBackRest(Engine):
    """Data directories only. They are backed up offline, so that no server has to run for it."""

    name = program_name = "pgbackrest"
    install = "apt-get install pgbackrest"

    def __init__(self, program, home):
        super().__init__(program, home)
        self.configuration = os.path.join(home, "pgbackrest.conf")
        self.first = True
        self.server = None
        # Block incremental backup, the best it has, came with 2.46.
        self.blocks = tuple(int(part) for part in version(program).split(".")[:2]) >= (2, 46)

    @property
    def settings(self):
        blocks = ", bundles and block incremental" if self.blocks else ""
        return f"zst 3, aes-256-cbc, {os.cpu_count()} processes{blocks}; segments are fetched ahead with archive-async; data directories, offline, and a live server only"

    def prepare(self, folder):
        lines = [
            "[global]",
            "repo1-path=" + self.repository,
            "repo1-cipher-type=aes-256-cbc",
            "repo1-cipher-pass=" + PASSWORD.replace(" ", "-"),
            "repo1-retention-full=9",
            "compress-type=zst",
            "compress-level=3",
            f"process-max={os.cpu_count()}",
            "log-level-console=warn",
            "log-level-file=off",
            *(f"{what}-path={os.path.join(self.home, what)}" for what in ("lock", "spool", "log")),
            *(["repo1-bundle=y", "repo1-block=y"] if self.blocks else []),
            "[bench]",
            "pg1-path=" + folder,
            *([f"pg1-socket-path={self.server.sockets}", "pg1-user=postgres", "start-fast=y"] if self.server else []),
        ]
        with open(self.configuration, "w") as file:
            file.write("\n".join(lines) + "\n")

    def command(self, *arguments):
        return [self.program, "--config=" + self.configuration, "--stanza=bench", *arguments]

    def begin(self):
        return self.command("stanza-create", "--no-online")

    def take_folder(self, name, folder):
        if name == UNCHANGED:
            return None  # it refuses a backup for which nothing changed
        kind, self.first = "full" if self.first else "incr", False
        return self.command("backup", "--no-online", "--type=" + kind)

    def list(self):
        return self.command("info")

    def give_folder(self, name, folder, target):
        return self.command("restore", "--type=none", "--pg1-path=" + target)

    def restored(self, folder, target):
        return target

    def serve(self, server):
        self.server = server
        self.prepare(server.data)
        return True

    def begin_cluster(self):
        return self.command("stanza-create")

    def push(self):
        return self.command("archive-push")

    def get(self):
        return self.command("archive-get")

    def get_ahead(self, count):
        # The segment that is asked for goes through the queue, too.
        queue = f"--archive-get-queue-max={(count + 1) * self.server.segment_bytes}B"
        return self.command("archive-get", "--archive-async", queue)

    def ahead(self):
        return segments_below(os.path.join(self.home, "spool"))

    def take_cluster(self, name):
        kind, self.first = "full" if self.first else "incr", False
        return self.command("backup", "--type=" + kind)

    def give_cluster(self, number, target, over):
        # Its backups are named by their times; the sets are told in the order in which they were made.
        told = self.told(self.server, self.command("info", "--output=json"))
        label = json.loads(told)[0]["backup"][number]["label"]
        delta = ["--delta"] if over else []
        return self.command("restore", "--set=" + label, "--type=immediate", "--target-action=promote", "--pg1-path=" + target, *delta)

    def digest(self, folder):
        # What it leaves out on purpose, since a server makes it anew.
        return bench_measure.tree_digest(folder, {"backup_label", "backup_manifest", "pgsql_tmp"})


def segments_below(folder):
    """The names of whole segments of a PostgreSQL server's log in a folder, however deep."""
    return {name for _, _, names in os.walk(folder) for name in names if re.fullmatch("[0-9A-F]{24}", name)}


ENGINES = {engine.name: engine for engine in (Chronolith, Restic, Rustic, Borg, Bupstash, PgBackRest)}


def version(program):
    """The version that a program gives itself, or a question mark."""
    for argument in ("--version", "version"):
        answer = subprocess.run([program, argument], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        found = re.search(r"\d+\.\d+[\w.+-]*", answer.stdout)
        if answer.returncode == 0 and found:
            return found.group()
    return "?"


def find(name, given=None):
    """The path of an engine's program, or None where it is not installed."""
    found = shutil.which(given or ENGINES[name].program_name)
    return os.path.abspath(found) if found else None
