//! A node on threads, real time, a real disk and QUIC. It wires, and decides nothing.

use crate::clients::{Clients, serve_client};
use crate::config::{NodeConfig, StartError};
use crate::fetch::fetched;
use crate::identity::{Founding, Identity, IdentityError, Own};
use crate::node::{CheckpointPace, Command, Effect, Node, NodeSetup, RequestId};
use crate::scrub::ScrubPace;
use crate::unguarded;
use slowdb_disk::{DirLock, Disk, LockError, RealDisk};
use slowdb_net::{AcceptLimits, Connector, Endpoint, Profile, Release, Service};
use slowdb_proto::{ALPN_CLIENT, Code, ErrorReply, JoinRequest, LogStatus, PeerStatus, Reply};
use slowdb_repl::driver::{Commands, Driver, LogGauge, Stopped};
use slowdb_repl::transport::{self, ALPN_CONTROL, ALPN_DATA, Transport};
use slowdb_repl::wal::{Wal, WalOptions};
use slowdb_repl::{Limits, NodeId};
use slowdb_storage::CheckpointError;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// Vector files grow by about this much at a time.
const EXTENT_BYTES: usize = 4 << 20;
/// Frames from other nodes that wait for the core.
const PEER_EVENTS_MAX: usize = 256;
/// Searches that wait for a processor.
const LONG_READS_WAITING_MAX: usize = 64;
/// When to come back to a node with too many searches, in milliseconds.
const OVERLOADED_RETRY_MS: u32 = 50;
/// How long a stopping node waits for others to take over, and for its checkpoints.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);
/// How long a stopping node waits until the others have been told: a few round trips. Connections that are only about to be made could
/// take much longer, and nobody waits for word of those.
const CLOSE_WITHIN: Duration = Duration::from_millis(300);
/// How long a stopped node waits for its port to be free: until the last task that serves a connection has ended.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);
const SURROUNDINGS_EVERY: Duration = Duration::from_millis(500);

/// A node that runs in this process. Needs a tokio runtime with threads.
pub struct RunningNode {
    driver: Driver<Node>,
    commands: Commands<Node>,
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
    failed: watch::Receiver<Option<String>>,
    ready_to_stop: Arc<Notify>,
    tasks: JoinSet<()>,
    _lock: DirLock,
}

/// Why a node did not stop as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// It had failed.
    #[error("{0}")]
    Failed(String),
}

impl RunningNode {
    /// What a node that is to join a cluster has to ask one of its nodes, before [`RunningNode::start`] is told the answer
    /// in [`NodeConfig::joined`]. `None` if it need not ask: it is not to join, or it has joined already.
    ///
    /// # Errors
    /// As for starting.
    pub fn joining(config: &NodeConfig) -> Result<Option<JoinRequest>, StartError> {
        config.check()?;
        let (disk, _lock) = take_storage(config)?;
        joining(config, &disk)
    }

    /// Starts a node: takes its storage path, listens, recovers, and joins the others.
    pub async fn start(config: NodeConfig) -> Result<RunningNode, StartError> {
        unguarded::warn();
        config.check()?;
        let (disk, lock) = take_storage(&config)?;
        let client_alpn = std::str::from_utf8(ALPN_CLIENT).unwrap_or_default();
        let [control, data] = transport::services();
        let client = Service { alpn: client_alpn, profile: Profile::Client, admits_clients: true };
        let target = format!("{}:{}", config.host, config.port);
        let endpoint =
            Endpoint::bind(&target, &config.identity, &[control, data, client], AcceptLimits::default())
                .await?;
        let endpoint = Arc::new(endpoint);
        let address = *endpoint
            .local_addrs()
            .first()
            .ok_or_else(|| StartError::Config(format!("'{target}' gives no address to listen on")))?;

        let identity = identify(&config, &disk, address)?;
        let (say_others, others) = watch::channel(others(&config, &identity));
        let instance = u64::from_le_bytes(random()?);
        let log_id = u64::from_le_bytes(identity.storage[..8].try_into().unwrap_or_default());
        let told_addresses = told_addresses(&config, &identity);
        let own = Own::new(Arc::clone(&disk), identity, instance).at(moved_to(&config, &told_addresses));
        let (wal, recovered) =
            Wal::open(Arc::clone(&disk), "wal", WalOptions { log_id, ..WalOptions::default() })?;
        let setup = NodeSetup {
            disk,
            own: own.clone(),
            seed: instance,
            extent_bytes: EXTENT_BYTES,
            limits: Limits {
                snapshot_bytes_per_second: config.snapshot_bytes_per_second,
                ..Limits::default()
            },
            checkpoints: CheckpointPace::default(),
            node_down_after: u64::try_from(config.node_down_after.as_micros()).unwrap_or(u64::MAX),
            min_free: config.min_free,
            scrub: ScrubPace { bytes_per_second: config.scrub_bytes_per_second, ..ScrubPace::default() },
        };
        let node = Node::open(setup, &recovered, wal.reader())
            .map_err(|error| storage_error(&config, error.to_string()))?;
        drop(recovered);
        warn_if_elsewhere(&config, &own, address);

        let (events, event_queue) = mpsc::channel(PEER_EVENTS_MAX);
        let nodes = others.borrow().clone();
        let transport = Transport::start(endpoint.connector(), Arc::new(own), &nodes, events);
        let (fail, failed) = watch::channel(None);
        let ready_to_stop = Arc::new(Notify::new());
        let clients = Clients::new();
        let outside = Outside {
            clients: clients.clone(),
            commands: Arc::default(),
            fail: fail.clone(),
            ready: Arc::clone(&ready_to_stop),
            transport: transport.clone(),
            others: say_others,
            told_addresses,
            long_reads_running: Arc::new(Semaphore::new(processors())),
            long_reads_waiting: Arc::new(Semaphore::new(LONG_READS_WAITING_MAX)),
            connector: endpoint.connector().clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let outside_commands = Arc::clone(&outside.commands);
        let driver = Driver::start(node, wal, transport.clone(), event_queue, outside.into_performer())
            .map_err(StartError::Thread)?;
        let commands = driver.commands();
        // Set before anything can be asked of the core, so before it can want anything.
        let _ = outside_commands.set(commands.clone());

        let mut tasks = JoinSet::new();
        tasks.spawn(accept(Arc::clone(&endpoint), transport.clone(), clients, commands.clone()));
        tasks.spawn(tell_surroundings(commands.clone(), transport, others, driver.log_gauge()));
        let stopped = driver.stopped();
        tasks.spawn(async move {
            if let Stopped::LogFailed(why) | Stopped::CoreFailed(why) | Stopped::Duplicate(why) =
                stopped.await
            {
                fail.send_replace(Some(why));
            }
        });
        Ok(RunningNode { driver, commands, endpoint, address, failed, ready_to_stop, tasks, _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves when the node had to stop by itself, with the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Hands over leadership, makes everything durable, and stops. Its port is free then.
    pub async fn shutdown(self) -> Result<(), StopError> {
        let address = self.address;
        let (stopped, port) = self.wind_down().await;
        if !port.wait(RELEASE_WITHIN).await {
            tracing::warn!(%address, "stopped, but something still holds the port");
        }
        stopped
    }

    /// Like [`Self::shutdown`], for a process that ends then, and its hold on the port with it: what connections that were
    /// about to be made leave behind can hold the port for seconds.
    pub async fn shutdown_to_exit(self) -> Result<(), StopError> {
        self.wind_down().await.0
    }

    async fn wind_down(mut self) -> (Result<(), StopError>, Release) {
        if self.failed.borrow().is_none() {
            let prepared = async {
                if self.commands.send(Command::PrepareToStop).await {
                    self.ready_to_stop.notified().await;
                }
            };
            if tokio::time::timeout(PREPARE_WITHIN, prepared).await.is_err() {
                tracing::warn!("not everything could be handed over in time; stopping all the same");
            }
        }
        self.endpoint.close(CLOSE_WITHIN).await;
        self.tasks.shutdown().await;
        let port = self.endpoint.release();
        drop(self.endpoint);
        let driver = self.driver;
        let stopped = tokio::task::spawn_blocking(move || driver.stop()).await;
        let stopped = match (self.failed.borrow().clone(), stopped) {
            (Some(why), _) => Err(StopError::Failed(why)),
            (None, Ok(Stopped::Asked)) => Ok(()),
            (None, Ok(Stopped::LogFailed(why) | Stopped::CoreFailed(why) | Stopped::Duplicate(why))) => {
                Err(StopError::Failed(why))
            }
            (None, Err(error)) => Err(StopError::Failed(error.to_string())),
        };
        (stopped, port)
    }
}

fn node_dir(config: &NodeConfig) -> PathBuf {
    config.storage_path.join(&config.node_id)
}

fn storage_error(config: &NodeConfig, what: String) -> StartError {
    StartError::Storage { path: node_dir(config), what }
}

fn take_storage(config: &NodeConfig) -> Result<(Arc<dyn Disk>, DirLock), StartError> {
    let dir: &Path = &node_dir(config);
    let disk = RealDisk::open(dir).map_err(|error| storage_error(config, error.to_string()))?;
    let lock = disk.lock().map_err(|error| match error {
        LockError::InUse { .. } => {
            storage_error(config, "another process is using it: stop that one, or choose another path".into())
        }
        other => storage_error(config, other.to_string()),
    })?;
    Ok((Arc::new(disk), lock))
}

/// Whose storage path it is: what it was before, or what the flags say if it is empty.
fn identify(config: &NodeConfig, disk: &Arc<dyn Disk>, address: SocketAddr) -> Result<Identity, StartError> {
    let fail = |what: String| storage_error(config, what);
    if let Some(identity) = Identity::load(&**disk).map_err(|error| fail(error.to_string()))? {
        let identity = take_joined(config, disk, goes_on(config, identity)?)?;
        return rezone(config, disk, identity).map_err(|error| fail(error.to_string()));
    }
    if disk.exists("wal").map_err(|error| fail(error.to_string()))? {
        return Err(fail(
            "it holds data, but the file 'identity' is missing, which says whose data it is: restore it, or \
             start with an empty path"
                .into(),
        ));
    }
    if !config.join.is_empty() {
        return Err(StartError::Config("the cluster to join was not asked yet".into()));
    }
    let Some(dimension) = config.dimension else {
        return Err(StartError::Config(
            "an empty storage path founds a cluster: say the dimension of its vectors with --dimension N, or join one \
             with --join HOST:PORT"
                .into(),
        ));
    };
    let mut nodes = config.initial_nodes.clone();
    if nodes.is_empty() {
        let own = config.address().unwrap_or_else(|| format!("{}:{}", config.host, address.port()));
        nodes.push((config.node_id.clone(), own));
    }
    nodes.sort();
    let founding = Founding {
        nodes,
        zone: config.zone.clone(),
        dimension,
        metric: config.metric,
        num_shards: config.num_shards,
        virtual_nodes: config.virtual_nodes,
        replication_factor: config.replication_factor,
        weight: config.weight,
    };
    let identity = new_identity(config, founding)?;
    identity.save(&**disk).map_err(|error| fail(error.to_string()))?;
    Ok(identity)
}

fn new_identity(config: &NodeConfig, founding: Founding) -> Result<Identity, StartError> {
    Ok(Identity {
        node: config.node_id.clone(),
        storage: random()?,
        cluster: None,
        founding,
        joined: None,
        known: Vec::new(),
        peers: BTreeMap::new(),
    })
}

/// What a node has to ask the cluster that it is to join; `None` if it need not ask any more.
fn joining(config: &NodeConfig, disk: &Arc<dyn Disk>) -> Result<Option<JoinRequest>, StartError> {
    let fail = |error: IdentityError| storage_error(config, error.to_string());
    if config.join.is_empty() {
        return Ok(None);
    }
    let known = Identity::load(&**disk).map_err(fail)?;
    if let Some(founder) = known.as_ref().filter(|identity| !identity.founding.nodes.is_empty()) {
        let what = match founder.cluster {
            Some(cluster) => format!("node {} founded cluster {cluster} with it", founder.node),
            None => format!("node {} is founding a cluster with it", founder.node),
        };
        return Err(storage_error(
            config,
            format!(
                "{what}: start it without --join, or give it an empty --storage-path to join another cluster"
            ),
        ));
    }
    if known.as_ref().is_some_and(|identity| identity.cluster.is_some()) {
        return Ok(None);
    }
    let address = config.address().ok_or_else(|| {
        StartError::Config(
            "others have to find a node that joins: give it a port, or an address to advertise".into(),
        )
    })?;
    let identity = match known {
        Some(identity) => identity,
        None => {
            let founding = Founding { zone: config.zone.clone(), ..Founding::default() };
            let identity = new_identity(config, founding)?;
            identity.save(&**disk).map_err(fail)?;
            identity
        }
    };
    Ok(Some(JoinRequest {
        node: identity.node,
        storage: identity.storage,
        address,
        zone: config.zone.clone(),
        weight: config.weight,
    }))
}

/// A node that asked to join goes on with the answer.
fn take_joined(
    config: &NodeConfig,
    disk: &Arc<dyn Disk>,
    identity: Identity,
) -> Result<Identity, StartError> {
    if identity.cluster.is_some() || !identity.founding.nodes.is_empty() {
        return Ok(identity);
    }
    let Some(joined) = &config.joined else {
        let what = "it was to join a cluster, and never got an answer: start it with --join HOST:PORT again";
        return Err(storage_error(config, what.into()));
    };
    let others = joined.nodes.iter().filter(|node| node.id != identity.node);
    let identity = Identity {
        cluster: Some(joined.cluster),
        joined: Some(joined.replica),
        known: others.map(|node| (node.id.clone(), node.address.clone())).collect(),
        ..identity
    };
    identity.save(&**disk).map_err(|error| storage_error(config, error.to_string()))?;
    Ok(identity)
}

/// A path that holds data goes on as what it was; flags that say otherwise are errors or, where they do no
/// harm, warnings.
fn goes_on(config: &NodeConfig, identity: Identity) -> Result<Identity, StartError> {
    if identity.node != config.node_id {
        return Err(storage_error(
            config,
            format!(
                "it belongs to node {}, not {}: a copied path cannot be used",
                identity.node, config.node_id
            ),
        ));
    }
    let founding = &identity.founding;
    if founding.nodes.is_empty() {
        // It joined a cluster that others founded.
        return Ok(identity);
    }
    if let Some(dimension) = config.dimension.filter(|d| *d != founding.dimension) {
        return Err(storage_error(
            config,
            format!(
                "it holds vectors of dimension {}, not {dimension}: leave --dimension out",
                founding.dimension
            ),
        ));
    }
    let ids = |nodes: &[(String, String)]| {
        let mut ids: Vec<String> = nodes.iter().map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids
    };
    if !config.initial_nodes.is_empty() && ids(&config.initial_nodes) != ids(&founding.nodes) {
        return Err(storage_error(
            config,
            format!(
                "its cluster was founded by {}, not {}: leave --initial-nodes out, or start with an empty path",
                ids(&founding.nodes).join(", "),
                ids(&config.initial_nodes).join(", ")
            ),
        ));
    }
    if (config.num_shards, config.replication_factor) != (founding.num_shards, founding.replication_factor) {
        tracing::warn!(
            num_shards = founding.num_shards,
            replication_factor = founding.replication_factor,
            "the cluster goes on with what it was founded with"
        );
    }
    Ok(identity)
}

/// A node may be started in another zone than before.
fn rezone(config: &NodeConfig, disk: &Arc<dyn Disk>, identity: Identity) -> Result<Identity, IdentityError> {
    if config.zone.is_none() || config.zone == identity.founding.zone {
        return Ok(identity);
    }
    let founding = Founding { zone: config.zone.clone(), ..identity.founding.clone() };
    let identity = Identity { founding, ..identity };
    identity.save(&**disk)?;
    Ok(identity)
}

/// Founding nodes that are elsewhere than at the founding, as the flags say now: by id, where they were and where they
/// are. Of a node that has moved since then the catalog knows better.
fn told_addresses(config: &NodeConfig, identity: &Identity) -> BTreeMap<String, (String, String)> {
    let told = config.initial_nodes.iter().filter_map(|(id, told)| {
        let (_, was) = identity.founding.nodes.iter().find(|(node, _)| node == id)?;
        (was != told).then(|| (id.clone(), (was.clone(), told.clone())))
    });
    told.collect()
}

/// Where this node is, if the flags say that it is not where it was.
fn moved_to(config: &NodeConfig, told: &BTreeMap<String, (String, String)>) -> Option<String> {
    let told = told.get(&config.node_id).map(|(_, told)| told.clone());
    config.advertise.clone().or(told)
}

/// Others may find a node elsewhere than where it listens, but then somebody has to see to that.
fn warn_if_elsewhere(config: &NodeConfig, own: &Own, listens: SocketAddr) {
    let founding = own.get().founding.nodes;
    let founded_at =
        founding.into_iter().find(|(node, _)| *node == config.node_id).map(|(_, address)| address);
    let told = own.addresses().remove(&config.node_id);
    let known = told.or_else(|| Some(own.address()).filter(|address| !address.is_empty())).or(founded_at);
    let known = known.unwrap_or_default();
    let port = known.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if config.advertise.is_none() && port.is_some_and(|port| port != listens.port()) {
        tracing::warn!(
            "this node listens on {listens}, but the others know it at {known}, and look for it there. If nothing leads \
             from there to here, start it with --advertise HOST:{} to tell them",
            listens.port()
        );
    }
}

/// The address that the flags say, if the one that is known is that of the founding.
fn newest_address(told: &BTreeMap<String, (String, String)>, node: &str, known: &str) -> String {
    let told = told.get(node).filter(|(was, _)| was == known);
    told.map_or(known, |(_, told)| told).to_owned()
}

/// The other nodes and where they are: as they were last known, or at the founding, unless the flags say otherwise.
fn others(config: &NodeConfig, identity: &Identity) -> Vec<(NodeId, String)> {
    let told = told_addresses(config, identity);
    let nodes = if identity.known.is_empty() { &identity.founding.nodes } else { &identity.known };
    let others = nodes.iter().filter(|(id, _)| *id != config.node_id);
    others.map(|(id, address)| (NodeId::new(id), newest_address(&told, id, address))).collect()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Config(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// Carries out effects.
struct Outside {
    clients: Clients,
    commands: Arc<std::sync::OnceLock<Commands<Node>>>,
    fail: watch::Sender<Option<String>>,
    ready: Arc<Notify>,
    transport: Transport,
    others: watch::Sender<Vec<(NodeId, String)>>,
    /// See [`told_addresses`].
    told_addresses: BTreeMap<String, (String, String)>,
    /// Reads that take long: so many run at a time, and so many more wait.
    long_reads_running: Arc<Semaphore>,
    long_reads_waiting: Arc<Semaphore>,
    connector: Connector,
    runtime: tokio::runtime::Handle,
}

impl Outside {
    fn into_performer(self) -> impl FnMut(Effect) + Send + 'static {
        move |effect| self.perform(effect)
    }

    fn perform(&self, effect: Effect) {
        match effect {
            Effect::Reply { id, reply, body } => self.clients.answer(id, reply, body),
            Effect::Read { id, work } => {
                let clients = self.clients.clone();
                let run = move || {
                    let (reply, body) = work.run();
                    clients.answer(id, reply, body);
                };
                if self.clients.is_quick(id) {
                    self.runtime.spawn(async move { run() });
                } else {
                    self.read_long(id, run);
                }
            }
            Effect::Job(job) => {
                let commands = Arc::clone(&self.commands);
                self.runtime.spawn_blocking(move || {
                    let done = job.run();
                    if let Some(commands) = commands.get() {
                        commands.send_blocking(Command::JobDone(done));
                    }
                });
            }
            Effect::Scrub(step) => {
                let commands = Arc::clone(&self.commands);
                self.runtime.spawn_blocking(move || {
                    let step = step.run();
                    if let Some(commands) = commands.get() {
                        commands.send_blocking(Command::Scrubbed(step));
                    }
                });
            }
            Effect::Fetch(fetch) => {
                let others = self.others.borrow();
                let address = others.iter().find(|(node, _)| *node == fetch.node).map(|(_, at)| at.clone());
                let (commands, connector) = (Arc::clone(&self.commands), self.connector.clone());
                self.runtime.spawn(async move {
                    let number = fetch.number;
                    let answer = match address {
                        Some(address) => fetched(&connector, &address, fetch).await,
                        None => None,
                    };
                    if let Some(commands) = commands.get() {
                        commands.send(Command::Fetched { number, answer }).await;
                    }
                });
            }
            Effect::Checkpoint { group, job } => {
                let commands = Arc::clone(&self.commands);
                self.runtime.spawn_blocking(move || {
                    let result = checkpoint(|| job.run());
                    if let Some(commands) = commands.get() {
                        commands.send_blocking(Command::Checkpointed { group, result });
                    }
                });
            }
            Effect::Peers(mut peers) => {
                for (node, address) in &mut peers {
                    *address = newest_address(&self.told_addresses, node.as_str(), address);
                }
                let _runtime = self.runtime.enter();
                self.transport.set_peers(&peers);
                self.others.send_replace(peers);
            }
            Effect::Delete(work) => drop(self.runtime.spawn_blocking(work)),
            Effect::ReadyToStop => self.ready.notify_one(),
            Effect::Fail { why } => {
                self.fail.send_if_modified(|current| {
                    let first = current.is_none();
                    current.get_or_insert(why);
                    first
                });
            }
        }
    }
}

/// Makes a checkpoint. A panic in it counts as its failure: the next ones wait to hear of it.
fn checkpoint<T>(work: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(CheckpointError::Io(std::io::Error::other("it panicked"))))
}

impl Outside {
    /// Runs a read that takes long when there is a processor for it, unless too many wait already or nobody waits
    /// for it any more.
    fn read_long(&self, id: RequestId, run: impl FnOnce() + Send + 'static) {
        let Ok(waits) = Arc::clone(&self.long_reads_waiting).try_acquire_owned() else {
            let error = ErrorReply::new(Code::Overloaded, "too many searches wait in this node");
            let error = ErrorReply { retry_after_ms: OVERLOADED_RETRY_MS, ..error };
            return self.clients.answer(id, Reply::Error(error), Vec::new());
        };
        let running = Arc::clone(&self.long_reads_running);
        let clients = self.clients.clone();
        self.runtime.spawn(async move {
            let Ok(_runs) = running.acquire_owned().await else { return };
            drop(waits);
            if clients.is_waiting(id) {
                // A read that panics answers nobody; whoever asked hears that it took too long.
                let _ = tokio::task::spawn_blocking(run).await;
            }
        });
    }
}

/// Hands each connection to whoever it is for.
async fn accept(endpoint: Arc<Endpoint>, transport: Transport, clients: Clients, commands: Commands<Node>) {
    let mut connections = JoinSet::new();
    while let Some(connection) = endpoint.accept().await {
        while connections.try_join_next().is_some() {}
        if connection.alpn() == ALPN_CONTROL || connection.alpn() == ALPN_DATA {
            let transport = transport.clone();
            connections.spawn(async move { transport.serve(connection).await });
        } else {
            connections.spawn(serve_client(connection, clients.clone(), commands.clone()));
        }
    }
}

async fn tell_surroundings(
    commands: Commands<Node>,
    transport: Transport,
    others: watch::Receiver<Vec<(NodeId, String)>>,
    gauge: LogGauge,
) {
    let mut every = tokio::time::interval(SURROUNDINGS_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        every.tick().await;
        let peer = |(node, address): &(NodeId, String)| PeerStatus {
            node: node.as_str().to_owned(),
            address: address.clone(),
            connected: transport.is_connected(node),
        };
        let peers = others.borrow().iter().map(peer).collect();
        let log = LogStatus { bytes: gauge.disk_bytes(), segments: gauge.segments(), pinned_bytes: 0 };
        if !commands.send(Command::Surroundings { peers, log }).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_panics_has_failed() {
        let failed = checkpoint::<()>(|| panic!("a defect")).expect_err("it made none");
        assert_eq!(failed.to_string(), "cannot write the checkpoint: it panicked");
        assert!(checkpoint(|| Ok(())).is_ok());
    }
}
