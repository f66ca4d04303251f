//! `~/.pgpass`: passwords by host, port, database and user.

use crate::base::SecretBytes;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Where a host is a folder of sockets, files may say so in this way.
const LOCAL: &str = "localhost";

/// Finds the first line that fits. A file that others may read is passed over, as the server's own
/// programs do, and so is one that is not there.
pub(super) fn find(path: &Path, host: &str, port: u16, database: &str, user: &str) -> Option<SecretBytes> {
    let found = std::fs::metadata(path).ok()?;
    if !found.is_file() || found.permissions().mode() & 0o077 != 0 {
        return None;
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).ok()?);
    let port = port.to_string();
    let is_host = |field: &str| field == host || (host.starts_with('/') && field == LOCAL);
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let [at, on, to, who, password] = fields(line)?;
        let fits = |field: &str, wanted: &str| field == "*" || field == wanted;
        let right =
            (*at == "*" || is_host(&at)) && fits(&on, &port) && fits(&to, database) && fits(&who, user);
        right.then(|| SecretBytes::new(password.as_bytes().to_vec()))
    })
}

/// Takes a line apart at its colons; `\` guards a character.
fn fields(line: &str) -> Option<[Zeroizing<String>; 5]> {
    let mut fields = [(); 5].map(|()| Zeroizing::new(String::with_capacity(line.len())));
    let mut number = 0;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if number < 4 => number += 1,
            '\\' => fields.get_mut(number)?.push(characters.next().unwrap_or('\\')),
            other => fields.get_mut(number)?.push(other),
        }
    }
    (number == 4).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = "# h:*:*:*:comment\nh:5432:d:u:one\n*:*:*:u\\:x:t\\:w\\\\o\nlocalhost:*:*:u:three:four\nshort:line\n";
        std::fs::write(file.path(), lines).unwrap();
        let mode =
            |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let found = |host, port, database, user| {
            let password = find(file.path(), host, port, database, user)?;
            Some(String::from_utf8(password.expose().to_vec()).unwrap())
        };
        mode(0o600);
        assert_eq!(found("h", 5432, "d", "u").as_deref(), Some("one"));
        assert_eq!(found("h", 5433, "d", "u"), None);
        assert_eq!(found("any", 1, "any", "u:x").as_deref(), Some("t:w\\o"));
        assert_eq!(found("/run/postgresql", 1, "d", "u").as_deref(), Some("three:four"));
        mode(0o640);
        assert_eq!(found("h", 5432, "d", "u"), None, "others may read the file");
    }
}
