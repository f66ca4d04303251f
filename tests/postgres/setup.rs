//! A server is told to archive, and it is proved that it does.

use super::archive::Archive;
use super::base::{arguments, expect};
use super::server::Server;
use std::process::Output;

/// A1, A10, A14: what is missing is shown, set and proved; another way of archiving is not replaced unasked.
#[test]
fn a_server_is_set_up_and_archives() {
    let archive = Archive::new();
    let mut server = Server::start();
    let setup = |server: &Server, more: &[&str]| -> Output {
        let sockets = server.sockets();
        let mut arguments =
            vec!["setup", "--cluster", "main", "--user", "tester", "--host", sockets.to_str().unwrap()];
        arguments.extend(more);
        archive.command(&arguments).output().unwrap()
    };
    let output = setup(&server, &[]);
    let said = expect(&output, 0);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("ALTER SYSTEM SET archive_mode = 'on';"), "{shown}");
    assert!(shown.contains("pg archive-push --cluster main %p';") && !shown.contains("wal_level"), "{shown}");
    assert!(said.contains("--apply sets this; the server must be started anew"), "{said}");
    assert_eq!(server.sql("postgres", "SHOW archive_command").trim(), "(disabled)");
    let said = expect(&setup(&server, &["--check"]), 1);
    assert!(said.contains("does not archive"), "{said}");

    let said = expect(&setup(&server, &["--apply"]), 0);
    assert!(said.contains("must be started anew"), "{said}");
    server.stop("fast");
    server.launch();
    let said = expect(&setup(&server, &["--check"]), 0);
    assert!(said.contains("archiving works"), "{said}");
    let said = expect(&setup(&server, &[]), 0);
    assert!(said.contains("everything is set"), "{said}");

    // B11: a backup is good once its log is there; until then it says so.
    let backup = |server: &Server, more: &[&str]| {
        let mut arguments = arguments(server, more);
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    let said = expect(&backup(&server, &[]), 0);
    assert!(said.contains("with the log in the archive"), "{said}");
    server.sql("postgres", "ALTER SYSTEM SET archive_command = 'false'");
    server.sql("postgres", "SELECT pg_reload_conf()");
    let said = expect(&backup(&server, &["--archive-timeout", "0"]), 3);
    assert!(said.contains("not in the archive yet"), "{said}");
    // No policy decides about base backups alone.
    let said = expect(&archive.engine(&["forget", "--keep-last", "1"]).output().unwrap(), 0);
    assert!(said.contains("2 base backups with an archived log left alone"), "{said}");
    let said = expect(&setup(&server, &["--check", "--timeout", "1"]), 1);
    assert!(said.contains("is not in the repository after 1 seconds"), "{said}");
    let said = expect(&setup(&server, &["--apply"]), 2);
    assert!(said.contains("archived in another way already: false"), "{said}");
    expect(&setup(&server, &["--apply", "--force"]), 0);
    expect(&setup(&server, &["--check"]), 0);
}
