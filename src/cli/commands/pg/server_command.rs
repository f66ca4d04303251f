//! Commands that a server calls: with the whole path of this program, and without any secret.

use crate::base::Observer;
use crate::cli::fault::Fault;
use crate::cli::session::Session;
use crate::cli::settings::Way;
use crate::postgres::lineage::ClusterName;
use std::path::Path;

/// Writes the command line of `pg VERB` for a server's configuration; `placeholders` are the server's.
pub fn server_command(
    session: &Session,
    cluster: &ClusterName,
    verb: &str,
    placeholders: &str,
) -> Result<String, Fault> {
    let program =
        std::env::current_exe().map_err(|error| Fault::file("find", Path::new("this program"), &error))?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(|error| Fault::file("find", path, &error));
    let repository = match session.local_folder() {
        Some(folder) => absolute(&folder)?.display().to_string(),
        None => session.place()?.to_owned(),
    };
    let (option, value) = match &session.settings.way {
        Some(Way::KeyFile(file)) => ("--key-file", absolute(file)?.display().to_string()),
        Some(Way::PasswordFile(file)) => ("--password-file", absolute(file)?.display().to_string()),
        Some(Way::PasswordCommand(command)) => {
            session.talk.warn(&format!(
                "the text of --password-command becomes a part of the command for pg {verb}, which every user of \
                 the database can read (SHOW, pg_settings): let it hold no secret, or give --key-file or --password-file"
            ));
            ("--password-command", command.clone())
        }
        Some(Way::Password(_)) | None => {
            return Err(Fault::usage(
                "the server calls this program by itself, and cannot be asked for a password",
                "give --key-file, --password-file or --password-command, which the server's user can use",
            ));
        }
    };
    let mut words = vec![program.display().to_string(), "-r".to_owned(), repository];
    for folder in session.local_folders().skip(1) {
        words.extend(["--also".to_owned(), absolute(&folder)?.display().to_string()]);
    }
    if let Some(quorum) = session.settings.quorum {
        words.extend(["--quorum".to_owned(), quorum.to_string()]);
    }
    words.extend([option.to_owned(), value]);
    let mut line = String::new();
    for word in &words {
        let quoted = shlex::try_quote(word)
            .map_err(|_| Fault::usage(format!("{word:?} cannot stand in a command"), ""))?;
        line.push_str(&quoted);
        line.push(' ');
    }
    // To the server a percent sign begins a placeholder.
    let line = line.replace('%', "%%");
    Ok(format!("{line}pg {verb} --cluster {cluster} {placeholders}"))
}
