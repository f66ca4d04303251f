//! The demonstration's PostgreSQL: a throw-away server that listens on a socket in the
//! demonstration's folder only.

use super::{Folder, Stage};
use crate::base::SnapshotId;
use crate::cli::fault::{Fault, system};
use crate::localfs::Owners;
use crate::ops::Snapshots;
use crate::ops::backup::Source;
use crate::ops::cat::cat;
use crate::ops::listing::{Found, locate};
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Longest path that a Unix socket can have, less the name of the socket itself.
const SOCKET_PATH_MAX: usize = 80;
const DUMP: &str = "app.sql";

/// Makes two tables with real rows.
const FILL: &str = "
    CREATE TABLE account (id bigint PRIMARY KEY, owner text NOT NULL, balance numeric(12,2) NOT NULL, note text);
    INSERT INTO account SELECT n, 'owner ' || md5(n::text), (n::bigint * 7919 % 1000000) / 100.0,
        repeat(md5((n::bigint * 31)::text), 3) FROM generate_series(1, 60000) n;
    CREATE TABLE movement (id bigserial PRIMARY KEY, account bigint REFERENCES account, at timestamptz, amount numeric(10,2));
    INSERT INTO movement (account, at, amount) SELECT n % 60000 + 1, '2026-01-01'::timestamptz + n * interval '1 second',
        (n::bigint * 104729 % 100000) / 100.0 FROM generate_series(1, 100000) n;";
/// Changes one row in a hundred, those that belong together, adds some, deletes some.
const CHANGE: &str = "
    UPDATE account SET balance = balance + 1, note = note || ' changed' WHERE id BETWEEN 50001 AND 50600;
    INSERT INTO movement (account, at, amount) SELECT n, now(), 1 FROM generate_series(1, 500) n;
    DELETE FROM movement WHERE id BETWEEN 40000 AND 40100;";
/// One line a table: its name, its number of rows, a digest of all rows in order.
const DIGEST: &str = "
    SELECT 'account', count(*), md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM account t UNION ALL
    SELECT 'movement', count(*), md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM movement t ORDER BY 1";

/// Where the programs are, or `None` where PostgreSQL's server is not installed.
fn programs() -> Option<PathBuf> {
    let from_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut folders = from_path.unwrap_or_default();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
        let number = |path: &PathBuf| {
            path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse::<u32>().ok()).unwrap_or(0)
        };
        versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
        folders.extend(versions.into_iter().map(|version| version.join("bin")));
    }
    let all = ["initdb", "pg_ctl", "postgres", "psql", "pg_dump"];
    folders.into_iter().find(|folder| all.iter().all(|name| folder.join(name).is_file()))
}

/// A running server. It is stopped when the demonstration ends, however it ends.
struct Server<'a> {
    programs: PathBuf,
    folder: &'a Folder,
    /// User and group that it runs as, where that is not who runs the demonstration: PostgreSQL
    /// refuses to run as root.
    owner: Option<(u32, u32)>,
    running: bool,
}

impl Server<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .stdin(Stdio::null())
            .env("PGHOST", self.folder.path("postgres"))
            .env("PGUSER", "demo")
            .env("PGDATABASE", "postgres")
            .env_remove("PGPORT")
            .env_remove("PGSERVICE")
            .env_remove("PGPASSWORD")
            .current_dir("/");
        command
    }

    fn as_owner(&self, program: &str) -> Command {
        let mut command = self.command(program);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn start(&mut self) -> Result<(), Fault> {
        let (data, sockets) = (self.folder.path("postgres/data"), self.folder.path("postgres"));
        std::fs::create_dir(&sockets).map_err(|error| Fault::file("make", &sockets, &error))?;
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::chown(&sockets, Some(user), Some(group))
                .map_err(|error| Fault::file("give away", &sockets, &error))?;
        }
        let mut initdb = self.as_owner("initdb");
        initdb.arg("-D").arg(&data);
        ok(initdb.args(["-U", "demo", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]), "initdb")?;
        let options =
            format!("-c listen_addresses='' -c fsync=off -c unix_socket_directories='{}'", sockets.display());
        let mut start = self.as_owner("pg_ctl");
        start
            .args(["-w", "-s", "-o", &options, "-l"])
            .arg(sockets.join("log"))
            .arg("-D")
            .arg(&data)
            .arg("start");
        // The server inherits what this would be given: without an output of its own it ends when pg_ctl does.
        start.stdout(Stdio::null()).stderr(Stdio::null());
        self.running = true;
        let status = start.status().map_err(|error| cannot_run("pg_ctl", &error))?;
        if !status.success() {
            let log = std::fs::read_to_string(sockets.join("log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or_default().to_owned();
            return Err(Fault::failed(format!("the PostgreSQL server did not start: {last}"), ""));
        }
        Ok(())
    }

    fn sql(&self, database: &str, statement: &str) -> Result<String, Fault> {
        let mut psql = self.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement]);
        Ok(String::from_utf8_lossy(&ok(&mut psql, "psql")?.stdout).into_owned())
    }

    /// Returns the shell command that dumps the database.
    fn dump_command(&self) -> Option<String> {
        let quote = |path: &Path| Some(shlex::try_quote(path.to_str()?).ok()?.into_owned());
        let (program, host) = (quote(&self.programs.join("pg_dump"))?, quote(&self.folder.path("postgres"))?);
        Some(format!("{program} -h {host} -U demo app"))
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if self.running {
            let mut stop = self.as_owner("pg_ctl");
            stop.arg("-D").arg(self.folder.path("postgres/data")).args([
                "-w",
                "-s",
                "-m",
                "immediate",
                "stop",
            ]);
            // It may have ended by itself.
            let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

fn cannot_run(program: &str, error: &std::io::Error) -> Fault {
    Fault::failed(format!("cannot run {program}: {}", system(error)), "")
}

fn ok(command: &mut Command, name: &str) -> Result<Output, Fault> {
    let output = command.output().map_err(|error| cannot_run(name, &error))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join(" | ");
    Err(Fault::failed(format!("{name} failed ({}): {last}", output.status), ""))
}

/// Returns whom the server runs as: this user, or for root somebody without rights.
fn owner() -> Result<Option<(u32, u32)>, Fault> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owners = Owners::load();
    let found = ["postgres", "nobody"].into_iter().find_map(|name| {
        let user = owners.uid(name)?;
        let group = owners.gid(name).or_else(|| owners.gid("nogroup"))?;
        Some((user, group))
    });
    found.map(Some).ok_or_else(|| {
        Fault::failed("PostgreSQL does not run as root, and there is neither a user postgres nor nobody", "")
    })
}

/// Loads a dump from a snapshot into a new database, through a pipe.
fn load(stage: &Stage<'_>, server: &Server<'_>, id: &SnapshotId) -> Result<(), Fault> {
    server.sql("postgres", "CREATE DATABASE restored")?;
    let snapshots = Snapshots::load(&stage.repository)?;
    let view = snapshots.resolve(&id.to_string())?;
    let found = locate(&stage.repository, &view.snapshot.root, &[DUMP.as_bytes().to_vec()])?;
    let content = match &found {
        Found::Leaf(entry) => entry.content.as_ref(),
        Found::Folder { .. } => None,
    };
    let content = content.ok_or_else(|| Fault::failed("the snapshot holds no dump", ""))?;
    let mut psql = server.command("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored"]);
    psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = psql.spawn().map_err(|error| cannot_run("psql", &error))?;
    let written = match child.stdin.take() {
        // The pipe is closed with this: that tells psql that there is no more.
        Some(mut pipe) => cat(&stage.repository, DUMP, content, &mut pipe),
        None => return Err(Fault::failed("psql has no input", "")),
    };
    let output = child.wait_with_output().map_err(|error| cannot_run("psql", &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Fault::failed(format!("psql failed ({}): {said}", output.status), ""));
    }
    written?;
    Ok(())
}

/// Runs this part, where there is a PostgreSQL.
pub fn run(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let Some(programs) = programs() else {
        stage.story.chapter("PostgreSQL")?;
        return stage.story.tell("is not installed here (server, psql, pg_dump): this part is left out");
    };
    if stage.folder.path("postgres").as_os_str().len() > SOCKET_PATH_MAX {
        stage.story.chapter("PostgreSQL")?;
        return stage
            .story
            .tell("is left out: the folder for temporary files has too long a name for a socket");
    }
    let folder = stage.folder;
    let mut server = Server { programs, folder, owner: owner()?, running: false };
    stage.story.chapter("A PostgreSQL server, with dumps through a pipe")?;
    server.start()?;
    let version = server.sql("postgres", "SHOW server_version")?;
    server.sql("postgres", "CREATE DATABASE app")?;
    server.sql("app", FILL)?;
    let expected = server.sql("app", DIGEST)?;
    stage.story.tell(&format!(
        "PostgreSQL {} runs on a socket in the folder; its tables are filled",
        version.trim()
    ))?;
    let command = server.dump_command().ok_or_else(|| Fault::failed("a path has no text form", ""))?;
    let source = || Source::Command { name: DUMP.as_bytes().to_vec(), command: command.clone() };
    stage.story.command("chronolith backup --label pg --exec 'app.sql=pg_dump app'")?;
    let first = stage.back_up(source(), "pg", "pg_dump, first")?;
    server.sql("app", CHANGE)?;
    stage.story.tell("600 rows are changed, 500 added, 101 deleted")?;
    stage.story.command("chronolith backup --label pg --exec 'app.sql=pg_dump app'")?;
    stage.back_up(source(), "pg", "pg_dump, changed")?;

    stage.story.chapter("The first dump goes into a new database")?;
    let id = first.snapshot.ok_or_else(|| Fault::failed("the first backup made no snapshot", ""))?;
    stage.story.command(&format!("chronolith cat {}:{DUMP} | psql restored", id.short()))?;
    load(stage, &server, &id)?;
    let found = server.sql("restored", DIGEST)?;
    if found != expected || expected.lines().count() != 2 {
        return Err(Fault::failed(
            format!("the restored tables are not what they were: {found:?} instead of {expected:?}"),
            "this is a defect: please report it",
        ));
    }
    let rows: u64 = expected.lines().filter_map(|line| line.split('|').nth(1)?.parse::<u64>().ok()).sum();
    drop(server);
    stage.story.proved(format!(
        "PostgreSQL: {rows} of {rows} rows in 2 tables are what they were (a digest a table)"
    ))
}
