//! The program itself as a worker: the same tasks as command lines. Nothing can be put between it and its
//! store, so only time and SIGKILL are in its way.

use crate::content::{content, differs, write};
use crate::order::{Answer, Task, Who, World};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Where the program is.
pub struct Program(pub PathBuf);

impl Program {
    /// Whether a task has a command line.
    pub fn can(&self, task: &Task) -> bool {
        match task {
            Task::Backup(load) => load.folder.is_some(),
            Task::Restore { .. }
            | Task::Forget(_)
            | Task::Undelete(_)
            | Task::Prune { .. }
            | Task::Check { .. } => true,
            _ => false,
        }
    }

    fn target(world: &World, seed: u64) -> PathBuf {
        world.scratch.join(format!("restored-{seed:016x}"))
    }

    /// Makes the command of a task.
    pub fn command(&self, world: &World, who: &Who, task: &Task, seed: u64) -> Command {
        let mut command = Command::new(&self.0);
        command.env_clear().env("HOME", &world.scratch).env("PATH", "/usr/bin:/bin");
        command.arg("-r").arg(&world.repository).arg("--key-file").arg(&who.key_file);
        command.args(["--no-key-cache", "--no-progress"]);
        match &who.cache {
            Some(cache) => command.arg("--cache-dir").arg(cache),
            None => command.arg("--no-cache"),
        };
        match task {
            Task::Backup(load) => {
                let folder = load.folder.as_ref().expect("only folders are backed up by the program");
                write(folder, &content(load.family, load.version))
                    .expect("the scratch folder can be written");
                let tag = format!("operation={}", load.operation);
                command
                    .args(["backup", "--host", &who.host, "--label", &load.label, "--tag", &tag])
                    .arg(folder);
            }
            Task::Restore { snapshot, load } => {
                let path = load.folder.as_ref().map_or(String::new(), |path| format!(":{}", path.display()));
                command.arg("restore").arg(format!("{snapshot}{path}"));
                command.arg("--target").arg(Self::target(world, seed)).arg("--no-sync");
            }
            Task::Forget(ids) => drop(command.arg("forget").args(ids).arg("--unsafe-allow-remove-all")),
            Task::Undelete(id) => drop(command.arg("undelete").arg(id)),
            Task::Prune { grace_seconds, unused_hundredths, held_hundredths, repack_most } => {
                let share = |hundredths: &u32| format!("{}%", hundredths / 100);
                command.args(["prune", "--grace", &format!("{grace_seconds}s")]);
                command.args(["--max-unused", &share(unused_hundredths)]);
                if let Some(held) = held_hundredths {
                    command.args(["--max-held", &share(held)]);
                }
                if let Some(most) = repack_most {
                    command.args(["--max-repack", &most.to_string()]);
                }
            }
            Task::Check { read_data, repair } => {
                command.arg("check");
                command.args(read_data.then_some("--read-data")).args(repair.then_some("--repair"));
            }
            other => unreachable!("{} has no command line", other.word()),
        }
        command
    }

    /// Says what came of it.
    pub fn answer(
        &self,
        world: &World,
        task: &Task,
        seed: u64,
        status: ExitStatus,
        out: &Path,
    ) -> Result<Answer, String> {
        let told = fs::read_to_string(out).unwrap_or_default()
            + &fs::read_to_string(out.with_extension("err")).unwrap_or_default();
        let code = status.code().ok_or("a signal ended it")?;
        if let (Task::Restore { load, .. }, 0) = (task, code) {
            let differs = differs(&Self::target(world, seed), &content(load.family, load.version));
            if let Some(why) = differs {
                return Ok(Answer::Wrong(why));
            }
        }
        match (task, code) {
            (_, 0) => Ok(Answer::Done(told.lines().last().unwrap_or_default().to_owned())),
            (_, 101) => Err(told),
            (Task::Check { .. }, 3) => Ok(Answer::Damaged(told)),
            (_, 2) => Ok(Answer::Failed { class: "Usage".to_owned(), what: told }),
            _ => Ok(Answer::Failed { class: code.to_string(), what: told }),
        }
    }
}
