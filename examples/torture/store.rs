//! The store that workers use: a folder, with time that passes quickly, requests that fail, come late,
//! are lost or come twice, and a process that dies at a request of a given number.

use crate::content::mix;
use crate::order::{Rough, World};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{Clock, Timestamp};
use chronolith::storage::{
    Capabilities, LocalStore, ObjectInfo, Operation, PutOutcome, RetryPolicy, RetryStore, Sleep,
    StorageError, Store,
};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time that passes faster than it does, from a moment on, and that leaps now and then.
#[derive(Clone)]
pub struct Quick {
    origin: i64,
    speed: i64,
    skew: i64,
    leaps: PathBuf,
}

/// Moments of real time, and by how much time leapt at them, in nanoseconds.
struct Leaps(Vec<(i64, i64)>);

impl Quick {
    /// The time of the store, and of a host whose clock is right.
    pub fn of(world: &World) -> Self {
        Self { origin: world.origin, speed: world.speed, skew: 0, leaps: world.leaps.clone() }
    }

    /// The time of a host whose clock is wrong by so many seconds.
    pub fn skewed(self, seconds: i64) -> Self {
        Self { skew: seconds * 1_000_000_000, ..self }
    }

    /// Lets time leap for everybody, whatever they do meanwhile.
    pub fn leap(&self, seconds: i64) -> std::io::Result<()> {
        // Everybody has read of it when the moment comes.
        let moment = now().saturating_add(100_000_000);
        let before = fs::read_to_string(&self.leaps).unwrap_or_default();
        let new = self.leaps.with_extension("new");
        fs::write(&new, format!("{before}{moment} {}\n", seconds.saturating_mul(1_000_000_000)))?;
        fs::rename(new, &self.leaps)?;
        std::thread::sleep(Duration::from_millis(110));
        Ok(())
    }

    fn leaps(&self) -> Leaps {
        let text = fs::read_to_string(&self.leaps).unwrap_or_default();
        let parsed = text.lines().filter_map(|line| {
            let (moment, length) = line.split_once(' ')?;
            Some((moment.parse().ok()?, length.parse().ok()?))
        });
        Leaps(parsed.collect())
    }

    fn bend(&self, leaps: &Leaps, real: i64) -> Timestamp {
        let passed = real.saturating_sub(self.origin).saturating_mul(self.speed);
        let leapt: i64 = leaps.0.iter().filter(|(moment, _)| *moment <= real).map(|(_, length)| length).sum();
        let bent = self.origin.saturating_add(passed).saturating_add(leapt);
        Timestamp::from_nanoseconds(bent.saturating_add(self.skew))
    }
}

/// Real time, in nanoseconds.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

impl Clock for Quick {
    fn now(&self) -> Timestamp {
        self.bend(&self.leaps(), now())
    }
}

/// Waits for real.
pub struct RealSleep;

impl Sleep for RealSleep {
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The folder, with its times bent, that kills its process when it is told to.
pub struct Bent {
    inner: Arc<LocalStore>,
    time: Quick,
    rough: Rough,
    requests: AtomicU64,
    late: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Bent {
    pub fn new(world: &World, rough: &Rough) -> Result<Self, StorageError> {
        let inner = Arc::new(LocalStore::open(&world.repository)?);
        let (requests, late) = Default::default();
        Ok(Self { inner, time: Quick::of(world), rough: rough.clone(), requests, late })
    }

    /// Requests that are still on their way.
    pub fn late(&self) -> Arc<Mutex<Vec<JoinHandle<()>>>> {
        self.late.clone()
    }

    fn run<T>(&self, request: impl FnOnce() -> T) -> T {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let dies = self.rough.dies_at.filter(|(at, _)| *at == number);
        if dies.is_some_and(|(_, after)| !after) {
            die();
        }
        let answer = request();
        if dies.is_some() {
            die();
        }
        answer
    }

    /// The same request may arrive once more, later.
    fn twin(&self, request: impl FnOnce(&LocalStore) + Send + 'static) {
        let chance = mix(&[self.rough.seed, 5, self.requests.load(Ordering::SeqCst)]);
        if chance % 1000 < self.rough.late_permille {
            let inner = self.inner.clone();
            let wait = Duration::from_millis(chance >> 20 & 0xff);
            let thread = std::thread::spawn(move || {
                std::thread::sleep(wait);
                request(&inner);
            });
            self.late.lock().unwrap().push(thread);
        }
    }

    fn bent(&self, leaps: &Leaps, object: ObjectInfo) -> ObjectInfo {
        let bend = |time: Timestamp| self.time.bend(leaps, time.nanoseconds());
        ObjectInfo { modified: object.modified.map(bend), ..object }
    }
}

/// Ends this process as a power cut would.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

impl Store for Bent {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        let (same_name, same_bytes) = (name.to_owned(), bytes.to_owned());
        self.twin(move |store| drop(store.put(&same_name, &same_bytes)));
        self.run(|| self.inner.put(name, bytes))
    }
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.run(|| self.inner.replace(name, bytes))
    }
    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.run(|| self.inner.get(name, limit_bytes))
    }
    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.run(|| self.inner.get_range(name, offset, length, out))
    }
    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.run(|| self.inner.head(name)).map(|object| self.bent(&self.time.leaps(), object))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let found = self.run(|| self.inner.list(prefix))?;
        let leaps = self.time.leaps();
        Ok(found.into_iter().map(|object| self.bent(&leaps, object)).collect())
    }
    fn delete(&self, name: &str) -> Result<(), StorageError> {
        let same = name.to_owned();
        self.twin(move |store| drop(store.delete(&same)));
        self.run(|| self.inner.delete(name))
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { retry: true, ..self.inner.capabilities() }
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

/// Decides about one request.
fn fault(rough: &Rough, number: u64, operation: Operation) -> Option<Fault> {
    let chance = mix(&[rough.seed, number]);
    if chance % 1000 < rough.delay_permille {
        std::thread::sleep(Duration::from_millis(chance >> 12 & 0x1f));
    }
    let reads = matches!(operation, Operation::Get | Operation::GetRange);
    let writes = matches!(operation, Operation::Put | Operation::Replace);
    if rough.gone_from.is_some_and(|from| number >= from) {
        return Some(Fault::Before(Failure::Transient));
    }
    (chance >> 24 & 0x3ff < rough.fault_permille * 1024 / 1000).then_some(match chance >> 40 & 0x1f {
        0..=11 => Fault::Before(Failure::Transient),
        12..=20 => Fault::After(Failure::Transient),
        21..=25 => Fault::Twice,
        26 => Fault::Before(Failure::Fatal),
        27 if writes => Fault::Before(Failure::NoSpace),
        28 if writes => Fault::After(Failure::Fatal),
        29 if operation == Operation::Delete => Fault::Before(Failure::Denied),
        30 if reads => Fault::Flip,
        31 if operation == Operation::Get => Fault::Torn,
        _ => Fault::Before(Failure::Transient),
    })
}

/// The store as a worker has it.
pub fn rough_store(bent: Bent, rough: &Rough) -> Result<Arc<dyn Store>, StorageError> {
    let seen = rough.clone();
    let faulty = FaultStore::with_plan(bent, move |number, operation, _| fault(&seen, number, operation));
    if !rough.retries {
        return Ok(Arc::new(faulty));
    }
    let policy = RetryPolicy {
        attempts: 5,
        delay_first: Duration::from_millis(2),
        delay_max: Duration::from_millis(20),
    };
    let entropy = Arc::new(crate::support::SeededEntropy::new(rough.seed));
    Ok(Arc::new(RetryStore::new(faulty, policy, Arc::new(RealSleep), entropy)?))
}
