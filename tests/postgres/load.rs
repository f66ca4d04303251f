//! Dumped databases back into servers: the same and others, whole and in parts, and what is refused.

use super::base::expect;
use super::logical::{DIGESTS, fill, pg, program, sql_odd};
use super::server::{Server, tool};
use super::support::program::Program;
use super::support::server::check;
use chronolith::ops::Snapshots;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

fn load(program: &Program, server: &Server, more: &[&str]) -> Output {
    pg(program, server, &[&["load", "all-databases"], more].concat())
}

/// A server with databases, and a repository that holds them.
fn dumped() -> (Server, Program) {
    let server = Server::start();
    fill(&server);
    let program = program();
    expect(&pg(&program, &server, &["dump"]), 0);
    (server, program)
}

/// What a database has of itself: owner, privileges, limits, settings, comment.
fn own(server: &Server, database: &str) -> String {
    server.sql(
        "postgres",
        &format!(
            "SELECT pg_get_userbyid(datdba), datacl, datconnlimit, shobj_description(d.oid, 'pg_database'), \
             (SELECT array_agg(setconfig ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid) \
             FROM pg_database d WHERE datname = '{database}'"
        ),
    )
}

/// Names of databases that a load made and that should be gone.
fn leftovers(server: &Server) -> String {
    server.sql(
        "postgres",
        "SELECT datname FROM pg_database WHERE datname LIKE 'chronolith%' OR datname LIKE '%before%'",
    )
}

#[test]
fn a_database_comes_back_under_another_name_with_all_that_is_its_own() {
    let (server, program) = dumped();
    let expected = server.sql("app", DIGESTS);
    let said = expect(&load(&program, &server, &["--database", "app=copy"]), 2);
    assert!(said.contains("no database \"copy\"") && said.contains("--create"), "{said}");
    let said = expect(&load(&program, &server, &["--create"]), 2);
    assert!(said.contains("several databases: app, postgres"), "{said}");
    let dry = expect(&load(&program, &server, &["--database", "app=copy", "--create", "--dry-run"]), 0);
    assert!(dry.contains("app as copy") && dry.contains("nothing was written"), "{dry}");
    assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'copy'").trim(), "0");

    for (target, jobs) in [("copy", "1"), ("copy3", "3")] {
        let named = format!("app={target}");
        let said = expect(&load(&program, &server, &["--database", &named, "--create", "--jobs", jobs]), 0);
        assert!(said.contains("43800 rows in 6 tables, 3 large objects, as many as in the dump"), "{said}");
        assert_eq!(server.sql(target, DIGESTS), expected);
        assert_eq!(own(&server, target).replace(target, "app"), own(&server, "app"));
        let rights = "SELECT relname, relowner::regrole, relacl FROM pg_class \
                      WHERE relnamespace = 'shop'::regnamespace ORDER BY 1";
        assert_eq!(server.sql(target, rights), server.sql("app", rights));
        let analysed = "SELECT reltuples FROM pg_class WHERE oid = 'shop.orders'::regclass";
        assert_eq!(server.sql(target, analysed).trim(), "40000");
    }
    // A name that would be taken for a connection string, both ways.
    let odd = "x = \"y\" ö/";
    expect(&load(&program, &server, &["--database", "postgres=pg2", "--create"]), 0);
    let said = expect(&pg(&program, &server, &["dump", "copy", "--label", "one"]), 0);
    assert!(said.contains("copy"), "{said}");
    server.sql("postgres", &format!("ALTER DATABASE copy RENAME TO \"{}\"", odd.replace('"', "\"\"")));
    expect(&pg(&program, &server, &["load", "one", "--create"]), 0);
    assert_eq!(server.sql("copy", DIGESTS), expected);
    assert_eq!(leftovers(&server), "");
}

#[test]
fn a_database_that_holds_something_is_protected() {
    let (server, program) = dumped();
    let expected = server.sql("app", DIGESTS);
    server.sql(
        "app",
        "CREATE TABLE public.since AS SELECT 'written since' AS text; DELETE FROM shop.orders WHERE id < 9;
         REFRESH MATERIALIZED VIEW shop.sums",
    );
    let changed = server.sql("app", DIGESTS);
    let said = expect(&load(&program, &server, &["--database", "app"]), 2);
    assert!(said.contains("would be replaced") && said.contains("--force"), "{said}");
    server.sql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
    let said = expect(&load(&program, &server, &["--database", "app=latin"]), 2);
    assert!(said.contains("encoding \"UTF8\" instead of \"LATIN1\""), "{said}");

    // A reader cannot back up what is there, and without that nothing is dropped.
    let reader = program.folder.path().join("reader");
    let path = reader.to_str().unwrap();
    check("key add", program.command(&["key", "add", "--role", "reader", "--new-key-file", path]).output());
    let sockets = server.sockets();
    let as_reader = |more: &[&str]| {
        let host = ["--host", sockets.to_str().unwrap(), "--user", "tester"];
        let all = [&["pg", "load", "all-databases"], more, &host].concat();
        program.command(&all).env("CHRONOLITH_KEY_FILE", &reader).output().unwrap()
    };
    let said = expect(&as_reader(&["--database", "app"]), 6);
    assert!(said.contains("role"), "{said}");
    expect(&as_reader(&["--database", "app=new", "--create"]), 0);
    assert_eq!(server.sql("new", DIGESTS), expected);
    let said = expect(&as_reader(&["--database", "app=new", "--force"]), 0);
    assert!(said.contains("kept on the server, as the database new_before_"), "{said}");
    let kept = leftovers(&server).trim().to_owned();
    assert_eq!(server.sql(&kept, DIGESTS), expected);
    server.sql("postgres", &format!("DROP DATABASE {kept}"));

    // Somebody is in it, and what he wrote is in the safety backup.
    let mut psql = server.client("psql");
    psql.args(["-X", "-d", "app", "-c", "SELECT pg_sleep(1000)"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut guest = psql.spawn().unwrap();
    while server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app'").trim() == "0"
    {
        std::thread::yield_now();
    }
    let said = expect(&load(&program, &server, &["--database", "app", "--force"]), 0);
    assert!(said.contains("what app held before is in snapshot"), "{said}");
    assert!(!guest.wait().unwrap().success());
    assert_eq!(server.sql("app", DIGESTS), expected);
    assert_eq!(leftovers(&server), "");
    let snapshots = Snapshots::load(&program.client().open()).unwrap();
    let view = snapshots.resolve("before-load-app").unwrap();
    let name = view.snapshot.sources[0].clone();
    let named = format!("{name}=before");
    expect(&pg(&program, &server, &["load", "before-load-app", "--database", &named, "--create"]), 0);
    assert_eq!(server.sql("before", DIGESTS), changed);
    assert_eq!(server.sql("before", "SELECT text FROM public.since").trim(), "written since");
    // An empty one is replaced without more ado.
    server.sql("postgres", "CREATE DATABASE empty TEMPLATE template0");
    expect(&load(&program, &server, &["--database", "app=empty"]), 0);
    assert_eq!(server.sql("empty", DIGESTS), expected);
    // A writer can dump, and read nothing.
    let output = as_writer(&program, &server);
    let said = expect(&output, 6);
    assert!(said.contains("read content"), "{said}");
}

/// A writer's key dumps, and cannot load.
fn as_writer(program: &Program, server: &Server) -> Output {
    let writer = program.folder.path().join("writer");
    let path = writer.to_str().unwrap();
    check("key add", program.command(&["key", "add", "--role", "writer", "--new-key-file", path]).output());
    let sockets = server.sockets();
    let host = ["--host", sockets.to_str().unwrap(), "--user", "tester"];
    let run = |arguments: &[&str]| {
        let all = [&["pg"], arguments, &host].concat();
        program.command(&all).env("CHRONOLITH_KEY_FILE", &writer).output().unwrap()
    };
    expect(&run(&["dump", "app", "--label", "by-writer"]), 0);
    run(&["load", "by-writer", "--database", "app=other", "--create"])
}

#[test]
fn another_server_has_other_roles() {
    let (server, program) = dumped();
    let expected = server.sql("app", DIGESTS);
    let other = Server::start();
    let said = expect(&load(&program, &other, &["--database", "app", "--create"]), 2);
    assert!(said.contains("lacks roles") && said.contains("Ann B, boss, reader"), "{said}");
    let said =
        expect(&load(&program, &other, &["--database", "app", "--create", "--role-map", "nobody=tester"]), 2);
    assert!(said.contains("lacks roles") || said.contains("no role \"nobody\""), "{said}");
    other.sql("postgres", "CREATE ROLE \"new \"\"one\"; CREATE ROLE reader");
    let map = ["--database", "app", "--create", "--role-map", "Ann B=new \"one", "--role-map", "boss=tester"];
    expect(&load(&program, &other, &map), 0);
    assert_eq!(other.sql("app", DIGESTS), expected);
    let owner = "SELECT relowner::regrole FROM pg_class WHERE oid = 'shop.orders'::regclass";
    assert_eq!(other.sql("app", owner).trim(), "\"new \"\"one\"");
    assert!(own(&other, "app").starts_with("new \"one|"), "{}", own(&other, "app"));
    assert_eq!(other.sql("app", "SELECT has_table_privilege('reader', 'shop.orders', 'SELECT')").trim(), "t");
    // Without owners and privileges everything is the loader's; a policy still names its role.
    let bare = ["--database", "app=bare", "--create", "--no-owner", "--no-privileges"];
    expect(&load(&program, &other, &bare), 0);
    assert_eq!(other.sql("bare", DIGESTS), expected);
    assert_eq!(other.sql("bare", owner).trim(), "tester");
    assert_eq!(
        other.sql("bare", "SELECT has_table_privilege('reader', 'shop.orders', 'SELECT')").trim(),
        "f"
    );
}

#[test]
fn one_table_or_one_schema_replaces_nothing() {
    let (server, program) = dumped();
    let digest = "SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM shop.orders t";
    let expected = server.sql("app", digest);
    let said = expect(&load(&program, &server, &["--database", "app", "--table", "shop.orders"]), 2);
    assert!(said.contains("has already: ") && said.contains("shop.orders"), "{said}");
    let said = expect(&load(&program, &server, &["--database", "app", "--table", "nothing"]), 4);
    assert!(said.contains("no table \"nothing\""), "{said}");
    // The table was dropped at 14:30; the database goes on.
    server.sql("app", "DROP TABLE shop.orders CASCADE; UPDATE shop.customer SET name = 'changed since'");
    let before = server.sql("app", "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM shop.customer t");
    let said = expect(&load(&program, &server, &["--database", "app", "--table", "orders"]), 0);
    assert!(said.contains("foreign key") && said.contains("left out"), "{said}");
    assert_eq!(server.sql("app", digest), expected);
    assert_eq!(
        server.sql("app", "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM shop.customer t"),
        before
    );
    let belongs = "SELECT (SELECT count(*) FROM pg_indexes WHERE tablename = 'orders'), \
        (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND NOT tgisinternal), \
        (SELECT count(*) FROM pg_policy), (SELECT relowner::regrole FROM pg_class WHERE oid = 'shop.orders'::regclass)";
    assert_eq!(server.sql("app", belongs).trim(), "3|1|1|\"Ann B\"");
    // Into a new database with what it needs: its type, its schema, the function of its trigger.
    let both = [
        "--database",
        "app=scratch",
        "--create",
        "--table",
        "shop.orders",
        "--table",
        "shop.customer",
        "--jobs",
        "2",
    ];
    expect(&load(&program, &server, &both), 0);
    assert_eq!(server.sql("scratch", digest), expected);
    assert_eq!(server.sql("scratch", "SELECT count(*) FROM pg_constraint WHERE contype = 'f'").trim(), "1");
    assert_eq!(server.sql("scratch", "SELECT nextval('shop.customer_id_seq')").trim(), "501");
    // A partitioned table comes with its parts, a schema with all that is in it.
    expect(&load(&program, &server, &["--database", "app=scratch", "--table", "public.parted"]), 0);
    assert_eq!(server.sql("scratch", "SELECT count(*) FROM public.parted").trim(), "3000");
    expect(&load(&program, &server, &["--database", "app=scratch", "--schema", "Odd \"Schema\" 1"]), 0);
    assert_eq!(
        server.sql("scratch", "SELECT count(*) FROM \"Odd \"\"Schema\"\" 1\".\"täble 1\"").trim(),
        "300"
    );
    assert_eq!(leftovers(&server), "");
}

fn scripted(program: &Program, restore: &str) -> PathBuf {
    let folder = program.folder.path().join("bin");
    std::fs::create_dir_all(&folder).unwrap();
    let real = tool("pg_restore");
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in --version) exec {0} --version;; esac\n{1}\n",
        real.display(),
        restore.replace("REAL", &real.display().to_string())
    );
    let path = folder.join("pg_restore");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_load_that_fails_changes_nothing() {
    let (server, program) = dumped();
    let before = server.sql("app", DIGESTS);
    let databases = "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database";
    let names = server.sql("postgres", databases);
    for (restore, jobs, why) in [
        ("echo out of luck >&2; exit 3", "1", "out of luck"),
        ("head -c 100000 > /dev/null; echo gone >&2; exit 1", "1", "gone"),
        ("head -c 700000 | REAL \"$@\"; exit 1", "1", "exit code 1"),
        ("cat > /dev/null; exit 0", "1", "does not exist"),
        ("kill -9 $$", "2", "signal 9"),
        ("exit 0", "2", "does not exist"),
    ] {
        let folder = scripted(&program, restore);
        let arguments =
            ["--database", "app", "--force", "--jobs", jobs, "--programs", folder.to_str().unwrap()];
        let said = expect(&load(&program, &server, &arguments), 1);
        assert!(said.contains(why), "{restore}: {said}");
        assert_eq!(server.sql("app", DIGESTS), before, "{restore}");
        assert_eq!(server.sql("postgres", databases), names, "{restore}");
    }
    // Interrupted while it runs.
    let started = program.folder.path().join("started");
    let folder = scripted(&program, &format!("touch {}; sleep 1000", started.display()));
    let sockets = server.sockets();
    let arguments = [
        "pg",
        "load",
        "all-databases",
        "--database",
        "app",
        "--force",
        "--host",
        sockets.to_str().unwrap(),
        "--user",
        "tester",
        "--programs",
        folder.to_str().unwrap(),
    ];
    let mut child = program.command(&arguments).spawn().unwrap();
    while !started.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    expect(&child.wait_with_output().unwrap(), 130);
    assert_eq!(server.sql("app", DIGESTS), before);
    assert_eq!(server.sql("postgres", databases), names);
    assert_eq!(sql_odd(&server, "SELECT count(*) FROM t").trim(), "1000");
}

/// What a schema has of itself, and whether somebody else may use it.
fn of_schema(server: &Server, database: &str, schema: &str) -> String {
    let schema = schema.replace('\'', "''");
    server.sql(
        database,
        &format!(
            "SELECT obj_description(oid, 'pg_namespace'), has_schema_privilege('reader', oid, 'USAGE'), \
             has_schema_privilege('boss', oid, 'USAGE') FROM pg_namespace WHERE nspname = '{schema}'"
        ),
    )
}

/// A database and a schema keep what is theirs, and what stands there keeps its own, whatever their names: `pg_dump`
/// quotes those that are no plain words, and words of its language.
#[test]
fn names_that_need_quotes_are_names_like_others() {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let server = Server::start();
    server.sql("postgres", "CREATE ROLE reader; CREATE ROLE boss");
    let names = ["plain", "dash-db", "Upper", "user", "a b", "q\"u", "x=y"];
    for name in names {
        server.sql("postgres", &format!("CREATE DATABASE {}", quote(name)));
        let own = format!(
            "REVOKE ALL ON DATABASE {0} FROM PUBLIC; GRANT CONNECT ON DATABASE {0} TO reader;
             COMMENT ON DATABASE {0} IS 'the one'; ALTER DATABASE {0} SET work_mem = '7MB'",
            quote(name)
        );
        server.sql("postgres", &own);
    }
    for schema in names {
        let sql = format!(
            "CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS 'dumped'; GRANT USAGE ON SCHEMA {0} TO reader;
             CREATE TABLE {0}.t (n int); GRANT SELECT ON {0}.t TO reader",
            quote(schema)
        );
        server.sql("plain", &sql);
    }
    let program = program();
    expect(&pg(&program, &server, &["dump"]), 0);
    for (number, name) in names.into_iter().enumerate() {
        let target = format!("copy{number}");
        let named = format!("{}={target}", name.replace('=', "=="));
        expect(&load(&program, &server, &["--database", &named, "--create"]), 0);
        let shown = own(&server, &target);
        assert!(
            shown.contains("the one") && shown.contains("reader=c") && shown.contains("7MB"),
            "{name}: {shown}"
        );
        assert!(!shown.contains("{=") && !shown.contains(",="), "{name}: PUBLIC may do nothing: {shown}");
        // In the place of what has the name: that is empty, but for the first.
        if name != "plain" {
            let same = name.replace('=', "==");
            expect(&load(&program, &server, &["--database", &same]), 0);
            assert!(own(&server, &name.replace('\'', "''")).contains("the one"), "{name}");
        }
    }
    for (number, schema) in names.into_iter().enumerate() {
        // Into a database that has the schema: it stays as it is.
        let target = format!("there{number}");
        server.sql("postgres", &format!("CREATE DATABASE {target}"));
        let sql = format!(
            "CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS 'mine'; GRANT USAGE ON SCHEMA {0} TO boss",
            quote(schema)
        );
        server.sql(&target, &sql);
        let into = format!("plain={target}");
        expect(&load(&program, &server, &["--database", &into, "--schema", schema]), 0);
        assert_eq!(of_schema(&server, &target, schema).trim(), "mine|f|t", "{schema}");
        // Into one that has not: the schema comes with a table, and with it whoever may use it.
        let table = format!("{schema}.t");
        let into = format!("plain=new{number}");
        expect(&load(&program, &server, &["--database", &into, "--table", &table, "--create"]), 0);
        assert_eq!(of_schema(&server, &format!("new{number}"), schema).trim(), "dumped|t|f", "{schema}");
    }
    let said = expect(&load(&program, &server, &["--database", "x=y"]), 4);
    assert!(said.contains("no database \"x\"") && said.contains("is written =="), "{said}");
    let said = expect(&pg(&program, &server, &["dump", "plain", "nosuch"]), 4);
    assert!(said.contains("no database \"nosuch\"") && said.contains("plain"), "{said}");
}
