//! [`Client`]: the cluster as one thing.

use crate::collection::Collection;
use crate::deadline::Deadline;
use crate::error::{ClientError, Unreached};
use crate::latency::Latencies;
use crate::pool::{Answer, Failure, Pool};
use crate::race::Race;
use crate::random::{Jitter, identity};
use crate::retry::{Budget, RetryOptions};
use crate::routes::Routes;
use crate::scout::Scout;
use crate::session::Session;
use bytes::Bytes;
use slowdb_net::{Connector, Identity};
use slowdb_proto::{ClientId, ClusterId, ClusterMap, Code, Reply, RequestKind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Head start of each seed over the next.
const SEED_HEAD_START: Duration = Duration::from_millis(250);
/// Between two attempts at a cluster that is still forming.
const FORMING_WAIT: Duration = Duration::from_millis(100);

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Addresses (`host:port`) of some of its nodes, tried in turn.
    pub seeds: Vec<String>,
    /// Certificate of a client (or node) of the cluster's own authority.
    pub identity: Identity,
    /// How long a call may take, unless it says otherwise: up to 600 s, and longer counts as that.
    /// Default: 5 s.
    pub timeout: Duration,
    /// The cluster that is meant, if it is known; else the first one that answers.
    pub cluster: Option<ClusterId>,
    /// How to retry.
    pub retry: RetryOptions,
    /// The node that this program runs beside, if it does: the nearest for reads that any replica may answer.
    pub node: Option<String>,
    /// The zone that this program is in: nodes of the same zone are nearer than others.
    pub zone: Option<String>,
}

impl ClientOptions {
    /// The defaults, for these seeds.
    pub fn new(seeds: impl IntoIterator<Item = impl Into<String>>, identity: Identity) -> Self {
        ClientOptions {
            seeds: seeds.into_iter().map(Into::into).collect(),
            identity,
            timeout: Duration::from_secs(5),
            cluster: None,
            retry: RetryOptions::default(),
            node: None,
            zone: None,
        }
    }
}

/// A cluster. Cheap to clone: clones share connections, routing table and retry budget.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// What the clones of a client share.
pub(crate) struct Inner {
    pub(crate) pool: Pool,
    pub(crate) cluster: ClusterId,
    pub(crate) id: ClientId,
    pub(crate) timeout: Duration,
    pub(crate) retry: RetryOptions,
    pub(crate) scout: Scout,
    pub(crate) session: Session,
    node: Option<String>,
    zone: Option<String>,
    sequence: AtomicU64,
    turn: AtomicUsize,
    routes: RwLock<Routes>,
    /// Counts the news in `routes`.
    news: watch::Sender<u64>,
    budget: Mutex<Budget>,
    jitter: Mutex<Jitter>,
    latencies: Mutex<Latencies>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("cluster", &self.inner.cluster).field("id", &self.inner.id).finish()
    }
}

impl Client {
    /// Finds the cluster: asks the seeds for its map, and from then on speaks with no other cluster.
    ///
    /// # Errors
    /// [`ClientError::NoNodeReachable`] with the reason for each seed; [`ClientError::CertificateRefused`];
    /// [`ClientError::WrongCluster`].
    pub async fn connect(options: ClientOptions) -> Result<Client, ClientError> {
        if options.seeds.is_empty() {
            let message = "no address of a node was given".into();
            return Err(ClientError::BadInput { code: Code::BadRequest, message });
        }
        let connector = Connector::new(&options.identity)
            .map_err(|error| ClientError::Internal { message: error.to_string() })?;
        let pool = Pool::new(connector);
        let map = first_map(&pool, &options).await?;
        let id = identity()?;
        let seed = u64::from_le_bytes(*id.first_chunk().expect("an identity is longer"));
        let cluster = map.cluster;
        let session = Session::new();
        session.bind(cluster)?;
        let inner = Inner {
            pool,
            session,
            node: options.node,
            zone: options.zone,
            cluster,
            id: ClientId(id),
            timeout: options.timeout,
            scout: Scout::default(),
            sequence: AtomicU64::new(1),
            turn: AtomicUsize::new(seed as usize),
            routes: RwLock::new(Routes::new(map)),
            news: watch::Sender::new(0),
            budget: Mutex::new(Budget::new(options.retry.clone(), Instant::now())),
            retry: options.retry,
            jitter: Mutex::new(Jitter::new(seed)),
            latencies: Mutex::default(),
        };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.cluster
    }

    /// The id under which this client writes.
    pub fn id(&self) -> ClientId {
        self.inner.id
    }

    /// The session that this client reads and writes in, unless a handle is put into another one
    /// ([`Collection::in_session`]).
    pub fn session(&self) -> Session {
        self.inner.session.clone()
    }

    /// A collection by name. Whether there is one is seen when it is used.
    pub fn collection(&self, name: impl Into<String>) -> Collection {
        Collection::new(Arc::clone(&self.inner), name.into())
    }

    /// The map as it is known at present, with the newest leaders that were heard of.
    pub fn map(&self) -> ClusterMap {
        let routes = self.inner.read_routes();
        let mut map = (*routes.map()).clone();
        for shard in map.collections.iter_mut().flat_map(|c| &mut c.shards) {
            let lead = routes.lead(shard.group);
            (shard.leader, shard.term) = (lead.node, lead.term);
        }
        map.catalog_leader = routes.catalog_leader().map(str::to_owned);
        map
    }

    /// Asks every node for its map, and gives what is known then. Nodes that do not answer are left out.
    pub async fn refresh(&self, within: Duration) -> ClusterMap {
        self.inner.refresh_all(within).await;
        self.map()
    }
}

impl Inner {
    pub(crate) fn read_routes(&self) -> std::sync::RwLockReadGuard<'_, Routes> {
        self.routes.read().expect("no panic while the lock is held")
    }

    /// Changes the routing table, and wakes who waits if that is news.
    pub(crate) fn learn(&self, change: impl FnOnce(&mut Routes) -> bool) {
        let is_news = change(&mut self.routes.write().expect("no panic while the lock is held"));
        if is_news {
            self.news.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().expect("no panic while the lock is held")
    }

    pub(crate) fn jitter(&self) -> MutexGuard<'_, Jitter> {
        self.jitter.lock().expect("no panic while the lock is held")
    }

    pub(crate) fn jittered(&self, whole: Duration) -> Duration {
        self.jitter().between_half_and(whole)
    }

    /// Sorts nodes nearest first; equally near ones take turns.
    pub(crate) fn nearest_first(&self, routes: &Routes, nodes: &mut [String]) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let tier = |node: &str| match (&self.node, &self.zone) {
            (Some(own), _) if own == node => 0,
            (_, Some(zone)) if routes.zone(node) == Some(zone) => 1,
            _ => 2,
        };
        self.latencies().sort(nodes, turn, tier);
    }

    pub(crate) fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().expect("no panic while the lock is held")
    }

    /// Sends one request to one node, once.
    pub(crate) async fn ask(
        &self,
        node: &str,
        kind: RequestKind,
        body: Bytes,
        within: Duration,
    ) -> Result<Answer, Failure> {
        let address = self.read_routes().address(node).map(str::to_owned);
        let Some(address) = address else {
            return Err(Failure::NotSent(format!("node {node} is in no map")));
        };
        let outcome = self.pool.ask(&address, Some(self.cluster), kind, body, within).await;
        let mut latencies = self.latencies();
        match &outcome {
            Ok(answer) => latencies.answered(node, answer.rtt),
            Err(_) => latencies.failed(node),
        }
        outcome
    }

    /// A node's answer makes no sense.
    pub(crate) fn bad_reply(&self, node: &str, what: String) -> ClientError {
        let address = self.read_routes().address(node).unwrap_or(node).to_owned();
        ClientError::BadReply { address, what }
    }

    /// Asks every node for its map at once.
    pub(crate) async fn refresh_all(&self, within: Duration) -> Arc<ClusterMap> {
        let map = self.read_routes().map();
        let mut race = Race::new();
        for node in &map.nodes {
            race.push(self.refresh_from(&node.id, within));
        }
        while !race.is_empty() {
            race.next().await;
        }
        self.read_routes().map()
    }

    /// Asks a node for its map and takes in what it says; a silent node loses its connection.
    pub(crate) async fn refresh_from(&self, node: &str, within: Duration) -> Option<ClusterMap> {
        match self.ask(node, RequestKind::Map, Bytes::new(), within).await {
            Ok(Answer { reply: Reply::Map(map), .. }) if map.cluster == self.cluster => {
                self.learn(|routes| routes.learn_map(map.clone()));
                return Some(map);
            }
            Ok(Answer { reply, .. }) => tracing::debug!(node, ?reply, "no map"),
            Err(Failure::Unanswered(reason)) => {
                tracing::debug!(node, reason, "no map");
                let address = self.read_routes().address(node).map(str::to_owned);
                if let Some(address) = address {
                    self.pool.drop_silent(&address);
                }
            }
            Err(reason) => tracing::debug!(node, ?reason, "no map"),
        }
        None
    }
}

/// Asks the seeds in turn, each with a head start over the next. While one of them says that the cluster
/// forms, each that gave no map is asked again and again, on its own.
async fn first_map(pool: &Pool, options: &ClientOptions) -> Result<ClusterMap, ClientError> {
    let deadline = Deadline::after(options.timeout);
    let ask = |nth: usize, wait: Duration| async move {
        tokio::time::sleep(wait).await;
        let (seed, cluster) = (&options.seeds[nth], options.cluster);
        (nth, pool.ask(seed, cluster, RequestKind::Map, Bytes::new(), deadline.left()).await)
    };
    let mut race = Race::new();
    for (nth, turn) in (0..options.seeds.len()).zip(0u32..) {
        race.push(ask(nth, SEED_HEAD_START.saturating_mul(turn).min(deadline.left() / 2)));
    }
    let mut failed: Vec<Option<NoMap>> = vec![None; options.seeds.len()];
    let mut resting = Vec::new();
    while !race.is_empty() {
        let (nth, outcome) = race.next().await;
        match map_of(outcome, &options.seeds[nth], options.cluster) {
            Ok(map) => return Ok(map),
            Err(reason) => {
                if !matches!(reason, NoMap::Final(_)) {
                    resting.push(nth);
                }
                failed[nth] = Some(reason);
            }
        }
        let is_forming = failed.iter().flatten().any(|reason| matches!(reason, NoMap::Forming(_)));
        if is_forming && deadline.left() > FORMING_WAIT {
            for nth in resting.drain(..) {
                race.push(ask(nth, FORMING_WAIT));
            }
        }
    }
    Err(no_map(&options.seeds, failed))
}

/// Why a seed gave no map.
#[derive(Clone, Debug)]
enum NoMap {
    /// It will have one when the cluster has formed.
    Forming(String),
    /// It did not answer, or with something else.
    Failed(String),
    /// It never will give one.
    Final(ClientError),
}

fn map_of(
    outcome: Result<Answer, Failure>,
    seed: &str,
    wanted: Option<ClusterId>,
) -> Result<ClusterMap, NoMap> {
    match outcome {
        Ok(Answer { reply: Reply::Map(map), .. }) => match wanted {
            Some(wanted) if wanted != map.cluster => {
                let (address, got) = (seed.to_owned(), map.cluster);
                Err(NoMap::Final(ClientError::WrongCluster { address, wanted, got }))
            }
            _ => Ok(map),
        },
        Ok(Answer { reply: Reply::Error(error), .. }) if error.code.is_retryable() => {
            Err(NoMap::Forming(error.to_string()))
        }
        Ok(Answer { reply: Reply::Error(error), .. }) => Err(NoMap::Final(ClientError::Refused(error))),
        Ok(_) => Err(NoMap::Failed("it answered something else than was asked".into())),
        Err(Failure::NotSent(reason) | Failure::Unanswered(reason)) => Err(NoMap::Failed(reason)),
        Err(Failure::Hopeless(error)) => Err(NoMap::Final(error)),
    }
}

/// The first final error, or else the reason for each seed.
fn no_map(seeds: &[String], failed: Vec<Option<NoMap>>) -> ClientError {
    let mut tried = Vec::new();
    for (seed, reason) in seeds.iter().zip(failed) {
        match reason {
            None => {}
            Some(NoMap::Forming(reason) | NoMap::Failed(reason)) => {
                tried.push(Unreached { address: seed.clone(), reason });
            }
            // That one does not speak this protocol is one reason among those of the other seeds.
            Some(NoMap::Final(ClientError::NoNodeReachable { tried: reasons })) => tried.extend(reasons),
            Some(NoMap::Final(error)) => return error,
        }
    }
    ClientError::NoNodeReachable { tried }
}
