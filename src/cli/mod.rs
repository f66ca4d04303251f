//! The command line: arguments, configuration, rendering, exit codes.
//!
//! | room | holds |
//! |---|---|
//! | `arguments`, `help` | what can be typed, and how it is explained |
//! | `settings` | global options from the command line, the environment, a profile |
//! | `edges`, `input`, `key_cache`, `signals` | what the machine offers: time, randomness, stdin, the keyring, signals |
//! | `unlock` | passwords, key files, recovery sheets |
//! | `places`, `several` | where a repository lies, also in several places |
//! | `session` | one run: the store, the repository, what is being done |
//! | `talk`, `events`, `render` | how results, progress and events are written |
//! | `fault`, `contract` | errors in three lines, and exit codes |
//! | `commands` | one file a command |
//! | `demo` | the whole way on real databases |
//!
//! Data goes to standard output, talk to standard error.

mod arguments;
mod commands;
mod contract;
mod demo;
mod edges;
mod events;
mod fault;
mod help;
mod input;
mod key_cache;
mod places;
mod profile;
mod render;
mod session;
mod settings;
mod several;
mod signals;
mod talk;
mod unlock;

pub use fault::exit;

use arguments::Arguments;
use contract::Contract;
use fault::Fault;
use serde_json::json;
use session::Session;
use settings::Settings;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use talk::Talk;

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let contract = Contract::of(std::env::args_os());
    ExitCode::from(contract.run(|| match Arguments::read(contract) {
        Ok(arguments) => run(arguments, contract),
        Err(error) => {
            // There is nobody left to tell when it cannot be printed.
            let _ = error.print();
            match u8::try_from(error.exit_code()) {
                Ok(exit::DONE) => exit::DONE,
                code => contract.failed(code.unwrap_or(exit::USAGE)),
            }
        }
    }))
}

fn run(arguments: Arguments, contract: Contract) -> u8 {
    let schema = commands::schema(&arguments.command);
    let settings = match Settings::collect(&arguments.global) {
        Ok(settings) => settings,
        Err(fault) => return contract.failed(report(None, "start", &fault)),
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let talk = Arc::new(Talk::new(settings.manner(schema), interrupted.clone()));
    let session = Session::new(settings, talk.clone(), interrupted.clone());
    let result = commands::run(&session, arguments.command);
    talk.end();
    let result = result.and_then(|code| talk.flush().map(|()| code));
    match result {
        Ok(code) => code,
        // Whatever it was that failed: it failed because it was stopped.
        Err(_) if interrupted.load(Ordering::Relaxed) => {
            let fault = Fault::from(crate::repo::RepoError::Interrupted);
            contract.failed(report(Some(&talk), &session.was_doing(), &fault))
        }
        Err(fault) => contract.failed(report(Some(&talk), &session.was_doing(), &fault)),
    }
}

/// Says what was being done, why it failed and what to try.
fn report(talk: Option<&Talk>, doing: &str, fault: &Fault) -> u8 {
    let code = fault.exit_code();
    if matches!(fault, Fault::Closed) {
        return code;
    }
    let (why, advice) = (render::visible(&fault.why()), fault.advice());
    // There is nobody left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "chronolith: could not {doing}\n  why: {why}\n  try: {advice}");
    if let Some(talk) = talk {
        let fields = json!({ "exit_code": code, "doing": doing, "why": why, "try": advice });
        // It has been said on standard error; whoever does not read events does not miss it.
        let _ = talk.event("error", fields).and_then(|()| talk.flush());
    }
    code
}
