//! A cluster that speaks the real protocol over the real network, and does what a test tells it to.

use crate::fake_catalog::Catalog;
use bytes::Bytes;
use slowdb_client::{Client, ClientOptions, Identity, Role, WriteOptions};
use slowdb_net::{AcceptLimits, Connection, Endpoint, FrameLimits, FrameOut, Profile, Service};
use slowdb_proto::*;
use slowdb_ring::shard_of;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

pub(crate) const DIMENSION: usize = 2;
pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);
/// For what has to run into its deadline: long enough for a request on a busy machine.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

pub(crate) fn error(code: Code) -> ErrorReply {
    ErrorReply::new(code, "as the test wants it")
}

pub(crate) fn is_write(kind: &RequestKind) -> bool {
    matches!(kind, RequestKind::Write(_))
}

/// As a collection with its first settings takes it.
fn is_quorum(fresh: &Freshness) -> bool {
    fresh.level.unwrap_or_default() == ReadLevel::Quorum
}

pub(crate) fn within(timeout: Duration) -> WriteOptions {
    WriteOptions { timeout: Some(timeout), ..WriteOptions::default() }
}

/// What a node does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// What it should, as far as it knows.
    Proper,
    /// Nothing: as if it had been killed.
    Mute,
    /// Refuses all but `Map`, with this.
    Refuse(ErrorReply),
    /// Refuses all but `Map` once, with this; then is proper.
    RefuseOnce(ErrorReply),
    /// Refuses `Map` once, with this; then is proper.
    RefuseMapOnce(ErrorReply),
    /// Answers all but `Map` with a map.
    Nonsense,
    /// Does a write or change, and then says this once instead of acknowledging.
    DoButSay(ErrorReply),
    /// Refuses reads of these shards, with this; of a search it answers for the others.
    Without(Vec<u32>, ErrorReply),
    /// Waits until the gate of the cluster is opened, then refuses with this.
    RefuseLate(ErrorReply),
}

/// A request that a node got.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) node: String,
    pub(crate) kind: RequestKind,
    pub(crate) cluster: Option<ClusterId>,
}

#[derive(Clone, Debug)]
struct Stored {
    vector: Vec<u8>,
    payload: Vec<u8>,
    position: Position,
}

/// What all nodes share: a perfect replicated store.
#[derive(Default)]
struct Store {
    first_group: u64,
    records: BTreeMap<String, Stored>,
    done: HashMap<(ClientId, u64), WriteReply>,
    executed: u64,
    under_way: usize,
    under_way_max: usize,
}

/// Shard → leader and term.
type Beliefs = BTreeMap<u32, (String, u64)>;

struct World {
    map: Mutex<ClusterMap>,
    /// What each node believes.
    beliefs: Mutex<HashMap<String, Beliefs>>,
    manners: Mutex<HashMap<String, Manner>>,
    store: Mutex<Store>,
    catalog: Mutex<Catalog>,
    seen: Mutex<Vec<Seen>>,
    /// Counts what was seen, for tests that wait for something.
    count: watch::Sender<usize>,
    gate: watch::Sender<bool>,
}

pub(crate) struct FakeCluster {
    world: Arc<World>,
    pub(crate) seeds: Vec<String>,
    pub(crate) certs: PathBuf,
    endpoints: Vec<Arc<Endpoint>>,
    _dir: tempfile::TempDir,
}

impl FakeCluster {
    /// Three nodes; nobody leads yet.
    pub(crate) async fn start(shards: u32) -> FakeCluster {
        let dir = tempfile::tempdir().expect("a directory");
        let certs = dir.path().join("certs");
        slowdb_net::create(&certs).expect("certificates");
        let identity = Identity::load(&certs, Role::Node).expect("the node's identity");
        let mut endpoints = Vec::new();
        for _ in 0..3 {
            endpoints.push(Arc::new(bind("127.0.0.1:0", &identity).await));
        }
        let seeds: Vec<String> = endpoints.iter().map(|e| e.local_addrs()[0].to_string()).collect();
        let world = Arc::new(World {
            map: Mutex::new(map(&seeds, shards)),
            beliefs: Mutex::default(),
            manners: Mutex::default(),
            store: Mutex::new(Store { first_group: 1, ..Store::default() }),
            catalog: Mutex::default(),
            seen: Mutex::default(),
            count: watch::Sender::new(0),
            gate: watch::Sender::new(false),
        });
        for (nth, endpoint) in endpoints.iter().enumerate() {
            tokio::spawn(serve(format!("n{}", nth + 1), Arc::clone(endpoint), Arc::clone(&world)));
        }
        FakeCluster { world, seeds, certs, endpoints, _dir: dir }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::load(&self.certs, Role::Client).expect("the client's identity")
    }

    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions { timeout: Duration::from_secs(20), ..ClientOptions::new(&self.seeds, self.identity()) }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.options()).await.expect("a client")
    }

    /// From now on all nodes say that the nodes are at these addresses.
    pub(crate) fn move_to(&self, addresses: &[String]) {
        let mut map = self.world.map.lock().unwrap();
        map.epoch += 1;
        for (node, address) in map.nodes.iter_mut().zip(addresses) {
            node.address.clone_from(address);
        }
    }

    /// From now on all nodes say that this node is in this zone.
    pub(crate) fn zone(&self, node: &str, zone: &str) {
        let mut map = self.world.map.lock().unwrap();
        map.epoch += 1;
        let info = map.nodes.iter_mut().find(|info| info.id == node).expect("a node of this name");
        info.zone = Some(zone.to_owned());
    }

    /// From now on a shard is on this node alone, which leads it. No other node knows of a leader.
    pub(crate) fn move_shard(&self, shard: u32, to: &str, term: u64) {
        let mut map = self.world.map.lock().unwrap();
        map.epoch += 1;
        let replicas = &mut map.collections[0].shards[shard as usize].replicas;
        *replicas = vec![ReplicaInfo { replica: 100 + term, node: to.to_owned(), voter: true }];
        drop(map);
        self.world.beliefs.lock().unwrap().values_mut().for_each(|beliefs| drop(beliefs.remove(&shard)));
        self.tell(to, shard, to, term);
    }

    /// The collection is dropped, and made anew with so many shards, from this group on. Nobody leads yet.
    pub(crate) fn replace(&self, shards: u32, first_group: u64) {
        let mut map = self.world.map.lock().unwrap();
        map.epoch += 1;
        map.collections[0].shards = shards_from(first_group, shards);
        self.world.beliefs.lock().unwrap().clear();
        let mut store = self.world.store.lock().unwrap();
        (store.first_group, store.records) = (first_group, BTreeMap::new());
    }

    /// All nodes learn who leads a shard.
    pub(crate) fn elect(&self, shard: u32, leader: &str, term: u64) {
        for node in ["n1", "n2", "n3"] {
            self.tell(node, shard, leader, term);
        }
    }

    pub(crate) fn elect_all(&self, leader: &str, term: u64) {
        let shards = self.world.map.lock().unwrap().collections[0].shards.len() as u32;
        (0..shards).for_each(|shard| self.elect(shard, leader, term));
    }

    /// One node learns who leads a shard.
    pub(crate) fn tell(&self, node: &str, shard: u32, leader: &str, term: u64) {
        let mut beliefs = self.world.beliefs.lock().unwrap();
        beliefs.entry(node.to_owned()).or_default().insert(shard, (leader.to_owned(), term));
    }

    /// Tells nodes who leads the catalog, or changes it, or looks at it.
    pub(crate) fn catalog<T>(&self, with: impl FnOnce(&mut Catalog) -> T) -> T {
        with(&mut self.world.catalog.lock().unwrap())
    }

    pub(crate) fn manner(&self, node: &str, manner: Manner) {
        self.world.manners.lock().unwrap().insert(node.to_owned(), manner);
    }

    pub(crate) fn open_gate(&self) {
        self.world.gate.send_replace(true);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.world.seen.lock().unwrap().clone()
    }

    /// The writes that arrived, in order: node, sequence, retry.
    pub(crate) fn writes(&self) -> Vec<(String, u64, bool)> {
        let write = |seen: Seen| match seen.kind {
            RequestKind::Write(write) => Some((seen.node, write.sequence, write.retry)),
            _ => None,
        };
        self.seen().into_iter().filter_map(write).collect()
    }

    /// Waits until a request arrived that `is_it`; a test in which none ever does fails instead of hanging.
    pub(crate) async fn wait_for(&self, is_it: impl Fn(&Seen) -> bool) {
        self.wait_for_many(1, is_it).await;
    }

    /// As `wait_for`, until so many arrived.
    pub(crate) async fn wait_for_many(&self, wanted: usize, is_it: impl Fn(&Seen) -> bool) {
        let mut count = self.world.count.subscribe();
        while self.world.seen.lock().unwrap().iter().filter(|seen| is_it(seen)).count() < wanted {
            let changed = tokio::time::timeout(Duration::from_secs(60), count.changed()).await;
            changed.expect("the request never came").expect("the world goes on");
        }
    }

    /// Batches executed: a retry that was recognised is none.
    pub(crate) fn executed(&self) -> u64 {
        self.world.store.lock().unwrap().executed
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.world.store.lock().unwrap().records.keys().cloned().collect()
    }

    /// Most writes that were under way at once.
    pub(crate) fn under_way_max(&self) -> usize {
        self.world.store.lock().unwrap().under_way_max
    }

    /// Takes a node off the network, and back on at the same address.
    pub(crate) async fn restart(&mut self, nth: usize) {
        self.endpoints[nth].close(Duration::from_secs(5)).await;
        let identity = Identity::load(&self.certs, Role::Node).expect("the node's identity");
        let fresh = loop {
            // The old socket goes when the last task that holds it has seen the end.
            let services = [service()];
            match Endpoint::bind(&self.seeds[nth], &identity, &services, AcceptLimits::default()).await {
                Ok(endpoint) => break Arc::new(endpoint),
                Err(slowdb_net::BindError::InUse { .. }) => {
                    self.endpoints[nth] = Arc::new(bind("127.0.0.1:0", &identity).await);
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        self.endpoints[nth] = Arc::clone(&fresh);
        tokio::spawn(serve(format!("n{}", nth + 1), fresh, Arc::clone(&self.world)));
    }
}

fn service() -> Service {
    Service { alpn: "slowdb-client/1", profile: Profile::Client, admits_clients: true }
}

async fn bind(target: &str, identity: &Identity) -> Endpoint {
    Endpoint::bind(target, identity, &[service()], AcceptLimits::default()).await.expect("a free port")
}

fn map(addresses: &[String], shards: u32) -> ClusterMap {
    let node = |(i, address): (usize, &String)| NodeInfo {
        id: format!("n{}", i + 1),
        address: address.clone(),
        zone: None,
    };
    ClusterMap {
        cluster: CLUSTER,
        epoch: 1,
        answered_by: String::new(),
        catalog_leader: None,
        nodes: addresses.iter().enumerate().map(node).collect(),
        collections: vec![CollectionInfo {
            name: "default".into(),
            dimension: DIMENSION as u32,
            metric: Metric::L2,
            replication_factor: 3,
            settings: CollectionSettings::default(),
            shards: shards_from(1, shards),
        }],
    }
}

fn shards_from(first_group: u64, shards: u32) -> Vec<ShardInfo> {
    let replica = |shard: u32, i: u32| ReplicaInfo {
        replica: u64::from(shard * 3 + i + 1),
        node: format!("n{}", (shard + i) % 3 + 1),
        voter: true,
    };
    let shard = |shard: u32| ShardInfo {
        shard,
        group: first_group + u64::from(shard),
        replicas: (0..3).map(|i| replica(shard, i)).collect(),
        leader: None,
        term: 0,
    };
    (0..shards).map(shard).collect()
}

/// First group of the collection that a request means.
pub(crate) fn first_group_of(kind: &RequestKind) -> Option<u64> {
    match kind {
        RequestKind::Write(it) => Some(it.first_group),
        RequestKind::Get(it) => Some(it.first_group),
        RequestKind::Search(it) => Some(it.first_group),
        RequestKind::Scan(it) => Some(it.first_group),
        RequestKind::Count(it) => Some(it.first_group),
        RequestKind::Hashes(it) => Some(it.first_group),
        RequestKind::Conflicts(it) => Some(it.first_group),
        _ => None,
    }
}

async fn serve(node: String, endpoint: Arc<Endpoint>, world: Arc<World>) {
    while let Some(connection) = endpoint.accept().await {
        tokio::spawn(serve_connection(node.clone(), connection, Arc::clone(&world)));
    }
}

async fn serve_connection(node: String, connection: Connection, world: Arc<World>) {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        let (node, world) = (node.clone(), Arc::clone(&world));
        tokio::spawn(async move {
            let limits = FrameLimits::default();
            let Ok(Some(frame)) = slowdb_net::read_frame(&mut recv, &limits).await else { return };
            let request = decode_request(&frame.meta).expect("clients send good requests");
            let (reply, body) = world.handle(&node, request, &frame.body).await;
            let frame = FrameOut { kind: KIND_REPLY, meta: encode_reply(&reply), body: vec![body] };
            // The client may have given up.
            let _ = slowdb_net::write_frame(&mut send, frame, Duration::from_secs(5)).await;
            let _ = send.finish();
        });
    }
}

impl World {
    async fn handle(&self, node: &str, request: Request, body: &[u8]) -> (Reply, Bytes) {
        let kind = request.kind;
        let seen = Seen { node: node.to_owned(), kind: kind.clone(), cluster: request.cluster };
        self.seen.lock().unwrap().push(seen);
        self.count.send_modify(|count| *count += 1);
        let manner = self.manners.lock().unwrap().get(node).cloned().unwrap_or(Manner::Proper);
        let is_map = matches!(kind, RequestKind::Map);
        let mut instead = None;
        match manner.clone() {
            Manner::Mute => std::future::pending().await,
            Manner::Refuse(error) if !is_map => return (Reply::Error(error), Bytes::new()),
            Manner::RefuseOnce(error) if !is_map => {
                self.manners.lock().unwrap().insert(node.to_owned(), Manner::Proper);
                return (Reply::Error(error), Bytes::new());
            }
            Manner::RefuseMapOnce(error) if is_map => {
                self.manners.lock().unwrap().insert(node.to_owned(), Manner::Proper);
                return (Reply::Error(error), Bytes::new());
            }
            Manner::Nonsense if !is_map => return (Reply::Map(self.map_of(node)), Bytes::new()),
            Manner::RefuseLate(error) if !is_map => {
                let mut gate = self.gate.subscribe();
                gate.wait_for(|is_open| *is_open).await.expect("the world goes on");
                return (Reply::Error(error), Bytes::new());
            }
            Manner::DoButSay(error) if matches!(kind, RequestKind::Write(_) | RequestKind::Admin(_)) => {
                self.manners.lock().unwrap().insert(node.to_owned(), Manner::Proper);
                instead = Some(error);
            }
            _ => {}
        }
        let mut kind = kind;
        let mut missing = Vec::new();
        if let Manner::Without(shards, error) = &manner {
            match &mut kind {
                RequestKind::Get(get) if shards.contains(&get.shard) => {
                    return (Reply::Error(error.clone()), Bytes::new());
                }
                RequestKind::Scan(ScanRequest { shard, .. })
                | RequestKind::Count(CountRequest { shard, .. })
                    if shards.contains(shard) =>
                {
                    return (Reply::Error(error.clone()), Bytes::new());
                }
                RequestKind::Search(search) => {
                    let gone = search.shards.extract_if(.., |shard| shards.contains(shard));
                    missing.extend(gone.map(|shard| MissingShard { shard, error: error.clone() }));
                }
                _ => {}
            }
        }
        let mut done = self.execute(node, kind, body).await;
        if let Ok((Reply::Hits { missing: gone, .. }, _)) = &mut done {
            gone.append(&mut missing);
        }
        match instead {
            Some(error) => (Reply::Error(error), Bytes::new()),
            None => done.unwrap_or_else(|error| (Reply::Error(error), Bytes::new())),
        }
    }

    async fn execute(
        &self,
        node: &str,
        kind: RequestKind,
        body: &[u8],
    ) -> Result<(Reply, Bytes), ErrorReply> {
        let own = self.map.lock().unwrap().collections.first().and_then(CollectionInfo::first_group);
        if first_group_of(&kind).is_some_and(|meant| own != Some(meant)) {
            return Err(error(Code::StaleRoute));
        }
        match kind {
            RequestKind::Map => Ok((Reply::Map(self.map_of(node)), Bytes::new())),
            RequestKind::Write(write) => {
                self.check_leads(node, write.shard)?;
                self.store.lock().unwrap().start();
                // Lets other requests in, so that concurrency shows.
                tokio::task::yield_now().await;
                let reply = self.store.lock().unwrap().write(&write, body);
                Ok((Reply::Written(reply), Bytes::new()))
            }
            RequestKind::Get(get) => {
                if is_quorum(&get.fresh) {
                    self.check_leads(node, get.shard)?;
                }
                Ok(self.store.lock().unwrap().get(&get))
            }
            RequestKind::Search(search) => {
                if is_quorum(&search.fresh) {
                    search.shards.iter().try_for_each(|shard| self.check_leads(node, *shard))?;
                }
                let shards = self.map.lock().unwrap().collections[0].shards.len() as u32;
                Ok((self.store.lock().unwrap().search(&search, body, shards), Bytes::new()))
            }
            RequestKind::Scan(scan) => {
                let shards = self.map.lock().unwrap().collections[0].shards.len() as u32;
                Ok(self.store.lock().unwrap().scan(&scan, shards))
            }
            RequestKind::Count(count) => {
                let shards = self.map.lock().unwrap().collections[0].shards.len() as u32;
                Ok((self.store.lock().unwrap().count(&count, shards), Bytes::new()))
            }
            RequestKind::Status => Err(ErrorReply::new(Code::Unavailable, "no status here")),
            other => {
                let reply =
                    self.catalog.lock().unwrap().answer(node, other, &mut self.map.lock().unwrap())?;
                Ok((reply, Bytes::new()))
            }
        }
    }

    fn map_of(&self, node: &str) -> ClusterMap {
        let mut map = self.map.lock().unwrap().clone();
        map.answered_by = node.to_owned();
        map.catalog_leader = self.catalog.lock().unwrap().leader(node);
        if let Some(beliefs) = self.beliefs.lock().unwrap().get(node) {
            for (shard, (leader, term)) in beliefs {
                let shard = &mut map.collections[0].shards[*shard as usize];
                (shard.leader, shard.term) = (Some(leader.clone()), *term);
            }
        }
        map
    }

    fn check_leads(&self, node: &str, shard: u32) -> Result<(), ErrorReply> {
        let belief = self.beliefs.lock().unwrap().get(node).and_then(|b| b.get(&shard).cloned());
        match belief {
            Some((leader, _)) if leader == node => Ok(()),
            other => {
                let (leader, term) = other.map_or((None, 0), |(leader, term)| (Some(leader), term));
                let error = ErrorReply::new(Code::NotLeader, format!("{node} does not lead shard {shard}"));
                Err(ErrorReply { leader, term, epoch: 1, ..error })
            }
        }
    }
}

impl Store {
    fn start(&mut self) {
        self.under_way += 1;
        self.under_way_max = self.under_way_max.max(self.under_way);
    }

    fn write(&mut self, write: &WriteRequest, body: &[u8]) -> WriteReply {
        self.under_way -= 1;
        if let Some(reply) = self.done.get(&(write.client, write.sequence)) {
            assert!(write.retry, "a second attempt has to say that it is one");
            return reply.clone();
        }
        self.executed += 1;
        let ops = Ops::check(body, DIMENSION as u32).expect("clients send good batches");
        let first = Position { term: 1, index: self.executed, offset: 0 };
        let mut replaced = 0;
        let mut unmet = Vec::new();
        for (offset, op) in (0..).zip(ops.iter()) {
            let current = self.records.get(op.id()).map(|record| record.position);
            if op.condition().is_some_and(|condition| !condition.holds(current)) {
                unmet.push(Unmet { write: offset, current });
                continue;
            }
            let position = Position { offset, ..first };
            let before = match op {
                Op::Put { id, vector, payload, .. } => {
                    let (vector, payload) = (vector.to_vec(), payload.to_vec());
                    self.records.insert(id.to_owned(), Stored { vector, payload, position })
                }
                Op::Delete { id, .. } => self.records.remove(id),
                Op::SetPolicy(_) => panic!("a client does not set it"),
                Op::Replay { .. } | Op::Discard { .. } => unreachable!("nothing here conflicts"),
            };
            replaced += u32::from(before.is_some());
        }
        let (writes, replaced, group) =
            (ops.writes(), Some(replaced), self.first_group + u64::from(write.shard));
        let reply = WriteReply { first, writes, replaced, unmet, durable_on: 2, replicas: 3, group };
        self.done.insert((write.client, write.sequence), reply.clone());
        reply
    }

    fn get(&self, get: &GetRequest) -> (Reply, Bytes) {
        let mut body = Vec::new();
        let mut records = Vec::new();
        for id in &get.ids {
            let record = self.records.get(id);
            records.push(
                record.map(|r| RecordInfo { position: r.position, payload_bytes: r.payload.len() as u32 }),
            );
            if let Some(record) = record {
                body.extend_from_slice(&record.vector);
                body.extend_from_slice(&record.payload);
            }
        }
        (Reply::Records { at: self.at(get.shard), records, siblings: Vec::new() }, body.into())
    }

    /// All shards are applied up to the last write of any.
    fn at(&self, shard: u32) -> ShardPosition {
        let applied = Position { term: 1, index: self.executed, offset: 0 };
        ShardPosition { shard, group: self.first_group + u64::from(shard), applied, latest: applied }
    }

    fn scan(&self, scan: &ScanRequest, num_shards: u32) -> (Reply, Bytes) {
        let (mut records, mut body) = (Vec::new(), Vec::new());
        let is_wanted = |id: &str| {
            shard_of(id.as_bytes(), num_shards) == scan.shard
                && id.starts_with(&scan.prefix)
                && scan.after.as_deref().is_none_or(|after| id > after)
        };
        let found: Vec<_> = self.records.iter().filter(|(id, _)| is_wanted(id)).collect();
        for (id, record) in found.iter().take(scan.limit as usize) {
            if scan.vectors {
                body.extend_from_slice(&record.vector);
            }
            if scan.payloads {
                body.extend_from_slice(&record.payload);
            }
            let payload_bytes = record.payload.len() as u32;
            records.push(PageRecord { id: (*id).clone(), position: record.position, payload_bytes });
        }
        let more = records.len() < found.len();
        (Reply::Page { at: self.at(scan.shard), records, more }, body.into())
    }

    fn count(&self, count: &CountRequest, num_shards: u32) -> Reply {
        let is_wanted = |id: &&String| {
            shard_of(id.as_bytes(), num_shards) == count.shard && id.starts_with(&count.prefix)
        };
        let records = self.records.keys().filter(is_wanted).count() as u64;
        Reply::Counted { at: self.at(count.shard), records }
    }

    fn search(&self, search: &SearchRequest, body: &[u8], num_shards: u32) -> Reply {
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect()
        };
        let mut results = Vec::new();
        for query in floats(body).chunks(DIMENSION) {
            let mut hits: Vec<Hit> = Vec::new();
            for (id, record) in &self.records {
                if search.shards.contains(&shard_of(id.as_bytes(), num_shards)) {
                    let vector = floats(&record.vector);
                    let score = vector.iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum();
                    hits.push(Hit { id: id.clone(), score });
                }
            }
            hits.sort_by(|a, b| a.score.total_cmp(&b.score).then_with(|| a.id.cmp(&b.id)));
            hits.truncate(search.k as usize);
            results.push(hits);
        }
        let shards = search.shards.iter().map(|shard| self.at(*shard)).collect();
        Reply::Hits { metric: Metric::L2, shards, missing: Vec::new(), results }
    }
}
