"""Database servers of the benchmark's own, for the time in which inputs are made.

They listen on a Unix socket only, keep their files in the scratch folder, and are stopped at the end, also of
an interrupted run. Servers refuse to run as root; then they run as the user that their packages made.
"""

import contextlib
import glob
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time

# What pg_basebackup leaves out: folders whose content means nothing to another server, and single names.
NO_CONTENT = {"pg_wal", "pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"}
LEFT_OUT = {
    "pgsql_tmp",
    "pg_internal.init",
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles",
}


class Unable(Exception):
    """Something that the user can put right; the message says how."""


@contextlib.contextmanager
def finished(path):
    """A name to write to, which becomes the path only when everything is there."""
    unfinished = path + ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    yield unfinished
    os.rename(unfinished, path)


class Server:
    """A folder for a server and a user for it; its programs run as that user."""

    def __init__(self, scratch, name, user, data_user_hint):
        self.folder = os.path.join(scratch, name)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        # A socket's path may have about a hundred bytes, so it does not stand in the scratch folder.
        self.sockets = tempfile.mkdtemp(prefix="bench-")
        self.identity = {}
        if os.geteuid() == 0:
            try:
                entry = pwd.getpwnam(user)
            except KeyError:
                self.remove()
                raise Unable(f"{name} does not run as root, and there is no user {user}\n  {data_user_hint}") from None
            self.identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            for path in (self.folder, self.sockets):
                os.chown(path, entry.pw_uid, entry.pw_gid)
            if self.start(["test", "-w", self.folder], cwd="/").wait() != 0:
                self.remove()
                raise Unable(
                    f"the user {user}, as whom {name} runs, cannot reach the scratch folder\n"
                    "  give another one with --scratch"
                )

    def start(self, argv, **more):
        more = {
            "cwd": self.folder,
            "env": dict(os.environ, LC_ALL="C.UTF-8", HOME=self.folder),
            "start_new_session": True,
        } | more
        return subprocess.Popen(argv, **self.identity, **more)

    def run(self, argv, feed=None, **more):
        """Runs one program of the server's to its end, and feeds it lines."""
        messages = os.path.join(self.folder, "messages")
        with open(messages, "wb") as log:
            process = self.start(
                argv, **{"stdin": subprocess.PIPE if feed else subprocess.DEVNULL, "stdout": log, "stderr": log} | more
            )
            try:
                if feed:
                    # What ended early says why in its messages.
                    with contextlib.suppress(BrokenPipeError), process.stdin:
                        for line in feed:
                            process.stdin.write(line.encode())
                status = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
        if status != 0:
            with open(messages, errors="replace") as log:
                told = log.read().strip()[-600:]
            raise Unable(f"{os.path.basename(argv[0])} failed while the inputs were made:\n  {told}")

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)


def postgres_program(name):
    """A program of the newest PostgreSQL; Debian keeps those of the server out of the search path."""

    def generation(path):
        number = path.split("/")[-3]
        return int(number) if number.isdigit() else 0

    folders = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=generation)
    path = folders[-1] if folders else shutil.which(name)
    if path is None:
        raise Unable(
            f"PostgreSQL's {name} is not installed\n"
            "  apt-get install postgresql, or leave the work out: --only mariadb,streams"
        )
    return path


class Postgres(Server):
    # Nothing of this machine is written into the data directory's configuration, which is an input too.
    settings = {
        "listen_addresses": "''",
        "fsync": "off",
        "autovacuum": "off",
        "timezone": "UTC",
        "max_wal_size": "2GB",
        "maintenance_work_mem": "256MB",
        "shared_buffers": "256MB",
        "wal_level": "minimal",
        "max_wal_senders": "0",
    }

    def __init__(self, scratch, name="postgres"):
        names = ("initdb", "pg_ctl", "pg_resetwal", "psql", "pgbench", "pg_dump")
        self.programs = {name: postgres_program(name) for name in names}
        super().__init__(scratch, name, "postgres", "apt-get install postgresql")
        self.data = os.path.join(self.folder, "data")
        self.running = False
        self.where = ["-h", self.sockets, "-U", "postgres"]

    def __enter__(self):
        try:
            self.run(
                [
                    self.programs["initdb"],
                    "-D",
                    self.data,
                    "-U",
                    "postgres",
                    "--locale=C",
                    "--encoding=UTF8",
                    "--data-checksums",
                    "-A",
                    "trust",
                ]
            )
            self.up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def up(self):
        settings = {**self.settings, "unix_socket_directories": self.sockets}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self.running = True
        self.run(
            [
                self.programs["pg_ctl"],
                "-D",
                self.data,
                "-l",
                os.path.join(self.folder, "log"),
                "-w",
                "-t",
                "120",
                "-o",
                options,
                "start",
            ]
        )

    def down(self):
        if self.running:
            self.running = False
            self.run([self.programs["pg_ctl"], "-D", self.data, "-w", "-m", "fast", "stop"])

    def __exit__(self, *_):
        with contextlib.suppress(Unable):
            self.down()
        self.remove()

    def sql(self, *statements, feed=None):
        commands = [word for statement in statements for word in ("-c", statement)]
        self.run([self.programs["psql"], "-X", "-q", "-v", "ON_ERROR_STOP=1", *self.where, "-d", "shop", *commands], feed)

    def ask(self, question):
        """The answer of the database to one question, in a line."""
        argv = [self.programs["psql"], "-X", "-A", "-t", *self.where, "-d", "shop", "-c", question]
        process = self.start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        answer, told = process.communicate()
        if process.returncode != 0:
            raise Unable(f"psql failed at: {question}\n  {told.decode(errors='replace').strip()[-600:]}")
        return answer.decode().strip()

    def copy(self, table, rows):
        self.sql(f"COPY {table} FROM STDIN", feed=rows)

    def dump(self, path):
        told = subprocess.run([self.programs["pg_dump"], "--help"], capture_output=True, text=True)
        # Without a key of our own every dump would hold another random one.
        key = ["--restrict-key=bench"] if "--restrict-key" in told.stdout else []
        with (
            finished(path) as unfinished,
            open(unfinished, "wb") as file,
            open(os.path.join(self.folder, "messages"), "wb") as log,
        ):
            if self.start([self.programs["pg_dump"], *key, *self.where, "shop"], stdout=file, stderr=log).wait() != 0:
                raise Unable("pg_dump failed while the inputs were made")

    def copy_data(self, path):
        """Copies the stopped server's files with their times: what did not change looks unchanged."""

        def left_out(folder, names):
            if os.path.basename(folder) in NO_CONTENT:
                return [name for name in names if name != "archive_status"]
            return [name for name in names if name in LEFT_OUT]

        self.down()
        with finished(path) as unfinished:
            shutil.copytree(self.data, unfinished, symlinks=True, ignore=left_out)
            if self.identity:
                for folder, folders, names in os.walk(unfinished):
                    for name in [folder, *(os.path.join(folder, name) for name in folders + names)]:
                        os.chown(name, self.identity["user"], self.identity["group"], follow_symlinks=False)
        self.up()


class MariaDb(Server):
    def __init__(self, scratch):
        wanted = {
            "install": ("mariadb-install-db", "mysql_install_db"),
            "server": ("mariadbd", "mysqld"),
            "client": ("mariadb", "mysql"),
            "dump": ("mariadb-dump", "mysqldump"),
        }
        path = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
        self.programs = {
            what: next(filter(None, (shutil.which(name, path=path) for name in names)), None)
            for what, names in wanted.items()
        }
        if missing := [what for what, program in self.programs.items() if program is None]:
            raise Unable(
                f"MariaDB is not installed ({', '.join(missing)})\n"
                "  apt-get install mariadb-server, or leave the work out: --only dumps,directories,streams"
            )
        super().__init__(scratch, "mariadb", "mysql", "apt-get install mariadb-server")
        self.data = os.path.join(self.folder, "data")
        self.socket = os.path.join(self.sockets, "s")
        self.process = None

    def __enter__(self):
        try:
            self.run(
                [
                    self.programs["install"],
                    "--no-defaults",
                    "--datadir=" + self.data,
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                ]
            )
            with open(os.path.join(self.folder, "log"), "wb") as log:
                settings = [
                    "--skip-networking",
                    "--skip-log-bin",
                    "--innodb-flush-log-at-trx-commit=0",
                    "--innodb-buffer-pool-size=512M",
                ]
                self.process = self.start(
                    [
                        self.programs["server"],
                        "--no-defaults",
                        "--datadir=" + self.data,
                        "--socket=" + self.socket,
                        "--pid-file=" + os.path.join(self.folder, "pid"),
                        *settings,
                    ],
                    stdout=log,
                    stderr=log,
                )
            until = time.monotonic() + 60
            while not os.path.exists(self.socket):
                if self.process.poll() is not None or time.monotonic() > until:
                    raise Unable("MariaDB's server did not start while the inputs were made")
                time.sleep(0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        self.remove()

    def sql(self, statement, database="bench", feed=()):
        self.run(
            [self.programs["client"], "--no-defaults", "--socket=" + self.socket, "-uroot", database],
            feed=itertools.chain([statement], feed),
        )

    def dump(self, path):
        options = ["--no-defaults", "--socket=" + self.socket, "-uroot", "--single-transaction", "--skip-dump-date"]
        with (
            finished(path) as unfinished,
            open(unfinished, "wb") as file,
            open(os.path.join(self.folder, "messages"), "wb") as log,
        ):
            if self.start([self.programs["dump"], *options, "bench"], stdout=file, stderr=log).wait() != 0:
                raise Unable("mariadb-dump failed while the inputs were made")
