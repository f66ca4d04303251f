"""A live PostgreSQL server, and the engines that know such: base backups, the log, restores.

One server for all of them, since the log that a server writes is never the same twice. What it archives while an
engine takes a base backup goes to that engine; what is written between goes to a folder, from which every
engine then archives the same segments, a process each, as `archive_command` does, and brings them back: once from the
repository, once out of what it fetched ahead. A restore is right when a server that is started on it recovers and
answers what the first one answered.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import time

import bench_measure
from bench_servers import Postgres, Unable
from bench_work import Failed, Life

SEGMENTS = 60
PATIENCE_SECONDS = 120
# Everything in the tables that change.
QUESTION = (
    "SELECT count(*), sum(abalance), sum(aid::numeric * abalance) FROM pgbench_accounts "
    "UNION ALL SELECT count(*), sum(delta), sum(aid::numeric * delta) FROM pgbench_history"
)


class LiveServer(Postgres):
    """A server on a copy of a data directory, which hands its log to whoever is to have it."""

    settings = Postgres.settings | {
        "wal_level": "replica",
        "max_wal_senders": "2",
        "archive_mode": "on",
        "checkpoint_timeout": "1h",
        "max_wal_size": "8GB",
    }

    def __init__(self, scratch, source):
        super().__init__(scratch, "live")
        self.source = source
        # pgBackRest refuses a cluster whose archive_command does not name it.
        self.archive = os.path.join(self.folder, "to-pgbackrest-or-others")
        self.log = os.path.join(self.folder, "log-segments")
        self.settings = self.settings | {"archive_command": shlex.quote(f"{self.archive} %p %f")}

    def __enter__(self):
        try:
            bench_measure.lay(self.source, self.data)
            os.makedirs(self.log)
            self.give(self.log)
            # The input is a stopped server's, without its log.
            self.run([self.programs["pg_resetwal"], "-f", "-D", self.data])
            self.archive_to(None)
            self.up()
        except BaseException:
            self.__exit__()
            raise
        return self

    @property
    def segment_bytes(self):
        return os.path.getsize(os.path.join(self.log, segments(self)[0]))

    def give(self, path):
        if self.identity:
            os.chown(path, self.identity["user"], self.identity["group"])

    def as_its_user(self, argv):
        """The command, run by the user that the server runs as."""
        if not self.identity:
            return argv
        who = [f"--reuid={self.identity['user']}", f"--regid={self.identity['group']}", "--clear-groups"]
        return ["setpriv", *who, *argv]

    def archive_to(self, life):
        """Says who gets the log from now on: an engine, or the folder."""
        if life:
            variables = [f"{name}={value}" for name, value in life.engine.environment.items()]
            command = shlex.join(["env", *variables, *life.engine.push()]) + ' "$1"'
        else:
            command = f'cp "$1" {shlex.quote(self.log)}/"$2"'
        new = self.archive + ".new"
        with open(new, "w") as file:
            file.write(f"#!/bin/sh\nexec {command}\n")
        os.chmod(new, 0o755)
        os.rename(new, self.archive)

    def settle(self):
        """Ends the segment, waits until all of the log is archived, and leaves a backup nothing to write."""
        self.sql("CHECKPOINT")
        last = self.ask("SELECT pg_walfile_name(pg_switch_wal())")
        until = time.monotonic() + PATIENCE_SECONDS
        while self.ask("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver") < last:
            if time.monotonic() > until:
                raise Unable(f"the server's log was not archived within {PATIENCE_SECONDS} s: {last} is missing")
            time.sleep(0.05)

    def change(self, transactions, seed):
        clients = 4
        self.run(
            [self.programs["pgbench"], "-n", "-N", "-c", str(clients), "-j", "2", "-t", str(max(1, transactions // clients))]
            + ["--random-seed", str(seed), *self.where, "shop"]
        )

    def answer_of(self, folder):
        """What a server answers that is started on a restored folder; it ends recovery on its own."""
        restored = Postgres.__new__(Postgres)
        restored.__dict__ |= {**self.__dict__, "data": folder, "running": False}
        restored.settings = self.settings | {"archive_mode": "off"}
        try:
            restored.up()
            until = time.monotonic() + PATIENCE_SECONDS
            while True:
                # While it recovers it may refuse to answer.
                try:
                    return restored.ask(QUESTION)
                except Unable as why:
                    if time.monotonic() > until:
                        return str(why)
                time.sleep(0.2)
        except Unable as why:
            return str(why)
        finally:
            with contextlib.suppress(Unable):
                restored.down()


def one_round(engines, source, scale, scratch, number, record, say):
    """All engines that know clusters, beside one server; `engines` are classes and programs in this round's order."""
    lives = []
    with LiveServer(scratch, source) as server:
        for engine, program in engines:
            life = Life(engine, program, scratch, "postgres", number, record, place="cluster-" + engine.name)
            if life.engine.serve(server):
                server.give(life.home)
                lives.append(life)
            else:
                life.close()
        try:
            play(server, lives, scale, say)
        finally:
            for life in lives:
                life.close()


def play(server, lives, scale, say):
    """The work itself. An engine that fails does nothing more in this round."""
    answers = []

    def each(work):
        for life in list(lives):
            try:
                work(life)
            except Failed as failure:
                say(str(failure))
                lives.remove(life)
                life.close()

    def do(life, work, argv, **more):
        life.do(work, server.as_its_user(argv), **more)

    def take(life, count):
        server.settle()
        server.archive_to(life)
        try:
            bench_measure.warm(server.data)
            size = bench_measure.bytes_below(server.data)
            do(life, f"{'later' if count else 'first'} c{count}", life.engine.take_cluster(f"c{count}"), size=size)
            # What the server writes at the end of a backup belongs to it.
            server.settle()
        finally:
            server.archive_to(None)

    each(lambda life: do(life, "init", life.engine.begin_cluster()))
    for count in range(3):
        if count:
            server.change(round(150 * scale), count)
        each(lambda life, count=count: take(life, count))
        answers.append(server.ask(QUESTION))

    server.settle()
    for name in os.listdir(server.log):
        os.unlink(os.path.join(server.log, name))
    while len(segments(server)) < max(2, round(SEGMENTS * min(1, scale / 40))):
        server.change(round(500 * scale), len(segments(server)))
        server.settle()
    names = segments(server)[: max(2, round(SEGMENTS * min(1, scale / 40)))]
    each(lambda life: log(life, server, names, do))
    each(lambda life: log_ahead(life, server, names, do))
    server.down()
    each(lambda life: restores(life, server, answers, do))


def segments(server):
    return sorted(name for name in os.listdir(server.log) if len(name) == 24)


def log(life, server, names, do):
    """All segments in, a process each, and back again."""
    size = sum(os.path.getsize(os.path.join(server.log, name)) for name in names)
    target = os.path.join(life.home, "segments")
    os.makedirs(target)
    server.give(target)
    for name in names:
        bench_measure.warm(os.path.join(server.log, name))

    push = shlex.join(life.engine.push()) + f" {shlex.quote(server.log)}/$name"
    do(life, f"push {len(names)}", loop(push, names), size=size)
    get = shlex.join(life.engine.get()) + f" $name {shlex.quote(target)}/$name"
    do(life, f"get {len(names)}", loop(get, names), size=size, judge=lambda: same(server, target, names))
    shutil.rmtree(target)


def log_ahead(life, server, names, do):
    """Segments that lie ready, fetched ahead, a process each. So few that none of the engines, all of which do so when
    half is used up, fetches more meanwhile: what that costs is seen where each comes from the repository."""
    argv = life.engine.get_ahead(len(names) - 1)
    if argv is None:
        return
    # A data directory as far as one is looked at.
    data = os.path.join(life.home, "recovering")
    wal, control = os.path.join(data, "pg_wal"), os.path.join(data, "global", "pg_control")
    for folder in (data, wal, os.path.dirname(control)):
        os.makedirs(folder)
        server.give(folder)
    shutil.copy(os.path.join(server.data, "global", "pg_control"), control)
    server.give(control)
    get = shlex.join(argv) + f" $name {shlex.quote(wal)}/$name"
    do(life, "before ahead", loop(get, names[:1]))
    until = time.monotonic() + PATIENCE_SECONDS
    while not set(names[1:]) <= life.engine.ahead():
        if time.monotonic() > until:
            raise Failed(f"{life.engine.name} did not fetch ahead: {len(life.engine.ahead())} of {len(names) - 1} segments")
        time.sleep(0.05)
    asked = names[1 : 1 + max(1, len(names) // 2 - 2)]
    size = sum(os.path.getsize(os.path.join(server.log, name)) for name in asked)

    def right():
        # What was handed over lies ready no more: so it did not come from the repository.
        return same(server, wal, asked) and not life.engine.ahead() & set(asked)

    do(life, f"ahead {len(asked)}", loop(get, asked), size=size, judge=right)
    shutil.rmtree(data)


def loop(command, names):
    """The command for each name, a process each, until one fails."""
    return ["sh", "-c", f"for name; do {command} || exit 1; done", "sh", *names]


def same(server, folder, names):
    """Whether the segments in a folder are those of the server, byte for byte."""
    pairs = [(os.path.join(server.log, name), os.path.join(folder, name)) for name in names]
    return all(subprocess.run(["cmp", "-s", *pair]).returncode == 0 for pair in pairs)


def restores(life, server, answers, do):
    """The newest base backup to an empty folder; and over the one before it, which stands in memory, or nothing does."""
    for what, steps in (("give", [2]), ("delta", [1, 2]), ("cold", [1, 2])):
        target = os.path.join(life.home, "restored")
        os.makedirs(target, mode=0o700)
        server.give(target)
        for number in steps:
            over = number != steps[0]
            if over and what == "delta":
                bench_measure.warm(target)
            elif over and not bench_measure.forget_cached():
                continue
            argv = life.engine.give_cluster(number, target, over)
            work = f"{what if number == steps[-1] else 'before'} c{number}"
            judge = (lambda: server.answer_of(target) == answers[2]) if number == steps[-1] else None
            do(life, work, argv, size=bench_measure.bytes_below(server.data), judge=judge)
        shutil.rmtree(target)
