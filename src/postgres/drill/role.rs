//! The name of a role that may look at everything: the one that `initdb` made, whatever it was called.

use super::away::stop;
use super::settings::{PORT, sockets};
use super::{Drill, without_log};
use crate::postgres::connection::{ConnectionOptions, Server};
use crate::postgres::error::PostgresError;
use crate::postgres::restore::{Awaited, as_owner, start};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// What it is called nearly everywhere.
const USUAL: &str = "postgres";

impl Drill {
    /// Connects to a database of the throw-away server.
    pub(super) fn connect(&self, database: &str, user: &str) -> Result<Server, PostgresError> {
        let options = ConnectionOptions {
            host: Some(sockets(&self.options.folder).display().to_string()),
            port: Some(PORT),
            user: Some(user.to_owned()),
            database: Some(database.to_owned()),
            ..ConnectionOptions::default()
        };
        Server::connect(&options, user)
    }

    /// Finds a superuser: the one that was named, or the usual one; else the server is asked in the mode in
    /// which it serves one person alone, who needs no name.
    pub(super) fn superuser(&self, data: &Path) -> Result<String, PostgresError> {
        const IS_SUPERUSER: &str = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
        let candidate = self.options.user.as_deref().unwrap_or(USUAL);
        let found = self.connect("template1", candidate).and_then(|mut server| {
            let rows = server.query("ask", IS_SUPERUSER, &[])?;
            Ok(rows.first().is_some_and(|row| row.get(0)))
        });
        match found {
            Ok(true) => return Ok(candidate.to_owned()),
            Ok(false) if self.options.user.is_some() => {
                return Err(PostgresError::refused(
                    format!("{candidate} is no superuser of this cluster"),
                    "leave --user away: a superuser's name is found out",
                ));
            }
            Err(error) if self.options.user.is_some() => return Err(error),
            _ => {}
        }
        stop(data, true);
        let name = self.ask_alone(data)?;
        let observer = self.repository.environment().observer.clone();
        start(&self.programs()?, data, Awaited::Promotion, observer.as_ref()).map_err(without_log)?;
        Ok(name)
    }

    fn ask_alone(&self, data: &Path) -> Result<String, PostgresError> {
        let program = self.programs()?.join("postgres");
        let mut command = as_owner(&program, data)?;
        command.args(["--single", "-D"]).arg(data).arg("template1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(PostgresError::file("run", &program))?;
        if let Some(mut input) = child.stdin.take() {
            let asked = input.write_all(b"SELECT rolname FROM pg_roles WHERE oid = 10\n");
            asked.map_err(PostgresError::file("ask", &program))?;
        }
        let output = child.wait_with_output().map_err(PostgresError::file("run", &program))?;
        let text = String::from_utf8_lossy(&output.stdout);
        answer(&text).ok_or_else(|| {
            PostgresError::failed(
                "no superuser of the restored cluster was found",
                "name one with --user ROLE",
            )
        })
    }
}

/// Takes the value out of `1: rolname = "name"`, which a tab and more in brackets follow.
fn answer(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("rolname = \"")?;
    rest.split_once("\"\t(").map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let text = "\nPostgreSQL stand-alone backend 15.14\nbackend> \t 1: rolname\t(typeid = 19, len = 64)\n\t----\n\
            \t 1: rolname = \"the \"boss\"\"\t(typeid = 19, len = 64, typmod = -1, byval = f)\n\t----\nbackend> ";
        assert_eq!(answer(text).as_deref(), Some("the \"boss\""));
        assert_eq!(answer("backend> "), None);
    }
}
