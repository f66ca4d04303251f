//! A restore on another host, through SSH.
//!
//! `near` has the repository and its key, and starts this program on the other host; `far` runs there, checks and
//! writes as any restore does. All that it needs it asks for through its standard input and output:
//!
//! | from | what | answered |
//! |---|---|---|
//! | far | a line that greets, its version | with the order |
//! | near | the order: the arguments, and a loan of what a reader holds | |
//! | far | a request to the store, which is only read | with the store's answer |
//! | far | whether the cluster is meant that stands there | with yes, or why not |
//! | far | that the base backup be held while it is read | with yes, or why not |
//! | far | a file of the log that only the cluster has which is restored over | that it is archived, or why not |
//! | far | the summary; how it ended | |
//!
//! No secret stands in an argument or in the environment. The end of either process ends the other: what is then on
//! the other host is what any restore leaves that was broken off.

mod far;
mod frames;
mod near;

pub use far::run as serve;
pub use near::{Remote, run};

use crate::base::ErrorClass;
use crate::cli::fault::{Fault, exit};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use zeroize::Zeroize;

/// What the far side is to do.
#[derive(Serialize, Deserialize)]
struct Order {
    /// The arguments of `pg restore`.
    words: Vec<String>,
    /// What lets it read the repository.
    loan: String,
    /// How the near side is named, for people.
    lender: String,
}

impl Drop for Order {
    fn drop(&mut self) {
        self.loan.zeroize();
    }
}

/// A question whether a cluster is meant.
#[derive(Serialize, Deserialize)]
struct Question {
    what: String,
    whose: String,
}

/// What is to be held.
#[derive(Serialize, Deserialize)]
struct Held {
    snapshot: String,
    system_identifier: u64,
}

/// A file of the log that is to be archived: this as JSON in a line, and its bytes.
#[derive(Serialize, Deserialize)]
struct Sent {
    name: String,
    system_identifier: u64,
}

impl Sent {
    /// Puts the file behind what is said of it; a segment may have a gigabyte, and is in memory once.
    fn with(&self, mut file: impl Read) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Takes both apart.
    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| confused("what is no file"))?;
        let (head, content) = bytes.split_at(end);
        let sent = serde_json::from_slice(head).map_err(|_| confused("what is no file"))?;
        Ok((sent, content.get(1..).unwrap_or_default()))
    }
}

/// How something ended.
#[derive(Serialize, Deserialize)]
struct Ending {
    code: u8,
    doing: String,
    /// Why it failed and what to try, if it did.
    fault: Option<(String, String)>,
}

impl Ending {
    fn of(result: &Result<u8, Fault>, doing: String) -> Self {
        match result {
            Ok(code) => Self { code: *code, doing, fault: None },
            Err(fault) => Self { code: fault.exit_code(), doing, fault: Some((fault.why(), fault.advice())) },
        }
    }

    fn into_result(self) -> Result<u8, Fault> {
        let Some((why, advice)) = self.fault else { return Ok(self.code) };
        let class = match self.code {
            exit::USAGE => ErrorClass::Usage,
            exit::NOT_FOUND => ErrorClass::NotFound,
            exit::WRONG_KEY => ErrorClass::WrongKey,
            exit::FORBIDDEN => ErrorClass::Forbidden,
            exit::TOO_NEW => ErrorClass::TooNew,
            exit::INTERRUPTED => ErrorClass::Interrupted,
            _ => ErrorClass::Fatal,
        };
        Err(Fault::Plain { class, why, advice })
    }
}

/// Says that the other side does not keep to what was agreed.
fn confused(what: &str) -> Fault {
    Fault::failed(
        format!("the other side sent {what}, which makes no sense here"),
        "see that nothing but this program writes to its standard output on the other host",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_as_it_went_and_nothing_else_is_one() {
        let sent = Sent { name: "00000002.history".to_owned(), system_identifier: u64::MAX };
        let content = b"1\t0/3000000\tno\n\n\xff";
        let bytes = sent.with(&content[..]).unwrap();
        let (read, rest) = Sent::read(&bytes).ok().unwrap();
        assert_eq!(
            (read.name, read.system_identifier, rest),
            (sent.name, sent.system_identifier, &content[..])
        );
        for wrong in [&b""[..], b"\n", b"{}\n", b"no line", b"{\"name\":1,\"system_identifier\":2}\n"] {
            assert!(Sent::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
