//! A real MariaDB: dumps go through the real program and come back the same, into a fresh database
//! whose every row is compared.

#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::program::Program;
use support::server::{as_user, check, feed, folder, program, wait_until};
use tempfile::TempDir;

const SERVER: &str = "mariadb-server";
const CLIENT: &str = "mariadb-client";
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

const TABLES: &str = r#"
CREATE TABLE awkward (id INT PRIMARY KEY, words TEXT, raw VARBINARY(64), amount DECIMAL(20,4),
    moment DATETIME(6), bits BIT(9), `back``tick` VARCHAR(20)) CHARACTER SET utf8mb4;
INSERT INTO awkward SELECT seq,
    CASE seq % 6 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'tab\t new\nline \\ back' WHEN 3 THEN '\\N'
        WHEN 4 THEN 'ünïcødé 😀' ELSE REPEAT(MD5(seq), 40) END,
    UNHEX(CONCAT(MD5(seq), '00FF5C0A1A27')), seq * 12345.6789,
    '2026-01-15 14:30:00.123456' + INTERVAL seq HOUR, seq % 512, CONCAT('q', seq)
FROM seq_1_to_20000;
CREATE VIEW seen AS SELECT id, words FROM awkward WHERE id % 2 = 0;
CREATE TABLE empty_one (id INT);
"#;

const DIGESTS: &str = "SET SESSION group_concat_max_len = 4294967295;
SELECT 'awkward', COUNT(*), MD5(GROUP_CONCAT(MD5(CONCAT_WS('|', id, COALESCE(words, 'null'), HEX(raw), amount, moment, bits + 0, `back``tick`)) ORDER BY id)) FROM awkward;
SELECT 'seen', COUNT(*), MD5(GROUP_CONCAT(MD5(CONCAT_WS('|', id, COALESCE(words, 'null'))) ORDER BY id)) FROM seen;
SELECT 'empty', COUNT(*) FROM empty_one;";

struct Server {
    folder: TempDir,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let folder = folder("mysql");
        let data = folder.path().join("server/data");
        let mut install = as_user("mysql", &program("mariadb-install-db", &FOLDERS, SERVER));
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", data.display()));
        check("mariadb-install-db", install.output());
        let mut daemon = as_user("mysql", &program("mariadbd", &FOLDERS, SERVER));
        daemon.args(["--no-defaults", "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]);
        daemon.arg(format!("--datadir={}", data.display()));
        daemon.arg(format!("--socket={}", folder.path().join("server/socket").display()));
        daemon.arg(format!("--pid-file={}", folder.path().join("server/pid").display()));
        daemon.arg("--log-bin=binlog").arg("--server-id=1");
        let log = File::create(folder.path().join("log")).unwrap();
        let child = daemon.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut server = Self { folder, child };
        let socket = server.socket();
        wait_until("MariaDB", &mut server.child, || {
            let mut ping = Command::new(program("mariadb-admin", &FOLDERS, CLIENT));
            ping.args(["--no-defaults", "-u", "root"]).arg(format!("--socket={}", socket.display()));
            ping.arg("ping").output().unwrap().status.success()
        });
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("server/socket")
    }

    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(program(name, &FOLDERS, CLIENT));
        command.args(["--no-defaults", "-u", "root"]).arg(format!("--socket={}", self.socket().display()));
        command.arg("--default-character-set=utf8mb4");
        command
    }

    fn sql(&self, database: &str, text: &str) -> String {
        let mut client = self.client("mariadb");
        client.args(["--batch", "--skip-column-names", database]);
        String::from_utf8(feed("mariadb", client, text.as_bytes())).unwrap()
    }

    /// As M1 and M19 want it: one consistent view with the position of the binary log, no date in it.
    fn dump(&self) -> Command {
        let mut dump = self.client("mariadb-dump");
        dump.args(["--single-transaction", "--master-data=2", "--skip-dump-date", "--hex-blob", "app"]);
        dump
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = self.client("mariadb-admin");
        let _ = stop.arg("shutdown").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

#[test]
fn dumps_of_a_real_server_come_back() {
    let server = Server::start();
    server.sql("mysql", "CREATE DATABASE app");
    server.sql("app", TABLES);
    let expected = server.sql("app", DIGESTS);
    assert_eq!(expected.lines().count(), 3, "{expected}");
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));

    // `mariadb-dump app | chronolith backup --stdin app.sql`, byte-identical.
    let dump = check("mariadb-dump", server.dump().output());
    let head = String::from_utf8_lossy(&dump[..dump.len().min(4000)]).into_owned();
    assert!(head.contains("CHANGE MASTER TO"), "M1: the dump records its position: {head}");
    feed("backup", program.command(&["backup", "--stdin", "app.sql"]), &dump);
    let back = check("cat", program.command(&["cat", "latest:app.sql"]).output());
    assert!(back == dump, "the dump came back with other bytes");

    // M19: without a date two dumps of the same rows are the same bytes; nothing new is stored for them.
    let again = check("mariadb-dump", server.dump().output());
    assert!(again == dump, "two dumps of the same rows differ");

    server.sql("mysql", "CREATE DATABASE fresh");
    let mut client = server.client("mariadb");
    client.arg("fresh");
    feed("mariadb", client, &back);
    assert_eq!(server.sql("fresh", DIGESTS), expected);

    // As a producer, and one that fails.
    let text = |command: &Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let exec = format!("app.sql={}", text(&server.dump()));
    check("backup", program.command(&["backup", "--label", "exec", "--exec", &exec]).output());
    let back = check("cat", program.command(&["cat", "exec:app.sql"]).output());
    let now = check("mariadb-dump", server.dump().output());
    assert!(back == now, "the dump came back with other bytes");
    let missing = format!("app.sql={} no_such_table", text(&server.dump()));
    let output = program.run(&["backup", "--label", "none", "--exec", &missing]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no_such_table"), "{said}");
    assert_eq!(program.client().snapshots().len(), 2, "something was committed");
}
