//! Restores on another host. What connects is a script that runs the command here, as the shell of a host would:
//! there it finds no repository, no key and no variable of this program.

use super::archive::{Archive, archive_all};
use super::base::{arguments, expect};
use super::restore::{digests, recovered, target};
use super::server::{Server, USER};
use super::support::server::{as_user, check};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const BINARY: &str = env!("CARGO_BIN_EXE_chronolith");

/// A server that archives, a repository with a base backup of it, and scripts that connect.
pub struct World {
    pub archive: Archive,
    pub server: Server,
}

impl World {
    pub fn new() -> Self {
        let archive = Archive::new();
        let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
        let server = Server::start_with(&["--data-checksums"], &["archive_mode=on", &push]);
        server.sql(
            "postgres",
            "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 200000) n; CREATE INDEX ON t (n)",
        );
        let world = Self { archive, server };
        let mut backup = arguments(&world.server, &["--archive-timeout", "120"]);
        backup.remove(0);
        expect(&world.run(backup), 0);
        world
    }

    fn run(&self, arguments: Vec<String>) -> Output {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.archive.command(&arguments).output().unwrap()
    }

    /// Writes a script to connect with: `body` sees the command of the other host in `$there`.
    fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.archive.home().join(name);
        // The far side is as unlike this one as can be; what it is called with, and sees, is written down.
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = -p ] && shift 2\n[ \"$1\" = dba@other ] || exit 99\nthere=\"$2\"\n\
             seen={0}/seen; {{ echo \"$0 $*\"; env; tr '\\0' ' ' < /proc/$PPID/cmdline; }} >> $seen\n\
             cd /; export HOME=/nonexistent\n{body}\n",
            self.archive.home().display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn restore(&self, script: &Path, data: &Path, more: &[&str]) -> Output {
        self.restore_with(self.archive.command(&[]), script, data, more)
    }

    /// Restores with a command that has the repository and a key.
    fn restore_with(&self, mut command: Command, script: &Path, data: &Path, more: &[&str]) -> Output {
        let ssh = format!("{} -p 22", script.display());
        command.args(["restore", "--cluster", "main", "--remote", "dba@other", "--ssh-command", &ssh]);
        command.args(["--remote-program", BINARY, "--pgdata", data.to_str().unwrap()]).args(more);
        // The key on the command line counts, and this is not for whoever connects.
        command.env("CHRONOLITH_PASSWORD", "top secret").output().unwrap()
    }

    /// A command with a key that reads and cannot archive.
    fn reader(&self) -> Command {
        let reader = self.archive.home().join("reader");
        let add = ["key", "add", "--role", "reader", "--name", "r", "--new-key-file"];
        expect(&self.archive.engine(&add).arg(&reader).output().unwrap(), 0);
        let mut command = as_user(USER, Path::new(BINARY));
        command.arg("-r").arg(self.archive.repository()).arg("--key-file").arg(&reader);
        command.args(["--no-cache", "pg"]);
        command
    }
}

fn cannot_start(data: &Path) -> bool {
    data.join(".chronolith-restore-marker").exists() && !data.join("global/pg_control").exists()
}

#[test]
fn a_cluster_is_restored_where_neither_repository_nor_key_is() {
    let world = World::new();
    world.server.sql("postgres", "INSERT INTO t SELECT n, 'later' FROM generate_series(1, 1000) n");
    world.server.sql("postgres", "SELECT pg_create_restore_point('here')");
    let expected = digests(&world.server);
    world.server.sql("postgres", "DELETE FROM t");
    archive_all(&world.server);
    let ssh = world.script("ssh", "exec sh -c \"$there\"");
    let (folder, data) = target();

    // Nothing is written by a look.
    let output = world.restore(&ssh, &data, &["--target-name", "here", "--dry-run", "--json"]);
    expect(&output, 0);
    assert!(!data.exists());
    let output = world.restore(&ssh, &data, &["--target-name", "here", "--json"]);
    expect(&output, 0);
    let summary: serde_json::Value =
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap().parse().unwrap();
    assert_eq!((&summary["remote"], &summary["brought"]), (&"dba@other".into(), &true.into()));
    assert_eq!(summary["target"], "restore point here");

    // The log came along, and the server is told of no repository.
    let written = ["postgresql.auto.conf", "chronolith.recovery.conf"];
    let settings = written.map(|name| fs::read_to_string(data.join(name)).unwrap()).concat();
    assert!(settings.contains("restore_command = 'exit 1'"), "{settings}");
    assert!(!settings.contains("chronolith -r") && !settings.contains("--key-file"), "{settings}");
    let server = recovered(folder);
    assert_eq!(digests(&server), expected);

    // Whoever looks at processes and their variables sees no secret, and no way to one.
    let seen = fs::read(world.archive.home().join("seen")).unwrap();
    let shows = |what: &[u8]| seen.windows(what.len()).any(|window| window == what);
    assert!(shows(b"restore-here") && shows(b"--key-file"));
    assert!(!shows(b"top secret") && !shows(b"CHRONOLITH_") && !shows(b"loan"));
    assert!(!shows(&fs::read(world.archive.home().join("key")).unwrap()));
}

#[test]
fn a_connection_that_breaks_leaves_what_cannot_start_and_the_next_one_goes_on() {
    let world = World::new();
    archive_all(&world.server);
    let expected = digests(&world.server);
    let (folder, data) = target();
    let whole = world.script("whole", "exec sh -c \"$there\"");
    // Both ways, early and late: what the repository sends is a few megabytes.
    let mut broken = 0;
    for (number, bytes) in [10_000, 400_000, 1_500_000, 3_000_000, 5_000_000].into_iter().enumerate() {
        let body = format!("stdbuf -o0 head -c {bytes} | sh -c \"$there\"");
        let ssh = world.script(&format!("breaks-{number}"), &body);
        let output = world.restore(&ssh, &data, &[]);
        if output.status.success() {
            break;
        }
        let said = expect(&output, 1);
        assert!(said.contains("broke off") || said.contains("is gone"), "{said}");
        assert!(!data.exists() || cannot_start(&data) || fs::read_dir(&data).unwrap().next().is_none());
        broken += 1;
    }
    assert!(broken >= 3, "{broken}");
    assert!(cannot_start(&data));
    // It waits for what does not come, so that the kill finds it at work.
    let fed = "{ stdbuf -o0 head -c 10000; sleep 3; } <&3 | sh -c \"exec $there\" &";
    let killed = world.script("killed", &format!("exec 3<&0; {fed} sleep 1; kill -9 $!; exit 255"));
    let said = expect(&world.restore(&killed, &data, &[]), 1);
    assert!(said.contains("chronolith answered") || said.contains("broke off"), "{said}");
    assert!(cannot_start(&data));

    let output = world.restore(&whole, &data, &["--json"]);
    expect(&output, 0);
    let summary: serde_json::Value =
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap().parse().unwrap();
    assert!(summary["unchanged_files"].as_u64().unwrap() > 0, "it goes on: {summary}");
    assert_eq!(digests(&recovered(folder)), expected);
}

#[test]
fn what_a_restore_refuses_here_it_refuses_there() {
    let mut world = World::new();
    archive_all(&world.server);
    let ssh = world.script("ssh", "exec sh -c \"$there\"");
    let (folder, data) = target();
    // A running server; a folder in use; a target that is not reached.
    let live = world.server.data();
    let said = expect(&world.restore(&ssh, &live, &["--delta", "--force"]), 2);
    assert!(said.contains("a server runs on") && said.contains("on dba@other"), "{said}");
    let said = expect(&world.restore(&ssh, &data, &["--target-time", "2001-01-01 00:00:00+00"]), 2);
    assert!(said.contains("lies before the end of every base backup"), "{said}");
    let said = expect(&world.restore(&ssh, &data, &["--programs", "/nonexistent"]), 2);
    assert!(said.contains("programs were not found"), "{said}");
    let said = expect(&world.restore(&ssh, Path::new("relative"), &[]), 2);
    assert!(said.contains("not an absolute path"), "{said}");
    assert!(!data.exists());

    // In place: the name has to be said here, and log that only that cluster has is not lost.
    world.server.sql("postgres", "INSERT INTO t VALUES (-1, 'only there')");
    world.server.stop("immediate");
    let control = fs::read(live.join("global/pg_control")).unwrap();
    let said = expect(&world.restore(&ssh, &live, &["--delta"]), 2);
    assert!(said.contains("nobody is there to type its name"), "{said}");
    let said = expect(&world.restore(&ssh, &live, &["--delta", "--confirm", "other"]), 2);
    assert!(said.contains("is not the name of the cluster"), "{said}");
    let output = world.restore_with(world.reader(), &ssh, &live, &["--delta", "--confirm", "main"]);
    let said = expect(&output, 1);
    assert!(said.contains("could not be archived") && said.contains("nothing was changed"), "{said}");
    assert_eq!(fs::read(live.join("global/pg_control")).unwrap(), control);
    let output = world.restore(&ssh, &live, &["--delta", "--confirm", "main", "--force", "--json"]);
    expect(&output, 0);
    let summary: serde_json::Value =
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap().parse().unwrap();
    assert!(Path::new(summary["kept_aside"].as_str().unwrap()).join("pg_control").exists());
    drop(folder);
}

/// R, A15: what only the cluster of the other host has of its log comes here and is archived, before anything of
/// the cluster is touched; and then it comes along.
#[test]
fn log_that_only_the_other_host_has_is_archived_here_first() {
    let mut world = World::new();
    archive_all(&world.server);
    let ssh = world.script("ssh", "exec sh -c \"$there\"");
    world.server.stop("fast");
    world.server.set(&["archive_mode=on".to_owned(), "archive_command=false".to_owned()]);
    world.server.launch();
    let switch = "INSERT INTO t VALUES (-1, 'only there'); SELECT pg_walfile_name(pg_switch_wal())";
    let whole = world.server.sql("postgres", switch).trim().to_owned();
    let expected = digests(&world.server);
    world.server.sql("postgres", "INSERT INTO t VALUES (-2, 'in the segment in use')");
    let now = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())";
    let open = world.server.sql("postgres", now).trim().to_owned();
    world.server.stop("immediate");
    let live = world.server.data();
    let control = fs::read(live.join("global/pg_control")).unwrap();
    let fetched = world.archive.home().join("fetched");

    // Whoever sends log without a yes to its cluster, or for another one, is not heard.
    let frame = |kind: u8, bytes: &[u8]| {
        let length = (bytes.len() as u64).to_le_bytes();
        [length.as_slice(), &[kind, 0, 0, 0, 0], bytes].concat()
    };
    let segment = fs::read(live.join("pg_wal").join(&whole)).unwrap();
    let identifier = u64::from_le_bytes(control[..8].try_into().unwrap());
    let sent = format!("{{\"name\":\"{whole}\",\"system_identifier\":{identifier}}}\n");
    let version = frame(0, env!("CARGO_PKG_VERSION").as_bytes());
    let greeting = b"chronolith is here to restore, 1\n".to_vec();
    let pushy = [greeting, version, frame(8, &[sent.as_bytes(), &segment].concat())].concat();
    fs::write(world.archive.home().join("pushy.says"), pushy).unwrap();
    let body = format!("cat {}/pushy.says; exec cat > /dev/null", world.archive.home().display());
    let pushy = world.script("pushy", &body);
    for more in [&["--delta", "--confirm", "main"][..], &["--force"]] {
        let said = expect(&world.restore(&pushy, &live, more), 1);
        assert!(said.contains("what is not its turn"), "{said}");
        assert_eq!(world.archive.get(&whole, &fetched).status.code(), Some(1), "{more:?}");
    }

    let summary = |output: &Output| -> serde_json::Value {
        expect(output, 0);
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap().parse().unwrap()
    };
    let names = serde_json::json!([whole, format!("{open}.partial")]);
    let shown = summary(&world.restore(&ssh, &live, &["--delta", "--dry-run", "--json"]));
    assert_eq!((&shown["unarchived"], &shown["log_archived"]), (&names, &serde_json::json!([])));
    assert_eq!(fs::read(live.join("global/pg_control")).unwrap(), control);
    let done = summary(&world.restore(&ssh, &live, &["--delta", "--confirm", "main", "--json"]));
    assert_eq!((&done["unarchived"], &done["log_archived"]), (&names, &names));
    let aside = PathBuf::from(done["kept_aside"].as_str().unwrap());
    for (name, file) in [(&whole, &whole), (&format!("{open}.partial"), &open)] {
        assert_eq!(world.archive.get(name, &fetched).status.code(), Some(0), "{name}");
        assert!(fs::read(&fetched).unwrap() == fs::read(aside.join("pg_wal").join(file)).unwrap(), "{name}");
        fs::remove_file(&fetched).unwrap();
    }
    // The server is told of no archive: the log up to where the cluster itself had switched came along.
    world.server.set(&[]);
    world.server.launch();
    while world.server.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {}
    assert_eq!(digests(&world.server), expected);
}

#[test]
fn whoever_else_answers_is_told_nothing() {
    let world = World::new();
    let (folder, data) = target();
    let says = |name: &str, body: &str, words: &str| {
        // What it is told is kept, to be looked at.
        let ssh =
            world.script(name, &format!("{body}; cat > {}/{name}.told", world.archive.home().display()));
        let said = expect(&world.restore(&ssh, &data, &[]), 1);
        assert!(said.contains(words), "{name}: {said}");
        let told = fs::read(world.archive.home().join(format!("{name}.told"))).unwrap_or_default();
        assert!(told.is_empty(), "{name}");
    };
    says("silent", "exit 3", "no chronolith answered");
    says("missing", "sh -c 'chronolith-is-not-here x'; exit 127", "no chronolith answered");
    says("chatty", "echo 'Welcome to this host, where everybody gets a greeting!'", "something else");
    let greeting = "printf 'chronolith is here to restore, 1\\n'";
    let version = format!("printf '\\005{}0.0.0'", "\\000".repeat(12));
    says("older", &format!("{greeting}; {version}"), "has chronolith 0.0.0");
    says("confused", &format!("{greeting}; echo 'and now for something completely else'"), "broke off");

    // Nobody is at the other end of a terminal, or of anything else.
    let mut alone = as_user(USER, Path::new(BINARY));
    let output = alone.args(["pg", "restore-here"]).env("HOME", "/nonexistent").output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    let wrong = ["restore", "--cluster", "main", "--pgdata", "/x", "--remote=-oProxyCommand=x"];
    let said = expect(&world.archive.command(&wrong).output().unwrap(), 2);
    assert!(said.contains("is no host"), "{said}");
    let listed = check("pg", as_user(USER, Path::new(BINARY)).args(["pg", "--help"]).output());
    assert!(!String::from_utf8_lossy(&listed).contains("restore-here"));
    drop(folder);
}
