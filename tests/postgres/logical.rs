//! Databases by `pg dump`: what is in the snapshot, that it is whole, and that a failure leaves nothing.

use super::base::expect;
use super::server::{Server, tool};
use super::support::program::Program;
use super::support::server::{check, feed};
use chronolith::ops::Snapshots;
use chronolith::postgres::dump::contents::Contents;
use chronolith::postgres::dump::{DumpFacts, DumpFormat};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

/// Databases with names and content as awkward as they come.
pub const ODD: &str = "we/ird \"1\" = größe";

/// Makes databases on a server: `app`, the odd one, and one that nobody may enter.
pub fn fill(server: &Server) {
    server.sql(
        "postgres",
        "CREATE ROLE \"Ann B\" LOGIN PASSWORD 'geheim'; CREATE ROLE reader; CREATE ROLE boss;
         ALTER ROLE reader SET work_mem = '5MB';",
    );
    server.sql("postgres", "CREATE DATABASE app OWNER \"Ann B\"");
    server.sql("postgres", &format!("CREATE DATABASE \"{}\"", ODD.replace('"', "\"\"")));
    server.sql("postgres", "CREATE DATABASE closed ALLOW_CONNECTIONS false");
    server.sql(
        "postgres",
        "ALTER DATABASE app SET search_path = shop, public; ALTER DATABASE app CONNECTION LIMIT 40",
    );
    server.sql("postgres", "ALTER ROLE reader IN DATABASE app SET work_mem = '7MB'");
    server.sql("postgres", "REVOKE ALL ON DATABASE app FROM PUBLIC; GRANT CONNECT ON DATABASE app TO reader");
    server.sql("postgres", "COMMENT ON DATABASE app IS 'the app''s DATABASE app'");
    server.sql(
        "app",
        r#"CREATE EXTENSION hstore; CREATE SCHEMA shop AUTHORIZATION "Ann B"; CREATE SCHEMA "Odd ""Schema"" 1";
         CREATE TYPE shop.state AS ENUM ('new', 'paid');
         CREATE TABLE shop.customer (id serial PRIMARY KEY, name text NOT NULL, tags hstore);
         CREATE TABLE shop.orders (id int PRIMARY KEY, customer int REFERENCES shop.customer, state shop.state,
            at timestamptz, note text, EXCLUDE USING btree (id WITH =));
         CREATE INDEX orders_at ON shop.orders (at);
         ALTER TABLE shop.orders ADD COLUMN serial int GENERATED ALWAYS AS IDENTITY;
         INSERT INTO shop.customer (name, tags) SELECT 'name ' || n, hstore('n', n::text) FROM generate_series(1, 500) n;
         INSERT INTO shop.orders SELECT n, 1 + n % 500, (CASE n % 2 WHEN 0 THEN 'new' ELSE 'paid' END)::shop.state,
            '2026-01-15 14:30:00+01'::timestamptz + n * interval '1 hour',
            CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN E'\\.' WHEN 2 THEN E'a\nb\tc\\N' WHEN 3 THEN '' ELSE repeat(md5(n::text), 10) END
            FROM generate_series(1, 40000) n;
         CREATE TABLE "Odd ""Schema"" 1"."täble 1" ("Cölumn "" x" bytea);
         INSERT INTO "Odd ""Schema"" 1"."täble 1" SELECT decode(md5(n::text), 'hex') FROM generate_series(1, 300) n;
         CREATE TABLE public.parted (id bigint, at date) PARTITION BY RANGE (at);
         CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
         CREATE TABLE public.parted_2 PARTITION OF public.parted DEFAULT;
         INSERT INTO public.parted SELECT n, '2026-01-01'::date + n % 365 FROM generate_series(1, 3000) n;
         CREATE TABLE empty_one ();
         CREATE MATERIALIZED VIEW shop.sums AS SELECT state, count(*) FROM shop.orders GROUP BY 1;
         CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE 'GRANT x TO y'; END $f$;
         CREATE TRIGGER touched BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touch();
         ALTER TABLE shop.orders OWNER TO "Ann B"; ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
         CREATE POLICY mine ON shop.orders FOR SELECT TO reader USING (note = 'TO boss');
         GRANT SELECT ON shop.orders TO reader; GRANT USAGE ON SCHEMA shop TO reader WITH GRANT OPTION;
         ALTER DEFAULT PRIVILEGES FOR ROLE boss IN SCHEMA shop GRANT SELECT ON TABLES TO reader;
         SELECT lo_from_bytea(0, decode(repeat('00ff0a5c', 5000), 'hex')) FROM generate_series(1, 3);"#,
    );
    sql_odd(server, "CREATE TABLE t AS SELECT n, md5(n::text) AS m FROM generate_series(1, 1000) n");
}

/// Runs SQL in the odd database, whose name psql would take for a connection string.
pub fn sql_odd(server: &Server, text: &str) -> String {
    let mut psql = server.client("psql");
    psql.env("PGDATABASE", ODD).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
    String::from_utf8(feed("psql", psql, text.as_bytes())).unwrap()
}

/// Digests of all that `fill` put into `app`.
pub const DIGESTS: &str = r#"
SELECT 'customer', count(*), md5(string_agg(t::text, E'\n' ORDER BY id)) FROM shop.customer t UNION ALL
SELECT 'orders', count(*), md5(string_agg(t::text, E'\n' ORDER BY id)) FROM shop.orders t UNION ALL
SELECT 'odd', count(*), md5(string_agg(t::text, E'\n' ORDER BY t::text)) FROM "Odd ""Schema"" 1"."täble 1" t UNION ALL
SELECT 'parted', count(*), md5(string_agg(t::text, E'\n' ORDER BY id)) FROM public.parted t UNION ALL
SELECT 'sums', count(*), md5(string_agg(t::text, E'\n' ORDER BY state)) FROM shop.sums t UNION ALL
SELECT 'large objects', count(*), md5(string_agg(md5(lo_get(oid)), ',')) FROM pg_largeobject_metadata UNION ALL
SELECT 'sequence', last_value, is_called::text FROM shop.customer_id_seq UNION ALL
SELECT 'policies', count(*), string_agg(polname::text, ',') FROM pg_policy UNION ALL
SELECT 'indexes', count(*), md5(string_agg(indexdef, E'\n' ORDER BY indexname)) FROM pg_indexes WHERE schemaname = 'shop'"#;

/// Runs a verb of `pg` against a server.
pub fn pg(program: &Program, server: &Server, arguments: &[&str]) -> Output {
    let sockets = server.sockets();
    let mut all = vec!["pg"];
    all.extend(arguments);
    all.extend(["--host", sockets.to_str().unwrap(), "--user", "tester"]);
    program.run(&all)
}

pub fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_chronolith"))
}

/// The facts of the newest snapshot.
pub fn facts(program: &Program) -> DumpFacts {
    let snapshots = Snapshots::load(&program.client().open()).unwrap();
    let newest = snapshots.iter().next_back().unwrap().snapshot.clone();
    DumpFacts::read(&newest).unwrap().unwrap()
}

fn newest(program: &Program) -> String {
    Snapshots::load(&program.client().open()).unwrap().iter().next_back().unwrap().id.to_string()
}

fn labels(program: &Program) -> Vec<String> {
    let snapshots = Snapshots::load(&program.client().open()).unwrap();
    snapshots.iter().map(|view| view.snapshot.label.clone()).collect()
}

fn cat(program: &Program, name: &str) -> Vec<u8> {
    check("cat", program.command(&["cat", name]).output())
}

#[test]
fn all_databases_and_the_globals_are_one_snapshot() {
    let server = Server::start();
    fill(&server);
    let program = program();
    let said = expect(&pg(&program, &server, &["dump", "--jobs", "3"]), 0);
    assert!(said.contains("3 databases, each consistent in itself, and the globals"), "{said}");
    assert!(said.contains("app: ") && said.contains("43800 rows in 6 tables, 3 large objects"), "{said}");

    let facts = facts(&program);
    assert_eq!(facts.databases.keys().collect::<Vec<_>>(), ["app", "postgres", ODD]);
    assert_eq!((facts.major, facts.format, facts.role_passwords), (15, DumpFormat::Custom, true));
    assert_eq!(facts.server_version, server.sql("postgres", "SHOW server_version").trim());
    assert!(facts.system_identifier.is_some() && !facts.from_standby);
    let app = &facts.databases["app"];
    assert_eq!((app.owner.as_str(), app.encoding.as_str(), app.collate.as_str()), ("Ann B", "UTF8", "C"));
    assert_eq!((app.rows, app.tables, app.large_objects), (Some(43_800), Some(6), Some(3)));
    assert_eq!(app.locale_provider, "libc");
    assert!(app.extensions.contains_key("hstore") && app.bytes > 1 << 20, "{app:?}");
    assert_eq!(facts.databases[ODD].file, "databases/we%2Fird \"1\" = größe.dump");
    let listed =
        String::from_utf8(check("ls", program.command(&["ls", "-R", "all-databases"]).output())).unwrap();
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        [
            "databases/",
            "databases/app.dump",
            "databases/postgres.dump",
            &facts.databases[ODD].file,
            "globals.sql"
        ]
    );

    // The globals hold what was asked for, and the password, which stands in no message.
    let globals = String::from_utf8(cat(&program, "all-databases:globals.sql")).unwrap();
    assert!(
        globals.contains("CREATE ROLE \"Ann B\"") && globals.contains("PASSWORD 'SCRAM-SHA-256"),
        "{globals}"
    );
    assert!(!said.contains("SCRAM"), "{said}");

    // The archive is pg_dump's own: pg_restore understands it, and our reader writes the same bytes.
    let bytes = cat(&program, "all-databases:databases/app.dump");
    let (contents, length) = Contents::read(&bytes).unwrap().unwrap();
    assert!(contents.write() == bytes[..length] && contents.is_plain());
    let file = program.folder.path().join("app.dump");
    std::fs::write(&file, &bytes).unwrap();
    let list = check("pg_restore", server.client("pg_restore").arg("--list").arg(&file).output());
    let list = String::from_utf8(list).unwrap();
    assert!(list.contains(&format!("TOC Entries: {}\n", contents.entries.len())), "{list}");
    // Every row comes back with PostgreSQL's own program.
    server.sql("postgres", "CREATE DATABASE fresh TEMPLATE template0");
    let mut restore = server.client("pg_restore");
    restore.args(["--exit-on-error", "-d", "fresh"]);
    feed("pg_restore", restore, &bytes);
    assert_eq!(server.sql("fresh", DIGESTS), server.sql("app", DIGESTS));
    check("check", program.command(&["check", "--read-data"]).output());
}

/// What changed is what is stored: one percent of the rows.
#[test]
fn a_second_dump_stores_what_changed() {
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE app");
    server.sql(
        "app",
        "CREATE TABLE t AS SELECT n, md5(n::text) || md5((n+1)::text) AS m, 0 AS turn FROM generate_series(1, 60000) n",
    );
    for format in ["custom", "plain"] {
        let program = program();
        let dump = || expect(&pg(&program, &server, &["dump", "app", "--format", format]), 0);
        dump();
        let summary = |program: &Program| {
            let snapshots = Snapshots::load(&program.client().open()).unwrap();
            snapshots.iter().next_back().unwrap().snapshot.summary.clone()
        };
        let first = summary(&program);
        server.sql("app", "UPDATE t SET turn = turn + 1 WHERE n % 100 = 7; VACUUM FULL t");
        let said = dump();
        assert!(said.contains("compared with"), "{said}");
        let second = summary(&program);
        assert!(second.bytes > 4 << 20, "{second:?}");
        let (all, added) = (first.stored_bytes, second.stored_bytes);
        // The rows that changed moved to the end of the table.
        assert!(added * 8 < all, "{format}: {added} bytes of {all} were added");
        // A plain dump that did not change is the same, whatever key pg_dump would have drawn.
        dump();
        let third = summary(&program);
        assert!(third.stored_bytes * 100 < all, "{format}: {third:?}");
        if format == "plain" {
            assert!(third.new_bytes < 4096, "only the tree, with other times: {third:?}");
            let name = "app:databases/app.sql";
            let sql = String::from_utf8(cat(&program, name)).unwrap();
            assert!(sql.contains("PostgreSQL database dump complete"));
            server.sql("postgres", "DROP DATABASE IF EXISTS again");
            server.sql("postgres", "CREATE DATABASE again");
            let mut psql = server.client("psql");
            psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "again"]);
            feed("psql", psql, sql.as_bytes());
            let digest = "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY n)) FROM t t";
            assert_eq!(server.sql("again", digest), server.sql("app", digest));
        }
    }
}

#[test]
fn parts_of_a_database_and_what_makes_no_sense() {
    let server = Server::start();
    fill(&server);
    let program = program();
    let dump = |more: &[&str]| pg(&program, &server, &[&["dump"], more].concat());
    expect(&dump(&["app", "--table", "shop.customer", "--label", "part"]), 0);
    let part = facts(&program);
    assert_eq!(part.only, ["--table=shop.customer"]);
    assert_eq!((part.databases["app"].rows, part.databases["app"].tables), (Some(500), Some(1)));
    // A part is not the whole: without a label it is in a series of its own, and names of the whole do not find it.
    let said = expect(&dump(&["app"]), 0);
    assert!(!said.contains("compared with"), "{said}");
    let whole = newest(&program);
    expect(&dump(&["app", "--table", "shop.customer"]), 0);
    let part = newest(&program);
    expect(&dump(&["app", "--schema", "shop"]), 0);
    let labels: Vec<String> = labels(&program);
    assert_eq!(labels, ["part", "app", "app only table=shop.customer", "app only schema=shop"]);
    let planned =
        expect(&pg(&program, &server, &["load", "app", "--database", "app=x", "--create", "-n"]), 0);
    assert!(!planned.contains("a part of app only"), "{planned}");
    let short = &part[..16];
    let planned =
        expect(&pg(&program, &server, &["load", short, "--database", "app=x", "--create", "-n"]), 0);
    assert!(planned.contains("a part of app only: --table=shop.customer"), "{planned}");
    // Of the whole and of each part the newest stays.
    expect(&program.run(&["forget", "--keep-last", "1"]), 0);
    assert!(program.client().snapshots().iter().any(|id| id.to_string() == whole));
    for (arguments, code, why) in [
        (vec!["--table", "t"], 2, "belong to one database"),
        (vec!["app", "postgres", "--schema", "shop"], 2, "belong to one database"),
        (vec!["nothing_here"], 4, "no database \"nothing_here\""),
        (vec!["closed"], 4, "no database \"closed\""),
        (vec!["app", "--table", "no_such"], 1, "no matching tables"),
        (vec!["app", "--programs", "/nowhere"], 2, "was not found here"),
        (vec!["app", "--label", "a:b"], 2, "cannot be a label"),
    ] {
        let said = expect(&dump(&arguments), code);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    // A role that may not read passwords says so, and dumps the rest.
    server.sql("postgres", "CREATE ROLE plain LOGIN");
    sql_odd(&server, "GRANT SELECT ON t TO plain");
    let sockets = server.sockets();
    let host = sockets.to_str().unwrap();
    let output = program.run(&["pg", "dump", ODD, "--host", host, "--user", "plain", "--label", "plain"]);
    let said = expect(&output, 0);
    assert!(said.contains("dumped without them"), "{said}");
    assert!(!facts(&program).role_passwords);
    assert!(!String::from_utf8(cat(&program, "plain:globals.sql")).unwrap().contains("PASSWORD '"));
    assert_eq!(program.client().snapshots().len(), 5);
}

/// A pg_dump that breaks off at any point, is killed, or lies about its end: nothing is committed.
#[test]
fn a_producer_that_fails_commits_nothing_and_is_quoted() {
    let server = Server::start();
    fill(&server);
    let program = program();
    let folder = program.folder.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let script = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let (real, all) = (tool("pg_dump"), tool("pg_dumpall"));
    let (real, all) = (real.display(), all.display());
    let version =
        format!("case \"$1\" in --version) exec {real} --version;; --help) exec {real} --help;; esac");
    let good = format!("exec {all} \"$@\"");
    let is_app = "[ \"$PGDATABASE\" = app ]";
    for (dump, globals, why) in [
        (
            format!("{is_app} && {{ echo no such luck >&2; exit 3; }}; exec {real} \"$@\""),
            &good,
            "no such luck",
        ),
        (
            format!("{is_app} && {{ {real} \"$@\" | head -c 300000; exit 1; }}; exec {real} \"$@\""),
            &good,
            "exit code 1",
        ),
        (
            format!("{is_app} && {{ {real} \"$@\" | head -c 300000; exit 0; }}; exec {real} \"$@\""),
            &good,
            "is no whole archive",
        ),
        (format!("{is_app} && kill -9 $$; exec {real} \"$@\""), &good, "signal 9"),
        (format!("{is_app} && {{ echo this is SQL; exit 0; }}; exec {real} \"$@\""), &good, "no"),
        (format!("exec {real} \"$@\""), &"echo globals are gone >&2; exit 1".to_owned(), "globals are gone"),
    ] {
        script("pg_dump", &format!("{version}\n{dump}"));
        script("pg_dumpall", &format!("{version}\n{globals}"));
        let output = pg(&program, &server, &["dump", "--programs", folder.to_str().unwrap()]);
        let said = expect(&output, 1);
        assert!(said.contains(why), "{dump}: {said}");
        assert_eq!(program.client().snapshots().len(), 0, "{dump}: something was committed");
    }
    // Passwords and keys stand in no command line: what a program sees of its own is recorded.
    let seen = folder.join("seen");
    let record = format!("echo \"$@\" >> {}; env >> {}.env", seen.display(), seen.display());
    script("pg_dump", &format!("{version}\n{record}\nexec {real} \"$@\""));
    script("pg_dumpall", &format!("{version}\n{record}\n{good}"));
    let sockets = server.sockets();
    let host = sockets.to_str().unwrap();
    let arguments =
        ["pg", "dump", "app", "--host", host, "--user", "tester", "--programs", folder.to_str().unwrap()];
    let mut command = program.command(&arguments);
    command.env("PGPASSWORD", "streng-geheim");
    expect(&command.output().unwrap(), 0);
    let seen_there = std::fs::read_to_string(&seen).unwrap();
    assert!(!seen_there.contains("geheim") && seen_there.contains("--format=custom"), "{seen_there}");
    let environment = std::fs::read_to_string(seen.with_extension("env")).unwrap();
    assert!(environment.contains("PGPASSWORD=streng-geheim"));
}
