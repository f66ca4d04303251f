//! Dumps that a newer `pg_dump` has made: what reads them and what does not is said before anything is touched.

use super::base::expect;
use super::logical::{facts, pg, program};
use super::server::{Server, tool};
use super::support::program::Program;
use super::support::server::check;
use chronolith::postgres::dump::contents::Contents;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Programs that call themselves of a version: `pg_dump` prints a file, the others are the real ones;
/// `pg_restore` leaves a trace when it is asked for anything but its version.
struct Programs {
    folder: PathBuf,
}

impl Programs {
    fn new(program: &Program, version: &str, dump: &Path) -> Self {
        let folder = program.folder.path().join(format!("bin-{version}-{}", file_name(dump)));
        fs::create_dir(&folder).unwrap();
        let (dump, restored) = (dump.display(), folder.join("restored"));
        let real = |name: &str| tool(name).display().to_string();
        let scripts = [
            ("pg_dump", format!("cat {dump}")),
            ("pg_dumpall", format!("exec {} \"$@\"", real("pg_dumpall"))),
            ("pg_restore", format!("touch {}; exec {} \"$@\"", restored.display(), real("pg_restore"))),
        ];
        for (name, rest) in scripts {
            let head = format!(
                "case \"$1\" in --version) echo '{name} (PostgreSQL) {version}'; exit;; --help) exec {} --help;; esac",
                real(name)
            );
            let path = folder.join(name);
            fs::write(&path, format!("#!/bin/sh\n{head}\n{rest}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { folder }
    }

    fn path(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    fn has_restored(&self) -> bool {
        self.folder.join("restored").exists()
    }
}

/// A part of a folder's name that tells one dump from another.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().replace('.', "-")
}

/// A dump of `app` by the real program, as one of another version of archives would be.
fn dump_of_version(server: &Server, folder: &Path, minor: u8) -> PathBuf {
    let mut dump = server.client("pg_dump");
    let bytes = check("pg_dump", dump.args(["-Fc", "-Z0", "--create", "app"]).output());
    let (mut contents, length) = Contents::read(&bytes).unwrap().unwrap();
    assert_eq!(contents.layout.version, (1, 14), "PostgreSQL 15 writes it");
    contents.layout.version = (1, minor);
    let path = folder.join(format!("app.{minor}"));
    fs::write(&path, [&contents.write(), &bytes[length..]].concat()).unwrap();
    path
}

fn databases(server: &Server) -> String {
    server.sql("postgres", "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database")
}

#[test]
fn archives_of_newer_programs_are_refused_before_anything_is_touched() {
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE app");
    server.sql("app", "CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    let before = databases(&server);
    let version = server.sql("postgres", "SHOW server_version").split_whitespace().next().unwrap().to_owned();
    let program = program();
    let folder = program.folder.path();
    let dump = |programs: &Programs, label: &str| {
        pg(&program, &server, &["dump", "app", "--label", label, "--programs", programs.path()])
    };
    let load = |label: &str, more: &[&str]| {
        let given = ["load", label, "--database", "app=copy", "--create"];
        pg(&program, &server, &[&given[..], more].concat())
    };
    let newer = dump_of_version(&server, folder, 16);
    let seventeen = Programs::new(&program, "17.6", &newer);
    expect(&dump(&seventeen, "seventeen"), 0);
    assert_eq!(facts(&program).program_version, "17.6");

    // The pg_restore at hand is older than the pg_dump was.
    let real = tool("pg_restore");
    let here = real.parent().unwrap().to_str().unwrap();
    let said = expect(&load("seventeen", &["--programs", here]), 2);
    assert!(said.contains("pg_restore of PostgreSQL 17 or newer is needed"), "{said}");
    assert!(said.contains(&format!("{version} ")) && said.contains("postgresql-client-17"), "{said}");
    // One that is new enough begins with a setting that this server does not know.
    let said = expect(&load("seventeen", &["--programs", seventeen.path()]), 2);
    assert!(said.contains("pg_dump 17.6") && said.contains("pg_restore 17.6"), "{said}");
    assert!(said.contains("transaction_timeout") && said.contains(&version), "{said}");
    assert!(said.contains("databases/app.dump | pg_restore -f - | sed"), "{said}");
    assert!(!seventeen.has_restored());
    // Who insists gets what pg_restore says, here that of the real one: nothing is left behind.
    let said = expect(&load("seventeen", &["--programs", seventeen.path(), "--force"]), 1);
    assert!(said.contains("1.16"), "{said}");

    // The archive is of a newer version than the program that calls itself so writes.
    let liar = Programs::new(&program, &version, &newer);
    expect(&dump(&liar, "liar"), 0);
    for force in [&[][..], &["--force"]] {
        let said = expect(&load("liar", &[&["--programs", liar.path()], force].concat()), 2);
        assert!(said.contains("archive of version 1.16") && said.contains("up to 1.14"), "{said}");
        assert!(said.contains(&format!("pg_restore {version}")), "{said}");
        assert!(said.contains("postgresql-client-17"), "{said}");
    }
    assert!(!liar.has_restored());

    // One that nobody here knows is not taken into the repository.
    let bytes = fs::read(&newer).unwrap();
    let unknown = folder.join("app.17");
    fs::write(&unknown, [&bytes[..6], &[17][..], &bytes[7..]].concat()).unwrap();
    let nineteen = Programs::new(&program, "19.0", &unknown);
    let said = expect(&dump(&nineteen, "nineteen"), 1);
    assert!(said.contains("archive of version 1.17") && said.contains("up to 1.16"), "{said}");
    assert_eq!(program.client().snapshots().len(), 2);
    assert_eq!(databases(&server), before, "something was made");

    // One that is what it says goes in.
    let fine = dump_of_version(&server, folder, 14);
    let same = Programs::new(&program, &version, &fine);
    expect(&dump(&same, "same"), 0);
    expect(&load("same", &["--programs", same.path()]), 0);
    assert!(same.has_restored());
    assert_eq!(server.sql("copy", "SELECT count(*) FROM t").trim(), "100");
}

#[test]
fn plain_dumps_of_newer_programs_say_how_they_go_in() {
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE app");
    let program = program();
    let sql = "\\restrict x1\nSET statement_timeout = 0;\nSET transaction_timeout = 0;\nCREATE TABLE t ();\n\
               \\unrestrict x1\n--\n-- PostgreSQL database dump complete\n--\n";
    let plain = program.folder.path().join("app.sql");
    fs::write(&plain, sql).unwrap();
    for (version, filters) in [("17.6", true), ("15.18", false)] {
        let programs = Programs::new(&program, version, &plain);
        let given = ["dump", "app", "--format", "plain", "--label", version, "--programs", programs.path()];
        expect(&pg(&program, &server, &given), 0);
        let said =
            expect(&pg(&program, &server, &["load", version, "--create", "--database", "app=copy"]), 2);
        assert!(said.contains(&format!("not older than pg_dump was ({version})")), "{said}");
        assert!(said.contains("\\restrict") && said.contains("psql -v ON_ERROR_STOP=1"), "{said}");
        assert_eq!(said.contains("sed '/^SET transaction_timeout/d'"), filters, "{said}");
    }
    assert_eq!(databases(&server).trim(), "app,postgres,template0,template1");
    // The command that is told does it.
    let name = "17.6:databases/app.sql";
    let text = String::from_utf8(check("cat", program.command(&["cat", name]).output())).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("SET transaction_timeout")).collect();
    server.sql("app", &kept.join("\n"));
    assert_eq!(server.sql("app", "SELECT count(*) FROM pg_class WHERE relname = 't'").trim(), "1");
}
