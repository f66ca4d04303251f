//! The log of real servers through replication slots: byte for byte, without a hole, whatever is killed.

use super::archive::{Archive, bench, code, said};
use super::restore::{digests, recovered, target};
use super::server::{Server, USER, tool};
use super::support::server::{as_user, check, folder};
use chronolith::format::log::LogRecordKind;
use chronolith::postgres::{LogFile, Lsn, SegmentName};
use chronolith::repo::{FoundLog, Repository};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_chronolith");

/// A running `pg receive`, as the server's user but without another program around it, so that a signal
/// meets it and not that program.
pub struct Receiver {
    child: Child,
    events: PathBuf,
}

fn number_of(option: &str) -> u32 {
    let output = check("id", Command::new("id").args([option, USER]).output());
    String::from_utf8(output).unwrap().trim().parse().unwrap()
}

/// The command, but for where the server is and who connects.
pub fn command(archive: &Archive, more: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    if rustix::process::geteuid().is_root() {
        command.uid(number_of("-u")).gid(number_of("-g"));
    }
    command.args(archive.options()).args(["pg", "receive", "--cluster", "main", "--slot", "copy"]);
    command.args(more);
    command.env("HOME", archive.home()).current_dir("/").stdin(Stdio::null());
    command
}

fn at_socket(archive: &Archive, server: &Server, more: &[&str]) -> Command {
    let mut command = command(archive, more);
    command.arg("--host").arg(server.sockets()).args(["--user", "tester"]);
    command
}

/// Runs one that ends by itself.
fn run(archive: &Archive, server: &Server, more: &[&str]) -> Output {
    at_socket(archive, server, more).output().unwrap()
}

impl Receiver {
    fn start(archive: &Archive, server: &Server, more: &[&str]) -> Self {
        Self::spawn(archive, at_socket(archive, server, more))
    }

    /// Starts one that is told by whoever calls this where the server is.
    pub fn spawn(archive: &Archive, mut command: Command) -> Self {
        let events = archive.home().join("events");
        let out = File::options().create(true).append(true).open(&events).unwrap();
        let errors = File::options().create(true).append(true).open(archive.home().join("errors")).unwrap();
        let child = command.arg("--json").stdout(out).stderr(errors).spawn().unwrap();
        Self { child, events }
    }

    /// Everything it has told as events, and receivers of the same archive before it.
    fn told(&self) -> String {
        fs::read_to_string(&self.events).unwrap_or_default()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    /// Waits until the server has heard that everything it has written is safe here; returns how long that took.
    pub fn catch_up(&mut self, server: &Server) -> Duration {
        let end = server.sql("postgres", "SELECT pg_current_wal_flush_lsn()");
        self.await_safe(server, end.trim())
    }

    fn await_safe(&mut self, server: &Server, position: &str) -> Duration {
        let asked =
            format!("SELECT coalesce(bool_or(flush_lsn >= '{position}'), false) FROM pg_stat_replication");
        let started = Instant::now();
        while server.sql("postgres", &asked).trim() != "t" {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended: {}", self.told());
            assert!(
                started.elapsed() < Duration::from_secs(120),
                "{position} never became safe: {}",
                self.told()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        started.elapsed()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(size: &str) -> Server {
    Server::start_with(
        &["--wal-segsize", size],
        &["wal_keep_size=2GB", "max_wal_size=2GB", "max_slot_wal_keep_size=-1"],
    )
}

/// The segments that are there whole, by name, with their bytes; nothing else may be there twice or refused.
fn received(repository: &Repository) -> BTreeMap<String, Vec<u8>> {
    let listing = repository.all_logs().unwrap();
    assert!(listing.refused.is_empty(), "{:?}", listing.refused);
    let mut segments = BTreeMap::new();
    for found in listing.found.iter().filter(|found| is_segment(found)) {
        assert_ne!(found.record.kind, LogRecordKind::Conflict, "{:?}", found.record);
        if found.record.kind == LogRecordKind::Segment {
            let bytes = repository.read_log(found).unwrap();
            assert!(
                segments.insert(found.record.name.clone(), bytes).is_none(),
                "{} twice",
                found.record.name
            );
        }
    }
    segments
}

fn is_segment(found: &FoundLog) -> bool {
    matches!(found.record.name.parse(), Ok(LogFile::Segment(_)))
}

fn pieces(repository: &Repository) -> Vec<FoundLog> {
    let found = repository.all_logs().unwrap().found;
    found.into_iter().filter(|found| found.record.kind == LogRecordKind::Piece).collect()
}

/// Compares what was received with the server's own files; returns how many there were. No segment of a
/// timeline is missing between the first and the last.
fn compare(segments: &BTreeMap<String, Vec<u8>>, wal: &Path) -> usize {
    let mut compared = 0;
    let mut before: Option<SegmentName> = None;
    for (name, bytes) in segments {
        let segment: SegmentName = name.parse().unwrap();
        if let Some(before) = before.filter(|before| before.timeline() == segment.timeline()) {
            let size = chronolith::postgres::SegmentSize::new(bytes.len() as u64).unwrap();
            assert_eq!(before.next(size), Some(segment), "a segment is missing");
        }
        before = Some(segment);
        if let Ok(own) = fs::read(wal.join(name)) {
            assert!(own == *bytes, "{name} differs");
            compared += 1;
        }
    }
    compared
}

/// A1, A2: the server hears of nothing as safe that is not; what it writes is safe within a second, before the
/// segment is full; whole segments have the server's bytes and supersede their pieces.
#[test]
fn the_log_is_safe_within_a_second_and_whole_segments_are_the_servers() {
    let archive = Archive::new();
    let mut server = start("1");
    bench(&server, "5");
    let mut receiver = Receiver::start(&archive, &server, &["--create-slot"]);
    bench(&server, "100");
    receiver.catch_up(&server);
    let mut waits = Vec::new();
    for number in 0..5 {
        server.sql("postgres", &format!("CREATE TABLE t{number} (n int)"));
        waits.push(receiver.catch_up(&server));
    }
    // A machine that is busy with other tests is slower; most of them tell.
    waits.sort();
    assert!(waits[0] < Duration::from_secs(1), "{waits:?}");
    let repository = archive.open();
    assert!(!pieces(&repository).is_empty(), "the segment is not full, and yet safe");
    server.sql("postgres", "SELECT pg_switch_wal(); CREATE TABLE last (n int)");
    receiver.catch_up(&server);
    assert!(receiver.stop().success(), "{}", receiver.told());
    let told = receiver.told();
    let summary = told.lines().last().unwrap();
    assert!(summary.contains("\"event\":\"summary\"") && summary.contains("\"gaps\":0"), "{summary}");
    let segments = received(&repository);
    assert!(compare(&segments, &server.data().join("pg_wal")) >= 5, "{:?}", segments.keys());
    // [CONCURRENCY-42]: of what is there whole no pieces are left.
    let left: Vec<String> = pieces(&repository).into_iter().map(|found| found.record.name).collect();
    assert!(left.iter().all(|name| !segments.contains_key(name)), "{left:?}");
    // What the server archives by itself is the same once more.
    let wal = server.data().join("pg_wal");
    server.stop("fast");
    for name in segments.keys() {
        let output = archive.push("main", &wal.join(name));
        assert_eq!(code(&output), 0, "{}", said(&output));
    }
    assert_eq!(received(&repository).len(), segments.len());
}

/// Whoever is killed, at whatever moment: after a new start nothing is missing and nothing differs.
#[test]
fn neither_side_loses_anything_when_it_is_killed() {
    let archive = Archive::new();
    let mut server = start("1");
    server.sql("postgres", "CREATE TABLE t (n int, x text)");
    let mut receiver = Receiver::start(&archive, &server, &["--create-slot"]);
    receiver.catch_up(&server);
    let insert = "INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 3000) n";
    for round in 0_u64..8 {
        server.sql("postgres", insert);
        // At every stage of a segment: while pieces are made of it, while it is stored, right after.
        std::thread::sleep(Duration::from_millis(round * 130));
        match round % 4 {
            3 => {
                // The receiver outlives the server.
                server.stop("immediate");
                server.launch();
            }
            2 => {
                receiver.kill();
                server.stop("immediate");
                server.launch();
                receiver = Receiver::start(&archive, &server, &[]);
            }
            _ => {
                receiver.kill();
                server.sql("postgres", insert);
                receiver = Receiver::start(&archive, &server, &[]);
            }
        }
    }
    server.sql("postgres", insert);
    receiver.catch_up(&server);
    server.sql("postgres", "SELECT pg_switch_wal(); SELECT txid_current()");
    receiver.catch_up(&server);
    assert!(receiver.told().contains("\"event\":\"lost\""), "{}", receiver.told());
    // The server waits until its last record is safe here, and ends.
    server.stop("fast");
    assert!(receiver.stop().success());
    let segments = received(&archive.open());
    let compared = compare(&segments, &server.data().join("pg_wal"));
    assert!(compared >= 15, "{compared} segments");
    assert!(!receiver.told().contains("\"event\":\"gap\""), "{}", receiver.told());
    assert!(
        archive.open().log_records(&stream_of(&archive)).unwrap().found.is_empty(),
        "no gap, no conflict"
    );
}

fn stream_of(archive: &Archive) -> String {
    let found = archive.open().all_logs().unwrap().found;
    found.iter().find(|found| is_segment(found)).unwrap().record.stream.clone()
}

fn back_up(archive: &Archive, server: &Server) {
    let data = server.data().display().to_string();
    let host = server.sockets().display().to_string();
    let backup = [
        "backup",
        "--cluster",
        "main",
        "--user",
        "tester",
        "--host",
        &host,
        "--pgdata",
        &data,
        "--wal",
        "stream",
    ];
    check("pg backup", archive.command(&backup).output());
}

/// Restores into a folder and recovers there; what the server's own log holds is not used.
fn restore(archive: &Archive, more: &[&str]) -> Server {
    let (folder, data) = target();
    let mut arguments = vec!["restore", "--cluster", "main", "--pgdata", data.to_str().unwrap()];
    arguments.extend(more);
    check("pg restore", archive.command(&arguments).output());
    recovered(folder)
}

/// The server, its disk and the receiver are gone at once: what was safe is restored to the last transaction,
/// out of the pieces of a segment that was never full.
#[test]
fn the_last_transaction_comes_back_out_of_pieces() {
    let archive = Archive::new();
    let mut server = start("16");
    server.sql("postgres", "CREATE TABLE t (n int)");
    let mut receiver = Receiver::start(&archive, &server, &["--create-slot"]);
    receiver.catch_up(&server);
    back_up(&archive, &server);
    server.sql("postgres", "INSERT INTO t SELECT generate_series(1, 1000)");
    receiver.catch_up(&server);
    for n in 1001..=1003 {
        server.sql("postgres", &format!("INSERT INTO t VALUES ({n})"));
        receiver.catch_up(&server);
    }
    let before = digests(&server);
    let position = server.sql("postgres", "SELECT pg_current_wal_flush_lsn()");
    receiver.kill();
    server.stop("immediate");
    let held = pieces(&archive.open());
    assert!(held.len() >= 2, "it is in pieces");
    // Without reading any content it is known how far the log reaches, and until when.
    let timeline = archive.command(&["timeline", "--cluster", "main", "--json"]).output().unwrap();
    let text = String::from_utf8(timeline.stdout).unwrap();
    let interval = text.lines().find(|line| line.contains("\"event\":\"interval\"")).expect(&text);
    let interval: serde_json::Value = serde_json::from_str(interval).unwrap();
    let reached: Lsn = interval["to_lsn"].as_str().unwrap().parse().unwrap();
    assert!(reached >= position.trim().parse().unwrap(), "{interval} {position}");
    assert!(!text.contains("\"event\":\"gap\""), "{text}");
    let mut restored = restore(&archive, &[]);
    assert_eq!(digests(&restored), before);
    restored.stop("fast");
    // What a server is given is a segment of full length, zeros behind the pieces.
    let path = archive.place("got").join("RECOVERYXLOG");
    let output = archive.get(&held[0].record.name, &path);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 16 << 20);
    let own = fs::read(server.data().join("pg_wal").join(&held[0].record.name)).unwrap();
    let length = chronolith::repo::joined_length(
        &archive.open().find_log(&held[0].record.stream, &held[0].record.name).unwrap().found,
    ) as usize;
    assert!(bytes[..length] == own[..length] && bytes[length..].iter().all(|byte| *byte == 0));
    // A position behind the last record is refused before anything is written (B13).
    let (_folder, data) = target();
    let arguments =
        ["restore", "--cluster", "main", "--pgdata", data.to_str().unwrap(), "--target-lsn", "F/0"];
    let output = archive.command(&arguments).output().unwrap();
    assert_eq!(code(&output), 2, "{}", said(&output));
    assert!(!data.exists());
}

/// A15, R9: a standby is promoted while it is followed: its history comes first, then the new timeline, on
/// which a recovery ends.
#[test]
fn a_promotion_is_followed() {
    let archive = Archive::new();
    let mut primary = start("1");
    bench(&primary, "5");
    let place = folder(USER);
    let mut copy = as_user(USER, &tool("pg_basebackup"));
    copy.arg("-D")
        .arg(place.path().join("server/data"))
        .args(["-U", "tester", "-X", "stream", "-R", "-c", "fast"]);
    check("pg_basebackup", copy.arg("-h").arg(primary.sockets()).output());
    let mut standby = Server::adopt(place, &["wal_keep_size=2GB", "hot_standby=on"]);
    back_up(&archive, &primary);
    let mut receiver = Receiver::start(&archive, &standby, &["--create-slot"]);
    bench(&primary, "50");
    let end = primary.sql("postgres", "SELECT pg_current_wal_flush_lsn()");
    receiver.await_safe(&standby, end.trim());
    primary.stop("fast");
    standby.sql("postgres", "SELECT pg_promote()");
    bench(&standby, "50");
    standby.sql("postgres", "SELECT pg_switch_wal(); CREATE TABLE after (n int)");
    receiver.catch_up(&standby);
    let before = digests(&standby);
    // Killed right there: it begins again on the new timeline.
    receiver.kill();
    let mut receiver = Receiver::start(&archive, &standby, &[]);
    standby.sql("postgres", "SELECT pg_switch_wal(); SELECT txid_current()");
    receiver.catch_up(&standby);
    standby.stop("fast");
    assert!(receiver.stop().success());
    assert!(receiver.told().contains("\"event\":\"switched\""), "{}", receiver.told());
    let repository = archive.open();
    let segments = received(&repository);
    assert!(compare(&segments, &standby.data().join("pg_wal")) >= 3);
    let on = |timeline: &str| segments.keys().filter(|name| name.starts_with(timeline)).count();
    assert!(on("00000001") >= 1 && on("00000002") >= 2, "{:?}", segments.keys());
    let found = repository.all_logs().unwrap().found;
    let when = |name: &str| -> Vec<_> {
        let named = found.iter().filter(|found| found.record.name.starts_with(name));
        named.map(|found| found.record.created).collect()
    };
    let history = when("00000002.history").into_iter().min().expect("the history is archived");
    assert!(when("000000020").into_iter().all(|segment| segment > history), "A15: the history first");
    let restored = restore(&archive, &[]);
    assert_eq!(digests(&restored), before);
    assert!(restored.sql("postgres", "SELECT timeline_id FROM pg_control_checkpoint()").trim() >= "2");
}

/// What the server no longer has is said and recorded; nothing else is ever left out.
#[test]
fn lost_log_is_a_gap_that_is_said_and_recorded() {
    let archive = Archive::new();
    let small = ["wal_keep_size=0", "max_wal_size=2MB", "min_wal_size=2MB", "checkpoint_timeout=30s"];
    let server = Server::start_with(&["--wal-segsize", "1"], &small);
    server.sql("postgres", "CREATE TABLE t (n int, x text)");
    // A slot that is not there is not found, whatever is wanted of it.
    for wanted in ["--once", "--drop-slot", "--status"] {
        let output = run(&archive, &server, &[wanted]);
        assert_eq!(code(&output), 4, "{wanted}: {}", said(&output));
        assert!(said(&output).contains("pg_replication_slots"), "{wanted}: {}", said(&output));
        let is_missing = said(&output).contains("no replication slot copy");
        assert!(is_missing || wanted == "--status", "{}", said(&output));
    }
    let mut receiver = Receiver::start(&archive, &server, &["--create-slot"]);
    // What is written before there is a slot is nobody's.
    receiver.catch_up(&server);
    let insert = "INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 3000) n";
    server.sql("postgres", insert);
    receiver.catch_up(&server);
    // One that is in use is not removed.
    let output = run(&archive, &server, &["--drop-slot"]);
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(said(&output).contains("is in use"), "{}", said(&output));
    assert!(receiver.stop().success());
    let held = received(&archive.open()).len();
    assert!(held > 0);
    let status = run(&archive, &server, &["--status"]);
    assert_eq!(code(&status), 0, "{}", said(&status));
    assert!(String::from_utf8_lossy(&status.stdout).contains("on timeline 1"), "{status:?}");
    // Stopped for a while, it goes on without a hole: the slot keeps what is not safe.
    server.sql("postgres", &format!("{insert}; CHECKPOINT; CHECKPOINT"));
    let mut receiver = Receiver::start(&archive, &server, &[]);
    receiver.catch_up(&server);
    assert!(receiver.stop().success());
    assert_eq!(compare(&received(&archive.open()), Path::new("/nonexistent")), 0);
    // Somebody removes the slot, and the server its log.
    assert_eq!(code(&run(&archive, &server, &["--drop-slot"])), 0);
    assert_eq!(code(&run(&archive, &server, &["--status"])), 4);
    for _ in 0..4 {
        server.sql("postgres", insert);
        server.sql("postgres", "SELECT pg_switch_wal()");
        server.sql("postgres", "CHECKPOINT");
    }
    let end = server.sql("postgres", "SELECT pg_current_wal_flush_lsn()");
    for _ in 0..2 {
        let output = run(&archive, &server, &["--create-slot", "--until", end.trim(), "--once"]);
        assert_eq!(
            code(&output),
            if said(&output).contains("recorded as a gap") { 3 } else { 0 },
            "{}",
            said(&output)
        );
    }
    let gaps = archive.open().log_records(&stream_of(&archive)).unwrap().found;
    let gaps: Vec<_> = gaps.iter().filter(|found| found.record.kind == LogRecordKind::Gap).collect();
    assert_eq!(gaps.len(), 1, "it is recorded once");
    let timeline = archive.command(&["timeline", "--cluster", "main"]).output().unwrap();
    let text = String::from_utf8(timeline.stdout).unwrap();
    assert!(text.contains("recorded as a gap"), "{text}");
    // Another cluster is refused before anything of it is stored.
    let other = start("1");
    let objects = archive.open().all_logs().unwrap().found.len();
    let output = run(&archive, &other, &["--create-slot", "--once"]);
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(said(&output).contains("another cluster"), "{}", said(&output));
    assert_eq!(archive.open().all_logs().unwrap().found.len(), objects);
}
