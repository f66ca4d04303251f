//! Operations, each a plan that can be shown, then run.
//!
//! | room | holds |
//! |---|---|
//! | `check` | is everything there and what it should be; what is hurt by what is not |
//! | `catalogue` | what there is, written down together |
//! | `backup` | any sources in, one atomic snapshot out |
//! | `error` | [`OpsError`], the only error of this layer |
//! | `forget` | snapshots are no roots any more |
//! | `keys`, `rotation` | who may open the repository, and for what; new keys, and keys in wrong hands |
//! | `listing`, `cat` | what a path in a snapshot names, what lies below it, its bytes in order |
//! | `copy` | snapshots and logs into another repository, with other keys |
//! | `find`, `diff` | names in snapshots, and what differs between two of them |
//! | `restore` | a tree from a snapshot into a folder, writing only what differs |
//! | `retention` | which snapshots a policy keeps, and why |
//! | `prune` | what no root needs is announced, and deleted once everybody has heard |
//! | `parity` | what brings back bits that rot, added, dropped and used |
//! | `deserted` | snapshots and annotations of which only parity is left |
//! | `repair` | the index from packs, packs from what is readable, snapshots from what is left |
//! | `reach`, `keeper`, `words`, `vouched` | what roots need, in which copies, and on whose word |
//! | `settle` | writers make sure around their commit that nothing which they rely on goes |
//! | `stats` | how much snapshots hold, and how much each holds alone |
//! | `undelete` | what was forgotten is a root again |
//! | `program` | a program that runs beside us |
//! | `merged_logs` | whether merged log packs hold what another one holds |
//! | `mirror` | the same objects at another place, without keys |
//! | `marks` | tags, pins and notes |
//! | `verify` | snapshots read back in full, who signed them, and the result on record |
//! | `snapshots` | all snapshots with what was said about them, and which of them, and which path, a name such as `LABEL@{TIME}:PATH` means |

pub mod backup;
mod bits;
pub mod cat;
pub mod catalogue;
pub mod check;
pub mod copy;
mod deserted;
pub mod diff;
mod error;
pub mod find;
pub mod forget;
mod keeper;
pub mod keys;
pub mod listing;
pub mod marks;
mod merged_logs;
pub mod mirror;
pub mod parity;
mod program;
pub mod prune;
mod reach;
pub mod repair;
pub mod restore;
pub mod retention;
pub mod rotation;
mod settle;
mod snapshots;
pub mod stats;
mod time;
pub mod undelete;
pub mod verify;
mod vouched;
mod words;

pub use error::OpsError;
pub use program::Program;
pub use snapshots::{Pin, Said, SnapshotView, Snapshots, check_label, cut_label, is_label};
pub use time::{ReadTime, read_time, show_time};
