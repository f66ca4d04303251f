//! Encrypted connections to real servers, in every mode, and to what only looks like one.

use super::archive::Archive;
use super::base::expect;
use super::certificates::Certificates;
use super::receive::{Receiver, command};
use super::replication::free_port;
use super::server::{Server as TestServer, USER};
use super::support::program::Program;
use super::support::server::check;
use chronolith::base::Quiet;
use chronolith::postgres::replication::{Endpoint, Replication};
use chronolith::postgres::{ConnectionOptions, PostgresError, Server};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

const PASSWORD: &str = "geheim";

/// Roles by how they may connect.
const RULES: &str = "local all tester trust\nlocal replication tester trust\n\
    hostssl all,replication encrypted 127.0.0.1/32 scram-sha-256\n\
    hostnossl all,replication clear 127.0.0.1/32 scram-sha-256\n\
    host all,replication either 127.0.0.1/32 scram-sha-256\n\
    host all,replication old 127.0.0.1/32 md5\n\
    host all,replication trusted 127.0.0.1/32 trust\n\
    hostssl all,replication certified 127.0.0.1/32 cert\n";

/// A server and certificates.
pub struct Scene {
    pub server: TestServer,
    pub certificates: Certificates,
}

impl Scene {
    /// A server over TCP with the certificate `server`, signed by `root`, and the roles of [`RULES`].
    pub fn new() -> Self {
        let certificates = Certificates::new();
        certificates.signed("server", "somebody", "root", Some("server"), "5");
        let mut server = TestServer::start_with(&[], &["wal_keep_size=100MB"]);
        for role in ["encrypted", "clear", "either", "trusted", "certified"] {
            server.sql("postgres", &format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{PASSWORD}'"));
        }
        server.sql(
            "postgres",
            &format!(
                "SET password_encryption = 'md5'; CREATE ROLE old LOGIN REPLICATION PASSWORD '{PASSWORD}'"
            ),
        );
        fs::write(server.data().join("pg_hba.conf"), RULES).unwrap();
        server.stop("fast");
        server.port = free_port();
        let mut scene = Self { server, certificates };
        scene.shows("server.crt", "server.key");
        scene
    }

    /// Starts the server anew with another certificate.
    pub fn shows(&mut self, certificate: &str, key: &str) {
        self.server.stop("fast");
        let data = self.server.data();
        for (name, to) in [(certificate, "server.crt"), (key, "server.key"), ("root.crt", "clients.crt")] {
            let to = data.join(to);
            let _ = fs::remove_file(&to);
            self.certificates.copy(name, &to);
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
            if rustix::process::geteuid().is_root() {
                check("chown", Command::new("chown").arg(USER).arg(&to).output());
            }
        }
        self.launch(&["ssl=on", "ssl_ca_file=clients.crt"]);
    }

    fn launch(&mut self, settings: &[&str]) {
        let settings = [&["listen_addresses=127.0.0.1", "wal_keep_size=100MB"], settings].concat();
        self.server.set(&settings.iter().map(|&setting| setting.to_owned()).collect::<Vec<_>>());
        self.server.launch();
    }

    /// What a connection string says, with the server's address and the password.
    pub fn options(&self, host: &str, user: &str, more: &str) -> ConnectionOptions {
        let text = format!(
            "host={host} hostaddr=127.0.0.1 port={} dbname=postgres user={user} password={PASSWORD} {more}",
            self.server.port
        );
        ConnectionOptions::parse(&text).unwrap().0
    }

    /// The name of a file, for a connection string.
    pub fn file(&self, key: &str, name: &str) -> String {
        format!("{key}={}", self.certificates.text(name))
    }

    /// Connects in both ways; says whether both are encrypted, or why not.
    pub fn connect(&self, options: &ConnectionOptions) -> Result<bool, String> {
        let asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let session = Server::connect(options, "nobody")
            .map(|mut session| session.query("ask", asked, &[]).unwrap()[0].get::<_, bool>(0));
        let streamed = replicate(options).map(|_session| {
            let asked = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                         WHERE backend_type = 'walsender'";
            self.server.sql("postgres", asked).trim() == "t"
        });
        match (session, streamed) {
            (Ok(session), Ok(streamed)) => {
                assert_eq!(session, streamed, "the two sessions differ");
                Ok(session)
            }
            (Err(session), Err(streamed)) => {
                let said = format!("{session}\n{}\n{streamed}\n{}", cure(&session), cure(&streamed));
                assert!(!said.contains(PASSWORD), "{said}");
                Err(said)
            }
            (session, streamed) => panic!("the two sessions differ: {:?} {streamed:?}", session.err()),
        }
    }

    /// Connects, and expects to be refused for a reason, in both sessions.
    pub fn refuses(&self, options: &ConnectionOptions, why: &str) {
        let said = self.connect(options).expect_err(why);
        assert!(said.matches(why).count() >= 2, "{why}: {said}");
    }
}

fn cure(error: &PostgresError) -> String {
    error.cure().unwrap_or_default().to_owned()
}

fn replicate(options: &ConnectionOptions) -> Result<Replication, PostgresError> {
    let endpoint = Endpoint::new(options, "nobody")?;
    Replication::connect(&endpoint, Arc::new(Quiet)).map_err(|error| error.at("connect to", endpoint.place()))
}

/// Every mode against a server that encrypts and roles that must, must not or may be encrypted.
#[test]
fn every_mode_keeps_what_it_promises() {
    let mut scene = Scene::new();
    let root = scene.file("sslrootcert", "root.crt");
    let connect = |scene: &Scene, mode: &str, user: &str| {
        scene.connect(&scene.options("db.example.org", user, &format!("sslmode={mode} {root}")))
    };
    for (mode, expected) in [
        ("disable", [None, Some(false), Some(false)]),
        ("allow", [Some(true), Some(false), Some(false)]),
        ("prefer", [Some(true), Some(false), Some(true)]),
        ("require", [Some(true), None, Some(true)]),
        ("verify-ca", [Some(true), None, Some(true)]),
        ("verify-full", [Some(true), None, Some(true)]),
    ] {
        for (user, expected) in ["encrypted", "clear", "either"].into_iter().zip(expected) {
            let outcome = connect(&scene, mode, user);
            assert_eq!(outcome.clone().ok(), expected, "{mode} {user}: {outcome:?}");
            if let Err(said) = outcome {
                assert!(said.contains("no pg_hba.conf entry"), "{mode} {user}: {said}");
            }
        }
    }
    // What is usual is `prefer`.
    assert_eq!(scene.connect(&scene.options("db.example.org", "either", "")), Ok(true));
    // A wrong password is wrong in every way, and is not sent again.
    let before = scene.server.log().matches("password authentication failed").count();
    let wrong = scene.options("db.example.org", "either", "sslmode=prefer password=falsch");
    let said = scene.connect(&wrong).unwrap_err();
    assert!(said.contains("password authentication failed") && !said.contains("falsch"), "{said}");
    let after = scene.server.log().matches("password authentication failed").count();
    assert_eq!(after - before, 2, "once for each of the two sessions");
    // A long query is taken back over an encrypted connection, too.
    let options = scene.options("db.example.org", "encrypted", &format!("sslmode=verify-full {root}"));
    let mut session = Server::connect(&options, "nobody").unwrap();
    let impatient = Impatient(std::time::Instant::now());
    let stopped = session.query_patiently("wait at", "SELECT pg_sleep(600)", &[], &impatient);
    assert!(stopped.is_err() && impatient.0.elapsed() < std::time::Duration::from_secs(300));

    // A server that does not encrypt.
    scene.server.stop("fast");
    scene.launch(&[]);
    for mode in ["require", "verify-ca", "verify-full"] {
        let said = connect(&scene, mode, "either").unwrap_err();
        assert_eq!(said.matches("it does not encrypt connections").count(), 2, "{mode}: {said}");
        assert!(said.contains(&format!("sslmode={mode}")) && said.contains("set ssl = on"), "{said}");
    }
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(connect(&scene, mode, "either"), Ok(false), "{mode}");
    }
    // Through a socket nothing is encrypted, whatever is asked for.
    let text = format!(
        "host={} port={} user=tester dbname=postgres sslmode=verify-full {root}",
        scene.server.sockets().display(),
        scene.server.port
    );
    assert_eq!(scene.connect(&ConnectionOptions::parse(&text).unwrap().0), Ok(false));
}

/// Has enough a moment after it was made.
struct Impatient(std::time::Instant);

impl chronolith::base::Observer for Impatient {
    fn interrupted(&self) -> bool {
        self.0.elapsed() > std::time::Duration::from_millis(500)
    }
}

/// The proof of a password is bound to the connection where that is asked for, and else where both can.
#[test]
fn passwords_are_bound_to_the_connection() {
    let scene = Scene::new();
    for (user, mode, binding, fine) in [
        ("either", "require", "require", true),
        ("either", "prefer", "require", true),
        ("either", "require", "prefer", true),
        ("either", "require", "disable", true),
        ("old", "require", "prefer", true),
        ("old", "require", "require", false),
        ("trusted", "require", "require", false),
        ("either", "disable", "require", false),
        ("clear", "prefer", "require", false),
    ] {
        let options = scene.options("h", user, &format!("sslmode={mode} channel_binding={binding}"));
        let outcome = scene.connect(&options);
        assert_eq!(outcome.is_ok(), fine, "{user} {mode} {binding}: {outcome:?}");
        if let Err(said) = outcome {
            assert!(said.contains("channel"), "{said}");
        }
    }
    scene.refuses(
        &scene.options("h", "either", "channel_binding=maybe"),
        "channel_binding=maybe is not known",
    );
}

/// What a server that is none says to the question whether it encrypts; returns all that it was sent.
fn impostor(answer: &'static [u8]) -> (u16, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut asked = [0; 8];
        client.read_exact(&mut asked).unwrap();
        assert_eq!(asked, [0, 0, 0, 8, 4, 210, 22, 47]);
        client.write_all(answer).unwrap();
        let mut heard = Vec::new();
        let _ = client.read_to_end(&mut heard);
        heard
    });
    (port, heard)
}

/// CVE-2021-23222: what stands behind the server's answer and came in the clear is not taken for what came encrypted; and
/// nothing but a handshake is sent to who has not made one.
#[test]
fn nobody_in_between_is_heard() {
    // That all is well, what is set, and that commands are taken: enough for a session to begin.
    let injected: &[u8] = b"SR\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0015.1\0Z\0\0\0\x05I";
    let error: &[u8] = b"E\0\0\0\x2bSFATAL\0VFATAL\0C28000\0Mtry without TLS\0\0";
    for (answer, mode) in [
        (injected, "require"),
        (injected, "verify-full"),
        (b"N", "require"),
        (b"N", "verify-ca"),
        (b"N", "verify-full"),
        (b"NR\0\0\0\x08\0\0\0\0", "require"),
        (error, "require"),
        (error, "verify-full"),
    ] {
        let certificates = Certificates::new();
        let options = |port: u16| {
            let text = format!(
                "host=127.0.0.1 port={port} user=u dbname=d password={PASSWORD} sslmode={mode} sslrootcert={}",
                certificates.text("root.crt")
            );
            ConnectionOptions::parse(&text).unwrap().0
        };
        let (port, heard) = impostor(answer);
        assert!(Server::connect(&options(port), "nobody").is_err(), "{mode} {answer:?}");
        let by_query = heard.join().unwrap();
        let (port, heard) = impostor(answer);
        assert!(replicate(&options(port)).is_err(), "{mode} {answer:?}");
        for heard in [by_query, heard.join().unwrap()] {
            let has = |needle: &[u8]| heard.windows(needle.len()).any(|window| window == needle);
            assert!(!has(b"user\0") && !has(PASSWORD.as_bytes()), "{mode}: it was spoken to in the clear");
            // A handshake, whose first record begins so, or nothing at all.
            assert!(heard.is_empty() || heard[0] == 0x16 || heard[0] == 0x15, "{mode}: {heard:?}");
        }
    }
    // An answer may come with nothing behind it, and the connection may end instead.
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closing.local_addr().unwrap().port();
    let closer = std::thread::spawn(move || drop::<TcpStream>(closing.accept().unwrap().0));
    let text = format!("host=127.0.0.1 port={port} user=u sslmode=require");
    let endpoint = Endpoint::new(&ConnectionOptions::parse(&text).unwrap().0, "nobody").unwrap();
    let error = Replication::connect(&endpoint, Arc::new(Quiet)).err().unwrap();
    assert!(error.may_pass(), "{error}");
    closer.join().unwrap();
}

/// Base backups, the log as it is written, and dumps, over an encrypted connection of a role that must not have any
/// other; the programs that are called are told the same.
#[test]
fn everything_goes_over_an_encrypted_connection() {
    let scene = Scene::new();
    let server = &scene.server;
    server.sql(
        "postgres",
        "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n; GRANT ALL ON t TO encrypted",
    );
    server.sql("postgres", "GRANT pg_read_all_data TO encrypted; GRANT pg_read_all_settings TO encrypted");
    let (port, root) = (server.port.to_string(), scene.certificates.text("root.crt"));
    let surroundings = [
        ("PGHOST", "db.example.org"),
        ("PGHOSTADDR", "127.0.0.1"),
        ("PGPORT", port.as_str()),
        ("PGUSER", "encrypted"),
        ("PGDATABASE", "postgres"),
        ("PGPASSWORD", PASSWORD),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", root.as_str()),
        ("PGCHANNELBINDING", "require"),
    ];
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let run = |arguments: &[&str], surroundings: &[(&str, &str)]| {
        program.command(arguments).envs(surroundings.iter().copied()).output().unwrap()
    };
    let backup = ["pg", "backup", "--cluster", "main", "--remote", "--wal", "stream"];
    expect(&run(&backup, &surroundings), 0);
    expect(&run(&["pg", "dump", "postgres"], &surroundings), 0);
    let elsewhere = [&surroundings[..], &[("PGHOST", "elsewhere")]].concat();
    for arguments in [&backup[..], &["pg", "dump", "postgres"]] {
        let said = expect(&run(arguments, &elsewhere), 1);
        assert!(
            said.contains("certificate is for db.example.org") && said.contains("not for elsewhere"),
            "{said}"
        );
    }
    assert_eq!(program.client().snapshots().len(), 2);

    let archive = Archive::new();
    // The server's user reads it too.
    fs::set_permissions(scene.certificates.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut receive = command(&archive, &["--create-slot"]);
    receive.envs(surroundings);
    let mut receiver = Receiver::spawn(&archive, receive);
    server.sql("postgres", "SELECT pg_switch_wal(); INSERT INTO t VALUES (1)");
    receiver.catch_up(server);
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
    assert_eq!(server.sql("postgres", encrypted).trim(), "t");
    assert!(receiver.stop().success());
}
