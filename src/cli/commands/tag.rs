//! `chronolith tag`.

use super::backup::parse_tag;
use super::marks::say;
use crate::cli::fault::Fault;
use crate::cli::session::Session;
use crate::ops::marks::Mark;
use clap::Args;

/// Gives tags to snapshots, or takes them off
///
/// A snapshot has one value for each name of a tag: a new one takes the place of the old.
/// `chronolith snapshots --tag K=V` finds them, `forget --keep-tag` keeps them.
#[derive(Args)]
pub struct Arguments {
    /// The snapshots
    #[arg(value_name = "SNAP", required = true)]
    pub snapshots: Vec<String>,
    /// The tag to give; several times: several tags
    #[arg(short, long, value_name = "K[=V]", required_unless_present = "remove")]
    pub add: Vec<String>,
    /// The name of a tag to take off; several times: several tags
    #[arg(long, value_name = "K")]
    pub remove: Vec<String>,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("tag snapshots of {}", session.place()?));
    let mut marks: Vec<Mark> = arguments.remove.iter().map(|key| Mark::Untag { key: key.clone() }).collect();
    for tag in &arguments.add {
        let (key, value) = parse_tag(tag)?;
        if arguments.remove.contains(&key) {
            return Err(Fault::usage(
                format!("the tag {key:?} is to be given and taken off"),
                "--add alone takes the place of another value",
            ));
        }
        marks.push(Mark::Tag { key, value });
    }
    say(session, &arguments.snapshots, &marks, "tagged")
}
