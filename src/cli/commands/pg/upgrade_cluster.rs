//! `chronolith pg upgrade-cluster`.

use super::Cluster;
use super::backup::named_data_directory;
use crate::cli::edges;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::postgres::lineage::Archiver;
use crate::postgres::upgrade::Upgrade;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// After pg_upgrade: lets the new server archive under the old cluster's name
///
/// pg_upgrade makes a cluster with another system identifier, whose log is refused under the old name until this
/// command says that it goes on. Old log and base backups stay as they are and can be restored; the next base
/// backup is of the new server. Take one soon: nothing of the new log is recoverable before.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub cluster: Cluster,
    /// The data directory of the upgraded server [env: PGDATA]
    #[arg(long, value_name = "DIR")]
    pub pgdata: Option<PathBuf>,
    /// The cluster's name once more, where nobody is there to type it
    #[arg(long, value_name = "NAME")]
    pub confirm: Option<String>,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("begin a new lineage of {cluster} in {}", session.place()?));
    let data_directory = named_data_directory(arguments.pgdata.as_ref()).ok_or_else(|| {
        Fault::usage("no data directory was named", "give --pgdata DIR, that of the upgraded server")
    })?;
    let archiver = Archiver {
        cluster: cluster.clone(),
        host: edges::host_name(),
        program: concat!("chronolith ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let repository = session.open()?;
    let upgrade = Upgrade::look(&repository, &archiver, &data_directory)?;
    let old = upgrade.known.last().map_or_else(String::new, ToString::to_string);
    session.talk.tell(&render::visible(&format!("{cluster} was: {old}")));
    session.talk.tell(&render::visible(&format!("{cluster} becomes: {}", upgrade.lineage)));
    let what = "a cluster goes on with a new system";
    super::confirm(session, arguments.confirm.as_ref(), &cluster, what, "was upgraded")?;
    upgrade.record(&repository, &archiver)?;
    session.talk.event(
        "summary",
        json!({
            "cluster": cluster.to_string(),
            "lineage": upgrade.known.len() + 1,
            "system_identifier": upgrade.lineage.system_identifier.to_string(),
            "version": upgrade.lineage.version,
            "segment_bytes": upgrade.lineage.segment_size.bytes(),
            "before": upgrade.known.last().map(|last| last.system_identifier.to_string()),
        }),
    )?;
    session.talk.tell("take a base backup of the new server now: nothing of its log is recoverable before");
    Ok(exit::DONE)
}
