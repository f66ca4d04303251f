//! Dumps go through the real program and come back the same, into a fresh database whose every row is
//! compared.

use super::server::Server;
use super::support::program::Program;
use super::support::server::{check, feed};

/// Rows as awkward as they come: every type of bytes, quotes, newlines, backslashes, nulls and not.
const TABLES: &str = r#"
CREATE TABLE awkward (id int PRIMARY KEY, words text, raw bytea, many text[], document jsonb,
    amount numeric(20,4), at timestamptz, "Quoted "" name" text);
INSERT INTO awkward SELECT n,
    CASE n % 7 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'tab\t and \\. and \nnewline' WHEN 3 THEN E'\\N'
        WHEN 4 THEN 'ünïcødé ' || chr(128512) WHEN 5 THEN E'quote '' double " semicolon ;' ELSE repeat(md5(n::text), 40) END,
    decode(md5(n::text) || '00ff5c0a', 'hex'), ARRAY['a,b', '{', NULL, n::text], jsonb_build_object('n', n, 'null', NULL),
    n * 12345.6789, '2026-01-15 14:30:00+01'::timestamptz + n * interval '1 hour', 'q' || n
FROM generate_series(1, 20000) n;
CREATE TABLE partitioned (id bigint, at date) PARTITION BY RANGE (at);
CREATE TABLE partitioned_1 PARTITION OF partitioned FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE partitioned_2 PARTITION OF partitioned DEFAULT;
INSERT INTO partitioned SELECT n, '2026-01-01'::date + n % 365 FROM generate_series(1, 5000) n;
CREATE TABLE empty_one ();
CREATE VIEW seen AS SELECT id, words FROM awkward WHERE id % 2 = 0;
SELECT lo_from_bytea(0, decode(repeat('00ff0a5c', 5000), 'hex'));
"#;

const DIGESTS: &str = "
SELECT 'awkward', count(*), md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM awkward t UNION ALL
SELECT 'partitioned', count(*), md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM partitioned t UNION ALL
SELECT 'seen', count(*), md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM seen t UNION ALL
SELECT 'empty', count(*), '' FROM empty_one UNION ALL
SELECT 'large objects', count(*), md5(string_agg(md5(lo_get(oid)), ',')) FROM pg_largeobject_metadata";

#[test]
fn dumps_of_a_real_server_come_back() {
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE app; CREATE ROLE app_reader;");
    server.sql("app", TABLES);
    let expected = server.sql("app", DIGESTS);
    assert_eq!(expected.lines().count(), 5, "{expected}");
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));

    // `pg_dump app | chronolith backup --stdin app.sql`, byte-identical. Plain dumps may carry a random
    // \restrict key each run (M19), so the very bytes of one run are kept to compare.
    let dump = check("pg_dump", server.client("pg_dump").arg("app").output());
    feed("backup", program.command(&["backup", "--stdin", "app.sql"]), &dump);
    let back = check("cat", program.command(&["cat", "latest:app.sql"]).output());
    assert!(back == dump, "the dump came back with other bytes");

    // It loads into a fresh database, and every row is what it was.
    server.sql("postgres", "CREATE DATABASE fresh");
    let mut psql = server.client("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "fresh"]);
    feed("psql", psql, &back);
    assert_eq!(server.sql("fresh", DIGESTS), expected);

    // Two producers, one snapshot.
    let app = format!("app.sql={}", server.command_line("pg_dump", "app"));
    let globals = format!("globals.sql={}", server.command_line("pg_dumpall", "--globals-only"));
    let both = ["backup", "--label", "both", "--exec", &app, "--exec", &globals];
    check("backup", program.command(&both).output());
    let globals = check("cat", program.command(&["cat", "both:globals.sql"]).output());
    assert!(String::from_utf8(globals).unwrap().contains("CREATE ROLE app_reader"));
    server.sql("postgres", "CREATE DATABASE fresher");
    let mut psql = server.client("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "fresher"]);
    feed("psql", psql, &check("cat", program.command(&["cat", "both:app.sql"]).output()));
    assert_eq!(server.sql("fresher", DIGESTS), expected);

    // A database that does not exist: nothing is committed, and what pg_dump said is shown.
    let missing = format!("app.sql={}", server.command_line("pg_dump", "no_such_database"));
    let output = program.run(&["backup", "--label", "none", "--exec", &app, "--exec", &missing]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let clash = said.contains("two sources");
    assert!(clash || said.contains("no_such_database"), "{said}");
    let missing = format!("missing.sql={}", server.command_line("pg_dump", "no_such_database"));
    let output = program.run(&["backup", "--label", "none", "--exec", &app, "--exec", &missing]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no_such_database") && said.contains("does not exist"), "{said}");
    assert_eq!(program.client().snapshots().len(), 2, "something was committed");
}
