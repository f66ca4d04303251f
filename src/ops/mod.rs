//! Operations, each a plan that can be shown, then run.
//!
//! | room | holds |
//! |---|---|
//! | `backup` | any sources in, one atomic snapshot out |
//! | `error` | [`OpsError`], the only error of this layer |
//! | `keys` | who may open the repository, and for what |
//! | `names` | which snapshot and path a name such as `LABEL@{TIME}:PATH` means |

pub mod backup;
mod error;
pub mod keys;
mod names;
mod time;

pub use error::OpsError;
pub use names::{Pin, SnapshotView, Snapshots, check_label, is_label};
pub use time::{ReadTime, read_time, show_time};
