//! A server is told to archive, and it is proved that it does.

use super::archive::{Archive, archive_all};
use super::base::{arguments, expect};
use super::restore::{recovered, restore_arguments, target};
use super::server::{Server, USER};
use super::support::server::{as_user, check};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

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
    assert!(shown.contains("--profile main pg archive-push %p';") && !shown.contains("wal_level"), "{shown}");
    let long = String::from_utf8(setup(&server, &["--no-profile"]).stdout).unwrap();
    assert!(long.contains("pg archive-push --cluster main %p';") && long.contains("--key-file"), "{long}");
    // Nothing is set while the server's user cannot read the key, or what the profile would be in.
    let key = archive.repository().with_file_name("key");
    let chown =
        |owner: &str, path: &Path| check("chown", Command::new("chown").arg(owner).arg(path).output());
    let hidden = archive.repository().with_file_name("hidden");
    check("mkdir", as_user(USER, Path::new("/bin/mkdir")).args(["-m", "700"]).arg(&hidden).output());
    if rustix::process::geteuid().is_root() {
        chown("root", &hidden);
        let as_root = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
            command.arg("-r").arg(archive.repository()).args(["--no-cache", "--key-file"]).arg(&key);
            command.args(["pg", "setup", "--cluster", "main", "--user", "tester", "--host"]);
            command.arg(server.sockets()).args(more).env("HOME", &hidden).env_remove("XDG_CONFIG_HOME");
            command.output().unwrap()
        };
        let said = expect(&as_root(&["--apply"]), 2);
        assert!(said.contains("the server's user cannot read") && said.contains("config.toml"), "{said}");
        chown("root", &key);
        let said = expect(&as_root(&["--apply", "--profile-file", "/nonexistent/x"]), 2);
        assert!(said.contains("cannot read") && said.contains("/key"), "{said}");
        assert!(expect(&as_root(&[]), 0).contains("cannot read"));
        chown(USER, &key);
    }
    assert_eq!(server.sql("postgres", "SHOW archive_mode").trim(), "off");
    assert!(said.contains("--apply sets this; the server must be started anew"), "{said}");
    assert_eq!(server.sql("postgres", "SHOW archive_command").trim(), "(disabled)");
    let said = expect(&setup(&server, &["--check"]), 1);
    assert!(said.contains("does not archive"), "{said}");

    let said = expect(&setup(&server, &["--apply"]), 0);
    assert!(said.contains("must be started anew"), "{said}");
    let file = archive.repository().with_file_name(".config").join("chronolith/config.toml");
    let profile = fs::read_to_string(&file).unwrap();
    for entry in ["repo = ", "repository-id = ", "cluster = \"main\"", "key-file = ", "program = "] {
        assert!(profile.contains(entry), "{profile}");
    }
    server.stop("fast");
    server.launch();
    let said = expect(&setup(&server, &["--check"]), 0);
    assert!(said.contains("archiving works"), "{said}");
    let said = expect(&setup(&server, &[]), 0);
    assert!(said.contains("everything is set"), "{said}");
    // With nothing but the profile; and another repository in the place of the profile's is refused.
    let by_profile = |more: &[&str]| {
        let mut command = as_user(USER, Path::new(env!("CARGO_BIN_EXE_chronolith")));
        command.args(["--profile", "main", "--no-cache"]).args(more);
        command.env("XDG_CONFIG_HOME", archive.repository().with_file_name(".config")).output().unwrap()
    };
    let sockets = server.sockets();
    let check_it = ["pg", "setup", "--check", "--user", "tester", "--host", sockets.to_str().unwrap()];
    expect(&by_profile(&check_it), 0);
    expect(&by_profile(&["snapshots"]), 0);
    let other = Archive::new();
    let repository = other.repository();
    let key = repository.with_file_name("key");
    check("cp", as_user(USER, Path::new("/bin/cp")).arg(&key).arg(file.with_file_name("other")).output());
    let foreign = profile.replace(archive.repository().to_str().unwrap(), repository.to_str().unwrap());
    let foreign = foreign.replace(
        archive.repository().with_file_name("key").to_str().unwrap(),
        file.with_file_name("other").to_str().unwrap(),
    );
    fs::write(&file, &foreign).unwrap();
    for command in [&["snapshots"][..], &["check"], &["pg", "timeline"], &["key", "list"]] {
        let said = expect(&by_profile(command), 2);
        assert!(said.contains("is another one than the profile's"), "{said}");
    }
    fs::write(&file, &profile).unwrap();

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

/// R9, A15, B16: a restored server does not archive, and what it writes until somebody says that it is to, its own
/// history first of all, it never hands over. What is told leads to an archive without a hole.
#[test]
fn a_restored_server_goes_on_archiving_where_it_is_told_to() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let server = Server::start_with(&[], &["archive_mode=on", &push]);
    server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS n");
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    expect(&run(arguments(&server, &["--archive-timeout", "120"])), 0);
    archive_all(&server);
    drop(server);
    let (folder, data) = target();
    let said = expect(&run(restore_arguments(&data, &["--set", "wal_keep_size=1GB"])), 0);
    assert!(said.contains("pg setup --cluster main --apply"), "{said}");
    let mut restored = recovered(folder);
    restored.sql("postgres", "INSERT INTO t VALUES (2); SELECT pg_switch_wal()");
    restored.sql("postgres", "INSERT INTO t VALUES (4); SELECT pg_switch_wal()");
    let setup = |server: &Server, more: &[&str]| -> Output {
        let sockets = server.sockets();
        let host = ["setup", "--cluster", "main", "--user", "tester", "--host", sockets.to_str().unwrap()];
        archive.command(&[&host[..], &["--no-profile"], more].concat()).output().unwrap()
    };
    let said = expect(&setup(&restored, &["--apply"]), 0);
    assert!(said.contains("00000002.history was not archived") && said.contains("started anew"), "{said}");
    assert!(said.contains("take a base backup"), "{said}");
    restored.stop("fast");
    restored.launch();
    let said = expect(&setup(&restored, &["--check"]), 0);
    assert!(said.contains("of the time when the server did not archive") && said.contains("works"), "{said}");
    // Once is enough.
    let said = expect(&setup(&restored, &["--check"]), 0);
    assert!(!said.contains("did not archive") && !said.contains("history"), "{said}");
    restored.sql("postgres", "INSERT INTO t VALUES (8)");
    archive_all(&restored);
    // From the base backup of before, along the new timeline.
    let (folder, data) = target();
    expect(&run(restore_arguments(&data, &[])), 0);
    let again = recovered(folder);
    assert_eq!(again.sql("postgres", "SELECT sum(n) FROM t").trim(), "15");

    // One that is told to archive when it is restored hands over its history by itself.
    restored.stop("fast");
    let (folder, data) = target();
    let command = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let said = expect(&run(restore_arguments(&data, &["--set", "archive_mode=on", "--set", &command])), 0);
    assert!(said.contains("archive_mode is on"), "{said}");
    let third = recovered(folder);
    archive_all(&third);
    let fetched = archive.place("fetched").join("history");
    assert_eq!(archive.get("00000003.history", &fetched).status.code(), Some(0));
}

/// R9: a base backup whose log is archived brings the history that leads to it into the archive, by either way; who may
/// not read the server's files is told what to do.
#[test]
fn a_base_backup_archives_the_history_that_leads_to_it() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let mut server = Server::start_with(&[], &["archive_mode=on", &push]);
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    expect(&run(arguments(&server, &["--archive-timeout", "120"])), 0);
    let fetched = archive.place("fetched").join("history");
    let data = server.data();
    for (timeline, remote) in [(2, false), (3, true)] {
        // A promotion while nothing is archived.
        server.stop("fast");
        fs::write(data.join("standby.signal"), b"").unwrap();
        server.set(&[]);
        server.launch();
        server.sql("postgres", "SELECT pg_promote()");
        server.stop("fast");
        server.set(&["archive_mode=on".to_owned(), push.clone()]);
        server.launch();
        let history = format!("{timeline:08X}.history");
        assert_ne!(archive.get(&history, &fetched).status.code(), Some(0));
        if timeline == 2 {
            server.sql("postgres", "CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher");
            server.sql(
                "postgres",
                "GRANT EXECUTE ON FUNCTION pg_switch_wal(), pg_create_restore_point(text) TO watcher",
            );
            let sockets = server.sockets();
            let check =
                ["setup", "--cluster", "main", "--no-profile", "--check", "--user", "watcher", "--host"];
            let check = [&check[..], &[sockets.to_str().unwrap()]].concat();
            let said = expect(&archive.command(&check).output().unwrap(), 1);
            assert!(
                said.contains("00000002.history") && said.contains("archive-push --cluster main"),
                "{said}"
            );
        }
        let output = match remote {
            false => run(arguments(&server, &["--archive-timeout", "120"])),
            true => {
                let sockets = server.sockets();
                let remote = ["backup", "--cluster", "main", "--user", "tester", "--remote", "--host"];
                archive.command(&[&remote[..], &[sockets.to_str().unwrap()]].concat()).output().unwrap()
            }
        };
        let said = expect(&output, 0);
        assert!(said.contains(&format!("{history} was not in the archive")), "{said}");
        assert_eq!(archive.get(&history, &fetched).status.code(), Some(0));
    }
}
