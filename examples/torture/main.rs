//! A torture for hours: workers back up, restore, forget, prune, undelete, mark, check, rotate keys and archive
//! logs at once, on a store that fails, while they are killed and suspended; a model says what must be there.
//!
//! ```text
//! tools/torture [--seed N] [--operations N] [--minutes N] [--workers N] [--scratch DIR] [--verbose]
//! ```
//!
//! Each era has a repository of its own. In most eras workers are processes of this program, whose store injects
//! faults and lets 300 seconds pass in one, so that sessions of the dead lapse and sweeps go through; in every
//! third one half of the operations are run by `chronolith` itself, in real time. After every stretch of an
//! era the faults end: what was committed and not forgotten must restore byte for byte, and a check that
//! reads everything must be clean. Anything else ends the torture, and the repository stays where it is.

mod content;
mod driver;
#[path = "../../tests/faults/keys.rs"]
mod keys;
mod model;
mod order;
mod program;
mod store;
#[path = "../../tests/support/mod.rs"]
mod support;
mod worker;

use content::mix;
use driver::Driver;
use model::{Counts, Model};
use order::{Order, Who, World};
use program::Program;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::world::Client;

/// Operations of a stretch, after which everything is verified, at most.
const STRETCH_MAX: u64 = 120;
/// Stretches of an era, at most.
const STRETCHES_MAX: u64 = 4;
/// How fast time passes where workers are of this program.
const SPEED: i64 = 300;

struct Options {
    seed: u64,
    operations: u64,
    minutes: u64,
    workers: u64,
    scratch: PathBuf,
    program: PathBuf,
    verbose: bool,
}

fn usage(why: &str) -> ! {
    eprintln!(
        "torture: {why}\nusage: torture [--seed N] [--operations N] [--minutes N] [--workers N] \
         [--scratch DIR] [--program PATH] [--verbose]"
    );
    std::process::exit(2);
}

fn options(mut arguments: impl Iterator<Item = String>) -> Options {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let beside =
        std::env::current_exe().ok().and_then(|path| Some(path.parent()?.parent()?.join("chronolith")));
    let mut options = Options {
        seed: now.as_secs(),
        operations: 10_000,
        minutes: 600,
        workers: 4,
        scratch: std::env::temp_dir(),
        program: beside.unwrap_or_default(),
        verbose: false,
    };
    while let Some(argument) = arguments.next() {
        if argument == "--verbose" {
            options.verbose = true;
            continue;
        }
        let value = arguments.next().unwrap_or_else(|| usage(&format!("{argument} needs a value")));
        let number = || value.parse().unwrap_or_else(|_| usage(&format!("{value:?} is no number")));
        match argument.as_str() {
            "--seed" => options.seed = number(),
            "--operations" => options.operations = number(),
            "--minutes" => options.minutes = number(),
            "--workers" => options.workers = number().max(1),
            "--scratch" => options.scratch = std::path::absolute(&value).unwrap_or(value.into()),
            "--program" => options.program = value.into(),
            _ => usage(&format!("unknown option {argument}")),
        }
    }
    if !options.program.is_file() {
        usage(&format!("there is no program at {} (--program)", options.program.display()));
    }
    options
}

/// Makes a repository with an owner, two hosts that may only write, and a maintainer.
fn begin(options: &Options, folder: &Path, seed: u64, with_program: bool) -> Driver {
    let make = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).expect("the scratch folder can be written");
        path
    };
    let origin = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let world = World {
        repository: make("repository"),
        scratch: make("scratch"),
        origin: i64::try_from(origin).unwrap_or_default(),
        speed: if with_program { 1 } else { SPEED },
        leaps: folder.join("leaps"),
    };
    let store = chronolith::storage::LocalStore::open(&world.repository).expect("it was just made");
    let owner = Client::init(Arc::new(store), seed);
    let who = |client: &Client, host: &str, skew_seconds: i64| {
        let key_file = folder.join(format!("key-{host}"));
        fs::write(&key_file, &client.key_file).expect("the scratch folder can be written");
        Who { host: host.to_owned(), key_file, cache: Some(make(&format!("cache-{host}"))), skew_seconds }
    };
    use chronolith::format::trust::Role;
    let people = vec![
        who(&owner, "db0", 0),
        who(&keys::with_role(&owner, Role::Writer, "db1"), "db1", 86_400),
        who(&keys::with_role(&owner, Role::Writer, "db2"), "db2", -86_400),
    ];
    let maintainer = who(&keys::with_role(&owner, Role::Maintainer, "keeper"), "keeper", 3_600);
    Driver {
        world,
        owner,
        people,
        maintainer,
        program: with_program.then(|| Program(options.program.clone())),
        model: Mutex::new(Model::default()),
        verbose: options.verbose,
        next: Mutex::new(0),
    }
}

fn add(sum: &mut Counts, counts: &Counts) {
    let unite = |sum: &mut BTreeMap<&'static str, u64>, counts: &BTreeMap<&'static str, u64>| {
        counts.iter().for_each(|(word, count)| *sum.entry(word).or_default() += count);
    };
    sum.operations += counts.operations;
    unite(&mut sum.done, &counts.done);
    unite(&mut sum.failed, &counts.failed);
    unite(&mut sum.killed, &counts.killed);
    sum.paused += counts.paused;
    unite(&mut sum.pruned, &counts.pruned);
    sum.restored += counts.restored;
    sum.fetched += counts.fetched;
    sum.doubtful += counts.doubtful;
    sum.broken_doubtful += counts.broken_doubtful;
}

fn report(seed: u64, sum: &Counts, took: Duration) {
    println!(
        "seed {seed}: {} operations, {} kills, {} suspensions, {} restores and {} segments compared, in {:.0} s",
        sum.operations,
        sum.kills(),
        sum.paused,
        sum.restored,
        sum.fetched,
        took.as_secs_f64()
    );
    let list = |word: &str, counts: &BTreeMap<&'static str, u64>| {
        let parts: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
        println!("  {word}: {}", parts.join(", "));
    };
    list("done", &sum.done);
    list("failed", &sum.failed);
    list("killed", &sum.killed);
    list("pruned", &sum.pruned);
    println!(
        "  committed by writers that lapsed and never reported success: {}, of which {} missed something",
        sum.doubtful, sum.broken_doubtful
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some_and(|argument| argument == "worker") {
        let text = arguments.nth(1).unwrap_or_default();
        let order: Order = serde_json::from_str(&text).unwrap_or_else(|error| usage(&error.to_string()));
        let answer = worker::work(&order);
        println!("{}", serde_json::to_string(&answer).expect("answers are JSON"));
        return;
    }
    let options = options(arguments);
    println!("seed {}", options.seed);
    let began = Instant::now();
    let deadline = began + Duration::from_secs(60 * options.minutes);
    let mut sum = Counts::default();
    // A short run, too, has an era of each kind.
    let third = (options.operations / 3).max(1);
    let operations = third.min(STRETCH_MAX);
    let stretches = (third / operations).min(STRETCHES_MAX);
    for era in 0.. {
        if sum.operations >= options.operations || Instant::now() >= deadline {
            break;
        }
        let seed = mix(&[options.seed, era]);
        let folder = options.scratch.join(format!("chronolith-torture-{}-{era}", std::process::id()));
        let driver = begin(&options, &folder, seed, era % 3 == 2);
        for stretch in 1..=stretches {
            let left = options.operations.saturating_sub(sum.operations);
            let until = (stretch * operations).min(left);
            driver.stretch(mix(&[seed, stretch]), options.workers, until, deadline);
            driver.verify();
            if stretch == stretches || until == left || Instant::now() >= deadline {
                driver.sweep();
                driver.verify();
                break;
            }
            if !driver.model.lock().unwrap().wrong.is_empty() {
                break;
            }
        }
        let model = driver.model.lock().unwrap();
        add(&mut sum, &model.counts);
        report(options.seed, &sum, began.elapsed());
        if !model.wrong.is_empty() {
            println!("{} WRONG in era {era}; its repository is in {}", model.wrong.len(), folder.display());
            model.wrong.iter().for_each(|what| println!("  {what}"));
            std::process::exit(1);
        }
        drop(model);
        let _ = fs::remove_dir_all(&folder);
    }
    println!("nothing wrong");
}
