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
