//! A repository in several places: each is opened for itself, so that one that is not there, or not what it was,
//! is noticed before anything is read or written.

use super::fault::Fault;
use super::places::{canonical, local_path};
use super::session::{open_local, require_repository};
use crate::base::limits;
use crate::format::config::Config;
use crate::storage::{AbsentStore, Store};
use std::collections::HashMap;
use std::sync::Arc;

/// Id and revision, as the copies of the configuration say them.
fn identity(store: &dyn Store) -> Option<(crate::base::RepositoryId, u64)> {
    let read = |name| {
        let bytes = store.get(name, limits::CONFIG_BYTES_MAX).ok()?;
        let config = Config::parse(&bytes).ok()?.config;
        Some((config.repository, config.revision))
    };
    ["chronolith", "copies/chronolith"].into_iter().filter_map(read).max_by_key(|(_, revision)| *revision)
}

/// Refuses two names of one place.
///
/// # Errors
///
/// [`Fault::Plain`] with both names.
pub fn require_different(places: &[&str]) -> Result<(), Fault> {
    let mut folders = HashMap::new();
    for place in places {
        if let Some(folder) = local_path(place).ok().and_then(|path| canonical(&path))
            && let Some(same) = folders.insert(folder, *place)
        {
            return Err(Fault::usage(
                format!("{same} and {place} are one place"),
                "name each place that holds the repository once",
            ));
        }
    }
    Ok(())
}

/// Opens all places. What is not there, or holds no repository (a disk that is not mounted), is warned of and
/// fails at every request. The one with the newest configuration is asked first.
///
/// # Errors
///
/// Where none is there, or two hold different repositories.
pub fn open(places: &[&str], warn: impl Fn(&str)) -> Result<Vec<Arc<dyn Store>>, Fault> {
    let mut stores: Vec<(u64, Arc<dyn Store>)> = Vec::new();
    let (mut first, mut problem, mut present) = (None, None, 0);
    require_different(places)?;
    for place in places {
        let opened = open_local(place).and_then(|store| require_repository(&store, place).map(|()| store));
        let store = match opened {
            Ok(store) => store,
            Err(fault) => {
                warn(&format!("{}; the others go on without it", fault.why()));
                let absent = AbsentStore { place: (*place).to_owned(), why: fault.why() };
                stores.push((0, Arc::new(absent)));
                problem.get_or_insert(fault);
                continue;
            }
        };
        present += 1;
        let found = identity(&store);
        if let Some((id, _)) = found {
            match &first {
                Some((known, at)) if *known != id => {
                    return Err(Fault::usage(
                        format!("{at} and {place} hold different repositories"),
                        "several places of one repository are made by `chronolith mirror`",
                    ));
                }
                Some(_) => {}
                None => first = Some((id, *place)),
            }
        }
        stores.push((found.map_or(0, |(_, revision)| revision), Arc::new(store)));
    }
    if let Some(problem) = problem.filter(|_| present == 0) {
        return Err(problem);
    }
    // What was replaced while a place was away is old there.
    stores.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
    Ok(stores.into_iter().map(|(_, store)| store).collect())
}
