//! `archive_command` and `restore_command` of a real server.

use super::server::{Server, USER};
use super::support::server::{as_user, check, folder};
use super::support::world::Client;
use super::wal::segments;
use chronolith::format::log::LogRecordKind;
use chronolith::repo::Repository;
use chronolith::storage::{LocalStore, Store};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_chronolith");

/// A repository that the server's user owns.
pub struct Archive {
    folder: TempDir,
}

impl Archive {
    pub fn new() -> Self {
        let archive = Self { folder: folder(USER) };
        let mut init = as_user(USER, Path::new(BINARY));
        init.args(["init", "-q", "--no-recovery", "-r"]).arg(archive.repository());
        check("init", init.arg("--new-key-file").arg(archive.key()).env("HOME", archive.home()).output());
        archive
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    pub fn repository(&self) -> PathBuf {
        self.home().join("repository")
    }

    fn key(&self) -> PathBuf {
        self.home().join("key")
    }

    pub fn options(&self) -> [String; 6] {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let cache = text(self.home().join("cache"));
        [
            "-r".into(),
            text(self.repository()),
            "--key-file".into(),
            text(self.key()),
            "--cache-dir".into(),
            cache,
        ]
    }

    /// The start of a command line for a server's configuration.
    pub fn command_line(&self, verb: &str) -> String {
        format!("{BINARY} {} pg {verb}", self.options().join(" "))
    }

    /// A command of the program itself, run as the server's user.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = as_user(USER, Path::new(BINARY));
        command.args(self.options()).args(arguments).env("HOME", self.home()).output().unwrap()
    }

    /// A command that runs as the server's user.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = as_user(USER, Path::new(BINARY));
        command.args(self.options()).arg("pg").args(arguments).env("HOME", self.home());
        // `runuser` sets HOME anew.
        command.env("XDG_CONFIG_HOME", self.home().join(".config"));
        command
    }

    /// A command of the engine, that runs as the server's user.
    pub fn engine(&self, arguments: &[&str]) -> Command {
        let mut command = as_user(USER, Path::new(BINARY));
        command.args(self.options()).args(arguments).env("HOME", self.home());
        command
    }

    pub fn push(&self, cluster: &str, path: &Path) -> Output {
        self.command(&["archive-push", "--cluster", cluster, path.to_str().unwrap()]).output().unwrap()
    }

    pub fn get(&self, name: &str, path: &Path) -> Output {
        let path = path.to_str().unwrap();
        self.command(&["archive-get", "--cluster", "main", "--patience", "0", name, path]).output().unwrap()
    }

    /// The library's view of the repository.
    pub fn open(&self) -> Arc<Repository> {
        let store = LocalStore::open(self.repository()).unwrap();
        Client::holding(Arc::new(store), fs::read(self.key()).unwrap()).open()
    }

    /// A folder that the server's user may write.
    pub fn place(&self, name: &str) -> PathBuf {
        let place = self.home().join(name);
        check("mkdir", as_user(USER, Path::new("/bin/mkdir")).args(["-p", place.to_str().unwrap()]).output());
        place
    }
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Switches to the next segment and waits until the one before is archived.
pub fn archive_all(server: &Server) {
    let name = server.sql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
    let asked =
        format!("SELECT coalesce(last_archived_wal >= '{}', false) FROM pg_stat_archiver", name.trim());
    let started = Instant::now();
    while server.sql("postgres", &asked).trim() != "t" {
        assert!(started.elapsed() < Duration::from_secs(120), "not archived: {}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn settings(archive: &Archive) -> [String; 4] {
    let push = archive.command_line("archive-push --cluster main %p");
    [
        "archive_mode=on".into(),
        format!("archive_command={push}"),
        "wal_keep_size=2GB".into(),
        "max_wal_size=2GB".into(),
    ]
}

pub fn start(archive: &Archive, size: &str) -> Server {
    let settings = settings(archive);
    Server::start_with(&["--wal-segsize", size], &settings.each_ref().map(String::as_str))
}

pub fn bench(server: &Server, transactions: &str) {
    let mut init = server.client("pgbench");
    check("pgbench", init.args(["-i", "-q", "-s", "1", "postgres"]).output());
    let mut run = server.client("pgbench");
    check("pgbench", run.args(["-n", "-c", "4", "-t", transactions, "postgres"]).output());
}

/// A1, A6, A13: a server under load archives through the program; every file comes back byte for byte.
#[test]
fn a_live_server_archives_and_every_segment_comes_back() {
    for (size, transactions) in [("1", "200"), ("64", "20")] {
        let archive = Archive::new();
        let mut server = start(&archive, size);
        bench(&server, transactions);
        archive_all(&server);
        bench(&server, transactions);
        archive_all(&server);
        server.sql("postgres", "SELECT pg_backup_start('label', true); SELECT pg_backup_stop()");
        archive_all(&server);
        let failed = server.sql("postgres", "SELECT failed_count FROM pg_stat_archiver");
        assert_eq!(failed.trim(), "0", "{}", server.log());
        server.stop("fast");
        let target = archive.place("restored");
        let (mut count, mut labels) = (0, 0);
        let wal = server.data().join("pg_wal");
        for entry in fs::read_dir(wal.join("archive_status")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = name.strip_suffix(".done") else { continue };
            let path = target.join("RECOVERYXLOG");
            let output = archive.get(name, &path);
            assert_eq!(code(&output), 0, "{}", said(&output));
            assert!(fs::read(&path).unwrap() == fs::read(wal.join(name)).unwrap(), "{name}");
            fs::remove_file(&path).unwrap();
            count += 1;
            labels += usize::from(name.ends_with(".backup"));
        }
        assert!(count >= 3 && labels == 1, "{count} files, {labels} labels");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "something was left behind");
        // A7: the archive is its owner's only. A9: segments that were left early cost what they hold.
        let store = LocalStore::open(archive.repository()).unwrap();
        let logs = store.list("logs/").unwrap();
        let stored: u64 = logs.iter().map(|object| object.length).sum();
        let plain = (count as u64 * size.parse::<u64>().unwrap()) << 20;
        assert!(stored * 2 < plain, "{stored} of {plain}");
        for object in &logs {
            let file = fs::metadata(archive.repository().join(&object.name)).unwrap();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o077, 0);
        }
        let records = archive.open().all_logs().unwrap();
        assert!(records.refused.is_empty());
        let timed = records.found.iter().filter(|found| found.record.commits.is_some()).count();
        assert!(timed >= 2, "{timed} segments with times");
    }
}

/// A15, A16, A17: what a promotion archives: the history first, the old last segment as partial, the new
/// timeline's first segment.
#[test]
fn a_promotion_is_archived() {
    let archive = Archive::new();
    let mut server = start(&archive, "1");
    bench(&server, "20");
    server.stop("fast");
    let signal = server.data().join("recovery.signal");
    check("touch", as_user(USER, Path::new("/bin/touch")).arg(&signal).output());
    let get = archive.command_line("archive-get --cluster main %f %p");
    let mut settings = settings(&archive).to_vec();
    settings.push(format!("restore_command={get}"));
    server.set(&settings);
    server.launch();
    let started = Instant::now();
    while server.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    bench(&server, "20");
    archive_all(&server);
    server.stop("fast");
    let repository = archive.open();
    let records = repository.all_logs().unwrap();
    assert!(records.refused.is_empty());
    let names: Vec<&str> = records.found.iter().map(|found| found.record.name.as_str()).collect();
    assert!(names.contains(&"00000002.history"), "{names:?}\n{}", server.log());
    assert!(names.iter().any(|name| name.ends_with(".partial")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("00000002000000")), "{names:?}");
    let history = records.found.iter().find(|found| found.record.name == "00000002.history").unwrap();
    assert!(history.record.facts["ancestors"].starts_with("1 0/"), "{:?}", history.record.facts);
    assert_eq!(history.record.timeline, Some(2));
    // A16: a history is never overwritten.
    let place = archive.place("other").join("00000002.history");
    check(
        "write",
        as_user(USER, Path::new("/bin/cp")).args(["/etc/hostname", place.to_str().unwrap()]).output(),
    );
    let output = archive.push("main", &place);
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(said(&output).contains("other bytes"), "{}", said(&output));
}

/// Some segments of a cluster, in a folder of their own.
fn some_segments(archive: &Archive, place: &str, size: &str) -> Vec<PathBuf> {
    let mut server = Server::start_with(&["--wal-segsize", size], &["wal_keep_size=1GB"]);
    bench(&server, "10");
    server.sql("postgres", "SELECT pg_switch_wal()");
    server.stop("fast");
    let target = archive.place(place);
    let mut paths = Vec::new();
    for (path, ..) in segments(&server.data().join("pg_wal")) {
        let copy = target.join(path.file_name().unwrap());
        fs::copy(&path, &copy).unwrap();
        check("chown", Command::new("chown").arg(USER).arg(&copy).output());
        paths.push(copy);
    }
    paths
}

/// A12: neither another cluster nor another length of segments nor another version gets into a name.
#[test]
fn the_log_of_another_cluster_is_refused() {
    let archive = Archive::new();
    let own = some_segments(&archive, "own", "1");
    let foreign = some_segments(&archive, "foreign", "1");
    let longer = some_segments(&archive, "longer", "2");
    assert_eq!(code(&archive.push("main", &own[0])), 0);
    for other in [&foreign[0], &foreign[0], &longer[0]] {
        let output = archive.push("main", other);
        assert_eq!(code(&output), 1, "{}", said(&output));
        assert!(said(&output).contains("of another cluster: system identifier"), "{}", said(&output));
    }
    // The same cluster with another version of the log, as far as the header says.
    let mut bytes = fs::read(&own[1]).unwrap();
    bytes[..2].copy_from_slice(&0xD1FF_u16.to_le_bytes());
    fs::write(&own[1], &bytes).unwrap();
    assert_eq!(code(&archive.push("main", &own[1])), 1);
    let records = archive.open().all_logs().unwrap().found;
    let conflicts = records.iter().filter(|found| found.record.kind == LogRecordKind::Conflict).count();
    assert_eq!(conflicts, 3, "each refusal is recorded once");
    // Under names of their own they are welcome; of an unknown version, too, with its times unknown.
    assert_eq!(code(&archive.push("other", &foreign[0])), 0);
    assert_eq!(code(&archive.push("newer", &own[1])), 0);
    let records = archive.open().all_logs().unwrap().found;
    let newer = records.iter().find(|found| found.record.facts.get("version").is_some_and(|v| v == "0xd1ff"));
    assert_eq!(newer.unwrap().record.commits, None);
    let unknown = |found: &&chronolith::repo::FoundLog| found.record.facts.contains_key("times");
    assert_eq!(records.iter().filter(unknown).count(), 1);
}

/// A5, A6: a push that fails ends between 1 and 125, whatever is wrong.
#[test]
fn every_failure_of_a_push_is_counted_by_the_server() {
    let archive = Archive::new();
    let own = some_segments(&archive, "own", "1");
    let place = archive.place("bad");
    let whole = fs::read(&own[0]).unwrap();
    let bad = |name: &str, bytes: &[u8]| {
        let path = place.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        path
    };
    let name = own[0].file_name().unwrap().to_str().unwrap();
    let cases = [
        bad("postgresql.conf", b"x"),
        bad("RECOVERYXLOG", &whole),
        bad("000000010000000000000099", &whole),
        bad(name, &whole[..whole.len() - 8192]),
        bad(name, &vec![0; 1 << 20]),
        bad("00000002.history", b""),
        place.join("000000010000000000000077"),
    ];
    for path in &cases {
        let output = archive.push("main", path);
        assert!((1..=125).contains(&code(&output)), "{output:?}");
    }
    let good = own[0].to_str().unwrap();
    let wrong: [&[&str]; 5] = [
        &["archive-push"],
        &["archive-push", good],
        &["archive-push", "--cluster", "main", "--frobnicate", good],
        &["archive-push", "--cluster", "../main", good],
        &["archive-push", "--cluster", "main", good, good],
    ];
    for arguments in wrong {
        let output = archive.command(arguments).output().unwrap();
        assert!((1..=125).contains(&code(&output)), "{output:?}");
    }
    let mut lost = as_user(USER, Path::new(BINARY));
    lost.args(["-r", "/nonexistent", "pg", "archive-push", "--cluster", "main", good]);
    assert!((1..=125).contains(&code(&lost.output().unwrap())));
    assert!(archive.open().all_logs().unwrap().found.is_empty(), "something was archived");
}

/// R1, R2, R3, R5: absent is 1 and nothing else is; a standby is spared.
#[test]
fn only_the_repository_says_that_a_file_is_absent() {
    let archive = Archive::new();
    let own = some_segments(&archive, "own", "1");
    let data = archive.place("data");
    let target = archive.place("data/pg_wal").join("RECOVERYXLOG");
    let name = own[0].file_name().unwrap().to_str().unwrap();
    let get = |name: &str| code(&archive.get(name, &target));
    // Nothing was ever archived under the name: that is a mistake, not the end of the log.
    assert_eq!(get(name), 126);
    for path in &own {
        assert_eq!(code(&archive.push("main", path)), 0);
    }
    assert_eq!(get(name), 0);
    assert!(fs::read(&target).unwrap() == fs::read(&own[0]).unwrap());
    fs::remove_file(&target).unwrap();
    for absent in ["00000001.history", "00000002.history", "0000000100000000000000FE"] {
        assert_eq!(get(absent), 1, "{absent}");
        assert!(!target.exists());
    }
    // Usage, other clusters, lost and damaged things: each stops the recovery.
    let path = target.to_str().unwrap();
    let wrong: [&[&str]; 6] = [
        &["archive-get"],
        &["archive-get", "--cluster", "main", name],
        &["archive-get", name, path],
        &["archive-get", "--cluster", "nobody", name, path],
        &["archive-get", "--cluster", "main", path, name],
        &["archive-get", "--cluster", "main", "--frobnicate", name, path],
    ];
    for arguments in wrong {
        assert_eq!(code(&archive.command(arguments).output().unwrap()), 126, "{arguments:?}");
    }
    let mut lost = as_user(USER, Path::new(BINARY));
    lost.args(["-r", "/nonexistent", "pg", "archive-get", "--cluster", "main", name, path]);
    assert_eq!(code(&lost.output().unwrap()), 126);
    assert_eq!(code(&archive.get(name, Path::new("/nonexistent/pg_wal/RECOVERYXLOG"))), 126);
    // The control file of another cluster.
    check("mkdir", Command::new("mkdir").arg(data.join("global")).output());
    fs::write(data.join("global/pg_control"), 77_u64.to_le_bytes()).unwrap();
    assert_eq!(get(name), 126);
    fs::remove_file(data.join("global/pg_control")).unwrap();
    // A damaged segment.
    let repository = archive.open();
    let records = repository.all_logs().unwrap().found;
    let object = &records.iter().find(|found| found.record.name == name).unwrap().object;
    let stored = archive.repository().join(object);
    let mut bytes = fs::read(&stored).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&stored, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&stored, &bytes).unwrap();
    assert_eq!(get(name), 126);
    bytes.truncate(10);
    fs::write(&stored, &bytes).unwrap();
    assert_eq!(get(name), 126);
    assert!(!target.exists());
    // R3: a standby must not stop for that.
    fs::write(data.join("standby.signal"), "").unwrap();
    let output = archive.get(name, &target);
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains("not there yet"), "{}", said(&output));
    fs::write(data.join("recovery.signal"), "").unwrap();
    assert_eq!(get(name), 126);
}

/// A4: killed at any moment, a push leaves nothing that is not whole, and the next one succeeds.
#[test]
fn a_push_may_be_killed_at_any_moment() {
    let archive = Archive::new();
    let own = some_segments(&archive, "own", "1");
    let (mut killed, mut at) = (0, 0x9E37_79B9_u64);
    for round in 0..60 {
        let path = &own[round % own.len()];
        let mut child = archive
            .command(&["archive-push", "--cluster", "main", path.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Some moment of the few milliseconds that a push takes.
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((at >> 33) % 60_000));
        let _ = child.kill();
        killed += usize::from(!child.wait().unwrap().success());
    }
    let target = archive.place("restored").join("RECOVERYXLOG");
    for path in &own {
        assert_eq!(code(&archive.push("main", path)), 0);
        assert_eq!(code(&archive.get(path.file_name().unwrap().to_str().unwrap(), &target)), 0);
        assert!(fs::read(&target).unwrap() == fs::read(path).unwrap());
    }
    let records = archive.open().all_logs().unwrap();
    assert!(records.refused.is_empty(), "{:?}", records.refused);
    assert!(records.found.iter().all(|found| found.record.kind == LogRecordKind::Segment));
    assert!(killed > 0, "no push was killed");
}

/// R8: segments that were fetched ahead are served without the repository, only whole, and only to the data
/// directory that they were fetched for; a timeline that was left is forgotten.
#[test]
fn segments_are_fetched_ahead() {
    let archive = Archive::new();
    let own = some_segments(&archive, "own", "1");
    assert!(own.len() >= 10, "{} segments", own.len());
    for path in &own {
        assert_eq!(code(&archive.push("main", path)), 0);
    }
    let identifier = fs::read(&own[0]).unwrap()[24..32].to_vec();
    let data = |name: &str| {
        let target = archive.place(&format!("{name}/pg_wal")).join("RECOVERYXLOG");
        let global = archive.place(&format!("{name}/global"));
        fs::write(global.join("pg_control"), &identifier).unwrap();
        target
    };
    let (one, two) = (data("one"), data("two"));
    let name = |number: usize| own[number].file_name().unwrap().to_str().unwrap();
    let get = |number: usize, target: &Path| {
        let target = target.to_str().unwrap();
        let options = ["archive-get", "--cluster", "main", "--prefetch", "4", name(number), target];
        archive.command(&options).output().unwrap()
    };
    let wait_for = |wanted: &[String]| {
        let started = Instant::now();
        loop {
            let mut found = Vec::new();
            for folder in fs::read_dir(archive.home().join("cache/spool")).into_iter().flatten() {
                for entry in fs::read_dir(folder.unwrap().path()).unwrap() {
                    found.push(entry.unwrap().path());
                }
            }
            found.retain(|path| !path.ends_with("lock"));
            found.sort();
            let names: Vec<&str> =
                found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
            if names == wanted {
                return found;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{names:?}, not {wanted:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let wait = |wanted: &[usize]| {
        wait_for(&wanted.iter().map(|number| name(*number).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(code(&get(0, &one)), 0);
    let spooled = wait(&[1, 2, 3, 4]);
    // One is damaged, and the repository is out of reach: what is whole is served, what is not is not.
    let mut bytes = fs::read(&spooled[1]).unwrap();
    bytes[5000] ^= 1;
    fs::write(&spooled[1], &bytes).unwrap();
    let away = archive.home().join("away");
    fs::rename(archive.repository(), &away).unwrap();
    assert_eq!(code(&get(1, &one)), 0);
    assert!(fs::read(&one).unwrap() == fs::read(&own[1]).unwrap());
    assert_eq!(code(&get(1, &two)), 126);
    assert_eq!(code(&get(2, &one)), 126);
    fs::rename(&away, archive.repository()).unwrap();
    // Asked for again, it comes from the repository, and the window moves on.
    assert_eq!(code(&get(2, &one)), 0);
    assert!(fs::read(&one).unwrap() == fs::read(&own[2]).unwrap());
    wait(&[3, 4, 5, 6]);
    assert_eq!(code(&get(3, &one)), 0);
    assert_eq!(code(&get(4, &one)), 0);
    assert!(fs::read(&one).unwrap() == fs::read(&own[4]).unwrap());
    wait(&[5, 6, 7, 8]);
    // Recovery goes over to another timeline: what was fetched of the one it left is removed.
    let second = |number: usize| format!("00000002{}", &name(number)[8..]);
    let copies = archive.place("second");
    for number in [5, 6] {
        let copy = copies.join(second(number));
        fs::copy(&own[number], &copy).unwrap();
        check("chown", Command::new("chown").arg(USER).arg(&copy).output());
        assert_eq!(code(&archive.push("main", &copy)), 0);
    }
    let target = one.to_str().unwrap();
    let switched = ["archive-get", "--cluster", "main", "--prefetch", "4", &second(5), target];
    assert_eq!(code(&archive.command(&switched).output().unwrap()), 0);
    wait_for(&[second(6)]);
    // The spool never says that something is absent.
    let path = one.to_str().unwrap();
    let absent = ["archive-get", "--cluster", "main", "--prefetch", "4", "0000000100000000000000FE", path];
    assert_eq!(code(&archive.command(&absent).output().unwrap()), 1);
    // A spool on another file system than the data directory.
    let memory = TempDir::new_in("/dev/shm").unwrap();
    check("chown", Command::new("chown").arg(USER).arg(memory.path()).output());
    let spool = memory.path().to_str().unwrap();
    let far = |number: usize| {
        let ahead = ["--prefetch", "1", "--spool", spool];
        let options = [&["archive-get", "--cluster", "main"][..], &ahead, &[name(number), path]].concat();
        archive.command(&options).output().unwrap()
    };
    assert_eq!(code(&far(6)), 0);
    let started = Instant::now();
    let held = loop {
        let folders = fs::read_dir(memory.path().join("spool")).into_iter().flatten();
        let folders = folders.map(|folder| folder.unwrap().path());
        let held = folders.map(|folder| folder.join(name(7))).find(|held| held.is_file());
        if let Some(held) = held {
            break held;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "nothing was fetched ahead");
        std::thread::sleep(Duration::from_millis(20));
    };
    fs::rename(archive.repository(), &away).unwrap();
    assert_eq!(code(&far(7)), 0);
    assert!(fs::read(&one).unwrap() == fs::read(&own[7]).unwrap());
    assert!(!held.exists());
    fs::rename(&away, archive.repository()).unwrap();
}

/// A1, A4: with `--async` what waits is archived ahead; a receipt counts only for the very bytes, and once.
#[test]
fn what_waits_is_archived_ahead() {
    let archive = Archive::new();
    let own = some_segments(&archive, "own", "1");
    assert!(own.len() >= 8, "{} segments", own.len());
    let wal = archive.place("data/pg_wal");
    let status = archive.place("data/pg_wal/archive_status");
    let control = archive.place("data/global").join("pg_control");
    fs::write(control, &fs::read(&own[0]).unwrap()[24..32]).unwrap();
    let mut paths = Vec::new();
    for path in &own {
        let name = path.file_name().unwrap().to_str().unwrap();
        let copy = wal.join(name);
        fs::copy(path, &copy).unwrap();
        check("chown", Command::new("chown").arg(USER).arg(&copy).output());
        fs::write(status.join(format!("{name}.ready")), "").unwrap();
        paths.push(copy);
    }
    let push = |path: &Path| {
        let path = path.to_str().unwrap();
        archive.command(&["archive-push", "--cluster", "main", "--async", path]).output().unwrap()
    };
    let receipts = || {
        let mut found = Vec::new();
        for folder in fs::read_dir(archive.home().join("cache/receipts")).into_iter().flatten() {
            for entry in fs::read_dir(folder.unwrap().path()).unwrap() {
                found.push(entry.unwrap().path());
            }
        }
        found.retain(|path| !path.ends_with("lock") && path.extension().is_none());
        found.sort();
        found
    };
    assert_eq!(code(&push(&paths[0])), 0);
    let started = Instant::now();
    while receipts().len() < own.len() - 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", receipts());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Each is durable: the repository has all of them.
    let held = archive.open().all_logs().unwrap().found;
    assert_eq!(held.iter().filter(|found| found.record.name.len() == 24).count(), own.len());
    // A receipt speaks for no repository that is out of reach, and stays.
    let away = archive.home().join("away");
    fs::rename(archive.repository(), &away).unwrap();
    let before = receipts();
    assert!((1..=125).contains(&code(&push(&paths[1]))), "nobody can say that it is archived");
    assert_eq!(receipts(), before);
    fs::rename(&away, archive.repository()).unwrap();
    // With it a receipt is good for the very bytes, once.
    let stored = |path: &Path| {
        let path = path.to_str().unwrap();
        let output = archive
            .command(&["archive-push", "--json", "--cluster", "main", "--async", path])
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        (text.contains("\"log_pack\":null"), text.contains("\"stored\":true"))
    };
    assert_eq!(stored(&paths[1]), (true, false));
    assert!(!receipts().iter().any(|receipt| receipt.file_name() == paths[1].file_name()));
    // One whose log pack is not listed any more is not believed: the segment is stored again.
    let lost = paths[4].file_name().unwrap().to_str().unwrap();
    let repository = archive.open();
    let of_lost = || {
        let found = repository.all_logs().unwrap().found;
        found.into_iter().filter(|found| found.record.name == lost).collect::<Vec<_>>()
    };
    for found in of_lost() {
        LocalStore::open(archive.repository()).unwrap().delete(&found.object).unwrap();
    }
    assert_eq!(stored(&paths[4]), (false, true));
    assert_eq!(of_lost().len(), 1);
    let mut bytes = fs::read(&paths[2]).unwrap();
    bytes[9000] ^= 1;
    fs::write(&paths[2], &bytes).unwrap();
    assert!((1..=125).contains(&code(&push(&paths[2]))), "other bytes have no receipt");
    let of_third =
        receipts().into_iter().find(|receipt| receipt.file_name() == paths[3].file_name()).unwrap();
    fs::write(of_third, [0; 64]).unwrap();
    assert_eq!(stored(&paths[3]), (false, false), "a receipt of other bytes");
    // Without a receipt it is archived as ever: the same bytes are there, other bytes are refused.
    for path in &paths {
        let output = push(path);
        assert_eq!(code(&output), i32::from(*path == paths[2]), "{}", said(&output));
        let _ =
            fs::remove_file(status.join(format!("{}.ready", path.file_name().unwrap().to_str().unwrap())));
    }
}
