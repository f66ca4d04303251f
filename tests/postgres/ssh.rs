//! A restore on another host through a real `sshd`. It listens on no port of its own: the test takes the connection,
//! on one that was free, and hands it over, as inetd does. So none is taken twice, and none outlives the test.

use super::archive::archive_all;
use super::base::expect;
use super::elsewhere::{BINARY, World};
use super::restore::{digests, target};
use super::server::{Server, USER, tool};
use super::support::server::{as_user, check, folder, program};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a connection may take to end after whoever connected is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// An `sshd` for one user, which knows one key, and what a client of it is told. It runs as the server's user: any user may
/// run one that lets in nobody else.
struct Sshd {
    folder: TempDir,
    user: String,
    port: u16,
    stop: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Sshd {
    fn start() -> Self {
        let folder = folder(USER);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let mut sshd = Self { folder, user: user(), port, stop: stop.clone(), serving: None };
        for name in ["host", "stranger", "user"] {
            let mut keygen = as_user(USER, &program("ssh-keygen", &["/usr/bin"], "openssh-client"));
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(sshd.place(name));
            check("ssh-keygen", keygen.output());
        }
        sshd.write("authorized", &sshd.public("user"));
        // The folders on the way to the keys, `/tmp` among them, may be written by all.
        let settings = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nLogLevel VERBOSE\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nAuthenticationMethods publickey\n",
            sshd.place("host").display(),
            sshd.place("authorized").display()
        );
        sshd.write("sshd_config", &settings);
        let (config, log) = (sshd.place("sshd_config"), sshd.log_path());
        sshd.serving = Some(std::thread::spawn(move || serve(&listener, &config, &log, &stop)));
        sshd
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join("server").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.place(name), text).unwrap();
    }

    fn public(&self, name: &str) -> String {
        fs::read_to_string(self.place(&format!("{name}.pub"))).unwrap()
    }

    /// The command that connects, for whom the host has the key of this name. Nothing of the user's own is looked at.
    fn client(&self, host_key: &str) -> String {
        self.write(&format!("known-{host_key}"), &format!("other {}", self.public(host_key)));
        let settings = format!(
            "Host other\nHostName 127.0.0.1\nHostKeyAlias other\nPort {}\nIdentityFile {}\nIdentitiesOnly yes\n\
             IdentityAgent none\nBatchMode yes\nStrictHostKeyChecking yes\nUserKnownHostsFile {}\n\
             GlobalKnownHostsFile /dev/null\n",
            self.port,
            self.place("user").display(),
            self.place(&format!("known-{host_key}")).display()
        );
        let config = format!("client-{host_key}");
        self.write(&config, &settings);
        let ssh = program("ssh", &["/usr/bin"], "openssh-client");
        format!("{} -F {}", ssh.display(), self.place(&config).display())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What it has said.
    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever waits for a connection sees that there will be no more.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// The user as whom servers of tests run: the only one whom an `sshd` of theirs lets in.
fn user() -> String {
    if rustix::process::geteuid().is_root() {
        return USER.to_owned();
    }
    let name = Command::new("id").arg("-un").output().unwrap();
    assert!(name.status.success(), "ssh knows only users with a name: run this test as one, or as root");
    String::from_utf8(name.stdout).unwrap().trim().to_owned()
}

/// Hands each connection to an `sshd`, until there are to be no more; then none of them is left.
fn serve(listener: &TcpListener, config: &Path, log: &Path, stop: &AtomicBool) {
    let sshd = program("sshd", &["/usr/sbin", "/usr/local/sbin"], "openssh-server");
    let mut children: Vec<Child> = Vec::new();
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let stream = stream.unwrap();
        let mut command = as_user(USER, &sshd);
        command.args(["-i", "-e", "-f"]).arg(config);
        command.stdin(OwnedFd::from(stream.try_clone().unwrap())).stdout(OwnedFd::from(stream));
        command.stderr(File::options().create(true).append(true).open(log).unwrap());
        children.push(command.spawn().unwrap());
    }
    let started = Instant::now();
    for child in &mut children {
        while child.try_wait().unwrap().is_none() {
            if started.elapsed() > PATIENCE {
                // What stands between hands it on.
                let _ = kill_process(Pid::from_child(child), Signal::TERM);
                let _ = child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_cluster_is_restored_and_started_through_ssh() {
    // Who has no sshd is told so at once, and not that a connection was refused.
    program("sshd", &["/usr/sbin", "/usr/local/sbin"], "openssh-server");
    let mut world = World::new();
    archive_all(&world.server);
    let expected = digests(&world.server);
    world.server.stop("fast");
    let sshd = Sshd::start();
    let (folder, data) = target();
    // The shell of the other host takes its command apart: it has to come out as it was.
    let there = sshd.place("it's the other");
    check("mkdir", as_user(USER, Path::new("/bin/mkdir")).arg(&there).output());
    std::os::unix::fs::symlink(BINARY, there.join("chronolith")).unwrap();
    let there = there.join("chronolith").display().to_string();
    let host = format!("{}@other", sshd.user);
    let socket = format!("unix_socket_directories={}", folder.path().join("server").display());
    let restore = |client: &str, program: &str, more: &[&str]| -> Output {
        let mut words = vec!["restore", "--cluster", "main", "--pgdata", data.to_str().unwrap()];
        words.extend(["--remote", &host, "--ssh-command", client, "--remote-program", program, "--json"]);
        words.extend(more);
        world.archive.command(&words).output().unwrap()
    };

    // A host with another key is told nothing: ssh does not go on with it.
    let said = expect(&restore(&sshd.client("stranger"), &there, &[]), 1);
    assert!(said.contains("Host key verification failed"), "{said}");
    assert!(said.contains("no chronolith answered on"), "{said}");
    assert!(!data.exists());
    // A program that is not there: the shell says so, and its exit code comes back.
    let client = sshd.client("host");
    let said = expect(&restore(&client, "/nonexistent/chronolith", &[]), 1);
    assert!(said.contains("no chronolith answered on") && said.contains("exit status: 127"), "{said}");

    let more = ["--set", &socket, "--set", "listen_addresses=", "--start"];
    let output = restore(&client, &there, &more);
    expect(&output, 0);
    let summary: serde_json::Value =
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap().parse().unwrap();
    assert_eq!((&summary["remote"], &summary["brought"]), (&host.as_str().into(), &true.into()));
    let log = sshd.log();
    assert!(log.contains("Accepted publickey for"), "{log}");

    // The server runs, though the connection that started it has ended.
    drop(sshd);
    let mut stop = as_user(USER, &tool("pg_ctl"));
    check("pg_ctl", stop.arg("-D").arg(&data).args(["-w", "-s", "-m", "fast", "stop"]).output());
    assert_eq!(digests(&Server::adopt(folder, &[])), expected);
}
