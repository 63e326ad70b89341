//! Vectors spread over nodes by hashing.

use crate::Error;
use crate::node::{COLLECTION, EmbeddedNode, LOOK_EVERY, Settings, Waited};
use slowdb_client::{Client, Condition, Hit, Metric, ReadLevel, ReadOptions, SearchOptions, Written};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a node of a sharded store is started with. Made by [`ShardManager::builder`].
///
/// What concerns the store and not the node (shards, virtual nodes, copies, metric) is decided by the node that
/// founds it. Nodes that join take it as it is.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before it is started"]
pub struct ShardBuilder(Settings);

impl ShardBuilder {
    /// Name or address to listen on, and to be found at by the others. Default: `localhost`.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.0.host = host.into();
        self
    }

    /// UDP port to listen on. Default: 0, a free one, but only for the first start: a node that comes back has to
    /// be found where it was. See [`ShardManager::address`].
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

    /// Shards of a store that is founded, 1 to 4,096. It never changes, and bounds how many nodes can share the
    /// work. Default: 16.
    pub fn num_shards(mut self, num_shards: u32) -> Self {
        self.0.num_shards = num_shards;
        self
    }

    /// Points of each node on the hash ring that places shards on nodes, 1 to 1,024. Default: 3.
    pub fn virtual_nodes(mut self, virtual_nodes: u32) -> Self {
        self.0.virtual_nodes = virtual_nodes;
        self
    }

    /// Copies of each shard, 1 to 5, on as many nodes. Default: 1, no copies: a node that is gone takes its shards with it
    /// until it is back. From 3 on, and with as many nodes, the loss of one is survived.
    pub fn replication_factor(mut self, replication_factor: u32) -> Self {
        self.0.replication_factor = replication_factor;
        self
    }

    /// How searches measure similarity. Default: cosine.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.0.metric = metric;
        self
    }

    /// Founds a store as its first node, or comes back as the node that founded it.
    ///
    /// # Errors
    /// [`Error::IsMember`] if the node has joined others already; [`Error::Start`] for all that concerns directory,
    /// address and log; [`Error::WrongDimension`] if the store is another one.
    pub async fn start(self) -> Result<ShardManager, Error> {
        let node = EmbeddedNode::start(self.0, None, |_, _, _| Ok(())).await?;
        Ok(ShardManager { node })
    }

    /// Joins the store that the node at `host` and `port` is part of, or comes back as a node that has joined: then it
    /// asks nobody. Shards move to it in the background: see [`ShardManager::wait_until_settled`].
    ///
    /// # Errors
    /// As [`ShardBuilder::start`]; [`Error::IsFounder`] if the node has founded a store of its own;
    /// [`Error::Client`] if nobody answers at `host` and `port`, or the node was not let in.
    pub async fn join(self, host: &str, port: u16) -> Result<ShardManager, Error> {
        let node = EmbeddedNode::start(self.0, Some(format!("{host}:{port}")), |_, _, _| Ok(())).await?;
        Ok(ShardManager { node })
    }
}

/// A node of a sharded store. Any node takes any request and finds the nodes concerned by itself.
///
/// Reads and writes are at level `quorum`: each shard has one leader, which orders its writes, and a read sees every
/// write that was acknowledged before it began. With one copy of each shard (the default) that is the disk of one
/// node.
///
/// An id finds its shard by equal ranges of the hash space, and a shard its nodes by a ring with virtual nodes. When a
/// node joins, whole shards move, as few as balance needs, while reads and writes go on. No id ever changes its shard.
pub struct ShardManager {
    node: EmbeddedNode,
}

impl std::fmt::Debug for ShardManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardManager").field("node_id", &self.node_id()).finish_non_exhaustive()
    }
}

/// Where a shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its number.
    pub shard: u32,
    /// Nodes that hold it, the one that is to lead it first.
    pub nodes: Vec<String>,
}

impl ShardManager {
    /// A node named `node_id` (unique in its store) for vectors of `dimension` components, with its files under
    /// `storage_path/node_id`.
    pub fn builder(
        node_id: impl Into<String>,
        storage_path: impl Into<PathBuf>,
        dimension: usize,
    ) -> ShardBuilder {
        ShardBuilder(Settings::new(node_id.into(), storage_path.into(), dimension))
    }

    /// Makes or replaces a vector, in the shard that its id belongs to.
    ///
    /// # Errors
    /// [`Error::Client`]. Only [`slowdb_client::ClientError::OutcomeUnknown`] can mean that the write took effect.
    pub async fn store_vector(&self, id: &str, vector: &[f32]) -> Result<Written, Error> {
        self.node.put(id, vector, None).await
    }

    /// Makes or replaces a vector if a condition holds when the write is applied: compare-and-set. A vector's version is
    /// [`Written::position`] of the write that made it.
    ///
    /// # Errors
    /// As [`ShardManager::store_vector`]; [`slowdb_client::ClientError::ConditionNotMet`] with the version that there
    /// was, and nothing changed.
    pub async fn store_vector_if(
        &self,
        id: &str,
        vector: &[f32],
        condition: Condition,
    ) -> Result<Written, Error> {
        self.node.put(id, vector, Some(condition)).await
    }

    /// Reads a vector; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub async fn get_vector(&self, id: &str) -> Result<Option<Vec<f32>>, Error> {
        let record =
            self.node.vectors.get(id, &ReadOptions { level: Some(ReadLevel::Quorum), timeout: None }).await?;
        Ok(record.map(|record| record.vector))
    }

    /// The exact `k` nearest vectors to a query, nearest first, over all shards.
    ///
    /// # Errors
    /// [`Error::Client`], also if one shard cannot be searched: there are no partial answers.
    pub async fn search(&self, query: &[f32], k: usize) -> Result<Vec<Hit>, Error> {
        let options = SearchOptions { k, level: Some(ReadLevel::Quorum), ..SearchOptions::default() };
        let mut found = self.node.vectors.search(query, &options).await?;
        Ok(found.results.pop().unwrap_or_default())
    }

    /// The shard that an id belongs to, from 0. A pure function of the id and the number of shards.
    pub fn shard_of(&self, id: &str) -> u32 {
        slowdb_ring::shard_of(id.as_bytes(), self.node.num_shards)
    }

    /// Where every shard is, in the order of their numbers, as the leader of the store's catalog has it.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub async fn shards(&self) -> Result<Vec<Shard>, Error> {
        let map = self.node.client.newest_map().await?;
        let collection = map.collections.into_iter().find(|it| it.name == COLLECTION);
        let shards = collection.into_iter().flat_map(|it| it.shards);
        let place = |shard: slowdb_proto::ShardInfo| Shard {
            shard: shard.shard,
            nodes: shard.replicas.into_iter().map(|replica| replica.node).collect(),
        };
        Ok(shards.map(place).collect())
    }

    /// Waits until every shard is where it is wanted, and nothing more is to be moved.
    ///
    /// # Errors
    /// [`Error::NotSettled`] if it was not so within `timeout`. Shards go on moving.
    pub async fn wait_until_settled(&self, timeout: Duration) -> Result<(), Error> {
        let waited = Waited::at_most(timeout);
        let mut unfinished = self.node.num_shards as usize;
        loop {
            let last = match self.node.client.cluster().await {
                Ok(view) => {
                    unfinished = view.moves.len() + view.planned.len();
                    String::new()
                }
                Err(error) => error.to_string(),
            };
            if unfinished == 0 {
                return Ok(());
            }
            if waited.is_over() {
                return Err(Error::NotSettled { unfinished, waited_ms: waited.ms(), last });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Shards of the store.
    pub fn num_shards(&self) -> u32 {
        self.node.num_shards
    }

    /// The node's id.
    pub fn node_id(&self) -> &str {
        &self.node.id
    }

    /// Where the node listens: the first of its addresses, with the port that others and the next start need.
    pub fn address(&self) -> SocketAddr {
        self.node.address()
    }

    /// A client of the whole store, for everything else: payloads, removals, batches, other levels, and the
    /// operator's questions and changes. The vectors are in the collection `default`.
    pub fn client(&self) -> &Client {
        &self.node.client
    }

    /// Resolves when the node had to stop by itself, with the reason: its disk has failed, for example.
    pub async fn failed(&self) -> String {
        self.node.failed().await
    }

    /// Hands leadership over as far as there is a voter to take it, makes everything durable, and stops. The node
    /// stays part of the store, and what only it holds is away until it is started again: in the same way, with the
    /// same port.
    ///
    /// # Errors
    /// [`Error::Stop`] if the node had failed.
    pub async fn stop(self) -> Result<(), Error> {
        self.node.stop().await
    }
}
