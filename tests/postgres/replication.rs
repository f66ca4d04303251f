//! The client of the replication protocol: passwords of every kind, over TCP; what a server says, to the end.

use super::server::{Server, USER};
use super::support::server::check;
use chronolith::base::{Quiet, SecretBytes};
use chronolith::postgres::replication::{
    Endpoint, Replication, ReplicationError, SlotName, Started, Streamed,
};
use chronolith::postgres::{ConnectionOptions, TlsOptions, read_history};
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn connect(options: &ConnectionOptions) -> Result<Replication, ReplicationError> {
    Replication::connect(&Endpoint::new(options, "nobody").unwrap(), Arc::new(Quiet))
}

fn by_socket(server: &Server) -> ConnectionOptions {
    ConnectionOptions {
        host: Some(server.sockets().display().to_string()),
        port: Some(server.port),
        user: Some("tester".to_owned()),
        ..ConnectionOptions::default()
    }
}

/// Every kind of password that a server may ask for; a wrong one, none, and a server that asks for encryption.
#[test]
fn passwords() {
    let mut server = Server::start();
    server.sql(
        "postgres",
        "CREATE ROLE plain REPLICATION LOGIN PASSWORD 'geheim'; CREATE ROLE scram REPLICATION LOGIN PASSWORD 'gehe im';
         SET password_encryption = 'md5'; CREATE ROLE old REPLICATION LOGIN PASSWORD 'geheim';
         CREATE ROLE nobody LOGIN PASSWORD 'geheim'",
    );
    server.stop("fast");
    let rules = "local all tester trust\nlocal replication tester trust\n\
        host replication plain 127.0.0.1/32 password\nhost replication old 127.0.0.1/32 md5\n\
        host replication scram 127.0.0.1/32 scram-sha-256\nhost replication nobody 127.0.0.1/32 trust\n";
    fs::write(server.data().join("pg_hba.conf"), rules).unwrap();
    server.port = free_port();
    server.set(&["listen_addresses=127.0.0.1".to_owned()]);
    server.launch();
    let options = |user: &str, password: Option<&str>| ConnectionOptions {
        host: Some("127.0.0.1".to_owned()),
        port: Some(server.port),
        user: Some(user.to_owned()),
        password: password.map(|password| SecretBytes::new(password.as_bytes().to_vec())),
        ..ConnectionOptions::default()
    };
    for (user, password) in [("plain", "geheim"), ("old", "geheim"), ("scram", "gehe im")] {
        let mut session = connect(&options(user, Some(password))).unwrap();
        assert!(session.identify().unwrap().timeline == 1, "{user}");
        for wrong in [Some("falsch"), None] {
            let error = connect(&options(user, wrong)).err().expect(user);
            assert!(error.is("28P01") && !error.may_pass(), "{user}: {error}");
            assert!(!error.to_string().contains("falsch"), "{error}");
        }
        // From a password file, for the database that such files mean.
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(file.path(), format!("127.0.0.1:{}:replication:{user}:{password}\n", server.port)).unwrap();
        let kept = ConnectionOptions { password_file: Some(file.path().to_owned()), ..options(user, None) };
        connect(&kept).unwrap();
    }
    let error = connect(&options("nobody", None)).err().unwrap();
    assert!(matches!(error, ReplicationError::Refused { .. }), "a role without REPLICATION: {error}");
    // No password goes where encryption was asked for, and there is none.
    let tls = TlsOptions { mode: Some("require".to_owned()), ..TlsOptions::default() };
    let refused = connect(&ConnectionOptions { tls, ..options("plain", Some("geheim")) }).err().unwrap();
    assert!(matches!(refused, ReplicationError::Unsafe(_)) && !refused.may_pass(), "{refused}");
    let nowhere = ConnectionOptions { port: Some(free_port()), ..options("plain", None) };
    assert!(connect(&nowhere).err().unwrap().may_pass(), "a server that is not there may come");
}

/// Commands and their results; what a server says instead.
#[test]
fn commands() {
    let mut server = Server::start_with(&["--wal-segsize", "2"], &[]);
    let mut session = connect(&by_socket(&server)).unwrap();
    let identity = session.identify().unwrap();
    let own = server.sql("postgres", "SELECT system_identifier FROM pg_control_system()");
    assert_eq!(identity.system_identifier.to_string(), own.trim());
    assert_eq!((session.segment_size().unwrap().bytes(), session.major()), (2 << 20, 15));
    let slot: SlotName = "copy_1".parse().unwrap();
    for bad in ["", "Copy", "a\"b", "a b", &"x".repeat(64)] {
        assert!(bad.parse::<SlotName>().is_err(), "{bad:?}");
    }
    assert_eq!(session.slot(&slot).unwrap(), None);
    session.create_slot(&slot).unwrap();
    assert!(session.create_slot(&slot).unwrap_err().is("42710"));
    let (lsn, timeline) = session.slot(&slot).unwrap().unwrap().restart.unwrap();
    assert_eq!(timeline, 1);
    // An error leaves the session usable.
    assert!(matches!(session.history(7), Err(ReplicationError::Refused { .. })));
    let start = session.segment_size().unwrap().start_of(lsn);
    assert_eq!(session.start_streaming(&slot, 1, start).unwrap(), Started::Streaming);
    let mut length = 0;
    loop {
        match session.next_streamed(Duration::from_millis(50)).unwrap() {
            Streamed::Log { start: at, bytes, .. } => {
                assert_eq!(at.0, start.0 + length, "without a hole");
                length += bytes.len() as u64;
            }
            Streamed::Silence => break,
            _ => {}
        }
    }
    assert!(length > 0);
    session.end_streaming();
    // The same session goes on after the stream.
    assert_eq!(session.identify().unwrap().timeline, 1);
    session.drop_slot(&slot).unwrap();
    assert!(session.drop_slot(&slot).is_err());
    // On another timeline there is a history.
    server.stop("fast");
    let signal = server.data().join("recovery.signal");
    fs::write(&signal, "").unwrap();
    if rustix::process::geteuid().is_root() {
        check("chown", Command::new("chown").arg(USER).arg(&signal).output());
    }
    server.set(&["restore_command=/bin/false".to_owned()]);
    server.launch();
    while server.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut session = connect(&by_socket(&server)).unwrap();
    assert_eq!(session.identify().unwrap().timeline, 2);
    let path = read_history(2, &session.history(2).unwrap()).unwrap();
    session.create_slot(&slot).unwrap();
    let (parent, fork) = path.parent().unwrap();
    // A timeline that was left ends, and says where it goes on.
    let ended = session.start_streaming(&slot, parent, chronolith::postgres::Lsn(fork)).unwrap();
    assert!(
        matches!(ended, Started::Ended(Some(next)) if next.timeline == 2 && next.at.0 == fork),
        "{ended:?}"
    );
    let from = start_of_segment(fork);
    assert_eq!(
        session.start_streaming(&slot, parent, chronolith::postgres::Lsn(from)).unwrap(),
        Started::Streaming
    );
    let next = loop {
        if let Streamed::Ended(next) = session.next_streamed(Duration::from_secs(10)).unwrap() {
            break next.unwrap();
        }
    };
    assert_eq!((next.timeline, next.at.0), (2, fork));
    // A server that stops says why, or closes; both may pass.
    session.start_streaming(&slot, 2, chronolith::postgres::Lsn(from)).unwrap();
    server.stop("immediate");
    let error = loop {
        if let Err(error) = session.next_streamed(Duration::from_millis(50)) {
            break error;
        }
    };
    assert!(error.may_pass(), "{error}");
}

fn start_of_segment(position: u64) -> u64 {
    position - position % (2 << 20)
}
