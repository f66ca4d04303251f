//! The far side: restores here for somebody who has the repository elsewhere.

use super::super::restore::{Asker, parse, perform};
use super::frames::{self, Frame, GREETING, Kind};
use super::{Ending, Held, Order, Question, Sent, confused};
use crate::base::SecretBytes;
use crate::cli::edges::{SystemClock, SystemEntropy};
use crate::cli::fault::{Fault, output, system};
use crate::cli::session::Session;
use crate::ops::OpsError;
use crate::postgres::restore::{ClusterRestore, Unarchived};
use crate::repo::{Environment, NoKeyCache, Presence, Repository, open_lent};
use crate::storage::{LentStore, Line};
use crossbeam_channel::{Sender, bounded};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who waits for which answer.
#[derive(Default)]
struct Waiting {
    next: u32,
    senders: HashMap<u32, Sender<Vec<u8>>>,
    ended: bool,
}

/// The way to the near side.
#[derive(Default)]
struct Far {
    waiting: Mutex<Waiting>,
    /// Held while a frame is written, so that frames stay whole.
    writing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the host that has the repository is gone")
}

impl Far {
    fn send(&self, kind: Kind, number: u32, bytes: &[u8]) -> io::Result<()> {
        let _whole = lock(&self.writing);
        frames::write(&mut io::stdout().lock(), kind, number, bytes)
    }

    fn question(&self, kind: Kind, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (sender, answer) = bounded(1);
        let number = {
            let mut waiting = lock(&self.waiting);
            if waiting.ended {
                return Err(gone());
            }
            waiting.next = waiting.next.wrapping_add(1);
            let number = waiting.next;
            waiting.senders.insert(number, sender);
            number
        };
        self.send(kind, number, bytes)?;
        answer.recv().map_err(|_| gone())
    }

    /// Hands answers to those who wait, until there are no more; then nobody waits any longer.
    fn listen(&self) {
        let mut input = io::stdin().lock();
        while let Ok(Some(Frame { kind: Kind::Answer, number, bytes })) = frames::read(&mut input) {
            let sender = lock(&self.waiting).senders.remove(&number);
            if let Some(sender) = sender {
                // Whoever asked may have ended.
                let _ = sender.send(bytes);
            }
        }
        let mut waiting = lock(&self.waiting);
        waiting.ended = true;
        waiting.senders.clear();
    }

    /// Says whether nobody answers any more.
    fn is_alone(&self) -> bool {
        lock(&self.waiting).ended
    }

    fn ask_json(&self, kind: Kind, question: &impl serde::Serialize) -> Result<Ending, Fault> {
        let bytes = serde_json::to_vec(question).map_err(|error| Fault::failed(error.to_string(), ""))?;
        let answer = self.question(kind, &bytes).map_err(lost)?;
        serde_json::from_slice(&answer).map_err(|_| confused("an answer"))
    }
}

fn lost(error: io::Error) -> Fault {
    Fault::failed(
        format!("the connection to the host that has the repository is gone: {}", system(&error)),
        "run it again there: it goes on",
    )
}

struct Through(Arc<Far>);

impl Line for Through {
    fn ask(&self, request: Vec<u8>) -> io::Result<Vec<u8>> {
        self.0.question(Kind::Store, &request)
    }
}

impl Asker for Through {
    fn confirm(&self, what: &str, whose: &str) -> Result<(), Fault> {
        let question = Question { what: what.to_owned(), whose: whose.to_owned() };
        self.0.ask_json(Kind::Confirm, &question)?.into_result().map(drop)
    }

    fn hold(&self, restore: &ClusterRestore) -> Result<Option<Presence>, String> {
        let held = Held {
            snapshot: restore.base.view.id.to_string(),
            system_identifier: restore.base.facts.system_identifier,
        };
        let answered = self.0.ask_json(Kind::Hold, &held).and_then(Ending::into_result);
        answered.map(|_| None).map_err(|fault| fault.why())
    }

    fn archive(&self, _repository: &Repository, file: &Unarchived) -> Result<(), OpsError> {
        let read = |source| OpsError::Read { name: file.path.display().to_string(), source };
        let sent = Sent { name: file.name.clone(), system_identifier: file.system_identifier };
        let bytes = File::open(&file.path).and_then(|file| sent.with(file)).map_err(read)?;
        let answered = self.0.question(Kind::Archive, &bytes).map_err(lost);
        let ended = answered.and_then(|answer| {
            serde_json::from_slice::<Ending>(&answer).map_err(|_| confused("an answer"))?.into_result()
        });
        ended.map(drop).map_err(|fault| OpsError::Stopped {
            why: fault.why(),
            cure: "give a key that may archive, on the host that has the repository",
        })
    }

    fn summary(&self, _session: &Session, fields: Value) -> Result<(), Fault> {
        self.0.send(Kind::Summary, 0, fields.to_string().as_bytes()).map_err(lost)
    }
}

/// Restores what the near side orders. How it ended is said to the near side, which tells the user.
pub fn run(session: &Session) -> Result<u8, Fault> {
    session.doing("restore for another host");
    if io::stdin().is_terminal() {
        return Err(Fault::usage(
            "this command is one that `pg restore --remote` starts on the other host",
            "run `chronolith pg restore --remote USER@HOST` where the repository is",
        ));
    }
    // Whatever a profile here says: standard output is the line.
    session.talk.set_events_aside();
    let far = Arc::new(Far::default());
    io::stdout().write_all(GREETING).map_err(output)?;
    far.send(Kind::Version, 0, env!("CARGO_PKG_VERSION").as_bytes()).map_err(output)?;
    let order = match frames::read(&mut io::stdin().lock()) {
        Ok(Some(frame)) if frame.kind == Kind::Order => {
            let bytes = SecretBytes::new(frame.bytes);
            serde_json::from_slice::<Order>(bytes.expose()).map_err(|_| confused("an order"))
        }
        Ok(_) => Err(confused("no order")),
        Err(error) => Err(lost(error)),
    };
    let result = order.and_then(|order| obey(session, &far, order)).map_err(|fault| match far.is_alone() {
        // Then this is why, whatever failed for it.
        true => lost(gone()),
        false => fault,
    });
    let ending = Ending::of(&result, session.was_doing());
    let told = serde_json::to_vec(&ending).map_err(io::Error::from);
    match told.and_then(|bytes| far.send(Kind::End, 0, &bytes)) {
        Ok(()) => Ok(ending.code),
        // Nobody else is there to be told.
        Err(_) => result,
    }
}

fn obey(session: &Session, far: &Arc<Far>, order: Order) -> Result<u8, Fault> {
    session.watch_signals()?;
    let listening = far.clone();
    let interrupt = session.interrupter();
    std::thread::spawn(move || {
        listening.listen();
        // Without the repository nothing can go on.
        interrupt();
    });
    let arguments = parse(&order.words)?;
    let environment = Environment {
        store: Arc::new(LentStore::new(Through(far.clone()), order.lender.clone())),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        observer: session.talk.clone(),
        cache: None,
        key_cache: Arc::new(NoKeyCache),
    };
    let loan = SecretBytes::new(order.loan.as_bytes().to_vec());
    let repository = open_lent(environment, &loan)?;
    drop((loan, order));
    let options = arguments.options(session, None)?;
    let command = Err(Fault::usage("the repository cannot be reached from here", "give --bring-log"));
    perform(session, &arguments, &repository, options, command, &Through(far.clone()))
}
