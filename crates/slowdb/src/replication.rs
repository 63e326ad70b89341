//! All vectors on every node: a leader, and followers of it.

use crate::Error;
use crate::node::{COLLECTION, EmbeddedNode, LOOK_EVERY, LOOK_WITHIN, START_WITHIN, Settings, Waited};
use slowdb_client::{Client, ClientError, ClusterMap, Condition, Position, Written};
use slowdb_proto::limits::REPLICATION_FACTOR_MAX;
use slowdb_proto::{CollectionInfo, GroupKind, GroupStatus, NodeStatus, Role};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything is in one shard: one log, one order of all writes.
const SHARD: u32 = 0;

/// What a node of a replicated store is started with. Made by [`ReplicationManager::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing runs before it is started"]
pub struct ReplicationBuilder(Settings);

impl ReplicationBuilder {
    /// Name or address to listen on, and to be found at by the others. Default: `localhost`.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.0.host = host.into();
        self
    }

    /// UDP port to listen on. Default: 0, a free one, but only for the first start: a node that comes back has to
    /// be found where it was. See [`ReplicationManager::address`].
    pub fn port(mut self, port: u16) -> Self {
        self.0.port = port;
        self
    }

    /// A directory of certificates that is there already, one set for all nodes: needed for nodes on several
    /// machines. Default: `storage_path/certs`, made when it is not there.
    pub fn certs(mut self, dir: impl Into<PathBuf>) -> Self {
        self.0.certs = Some(dir.into());
        self
    }

    /// How long a request may take. Default: 5 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = timeout;
        self
    }

    /// Founds a store as its first node, or comes back as the node that founded it.
    ///
    /// # Errors
    /// [`Error::IsMember`] if the node follows others already; [`Error::Start`] for all that concerns directory,
    /// address and log; [`Error::WrongDimension`] or [`Error::IsSharded`] if the store is another one.
    pub async fn start_leader(self) -> Result<ReplicationManager, Error> {
        let node = EmbeddedNode::start(self.0, None, fits).await?;
        Ok(ReplicationManager { node, reads_own: false })
    }

    /// Follows the store that the node at `host` and `port` is part of, or comes back as a follower: then it asks
    /// nobody, and needs nobody to be there. Returns when the node has its copy, which may be behind.
    ///
    /// # Errors
    /// As [`ReplicationBuilder::start_leader`]; [`Error::IsFounder`] if the node has founded a store of its own;
    /// [`Error::Client`] if nobody answers at `host` and `port`, or the node was not let in; [`Error::IsFull`];
    /// [`Error::NoCopy`] after a minute.
    pub async fn start_follower(self, host: &str, port: u16) -> Result<ReplicationManager, Error> {
        let node = EmbeddedNode::start(self.0, Some(format!("{host}:{port}")), fits).await?;
        let follower = ReplicationManager { node, reads_own: true };
        match follower.wait_for_copy().await {
            Ok(()) => Ok(follower),
            Err(error) => {
                // What went wrong first is what is told.
                let _ = follower.stop().await;
                Err(error)
            }
        }
    }
}

fn fits(node_id: &str, map: &ClusterMap, collection: &CollectionInfo) -> Result<(), Error> {
    if collection.shards.len() != 1 {
        return Err(Error::IsSharded { num_shards: collection.shards.len() as u32 });
    }
    let is_there = map.nodes.iter().any(|node| node.id == node_id);
    if !is_there && map.nodes.len() >= REPLICATION_FACTOR_MAX as usize {
        return Err(Error::IsFull { copies: map.nodes.len() });
    }
    Ok(())
}

/// A node of a replicated store: every node has all vectors, one of them orders the writes.
///
/// # What is promised
/// - [`replicate_vector`](Self::replicate_vector) returns when the write is on disk on a majority of the voters.
/// - A follower's copy is asynchronous: it shows committed writes only, but not the newest at once.
///   [`wait_for`](Self::wait_for) waits until it shows a given one.
/// - With two nodes only the leader votes: the follower is a copy, a write is acknowledged when it is on the
///   leader's disk alone, and nobody takes over for a leader that is gone. With three nodes or more a majority
///   takes over within about a second, and any node can be the one that leads then: `leader` is how a
///   store begins, not who leads it for ever. [`replicas`](Self::replicas) shows who does.
/// - At most five nodes. A sixth is refused.
pub struct ReplicationManager {
    node: EmbeddedNode,
    /// Reads come from this node's own copy.
    reads_own: bool,
}

impl std::fmt::Debug for ReplicationManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicationManager").field("node_id", &self.node_id()).finish_non_exhaustive()
    }
}

/// A node's copy of a replicated store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The node.
    pub node_id: String,
    /// Where it listens, `host:port`.
    pub address: String,
    /// Whether it leads: it orders the writes.
    pub leads: bool,
    /// Whether it votes. What does not vote is a copy that no write waits for.
    pub votes: bool,
    /// How far it has applied the log; `None` if it did not answer.
    pub applied: Option<Position>,
    /// Entries that the leader has committed and this one had not yet applied; an entry is one write or more.
    /// `None` if this node or the leader did not answer. Nodes are asked one beside the other, not at one moment.
    pub lag: Option<u64>,
}

impl ReplicationManager {
    /// A node named `node_id` (unique in its store) for vectors of `dimension` components, with its files under
    /// `storage_path/node_id`.
    pub fn builder(
        node_id: impl Into<String>,
        storage_path: impl Into<PathBuf>,
        dimension: usize,
    ) -> ReplicationBuilder {
        let settings = Settings::new(node_id.into(), storage_path.into(), dimension);
        ReplicationBuilder(Settings { num_shards: 1, replication_factor: REPLICATION_FACTOR_MAX, ..settings })
    }

    /// Makes or replaces a vector, whichever node this is: a follower sends it to the leader. Returns when it is on
    /// disk on a majority of the voters, and applied at the leader.
    ///
    /// # Errors
    /// [`Error::Client`]. Only [`ClientError::OutcomeUnknown`] can mean that the write took effect.
    pub async fn replicate_vector(&self, id: &str, vector: &[f32]) -> Result<Written, Error> {
        self.node.put(id, vector, None).await
    }

    /// Makes or replaces a vector if a condition holds when the write is applied: compare-and-set. A vector's version is
    /// [`Written::position`] of the write that made it.
    ///
    /// # Errors
    /// As [`ReplicationManager::replicate_vector`]; [`ClientError::ConditionNotMet`] with the version that there was,
    /// and nothing changed.
    pub async fn replicate_vector_if(
        &self,
        id: &str,
        vector: &[f32],
        condition: Condition,
    ) -> Result<Written, Error> {
        self.node.put(id, vector, Some(condition)).await
    }

    /// Reads a vector; `None` if there is none. On a node that was started as the leader: what is true now, as a
    /// majority confirms. On a follower: what this node's own copy says, which may be behind.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub async fn get_vector(&self, id: &str) -> Result<Option<Vec<f32>>, Error> {
        let record = if self.reads_own {
            self.node.vectors.get_from(&self.node.id, id, None).await?
        } else {
            self.node.vectors.get(id, &Default::default()).await?
        };
        Ok(record.map(|record| record.vector))
    }

    /// Waits until this node's own copy shows an acknowledged write, and all before it. Returns how far it is then.
    ///
    /// # Errors
    /// [`Error::Behind`] if it did not within `timeout`.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<Position, Error> {
        let waited = Waited::at_most(timeout);
        let mut applied = Position::START;
        loop {
            let last = match self.applied(waited.look_within()).await {
                Ok(now) => {
                    applied = now;
                    String::new()
                }
                Err(error) => error.to_string(),
            };
            // An entry is applied as a whole, whichever of its writes is meant.
            if (applied.term, applied.index) >= (position.term, position.index) {
                return Ok(applied);
            }
            if waited.is_over() {
                let (node_id, waited_ms) = (self.node.id.clone(), waited.ms());
                return Err(Error::Behind { node_id, wanted: position, applied, waited_ms, last });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Every node's copy, with how far each is behind the leader. A node that does not answer within a second is
    /// shown without.
    pub async fn replicas(&self) -> Vec<Replica> {
        // Nodes may have come since this client last looked.
        self.node.client.refresh(LOOK_WITHIN).await;
        let status = self.node.client.status(LOOK_WITHIN).await;
        let own =
            |report: &slowdb_client::NodeReport| report.status.as_ref().ok().and_then(|it| copy(it)).cloned();
        let copies: Vec<Option<GroupStatus>> = status.nodes.iter().map(own).collect();
        // After an election the old leader may not know yet.
        let leads = |copy: &&GroupStatus| copy.role == Role::Leader;
        let leader = copies.iter().flatten().filter(leads).max_by_key(|copy| copy.term);
        let votes = |node: &str| {
            let collection = status.map.collections.iter().find(|it| it.name == COLLECTION);
            let mut replicas =
                collection.into_iter().flat_map(|it| &it.shards).flat_map(|shard| &shard.replicas);
            replicas.any(|replica| replica.node == node && replica.voter)
        };
        let replica = |(report, copy): (&slowdb_client::NodeReport, &Option<GroupStatus>)| Replica {
            node_id: report.node.clone(),
            address: report.address.clone(),
            leads: leader.zip(copy.as_ref()).is_some_and(|(leader, copy)| leader.replica == copy.replica),
            votes: votes(&report.node),
            applied: copy.as_ref().map(|copy| copy.applied),
            lag: leader
                .zip(copy.as_ref())
                .map(|(leader, copy)| leader.committed.saturating_sub(copy.applied.index)),
        };
        status.nodes.iter().zip(&copies).map(replica).collect()
    }

    /// The node's id.
    pub fn node_id(&self) -> &str {
        &self.node.id
    }

    /// Where the node listens: the first of its addresses, with the port that others and the next start need.
    pub fn address(&self) -> SocketAddr {
        self.node.address()
    }

    /// A client of the whole store, for everything else: payloads, removals, batches, searches, other levels, and
    /// the operator's questions. The vectors are in the collection `default`.
    pub fn client(&self) -> &Client {
        &self.node.client
    }

    /// Resolves when the node had to stop by itself, with the reason: its disk has failed, for example.
    pub async fn failed(&self) -> String {
        self.node.failed().await
    }

    /// Hands leadership over as far as there is a voter to take it, makes everything durable, and stops. The node
    /// stays part of the store: start it again in the same way, with the same port.
    ///
    /// # Errors
    /// [`Error::Stop`] if the node had failed.
    pub async fn stop(self) -> Result<(), Error> {
        self.node.stop().await
    }

    /// How far this node's own copy is; the place before all writes if there is no copy yet.
    async fn applied(&self, within: Duration) -> Result<Position, ClientError> {
        let status = self.node.client.node_status(&self.node.id, within).await?;
        Ok(copy(&status).map_or(Position::START, |copy| copy.applied))
    }

    /// A copy has applied something: the first entry of every log is its leader's own.
    async fn wait_for_copy(&self) -> Result<(), Error> {
        match self.wait_for(Position::new(0, 1, 0), START_WITHIN).await {
            Ok(_) => Ok(()),
            Err(Error::Behind { node_id, waited_ms, last, .. }) => {
                Err(Error::NoCopy { node_id, waited_ms, last })
            }
            Err(error) => Err(error),
        }
    }
}

/// The store in what a node says of itself.
fn copy(status: &NodeStatus) -> Option<&GroupStatus> {
    status.groups.iter().find(|group| {
        matches!(&group.kind, GroupKind::Shard { collection, shard: SHARD } if collection == COLLECTION)
    })
}
