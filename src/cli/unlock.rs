//! From what the user has to what opens a slot. Secrets are read here and nowhere else, and never
//! stand in a message.

use super::fault::Fault;
use super::settings::Way;
use crate::base::{ErrorClass, SecretBytes};
use crate::crypto::PasswordParameters;
use crate::repo::{Credential, NewSlot, RecoverySheet, RepoError};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// Longest password, key file or sheet that is read.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a new key file.
const KEY_FILE_BYTES: usize = 32;

/// What opens a repository.
pub enum Opening {
    /// A slot.
    Credential(Credential),
    /// A recovery sheet, which needs no slot.
    Sheet(RecoverySheet),
}

/// What a new slot is to be opened with.
pub enum NewWay {
    /// A password.
    Password(SecretBytes),
    /// What a command prints.
    Command(SecretBytes),
    /// The content of a key file.
    KeyFile(SecretBytes),
}

impl NewWay {
    /// Returns what the new slot is made from.
    pub fn slot(&self, parameters: PasswordParameters) -> NewSlot<'_> {
        match self {
            Self::Password(secret) => NewSlot::Password(secret, parameters),
            Self::Command(secret) => NewSlot::Command(secret, parameters),
            Self::KeyFile(secret) => NewSlot::KeyFile(secret),
        }
    }

    /// Returns what opens that slot again.
    pub fn credential(&self) -> Credential {
        let copy = |secret: &SecretBytes| SecretBytes::new(secret.expose().to_vec());
        match self {
            Self::Password(secret) | Self::Command(secret) => Credential::Password(copy(secret)),
            Self::KeyFile(secret) => Credential::KeyFile(copy(secret)),
        }
    }
}

fn read_all(reader: impl Read, what: &str) -> Result<SecretBytes, Fault> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    let read = reader.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes);
    match read {
        Ok(_) if bytes.len() as u64 > SECRET_BYTES_MAX => {
            Err(Fault::usage(format!("{what} is longer than a password or key can be"), ""))
        }
        Ok(_) => Ok(SecretBytes::new(std::mem::take(&mut *bytes))),
        Err(error) => Err(Fault::failed(format!("cannot read {what}: {}", super::fault::system(&error)), "")),
    }
}

fn read_file(path: &Path, what: &str) -> Result<SecretBytes, Fault> {
    let file = File::open(path).map_err(|error| Fault::file(&format!("open the {what}"), path, &error))?;
    read_all(file, &format!("the {what} {}", path.display()))
}

/// Takes the line ending off that editors and `echo` put behind a password ([KEYS-9]).
fn without_line_end(bytes: &SecretBytes, what: &str) -> Result<SecretBytes, Fault> {
    let whole = bytes.expose();
    let line = whole.strip_suffix(b"\n").unwrap_or(whole);
    let line = if line.len() < whole.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
    if line.is_empty() {
        return Err(Fault::usage(format!("{what} holds no password: it is empty"), ""));
    }
    Ok(SecretBytes::new(line.to_vec()))
}

/// Reads a password from a file.
pub fn from_file(path: &Path) -> Result<SecretBytes, Fault> {
    without_line_end(&read_file(path, "password file")?, &path.display().to_string())
}

/// Reads what a command prints.
pub fn from_command(command: &str) -> Result<SecretBytes, Fault> {
    let failed = |why: String| Fault::failed(format!("the password command {why}"), "run it by hand and see");
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {}", super::fault::system(&error))))?;
    let printed = child.stdout.take().map(|out| read_all(out, "what the password command printed"));
    let status =
        child.wait().map_err(|error| failed(format!("was lost: {}", super::fault::system(&error))))?;
    if !status.success() {
        return Err(failed(format!("failed ({status})")));
    }
    match printed {
        Some(printed) => without_line_end(&printed?, "what the password command printed"),
        None => Err(failed("has no output".to_owned())),
    }
}

/// Reads a key file as it is.
pub fn key_file(path: &Path) -> Result<SecretBytes, Fault> {
    read_file(path, "key file")
}

/// Says whether other users of this host may read a file of secrets.
pub fn is_exposed(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
}

/// Says whether somebody sits at a terminal to be asked.
pub fn has_terminal() -> bool {
    std::io::stderr().is_terminal() && File::open("/dev/tty").is_ok()
}

/// Asks for a password at the terminal, whatever stdin is.
pub fn ask(prompt: &str) -> Result<SecretBytes, Fault> {
    let asked = super::signals::ask_quietly(|| rpassword::prompt_password(prompt));
    let password = asked.and_then(|answer| answer).map_err(|error| match error.kind() {
        std::io::ErrorKind::Interrupted => RepoError::Interrupted.into(),
        _ => Fault::failed(format!("cannot ask for the password: {}", super::fault::system(&error)), ""),
    })?;
    if password.is_empty() {
        return Err(Fault::usage("the password is empty", ""));
    }
    Ok(SecretBytes::new(password.into_bytes()))
}

fn terminal_failed(error: std::io::Error) -> Fault {
    Fault::failed(format!("cannot use the terminal: {}", super::fault::system(&error)), "")
}

/// Shows a text at the terminal, wherever standard output goes.
pub fn show(text: &str) -> Result<(), Fault> {
    let mut terminal = OpenOptions::new().write(true).open("/dev/tty").map_err(terminal_failed)?;
    terminal.write_all(text.as_bytes()).map_err(terminal_failed)
}

/// Asks for a line at the terminal, whatever standard input is.
pub fn ask_line(prompt: &str) -> Result<String, Fault> {
    show(prompt)?;
    let mut line = String::new();
    let mut terminal = BufReader::new(File::open("/dev/tty").map_err(terminal_failed)?);
    match terminal.read_line(&mut line).map_err(terminal_failed)? {
        0 => Err(Fault::failed("there was no answer", "")),
        _ => Ok(line),
    }
}

/// Asks twice, for a password that is new.
pub fn ask_twice(what: &str) -> Result<SecretBytes, Fault> {
    let first = ask(&format!("{what}: "))?;
    let second = ask("again: ")?;
    if first.expose() != second.expose() {
        return Err(Fault::usage("the two passwords differ", "type it again"));
    }
    Ok(first)
}

fn no_way() -> Fault {
    Fault::Plain {
        class: ErrorClass::Usage,
        why: "there is no password and no key file, and no terminal to ask at".to_owned(),
        advice: "give --password-file, --password-command or --key-file, or set CHRONOLITH_PASSWORD"
            .to_owned(),
    }
}

/// Gets what opens the repository.
pub fn opening(way: Option<&Way>, repository: &str, warn: impl Fn(&str)) -> Result<Opening, Fault> {
    let password = |password| Ok(Opening::Credential(Credential::Password(password)));
    match way {
        Some(Way::Password(given)) => password(SecretBytes::new(given.expose().to_vec())),
        Some(Way::PasswordFile(path)) => password(from_file(path)?),
        Some(Way::PasswordCommand(command)) => password(from_command(command)?),
        Some(Way::KeyFile(path)) => {
            let content = key_file(path)?;
            if is_exposed(path) {
                warn(&format!("others on this host may read {0}; `chmod 600 {0}` denies it", path.display()));
            }
            if RecoverySheet::recognise(content.expose()) {
                return Ok(Opening::Sheet(RecoverySheet::parse(&content)?));
            }
            Ok(Opening::Credential(Credential::KeyFile(content)))
        }
        None if has_terminal() => password(ask(&format!("password of {repository}: "))?),
        None => Err(no_way()),
    }
}

/// Gets what opens the first slot of a new repository: the same ways as opening one, but a password
/// from the terminal is asked for twice.
pub fn new_opening(way: Option<&Way>) -> Result<NewWay, Fault> {
    match way {
        Some(Way::Password(password)) => Ok(NewWay::Password(SecretBytes::new(password.expose().to_vec()))),
        Some(Way::PasswordFile(path)) => from_file(path).map(NewWay::Password),
        Some(Way::PasswordCommand(command)) => from_command(command).map(NewWay::Command),
        Some(Way::KeyFile(path)) => {
            let content = key_file(path)?;
            if RecoverySheet::recognise(content.expose()) {
                return Err(Fault::usage(
                    format!(
                        "{} is the recovery sheet of a repository, and no key file for another",
                        path.display()
                    ),
                    "--new-key-file PATH makes a key file",
                ));
            }
            Ok(NewWay::KeyFile(content))
        }
        None if has_terminal() => ask_twice("new password").map(NewWay::Password),
        None => Err(no_way()),
    }
}

/// A file of secrets that was just made; it is removed again unless it is kept.
pub struct NewFile<'a> {
    path: &'a Path,
    kept: bool,
}

impl NewFile<'_> {
    /// Keeps it: what it is for has been done.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // What it was made for failed, and that is being reported.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// Writes a new file that only its owner may read, durable on return.
pub fn write_secret<'a>(path: &'a Path, secret: &SecretBytes) -> Result<NewFile<'a>, Fault> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Fault::usage(
            format!("{} exists already", path.display()),
            "give a file that does not exist: none is ever overwritten",
        ),
        _ => Fault::file("write", path, &error),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let made = NewFile { path, kept: false };
    file.write_all(secret.expose()).and_then(|()| file.sync_all()).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(made)
}

/// Makes a key file of random bytes.
pub fn new_key_file(path: &Path) -> Result<(SecretBytes, NewFile<'_>), Fault> {
    use crate::base::Entropy;
    let mut bytes = vec![0; KEY_FILE_BYTES];
    super::edges::SystemEntropy.fill(&mut bytes);
    let secret = SecretBytes::new(bytes);
    let made = write_secret(path, &secret)?;
    Ok((secret, made))
}
