//! Asking around while something is wrong: who leads now?
//!
//! QUIC says nothing for a while when a node is killed. Whoever waits too long for an answer, or was sent
//! away without a hint, takes an [`Interest`] in the nodes concerned. While there is interest, one task asks
//! each of them for its map every 50 ms (never twice at once), however many requests are interested; what
//! they say goes into the routing table, which wakes whoever waits. A node that does not answer at all has
//! its connection dropped.

use crate::client::Inner;
use crate::race::Race;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROUND: Duration = Duration::from_millis(50);
/// Silence for this long means that the connection is dead: a map is cheap to give. Well below the time after
/// which QUIC notices, and well above what a node under heavy load needs.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Which nodes are to be asked, and by how many callers.
#[derive(Default)]
pub(crate) struct Scout {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wanted: BTreeMap<String, usize>,
    is_running: bool,
}

/// Keeps the scout asking until it is dropped.
pub(crate) struct Interest {
    inner: Arc<Inner>,
    nodes: Vec<String>,
}

impl Interest {
    pub(crate) fn new(inner: &Arc<Inner>, nodes: Vec<String>) -> Interest {
        let mut state = inner.scout.state.lock().expect("no panic while the lock is held");
        for node in &nodes {
            *state.wanted.entry(node.clone()).or_default() += 1;
        }
        if !state.is_running {
            state.is_running = true;
            tokio::spawn(ask_around(Arc::clone(inner)));
        }
        Interest { inner: Arc::clone(inner), nodes }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut state = self.inner.scout.state.lock().expect("no panic while the lock is held");
        for node in &self.nodes {
            if let Some(count) = state.wanted.get_mut(node) {
                *count -= 1;
                if *count == 0 {
                    state.wanted.remove(node);
                }
            }
        }
    }
}

async fn ask_around(inner: Arc<Inner>) {
    let mut race = Race::new();
    let mut asked = BTreeSet::new();
    loop {
        let wanted: Vec<String> = {
            let mut state = inner.scout.state.lock().expect("no panic while the lock is held");
            // Questions under way are awaited even when nobody is interested any more: that is how a dead
            // connection is found out.
            state.is_running = !(state.wanted.is_empty() && race.is_empty());
            if !state.is_running {
                return;
            }
            state.wanted.keys().cloned().collect()
        };
        for node in wanted {
            if asked.insert(node.clone()) {
                let inner = Arc::clone(&inner);
                race.push(async move {
                    inner.refresh_from(&node, SILENCE_MAX).await;
                    node
                });
            }
        }
        let round = tokio::time::sleep(inner.jittered(ROUND));
        tokio::pin!(round);
        loop {
            tokio::select! {
                node = race.next(), if !race.is_empty() => {
                    asked.remove(&node);
                }
                () = &mut round => break,
            }
        }
    }
}
