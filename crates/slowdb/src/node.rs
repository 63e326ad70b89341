//! A node in this process, and the client that speaks with it: what both managers are made of.

use crate::{Error, ports};
use slowdb_client::{
    Client, ClientError, ClientOptions, ClusterMap, Collection, Condition, Identity, Metric, Put, Role,
    WriteLevel, WriteOptions, Written,
};
use slowdb_disk::RealDisk;
use slowdb_proto::limits::DIMENSION_MAX;
use slowdb_proto::{CollectionInfo, check_name};
use slowdb_server::{Identity as Owner, NodeConfig, RunningNode, StartError};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The collection that every cluster is founded with.
pub(crate) const COLLECTION: &str = "default";
/// Between two looks at something that is waited for.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);
/// For one look at a node.
pub(crate) const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// How long a node tries to be part of a cluster.
pub(crate) const START_WITHIN: Duration = Duration::from_secs(60);
/// Below a storage path, beside the directories of its nodes.
const CERTS: &str = "certs";
const NODE_DOWN_AFTER: Duration = Duration::from_secs(30);

/// What a node is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) node_id: String,
    pub(crate) storage_path: PathBuf,
    pub(crate) dimension: usize,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) certs: Option<PathBuf>,
    pub(crate) metric: Metric,
    pub(crate) num_shards: u32,
    pub(crate) virtual_nodes: u32,
    pub(crate) replication_factor: u32,
    /// How long a request may take.
    pub(crate) timeout: Duration,
}

impl Settings {
    pub(crate) fn new(node_id: String, storage_path: PathBuf, dimension: usize) -> Self {
        Settings {
            node_id,
            storage_path,
            dimension,
            host: "localhost".to_owned(),
            port: 0,
            certs: None,
            metric: Metric::default(),
            num_shards: 16,
            virtual_nodes: 3,
            replication_factor: 1,
            timeout: Duration::from_secs(5),
        }
    }

    fn check(&self) -> Result<(), Error> {
        check_name(&self.node_id).map_err(|error| Error::NodeId(error.to_string()))?;
        if self.node_id == CERTS {
            return Err(Error::NodeId(format!("'{CERTS}' is where certificates are: choose another one")));
        }
        if self.dimension == 0 || self.dimension > DIMENSION_MAX as usize {
            return Err(Error::BadDimension { dimension: self.dimension });
        }
        Ok(())
    }

    fn dir(&self) -> PathBuf {
        self.storage_path.join(&self.node_id)
    }

    /// Whose directory it is; `None` if it is nobody's yet.
    fn owner(&self) -> Result<Option<Owner>, Error> {
        let fail = |what: String| StartError::Storage { path: self.dir(), what };
        let disk = RealDisk::open(self.dir()).map_err(|error| fail(error.to_string()))?;
        Ok(Owner::load(&disk).map_err(|error| fail(error.to_string()))?)
    }

    fn identity(&self) -> Result<Identity, Error> {
        Ok(match &self.certs {
            Some(dir) => Identity::load(dir, Role::Node)?,
            None => slowdb_net::load_or_create(&self.storage_path.join(CERTS), Role::Node)?,
        })
    }

    fn client_options(&self, address: String, identity: &Identity) -> ClientOptions {
        let node = Some(self.node_id.clone());
        ClientOptions { timeout: self.timeout, node, ..ClientOptions::new([address], identity.clone()) }
    }

    fn config(&self, port: u16, join: Option<&str>, identity: &Identity) -> NodeConfig {
        NodeConfig {
            node_id: self.node_id.clone(),
            storage_path: self.storage_path.clone(),
            // One that joins is told by those that are there, which was compared before.
            dimension: join.is_none().then_some(self.dimension as u32),
            metric: self.metric,
            host: self.host.clone(),
            port,
            initial_nodes: Vec::new(),
            num_shards: self.num_shards,
            virtual_nodes: self.virtual_nodes,
            replication_factor: self.replication_factor,
            zone: None,
            weight: 1,
            advertise: None,
            join: join.map(str::to_owned).into_iter().collect(),
            joined: None,
            node_down_after: NODE_DOWN_AFTER,
            snapshot_bytes_per_second: NodeConfig::SNAPSHOT_BYTES_PER_SECOND,
            min_free: None,
            scrub_bytes_per_second: NodeConfig::SCRUB_BYTES_PER_SECOND,
            identity: identity.clone(),
        }
    }
}

/// Whether a node of this id fits into a cluster, as far as its kind of manager is concerned.
pub(crate) type Fits = fn(&str, &ClusterMap, &CollectionInfo) -> Result<(), Error>;

/// A running node with its client.
pub(crate) struct EmbeddedNode {
    pub(crate) id: String,
    pub(crate) client: Client,
    pub(crate) vectors: Collection,
    pub(crate) num_shards: u32,
    node: RunningNode,
}

impl EmbeddedNode {
    /// Starts a node, and waits until it is part of its cluster: the one that is found at `join`, or one that
    /// it founds.
    pub(crate) async fn start(settings: Settings, join: Option<String>, fits: Fits) -> Result<Self, Error> {
        settings.check()?;
        let owner = settings.owner()?;
        let node_id = || settings.node_id.clone();
        match &owner {
            Some(owner) if join.is_some() && !owner.founding.nodes.is_empty() => {
                return Err(Error::IsFounder { node_id: node_id() });
            }
            Some(owner) if join.is_none() && owner.founding.nodes.is_empty() => {
                return Err(Error::IsMember { node_id: node_id() });
            }
            _ => {}
        }
        let is_member = owner.is_some_and(|o| o.cluster.is_some() || !o.founding.nodes.is_empty());
        let reserved = match settings.port {
            0 if is_member => return Err(Error::PortNeeded { node_id: node_id() }),
            0 => Some(ports::reserve(&settings.host)?),
            _ => None,
        };
        let port = reserved.as_ref().map_or(settings.port, |reserved| reserved.port);
        let identity = settings.identity()?;
        let mut config = settings.config(port, join.as_deref(), &identity);
        if let Some(address) = &join
            && !is_member
        {
            let options = settings.client_options(address.clone(), &identity);
            let there = Client::connect(ClientOptions { timeout: START_WITHIN, ..options }).await?;
            check_collection(&there, &settings, fits)?;
            if let Some(request) = RunningNode::joining(&config)? {
                let joined = slowdb_client::join(&config.join, &identity, request, START_WITHIN).await?;
                config.joined = Some(joined);
            }
        }
        let node = RunningNode::start(config).await?;
        drop(reserved);
        match attach(&settings, format!("{}:{port}", settings.host), &identity, fits).await {
            Ok((client, num_shards)) => {
                let vectors = client.collection(COLLECTION);
                Ok(EmbeddedNode { id: settings.node_id, client, vectors, num_shards, node })
            }
            Err(error) => {
                // What went wrong first is what is told.
                let _ = node.shutdown().await;
                Err(error)
            }
        }
    }

    /// Makes or replaces a vector at `quorum`, if a condition holds where there is one.
    pub(crate) async fn put(
        &self,
        id: &str,
        vector: &[f32],
        condition: Option<Condition>,
    ) -> Result<Written, Error> {
        let (put, level) = (Put { id, vector, payload: &[] }, Some(WriteLevel::Quorum));
        let options = WriteOptions { level, timeout: None };
        Ok(match condition {
            Some(condition) => self.vectors.put_if(put, condition, &options).await?,
            None => self.vectors.put_record(put, &options).await?,
        })
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.node.address()
    }

    pub(crate) async fn failed(&self) -> String {
        self.node.failed().await
    }

    /// Stops the node. It can be started again then.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        let EmbeddedNode { node, client, vectors, .. } = self;
        drop((client, vectors));
        Ok(node.shutdown().await?)
    }
}

/// Connects to the node itself, once it is part of a cluster.
async fn attach(
    settings: &Settings,
    address: String,
    identity: &Identity,
    fits: Fits,
) -> Result<(Client, u32), Error> {
    let options = settings.client_options(address, identity);
    let waited = Waited::at_most(START_WITHIN);
    let client = loop {
        match Client::connect(options.clone()).await {
            Ok(client) => break client,
            Err(ClientError::NoNodeReachable { .. }) if !waited.is_over() => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let num_shards = check_collection(&client, settings, fits)?;
    Ok((client, num_shards))
}

/// Whether the store is what the node was told; its number of shards.
fn check_collection(client: &Client, settings: &Settings, fits: Fits) -> Result<u32, Error> {
    let map = client.map();
    let Some(collection) = map.collections.iter().find(|collection| collection.name == COLLECTION) else {
        let known = map.collections.iter().map(|c| format!("'{}'", c.name)).collect::<Vec<_>>().join(", ");
        return Err(ClientError::UnknownCollection { name: COLLECTION.to_owned(), known }.into());
    };
    let (given, stored) = (settings.dimension, collection.dimension as usize);
    if given != stored {
        return Err(Error::WrongDimension { given, stored });
    }
    fits(&settings.node_id, &map, collection)?;
    Ok(collection.shards.len() as u32)
}

/// A wait that ends.
pub(crate) struct Waited {
    since: Instant,
    at_most: Duration,
}

impl Waited {
    pub(crate) fn at_most(at_most: Duration) -> Self {
        Waited { since: Instant::now(), at_most }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.since.elapsed() >= self.at_most
    }

    /// What is left for one look.
    pub(crate) fn look_within(&self) -> Duration {
        LOOK_WITHIN.min(self.at_most.saturating_sub(self.since.elapsed())).max(LOOK_EVERY)
    }

    pub(crate) fn ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
