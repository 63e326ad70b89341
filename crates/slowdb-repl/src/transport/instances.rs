//! One node, one process.
//!
//! A copied storage path can be started under the same node id while the original runs. Both show the right storage id;
//! what tells them apart is the instance, and where they are: the node is who answers at its address. So a process that
//! dials us while our connection leads to another one is let in only if that one does not answer any more, and when we
//! reach the node, what other processes have dialled in its name is closed.
//!
//! A restarted node is not kept out: at its address it answers itself, and a dead process does not answer.

use super::peer::{Line, State, dial};
use slowdb_net::Connection;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a process may take to show that it lives. Less than the one that asks to be let in waits for its answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

impl State {
    /// Why the process of this instance, which says that it is the node, is not to be let in: another one is.
    pub(super) async fn is_another(&self, instance: u64) -> Option<String> {
        if !self.connected.load(Ordering::Relaxed) || self.instance.load(Ordering::Relaxed) == instance {
            return None;
        }
        // Who does not answer in time, or is not admitted, is not the node.
        let dialled = tokio::time::timeout(ANSWERS_WITHIN, dial(self, Line::Control)).await;
        let (connection, found) = dialled.ok()?.ok()?;
        connection.close(256, "only asked who is there");
        (found != instance).then(|| {
            let (node, address) = (&self.node, &self.address);
            format!(
                "node {node} runs already: another process with its id and its storage answers at {address}, so one of \
                 the two runs on a copy of a storage path. Stop this one, and do not start copies: a new node needs an \
                 empty --storage-path, a --node-id of its own, and --join"
            )
        })
    }

    /// A process was let in that dialled us.
    pub(super) fn came_in(&self, instance: u64, connection: &Connection) {
        {
            let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            incoming.retain(|(_, connection)| connection.lost().is_none());
            incoming.push((instance, connection.clone()));
        }
        // If it is another one than our connections lead to, they are dead, long before the idle time-out would say so.
        self.heard_of(instance);
    }

    /// This process answered at the node's address.
    pub(super) fn found(&self, instance: u64) {
        self.heard_of(instance);
        let incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, connection) in incoming.iter().filter(|(of, _)| *of != instance) {
            connection.close(256, "another process is this node");
        }
    }
}
