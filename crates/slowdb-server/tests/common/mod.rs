//! Nodes driven by hand: their cores, logs on simulated disks, messages delivered at once, time in ticks. One
//! thread, no clock: the same calls give the same run.

#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

use bytes::Bytes;
use slowdb_disk::SimDisk;
use slowdb_proto::{
    Admin, AdminRequest, ClientId, ClusterId, ClusterMap, ClusterView, Code, ErrorReply, Freshness,
    GetRequest, JoinRequest, Metric, OpsBuilder, Position, ReadLevel, Reply, Request, RequestKind,
    WriteLevel, WriteReply, WriteRequest,
};
use slowdb_repl::driver::Core;
use slowdb_repl::wal::{Wal, WalOptions};
use slowdb_repl::{Limits, NodeId, Now, Outgoing, TICK_MICROS};
use slowdb_server::{
    CheckpointPace, Command, Effect, Founding, Identity, Node, NodeSetup, Own, RequestId, ScrubPace,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Asks every node for its map whenever something became durable.
const PROBE: RequestId = RequestId(u64::MAX);
/// Free bytes of a disk below which its node refuses writes.
pub(crate) const MIN_FREE: u64 = 64 << 20;
/// Ticks within which everything in these tests happens: 100 seconds of their time.
const TICKS_MAX: u32 = 4_000;

pub(crate) fn founding(nodes: &[&str], dimension: u32, num_shards: u32) -> Founding {
    Founding {
        nodes: nodes.iter().map(|node| ((*node).to_owned(), format!("{node}:8000"))).collect(),
        zone: None,
        dimension,
        metric: Metric::Cosine,
        num_shards,
        virtual_nodes: 3,
        replication_factor: 3,
        weight: 1,
    }
}

struct Running {
    node: Node,
    wal: Wal,
    own: Own,
}

pub(crate) struct HandNode {
    name: String,
    disk: SimDisk,
    founding: Founding,
    running: Option<Running>,
    replies: BTreeMap<RequestId, (Reply, Vec<u8>)>,
    starts: u64,
    ready_to_stop: bool,
    failed: Option<String>,
    /// The nodes that it sends to; all, until it has said which.
    peers: Option<BTreeSet<String>>,
}

pub(crate) struct Cluster {
    nodes: Vec<HandNode>,
    now: Now,
    next_request: u64,
    in_flight: VecDeque<(String, Outgoing)>,
    /// Records that a node asks another one for: who, and by which number.
    fetches: BTreeMap<RequestId, (usize, u64)>,
    /// What every node that was asked said of each epoch.
    maps: BTreeMap<u64, ClusterMap>,
    /// Nodes that nothing reaches and nothing leaves.
    pub(crate) cut: BTreeSet<String>,
    /// Segments of the nodes' logs, and the largest entries in them, in bytes.
    log: (u64, usize),
}

impl Cluster {
    /// Starts all founding nodes on empty disks; nothing has been said between them yet.
    pub(crate) fn start(founding: &Founding) -> Self {
        Self::start_with_log(founding, (16 << 20, Limits::default().entry_bytes_max))
    }

    /// As [`Cluster::start`], with segments of the log of so many bytes, and the largest entries in them.
    pub(crate) fn start_with_log(founding: &Founding, log: (u64, usize)) -> Self {
        let node = |(name, _): &(String, String)| HandNode {
            name: name.clone(),
            disk: SimDisk::new(),
            founding: founding.clone(),
            running: None,
            replies: BTreeMap::new(),
            starts: 0,
            ready_to_stop: false,
            failed: None,
            peers: None,
        };
        let now = Now { micros: 0, wall_millis: 1_700_000_000_000 };
        let nodes = founding.nodes.iter().map(node).collect();
        let mut cluster = Cluster {
            nodes,
            now,
            next_request: 1,
            in_flight: VecDeque::new(),
            fetches: BTreeMap::new(),
            maps: BTreeMap::new(),
            cut: BTreeSet::new(),
            log,
        };
        for at in 0..cluster.nodes.len() {
            cluster.restart(at);
        }
        cluster
    }

    /// As [`Cluster::start`], and waits until every node is part of it and every shard has a leader.
    pub(crate) fn founded(founding: &Founding) -> Self {
        Self::start(founding).until_founded(founding)
    }

    pub(crate) fn until_founded(self, founding: &Founding) -> Self {
        let mut cluster = self;
        // A node knows the leaders of those shards that it has a replica of.
        let mut led = std::collections::BTreeSet::new();
        cluster.wait("a founded cluster", |cluster| {
            let mut founded = true;
            for at in 0..cluster.nodes.len() {
                let Reply::Map(map) = cluster.ask_once(at, RequestKind::Map, b"").0 else {
                    founded = false;
                    continue;
                };
                let known = map.collections[0].shards.iter().filter(|shard| shard.leader.is_some());
                led.extend(known.map(|shard| shard.shard));
            }
            founded && led.len() == founding.num_shards as usize
        });
        cluster
    }

    /// Starts a node on what its disk holds.
    pub(crate) fn restart(&mut self, at: usize) {
        let hand = &mut self.nodes[at];
        hand.starts += 1;
        let disk = Arc::new(hand.disk.clone());
        let identity = Identity::load(&*disk).expect("it is whole").unwrap_or_else(|| Identity {
            node: hand.name.clone(),
            storage: [at as u8 + 1; 16],
            cluster: None,
            founding: hand.founding.clone(),
            joined: None,
            known: Vec::new(),
            peers: BTreeMap::new(),
        });
        identity.save(&*disk).expect("the disk works");
        let seed = (at as u64 + 1) * 1_000 + hand.starts;
        let own = Own::new(disk.clone(), identity, seed);
        let options = WalOptions { segment_bytes: self.log.0, log_id: at as u64, ..WalOptions::default() };
        let (wal, recovered) = Wal::open(disk.clone(), "wal", options).expect("the log opens");
        let setup = NodeSetup {
            disk,
            own: own.clone(),
            seed,
            extent_bytes: 1 << 16,
            limits: Limits { entry_bytes_max: self.log.1, ..Limits::default() },
            checkpoints: CheckpointPace::default(),
            node_down_after: 5_000_000,
            min_free: Some(MIN_FREE),
            scrub: ScrubPace { bytes_per_second: 1 << 20, pause_ticks: 250 },
        };
        let node = Node::open(setup, &recovered, wal.reader()).unwrap_or_else(|error| panic!("{error}"));
        hand.running = Some(Running { node, wal, own });
        hand.ready_to_stop = false;
        hand.failed = None;
        let known =
            hand.running.as_ref().map(|running| running.own.get().known).filter(|known| !known.is_empty());
        hand.peers = known.map(|known| known.into_iter().map(|(node, _)| node).collect());
    }

    /// Stops a node between two moments; what it had not synced is lost.
    pub(crate) fn kill(&mut self, at: usize) {
        self.nodes[at].running = None;
        self.nodes[at].disk = self.nodes[at].disk.crash(&mut || 0);
    }

    pub(crate) fn disk(&self, at: usize) -> SimDisk {
        self.nodes[at].disk.clone()
    }

    /// Segments that the log of a node has.
    pub(crate) fn segments(&self, at: usize) -> usize {
        self.nodes[at].running.as_ref().map_or(0, |running| running.wal.stats().segments)
    }

    pub(crate) fn cluster_id(&self, at: usize) -> Option<ClusterId> {
        self.nodes[at].running.as_ref().and_then(|running| running.own.get().cluster)
    }

    pub(crate) fn failed(&self, at: usize) -> Option<&str> {
        self.nodes[at].failed.as_deref()
    }

    pub(crate) fn at(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.name == name).expect("a node of this name")
    }

    /// Asks a node to prepare its end, waits until it has, and stops it.
    pub(crate) fn stop(&mut self, at: usize) {
        self.command(at, Command::PrepareToStop);
        self.wait("ready to stop", |cluster| cluster.nodes[at].ready_to_stop);
        let running = self.nodes[at].running.take().expect("it runs");
        running.wal.close().expect("the disk works");
    }

    pub(crate) fn prepare_to_stop(&mut self, at: usize) {
        self.command(at, Command::PrepareToStop);
    }

    /// A node that is part of nothing yet, on an empty disk.
    pub(crate) fn add_node(&mut self, name: &str) -> usize {
        self.nodes.push(HandNode {
            name: name.to_owned(),
            disk: SimDisk::new(),
            founding: Founding::default(),
            running: None,
            replies: BTreeMap::new(),
            starts: 0,
            ready_to_stop: false,
            failed: None,
            peers: None,
        });
        self.nodes.len() - 1
    }

    /// A node asks the catalog's leader to let it in, and starts with the answer.
    pub(crate) fn join(&mut self, name: &str, zone: Option<&str>) -> usize {
        self.join_as(name, zone, &format!("{name}:8000"))
    }

    /// As [`Cluster::join`], at an address that another node may have had.
    pub(crate) fn join_at(&mut self, name: &str, address: &str) -> usize {
        self.join_as(name, None, address)
    }

    fn join_as(&mut self, name: &str, zone: Option<&str>, address: &str) -> usize {
        let at = self.add_node(name);
        let asked = self.ask_to_join_at(name, at, zone, address);
        let Reply::Joined(joined) = asked else { panic!("wanted to be let in, got {asked:?}") };
        let identity = Identity {
            node: name.to_owned(),
            storage: [at as u8 + 1; 16],
            cluster: Some(joined.cluster),
            founding: Founding { zone: zone.map(str::to_owned), ..Founding::default() },
            joined: Some(joined.replica),
            known: joined
                .nodes
                .iter()
                .filter(|n| n.id != name)
                .map(|n| (n.id.clone(), n.address.clone()))
                .collect(),
            peers: BTreeMap::new(),
        };
        identity.save(&self.nodes[at].disk).expect("the disk works");
        self.restart(at);
        at
    }

    pub(crate) fn ask_to_join(&mut self, name: &str, storage: usize, zone: Option<&str>) -> Reply {
        self.ask_to_join_at(name, storage, zone, &format!("{name}:8000"))
    }

    fn ask_to_join_at(&mut self, name: &str, storage: usize, zone: Option<&str>, address: &str) -> Reply {
        let join = JoinRequest {
            node: name.to_owned(),
            storage: [storage as u8 + 1; 16],
            address: address.to_owned(),
            zone: zone.map(str::to_owned),
            weight: 1,
        };
        let leader = self.catalog_leader();
        self.ask(leader, RequestKind::Join(join), b"").0
    }

    /// The node that leads the catalog.
    pub(crate) fn catalog_leader(&mut self) -> usize {
        let mut leader = None;
        self.wait("a leader of the catalog", |cluster| {
            leader = cluster
                .running()
                .into_iter()
                .find(|at| matches!(cluster.ask_once(*at, RequestKind::Cluster, b"").0, Reply::Cluster(_)));
            leader.is_some()
        });
        leader.expect("it was waited for")
    }

    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].running.is_some()).collect()
    }

    /// The cluster as the catalog's leader sees it.
    pub(crate) fn view(&mut self) -> ClusterView {
        let leader = self.catalog_leader();
        match self.ask_once(leader, RequestKind::Cluster, b"").0 {
            Reply::Cluster(view) => *view,
            other => panic!("wanted a view, got {other:?}"),
        }
    }

    pub(crate) fn admin(&mut self, admin: Admin, dry_run: bool) -> Reply {
        self.admin_of(AdminRequest { admin, meant: None, dry_run })
    }

    pub(crate) fn admin_of(&mut self, request: AdminRequest) -> Reply {
        let leader = self.catalog_leader();
        self.ask(leader, RequestKind::Admin(request), b"").0
    }

    /// Waits until everything is where it is wanted.
    pub(crate) fn settled(&mut self, what: &str) {
        self.wait(what, |cluster| {
            let leader = cluster.running().into_iter().find_map(|at| {
                match cluster.ask_once(at, RequestKind::Cluster, b"").0 {
                    Reply::Cluster(view) => Some(view),
                    _ => None,
                }
            });
            leader.is_some_and(|view| view.moves.is_empty() && view.planned.is_empty())
        });
    }

    fn command(&mut self, at: usize, command: Command) {
        if let Some(running) = &mut self.nodes[at].running {
            running.node.command(self.now, command);
        }
    }

    /// Lets time pass until something is so.
    pub(crate) fn wait(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        for _ in 0..TICKS_MAX {
            self.settle();
            if so(self) {
                return;
            }
            self.tick();
        }
        panic!("{what}: not within {TICKS_MAX} ticks");
    }

    pub(crate) fn tick(&mut self) {
        self.now.micros += TICK_MICROS;
        self.now.wall_millis += TICK_MICROS / 1000;
        for hand in &mut self.nodes {
            if let Some(running) = &mut hand.running {
                running.node.tick(self.now);
            }
        }
        self.settle();
    }

    /// Does everything that needs no time.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut busy = false;
            for at in 0..self.nodes.len() {
                busy |= self.turn(at);
            }
            while let Some((from, frame)) = self.in_flight.pop_front() {
                let to = self.at(frame.to.as_str());
                if self.cut.contains(&from) || self.cut.contains(frame.to.as_str()) {
                    continue;
                }
                // What is refused at the door is not heard.
                let knows = |hand: &HandNode| hand.peers.as_ref().is_none_or(|peers| peers.contains(&from));
                if !knows(&self.nodes[to]) {
                    continue;
                }
                if let Some(running) = &mut self.nodes[to].running {
                    let body = Bytes::from(frame.body.concat());
                    running.node.receive(self.now, &NodeId::new(&from), &frame.meta, &body);
                    busy = true;
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the nodes talk for ever without time passing");
    }

    fn turn(&mut self, at: usize) -> bool {
        let hand = &mut self.nodes[at];
        let Some(running) = &mut hand.running else { return false };
        let turn = running.node.flush(self.now);
        running.node.check_invariants();
        let mut messages = turn.messages;
        let mut busy = turn.batch.is_some() || !turn.effects.is_empty() || !messages.is_empty();
        if let Some(batch) = turn.batch {
            let mut locations = Vec::new();
            running.wal.append(&batch.records, &mut locations).expect("the disk works");
            running.wal.sync().expect("the disk works");
            running.wal.release().expect("the disk works");
            messages.extend(running.node.persisted(self.now, batch.number, &locations));
            let request = Request { cluster: None, timeout_ms: 10_000, kind: RequestKind::Map };
            running.node.command(self.now, Command::Request { id: PROBE, request, body: Bytes::new() });
        }
        let (mut commands, mut fetches, mut fetched) = (Vec::new(), Vec::new(), Vec::new());
        for effect in turn.effects {
            match effect {
                Effect::Reply { id: PROBE, reply, .. } => note_map(&mut self.maps, reply),
                Effect::Read { id, work } if self.fetches.contains_key(&id) => {
                    fetched.push((id, work.run()));
                }
                Effect::Reply { id, reply, body } if self.fetches.contains_key(&id) => {
                    fetched.push((id, (reply, body)));
                }
                Effect::Fetch(fetch) => fetches.push(fetch),
                Effect::Reply { id, reply, body } => {
                    assert!(
                        hand.replies.insert(id, (reply, body.concat())).is_none(),
                        "{id:?} answered twice"
                    );
                }
                Effect::Read { id, work } => {
                    let (reply, body) = work.run();
                    assert!(
                        hand.replies.insert(id, (reply, body.concat())).is_none(),
                        "{id:?} answered twice"
                    );
                }
                Effect::Checkpoint { group, job } => {
                    commands.push(Command::Checkpointed { group, result: job.run() });
                }
                Effect::Scrub(step) => commands.push(Command::Scrubbed(step.run())),
                Effect::Job(job) => commands.push(Command::JobDone(job.run())),
                Effect::Peers(peers) => {
                    hand.peers = Some(peers.into_iter().map(|(node, _)| node.as_str().to_owned()).collect());
                }
                Effect::Delete(work) => work(),
                Effect::ReadyToStop => hand.ready_to_stop = true,
                Effect::Fail { why } => hand.failed = Some(why),
            }
        }
        for command in commands {
            running.node.command(self.now, command);
            busy = true;
        }
        let name = hand.name.clone();
        let peers = &hand.peers;
        messages.retain(|frame| peers.as_ref().is_none_or(|peers| peers.contains(frame.to.as_str())));
        self.in_flight.extend(messages.into_iter().map(|frame| (name.clone(), frame)));
        for fetch in fetches {
            let request = Request { cluster: None, timeout_ms: 10_000, kind: RequestKind::Get(fetch.get) };
            let other = self.at(fetch.node.as_str());
            let id = RequestId(self.next_request);
            self.next_request += 1;
            self.fetches.insert(id, (at, fetch.number));
            if self.cut.contains(fetch.node.as_str()) || self.nodes[other].running.is_none() {
                fetched
                    .push((id, (Reply::Error(ErrorReply::new(Code::Timeout, "nobody answers")), Vec::new())));
            } else {
                self.command(other, Command::Request { id, request, body: Bytes::new() });
            }
        }
        for (id, (reply, body)) in fetched {
            let (at, number) = self.fetches.remove(&id).expect("it was asked");
            let answer = Some((reply, Bytes::from(body.concat())));
            self.command(at, Command::Fetched { number, answer });
        }
        busy
    }

    /// Asks a node and waits for its answer.
    pub(crate) fn ask(&mut self, at: usize, kind: RequestKind, body: &[u8]) -> (Reply, Vec<u8>) {
        self.ask_as(at, Request { cluster: None, timeout_ms: 10_000, kind }, body)
    }

    pub(crate) fn ask_as(&mut self, at: usize, request: Request, body: &[u8]) -> (Reply, Vec<u8>) {
        let id = self.send(at, request, body);
        self.wait("an answer", |cluster| cluster.nodes[at].replies.contains_key(&id));
        self.take(at, id).expect("it was answered")
    }

    /// Asks a node that can answer at once.
    fn ask_once(&mut self, at: usize, kind: RequestKind, body: &[u8]) -> (Reply, Vec<u8>) {
        let id = self.send(at, Request { cluster: None, timeout_ms: 10_000, kind }, body);
        self.settle();
        self.take(at, id).expect("it needs no time")
    }

    /// Sends a request without waiting.
    pub(crate) fn send(&mut self, at: usize, request: Request, body: &[u8]) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.command(at, Command::Request { id, request, body: Bytes::copy_from_slice(body) });
        id
    }

    pub(crate) fn take(&mut self, at: usize, id: RequestId) -> Option<(Reply, Vec<u8>)> {
        self.nodes[at].replies.remove(&id)
    }

    /// Asks and expects an error.
    pub(crate) fn refused(&mut self, at: usize, kind: RequestKind, body: &[u8]) -> ErrorReply {
        match self.ask(at, kind, body).0 {
            Reply::Error(error) => error,
            other => panic!("wanted an error, got {:.300}", format!("{other:?}")),
        }
    }

    /// The node that leads a shard, as the first running node knows it.
    pub(crate) fn leader(&mut self, shard: u32) -> usize {
        let mut leader = None;
        self.wait("a leader", |cluster| {
            let running: Vec<usize> =
                (0..cluster.nodes.len()).filter(|at| cluster.nodes[*at].running.is_some()).collect();
            for at in running {
                let Reply::Status(status) = cluster.ask_once(at, RequestKind::Status, b"").0 else {
                    continue;
                };
                let group = status.groups.iter().find(|group| group.group == 1 + u64::from(shard));
                if group.is_some_and(|group| group.role == slowdb_proto::Role::Leader) {
                    leader = Some(at);
                }
            }
            leader.is_some()
        });
        leader.expect("it was waited for")
    }

    /// What the log of a shard holds on a node, and what its records are: changes with every write.
    pub(crate) fn state(&mut self, at: usize, shard: u32) -> (u64, Position, [u8; 16]) {
        let Reply::Status(status) = self.ask_once(at, RequestKind::Status, b"").0 else { panic!("a status") };
        let group = status.groups.iter().find(|group| group.group == 1 + u64::from(shard));
        let group = group.expect("it has a replica");
        (group.last_index, group.applied, group.digest)
    }

    /// Writes and expects it to stand.
    pub(crate) fn written(&mut self, at: usize, write: WriteRequest, body: &[u8]) -> WriteReply {
        match self.ask(at, RequestKind::Write(write), body).0 {
            Reply::Written(written) => written,
            other => panic!("wanted it to stand, got {other:?}"),
        }
    }

    /// Asks a node what it can answer at once.
    pub(crate) fn try_get(&mut self, at: usize, kind: RequestKind) -> Option<Reply> {
        let id = self.send(at, Request { cluster: None, timeout_ms: 10_000, kind }, b"");
        self.settle();
        self.take(at, id).map(|(reply, _)| reply)
    }

    /// Reads one id, at `one`.
    pub(crate) fn get(&mut self, at: usize, shard: u32, id: &str) -> Option<(Position, Vec<u8>)> {
        let (reply, body) = self.ask(at, get(shard, ReadLevel::One, &[id]), b"");
        let Reply::Records { records, .. } = reply else { panic!("wanted records, got {reply:?}") };
        records[0].map(|record| (record.position, body))
    }
}

/// Whoever is asked, and whenever: a map of one epoch has always the same nodes, collections and replicas.
fn note_map(maps: &mut BTreeMap<u64, ClusterMap>, reply: Reply) {
    let Reply::Map(mut map) = reply else { return };
    (map.answered_by, map.catalog_leader) = (String::new(), None);
    for shard in map.collections.iter_mut().flat_map(|collection| &mut collection.shards) {
        (shard.leader, shard.term) = (None, 0);
    }
    assert_eq!(maps.entry(map.epoch).or_insert_with(|| map.clone()), &map);
}

/// Of the collection that is there from the start.
pub(crate) const FIRST_GROUP: u64 = 1;

pub(crate) fn write(shard: u32, sequence: u64, level: WriteLevel) -> WriteRequest {
    let client = ClientId([7; 16]);
    let level = Some(level);
    WriteRequest {
        collection: "default".to_owned(),
        first_group: FIRST_GROUP,
        shard,
        level,
        client,
        sequence,
        retry: false,
    }
}

pub(crate) fn get(shard: u32, level: ReadLevel, ids: &[&str]) -> RequestKind {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let (collection, fresh) = ("default".to_owned(), Freshness::at(level));
    RequestKind::Get(GetRequest { collection, first_group: FIRST_GROUP, shard, fresh, ids })
}

pub(crate) fn put(id: &str, vector: &[f32]) -> Vec<u8> {
    let mut batch = OpsBuilder::new();
    batch.put(id, vector, b"").expect("a good put");
    batch.finish()
}

/// An id of a shard, of all the shards there are.
pub(crate) fn id_in(shard: u32, shards: u32, number: usize) -> String {
    let ids = (0..).map(|n| format!("id-{n}"));
    ids.filter(|id| slowdb_ring::shard_of(id.as_bytes(), shards) == shard).nth(number).expect("endless")
}

pub(crate) fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

pub(crate) fn assert_error(error: &ErrorReply, code: Code, says: &str) {
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(says), "wanted '{says}' in: {error}");
}
