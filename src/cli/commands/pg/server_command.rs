//! Commands that a server calls: with the whole path of this program, and without any secret.

use crate::base::Observer;
use crate::cli::fault::Fault;
use crate::cli::session::Session;
use crate::cli::settings::Way;
use crate::postgres::lineage::ClusterName;
use std::path::{Path, PathBuf};

/// The way that is a text which may hold a secret.
pub const PASSWORD_COMMAND: &str = "password-command";

/// Writes the command line of `pg VERB` for a server's configuration; `placeholders` are the server's.
pub fn server_command(
    session: &Session,
    cluster: &ClusterName,
    verb: &str,
    placeholders: &str,
) -> Result<String, Fault> {
    let (entry, value) = way(session)?;
    if entry == PASSWORD_COMMAND {
        session.talk.warn(&format!(
            "the text of --password-command becomes a part of the command for pg {verb}, which every user of \
             the database can read (SHOW, pg_settings): let it hold no secret, or give --key-file or --password-file"
        ));
    }
    let mut words = vec![program(session)?, "-r".to_owned(), repository(session)?];
    for place in other_places(session)? {
        words.extend(["--also".to_owned(), place]);
    }
    if let Some(quorum) = session.settings.quorum {
        words.extend(["--quorum".to_owned(), quorum.to_string()]);
    }
    words.extend([format!("--{entry}"), value]);
    Ok(format!("{}pg {verb} --cluster {cluster} {placeholders}", line(&words)?))
}

/// Writes the command line of `pg VERB` with a profile, which says all the rest.
pub fn profile_command(
    program: &str,
    file: &Path,
    profile: &str,
    verb: &str,
    placeholders: &str,
) -> Result<String, Fault> {
    let file = file.display().to_string();
    let words = [program, "--config", &file, "--profile", profile].map(str::to_owned);
    Ok(format!("{}pg {verb} {placeholders}", line(&words)?))
}

/// Makes a path of a file absolute.
pub fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    std::path::absolute(path).map_err(|error| Fault::file("find", path, &error))
}

/// Returns the program that servers call.
pub fn program(session: &Session) -> Result<String, Fault> {
    let program = match &session.settings.program {
        Some(program) => absolute(program)?,
        None => {
            std::env::current_exe().map_err(|error| Fault::file("find", Path::new("this program"), &error))?
        }
    };
    Ok(program.display().to_string())
}

/// Returns the repository as it is named from anywhere.
pub fn repository(session: &Session) -> Result<String, Fault> {
    Ok(match session.local_folder() {
        Some(folder) => absolute(&folder)?.display().to_string(),
        None => session.place()?.to_owned(),
    })
}

/// Returns the other places of the repository in the same manner.
pub fn other_places(session: &Session) -> Result<Vec<String>, Fault> {
    let folders = session.local_folders().skip(1);
    folders.map(|folder| Ok(absolute(&folder)?.display().to_string())).collect()
}

/// Returns the way to unlock the repository: the option without its dashes, and its value.
pub fn way(session: &Session) -> Result<(&'static str, String), Fault> {
    match &session.settings.way {
        Some(Way::KeyFile(file)) => Ok(("key-file", absolute(file)?.display().to_string())),
        Some(Way::PasswordFile(file)) => Ok(("password-file", absolute(file)?.display().to_string())),
        Some(Way::PasswordCommand(command)) => Ok((PASSWORD_COMMAND, command.clone())),
        Some(Way::Password(_)) | None => Err(Fault::usage(
            "the server calls this program by itself, and cannot be asked for a password",
            "give --key-file, --password-file or --password-command, which the server's user can use",
        )),
    }
}

/// Quotes words for a command in a server's configuration.
fn line(words: &[String]) -> Result<String, Fault> {
    let mut line = String::new();
    for word in words {
        let quoted = shlex::try_quote(word)
            .map_err(|_| Fault::usage(format!("{word:?} cannot stand in a command"), ""))?;
        line.push_str(&quoted);
        line.push(' ');
    }
    // To the server a percent sign begins a placeholder.
    Ok(line.replace('%', "%%"))
}
