"""Makes the inputs of the benchmark: the same rows for the same scale, on every machine.

What exists already is used again, so that a folder of other inputs with the same names works as well.

  d0.sql .. d4.sql   PostgreSQL, plain pg_dump: about 37 MB for each step of the scale
  p0 .. p2           the data directory behind d0 .. d2, the files that pg_basebackup takes
  m0.sql .. m2.sql   MariaDB, mariadb-dump of a table of random digits: about 12 MB a step
  random.bin         bytes that no engine can make smaller: 25 MB a step
  zeros.bin          a sparse file of zeros: 100 MB a step
"""

import itertools
import os
import random

import bench_rows
from bench_servers import MariaDb, Postgres, finished

SERIES = {
    "dumps": [f"d{number}.sql" for number in range(5)],
    "directories": [f"p{number}" for number in range(3)],
    "mariadb": [f"m{number}.sql" for number in range(3)],
    "streams": ["random.bin", "zeros.bin"],
    "postgres": ["p0"],
}
SCALE_MB = {"dumps": 5 * 38, "directories": 3 * 50, "mariadb": 3 * 13, "streams": 125, "postgres": 50}


def found(folder, kind):
    """The inputs of a kind that the folder holds, in their order."""
    paths = (os.path.join(folder, name) for name in SERIES[kind])
    return [os.path.realpath(path) for path in paths if os.path.exists(path)]


def make(folder, scratch, kinds, scale, say):
    """Makes the inputs of the kinds of which the folder holds none."""
    os.makedirs(folder, exist_ok=True)
    missing = [kind for kind in kinds if not found(folder, kind)]
    directories = "directories" in missing or "postgres" in missing
    if "dumps" in missing or directories:
        make_postgres(folder, scratch, scale, "dumps" in missing, directories, say)
    if "mariadb" in missing:
        make_mariadb(folder, scratch, scale, say)
    if "streams" in missing:
        make_streams(folder, scale, say)


def make_streams(folder, scale, say):
    draw = random.Random("incompressible")
    with finished(os.path.join(folder, "random.bin")) as path, open(path, "wb") as file:
        for _ in range(max(1, round(25 * scale))):
            file.write(draw.randbytes(10**6))
    with finished(os.path.join(folder, "zeros.bin")) as path, open(path, "wb") as file:
        file.truncate(max(1, round(100 * scale)) * 10**6)
    say("made random.bin, zeros.bin")


def about(column, per_ten_thousand, seed):
    """A condition that holds for so many rows in ten thousand, the same ones everywhere."""
    return f"abs(hashint8extended({column}, {seed}) % 10000) < {per_ten_thousand}"


def make_postgres(folder, scratch, scale, dumps, directories, say):
    """The series of dumps and data directories. Half of the changed events are among the newest tenth."""
    orders, texts, accounts = max(100, round(42_000 * scale)), max(10, round(6_000 * scale)), max(1, round(scale))

    def keep(server, number):
        if dumps:
            server.dump(os.path.join(folder, f"d{number}.sql"))
        if directories and number < 3:
            server.sql("CHECKPOINT")
            server.copy_data(os.path.join(folder, f"p{number}"))
        say(f"made PostgreSQL inputs, version {number}")

    with Postgres(scratch) as server:
        server.run([server.programs["psql"], "-X", "-q", *server.where, "-d", "postgres", "-c", "CREATE DATABASE shop"])
        server.run([server.programs["pgbench"], "-i", "-q", "-s", str(accounts), *server.where, "shop"])
        server.sql(
            "CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz, customer int, reference uuid, state text, "
            "amount numeric(10,2), note text, payload jsonb)",
            "CREATE TABLE documents (id bigint PRIMARY KEY, at timestamptz, title text, body text)",
        )
        server.copy("events", bench_rows.events(1, orders, 0))
        server.copy("documents", bench_rows.documents(1, texts, 0))
        server.sql(
            "CREATE INDEX events_customer ON events (customer, at)", "CREATE INDEX events_reference ON events (reference)"
        )
        server.sql("VACUUM ANALYZE")
        keep(server, 0)
        for day in (1, 2):
            newest = f"id > {orders * 9 // 10}"
            server.sql(
                f"UPDATE pgbench_accounts SET abalance = abalance + {day} WHERE {about('aid', 100, day)}",
                "UPDATE events SET state = 'delivered', amount = amount + 1, "
                "payload = jsonb_set(payload, '{score}', to_jsonb(id % 9973)) "
                f"WHERE ({newest} AND {about('id', 500, day)}) OR (NOT {newest} AND {about('id', 56, day)})",
                f"UPDATE documents SET body = body || ' seen {day}' WHERE {about('id', 100, day)}",
            )
            server.copy("events", bench_rows.events(orders + 1 + (day - 1) * (orders // 500), orders // 500, day))
            server.sql("VACUUM")
            keep(server, day)
        if not dumps:
            return
        server.sql(
            f"UPDATE pgbench_accounts SET abalance = abalance + 3 WHERE {about('aid', 1000, 3)}",
            f"UPDATE events SET state = 'returned', amount = amount - 1 WHERE {about('id', 1000, 3)}",
            f"UPDATE documents SET body = body || ' revised' WHERE {about('id', 1000, 3)}",
            *(
                f"DELETE FROM {table} WHERE {about(column, 200, 30)}"
                for table, column in (("pgbench_accounts", "aid"), ("events", "id"), ("documents", "id"))
            ),
            "INSERT INTO pgbench_accounts SELECT number, 1, 0, '' "
            f"FROM generate_series({accounts * 100_000 + 1}, {accounts * 105_000}) AS number",
        )
        server.copy("events", bench_rows.events(orders * 2, orders // 20, 3))
        server.copy("documents", bench_rows.documents(texts * 2, texts // 20, 3))
        server.sql("VACUUM")
        keep(server, 3)
        server.sql(
            "CLUSTER events USING events_customer",
            "CLUSTER documents USING documents_pkey",
            "CLUSTER pgbench_accounts USING pgbench_accounts_pkey",
        )
        keep(server, 4)


def make_mariadb(folder, scratch, scale, say):
    """Half of the changed rows get other digits, half another number in their indexed column."""
    rows = max(1000, round(62_500 * scale))
    with MariaDb(scratch) as server:
        server.sql("CREATE DATABASE bench;", database="mysql")
        server.sql(
            "CREATE TABLE digits (id int PRIMARY KEY, k int NOT NULL, c char(120) NOT NULL, pad char(60) NOT NULL, KEY (k)) "
            "ENGINE=InnoDB DEFAULT CHARSET=latin1;"
        )
        server.sql("SET autocommit = 0;\n", feed=itertools.chain(bench_rows.digits(1, rows, 0), ["COMMIT;\n"]))
        for version in range(3):
            if version:
                fresh = ", '-', ".join(
                    f"LPAD(FLOOR(1e11 * RAND(id * 40 + {version * 10 + group})), 11, '0')" for group in range(10)
                )
                server.sql(
                    f"UPDATE digits SET c = CONCAT({fresh}) WHERE CRC32(CONCAT('c{version}', id)) % 200 = 0;"
                    f"UPDATE digits SET k = 1 + CRC32(CONCAT('new{version}', id)) % 2000000 "
                    f"WHERE CRC32(CONCAT('k{version}', id)) % 200 = 0;"
                )
            server.dump(os.path.join(folder, f"m{version}.sql"))
            say(f"made MariaDB inputs, version {version}")
