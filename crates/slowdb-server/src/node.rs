//! A node's deterministic core: what it does with messages, requests and time.
//!
//! It composes the replicator with the catalog and the shards that live here. It reads no clock, opens no
//! socket and draws no randomness but from its seed; its disk is an argument.

use crate::catalog::{CATALOG, CatalogMachine};
use crate::differences::Differences;
use crate::disk_pace::DiskPace;
use crate::gap::Gaps;
use crate::hosting::Hosting;
use crate::identity::Own;
use crate::machine::{Machine, Outcome};
use crate::mend::{Fetch, Mends};
use crate::pending::Pending;
use crate::read::ReadWork;
use crate::scrub::{ScrubPace, ScrubStep, Scrubs};
use crate::shard::ShardMachine;
use crate::space::SpaceWatch;
use crate::tend::Tending;
use bytes::Bytes;
use slowdb_disk::Disk;
use slowdb_proto::{LogStatus, PeerStatus, Reply, Request};
use slowdb_repl::driver::{Core, Turn};
use slowdb_repl::wal::{Location, Recovered, WalReader};
use slowdb_repl::{Event, GroupId, Job, JobDone, Limits, NodeId, Now, Outgoing, Replicator, WireError};
use slowdb_storage::{CheckpointDone, CheckpointError, CheckpointJob};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Bytes applied to a shard after which it is checkpointed: with 16 shards, at most 128 MiB of log to replay.
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;
/// Ticks after which a shard with any change is checkpointed.
const CHECKPOINT_TICKS: u64 = 40 * 60;
/// Ticks between looks at which shards are due for a checkpoint.
const CHECKPOINT_LOOK_TICKS: u64 = 5;
/// Ticks between looks at the room on the disk: a second.
const SPACE_LOOK_TICKS: u64 = 50;
/// Frames of a strange cluster or shape that are reported one by one; later ones are only counted.
const STRANGE_FRAMES_LOGGED: u64 = 10;

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What is asked of a node from outside.
pub enum Command {
    /// A client asks; the answer is [`Effect::Reply`] or [`Effect::Read`] of this id, exactly once.
    Request {
        /// Names it.
        id: RequestId,
        /// What is asked.
        request: Request,
        /// The raw part of its frame.
        body: Bytes,
    },
    /// A checkpoint was made, or not.
    Checkpointed {
        /// The shard's group.
        group: GroupId,
        /// How it went.
        result: Result<CheckpointDone, CheckpointError>,
    },
    /// An [`Effect::Job`] is done.
    JobDone(JobDone),
    /// An [`Effect::Scrub`] was run.
    Scrubbed(Box<ScrubStep>),
    /// An [`Effect::Fetch`] was answered, or not.
    Fetched {
        /// Its number.
        number: u64,
        /// The answer with its body.
        answer: Option<(Reply, Bytes)>,
    },
    /// How the world outside looks, for `status`.
    Surroundings {
        /// The other nodes.
        peers: Vec<PeerStatus>,
        /// The write-ahead log.
        log: LogStatus,
    },
    /// Hand over leadership, make checkpoints, and say [`Effect::ReadyToStop`].
    PrepareToStop,
}

/// What a node wants done outside.
pub enum Effect {
    /// Answer a request.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        reply: Reply,
        /// The raw part of its frame.
        body: Vec<Bytes>,
    },
    /// Answer a request by doing this work, on any thread.
    Read {
        /// The request.
        id: RequestId,
        /// What to do.
        work: ReadWork,
    },
    /// Run this on a thread that may block, and report with [`Command::Checkpointed`].
    Checkpoint {
        /// The shard's group.
        group: GroupId,
        /// What to run.
        job: CheckpointJob,
    },
    /// Run this on a thread that may block, and report with [`Command::JobDone`].
    Job(Job),
    /// Run this on a thread that may block, and report with [`Command::Scrubbed`].
    Scrub(Box<ScrubStep>),
    /// Ask another node for a record, as a client would, and report with [`Command::Fetched`] in any case.
    Fetch(Fetch),
    /// From now on these are the other nodes, with their addresses.
    Peers(Vec<(NodeId, String)>),
    /// Run this on a thread that may block: it deletes what a replica kept that is gone. Nobody waits for it.
    Delete(Box<dyn FnOnce() + Send>),
    /// Leadership is handed over as far as possible, and everything is checkpointed.
    ReadyToStop,
    /// The node must stop.
    Fail {
        /// Why.
        why: String,
    },
}

/// What a node is opened with.
pub struct NodeSetup {
    /// Its storage path.
    pub disk: Arc<dyn Disk>,
    /// Whose it is.
    pub own: Own,
    /// Where its randomness comes from.
    pub seed: u64,
    /// About how many bytes the vector files grow by at a time.
    pub extent_bytes: usize,
    /// Bounds of what waits inside.
    pub limits: Limits,
    /// When shards are checkpointed.
    pub checkpoints: CheckpointPace,
    /// Microseconds of silence after which a node's replicas are rebuilt elsewhere.
    pub node_down_after: u64,
    /// Free bytes of its disk below which writes are refused; 0 for never, `None` for what suits the disk.
    pub min_free: Option<u64>,
    /// How fast its shards are scrubbed.
    pub scrub: ScrubPace,
}

/// When a shard is checkpointed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPace {
    /// Once this many bytes were applied.
    pub bytes: u64,
    /// Every so many ticks, if anything was applied.
    pub ticks: u64,
    /// Plants a bug in the vector store: slots are reused while a durable checkpoint refers to them.
    #[cfg(feature = "canary")]
    pub canary_reuse_early: bool,
}

impl Default for CheckpointPace {
    fn default() -> Self {
        CheckpointPace {
            bytes: CHECKPOINT_BYTES,
            ticks: CHECKPOINT_TICKS,
            #[cfg(feature = "canary")]
            canary_reuse_early: false,
        }
    }
}

/// Why a node cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenNodeError(pub String);

/// A node's deterministic core.
pub struct Node {
    pub(crate) setup: NodeSetup,
    pub(crate) name: String,
    pub(crate) repl: Replicator<Machine>,
    pub(crate) pending: Pending,
    pub(crate) effects: Vec<Effect>,
    pub(crate) peers: Vec<PeerStatus>,
    pub(crate) log: LogStatus,
    pub(crate) started: Option<Now>,
    /// The time as it was last told.
    pub(crate) now: Now,
    pub(crate) halted: BTreeMap<GroupId, String>,
    pub(crate) differing: Differences,
    pub(crate) hosting: Hosting,
    pub(crate) tending: Tending,
    pub(crate) disk: DiskPace,
    pub(crate) space: SpaceWatch,
    pub(crate) scrubs: Scrubs,
    pub(crate) mends: Mends,
    pub(crate) gaps: Gaps,
    checkpoint_running: Option<GroupId>,
    checkpoint_queue: VecDeque<GroupId>,
    pub(crate) ticks: u64,
    stopping: bool,
    /// Groups that are being handed over and whose next leader is not known yet.
    handing: BTreeSet<GroupId>,
    ready_said: bool,
    strange_frames: u64,
}

impl Node {
    /// Opens a node on what its log and its disk hold.
    pub fn open(setup: NodeSetup, recovered: &Recovered, reader: WalReader) -> Result<Self, OpenNodeError> {
        let identity = setup.own.get();
        let cluster = identity.cluster.unwrap_or_default().0;
        let name = identity.node.clone();
        let repl = Replicator::new(NodeId::new(&name), cluster, setup.seed, setup.limits, reader);
        let space = SpaceWatch::new(setup.min_free);
        let mut node = Node {
            setup,
            name,
            repl,
            pending: Pending::default(),
            effects: Vec::new(),
            peers: Vec::new(),
            log: LogStatus::default(),
            started: None,
            now: Now::default(),
            halted: BTreeMap::new(),
            differing: Differences::default(),
            hosting: Hosting::default(),
            tending: Tending::default(),
            disk: DiskPace::default(),
            space,
            scrubs: Scrubs::default(),
            mends: Mends::default(),
            gaps: Gaps::default(),
            checkpoint_running: None,
            checkpoint_queue: VecDeque::new(),
            ticks: 0,
            stopping: false,
            handing: BTreeSet::new(),
            ready_said: false,
            strange_frames: 0,
        };
        node.open_groups(recovered)?;
        Ok(node)
    }

    /// Plants a bug in the replicator.
    #[cfg(feature = "canary")]
    pub fn set_canary(&mut self, canary: Option<slowdb_repl::Canary>) {
        self.repl.set_canary(canary);
    }

    fn event(&mut self, event: Event<Outcome>) {
        match event {
            Event::Leader { group, leader, term } => {
                match &leader {
                    Some(_) => self.end_gap(group),
                    None => self.gaps.begin(group, self.ticks),
                }
                let leader = leader.map_or("nobody".to_owned(), |leader| leader.to_string());
                tracing::debug!(%group, leader, term, "leader");
            }
            Event::Halted { group, why } => {
                tracing::error!(%group, why, "halted on this node");
                self.halted.insert(group, why);
            }
            Event::DigestDiffers { group, node, index } => {
                tracing::error!(%group, %node, index, "digests differ: one of two replicas is wrong");
                self.differing.note(group, node, index);
            }
            Event::Members { group } => self.tending.look_at(group),
            Event::Forwarded { group, from, body } => self.forwarded(group, &from, &body),
            Event::Acked { token, ref outcome, .. } if self.tending.is_own(token) => {
                self.own_decided(token, outcome.as_ref());
            }
            Event::Failed { token, why, .. } if self.tending.is_own(token) => {
                if let Some(id) = self.tending.forget(token) {
                    self.fail_admin(id, why);
                }
            }
            other => self.answer(other),
        }
    }

    /// Queues shards for a checkpoint whose log has grown, or that have waited long enough.
    fn queue_checkpoints(&mut self) {
        let every_change = self.ticks.is_multiple_of(self.setup.checkpoints.ticks);
        if !every_change && !self.ticks.is_multiple_of(CHECKPOINT_LOOK_TICKS) {
            return;
        }
        // A group that halted in the middle of an entry holds part of it: no checkpoint may call that all of it.
        let is_due = |machine: &Machine| {
            let bytes = machine.shard().map_or(0, ShardMachine::bytes_since);
            bytes >= self.setup.checkpoints.bytes || (every_change && bytes > 0)
        };
        let due =
            self.repl.machines().filter(|(id, machine)| is_due(machine) && !self.halted.contains_key(id));
        let due: Vec<GroupId> = due.map(|(id, _)| id).collect();
        // Nothing may have been written to these for long: they keep the log of the others.
        let awaited = self.repl.take_awaiting_checkpoint();
        if awaited.contains(&CATALOG) {
            self.hold_catalog();
        }
        for id in due.into_iter().chain(awaited).filter(|id| *id != CATALOG) {
            if !self.checkpoint_queue.contains(&id) {
                self.checkpoint_queue.push_back(id);
            }
        }
        if !self.halted.contains_key(&CATALOG) {
            self.note_catalog_checkpoint(CATALOG);
        }
    }

    fn hold_catalog(&mut self) {
        if self.halted.contains_key(&CATALOG) {
            return;
        }
        let Some(Err(error)) =
            self.repl.machine_mut(CATALOG).and_then(Machine::catalog_mut).map(CatalogMachine::hold)
        else {
            return;
        };
        tracing::warn!(%error, "the catalog is not checkpointed; the log is kept");
    }

    fn note_catalog_checkpoint(&mut self, id: GroupId) {
        if let Some(held) = self.repl.machine(id).and_then(Machine::catalog).map(CatalogMachine::held) {
            self.repl.checkpointed(id, held);
        }
    }

    /// Starts the next checkpoint, one at a time: they share the disk with the log.
    fn start_checkpoint(&mut self) {
        while self.checkpoint_running.is_none() {
            let Some(group) = self.checkpoint_queue.pop_front() else { return };
            if self.halted.contains_key(&group) {
                continue;
            }
            let Some(shard) = self.repl.machine_mut(group).and_then(Machine::shard_mut) else { continue };
            match shard.begin_checkpoint() {
                Ok(Some(job)) => {
                    self.checkpoint_running = Some(group);
                    self.effects.push(Effect::Checkpoint { group, job });
                }
                Ok(None) => {}
                Err(why) => tracing::warn!(%group, why, "no checkpoint"),
            }
        }
    }

    fn checkpointed(&mut self, group: GroupId, result: Result<CheckpointDone, CheckpointError>) {
        self.checkpoint_running = None;
        let Some(shard) = self.repl.machine_mut(group).and_then(Machine::shard_mut) else { return };
        let finished = match result {
            Ok(done) => shard.finish_checkpoint(done),
            Err(error) => Err(error.to_string()),
        };
        match finished {
            Ok(index) => self.repl.checkpointed(group, index),
            Err(why) => {
                shard.abandon_checkpoint();
                tracing::warn!(%group, why, "checkpoint failed; the log is kept");
            }
        }
    }

    /// Lets another node lead a group, whoever is ahead of the others. False if there is none.
    pub(crate) fn hand_over(&mut self, id: GroupId) -> bool {
        let is_begun = self.repl.hand_over(id);
        if is_begun {
            self.gaps.begin(id, self.ticks);
        }
        is_begun
    }

    /// Hands over what this node leads; says once when nothing is left to do.
    fn prepare_to_stop(&mut self) {
        let led: Vec<GroupId> = self.repl.led().collect();
        for id in led {
            if self.hand_over(id) {
                self.handing.insert(id);
            } else {
                self.handing.remove(&id);
            }
        }
        // A group is handed over once its next leader is heard, not once this replica has stepped down.
        let repl = &self.repl;
        let name = &self.name;
        let led_elsewhere = |id: GroupId| {
            repl.leader(id).is_none_or(|(leader, _)| leader.is_some_and(|leader| leader.as_str() != name))
        };
        self.handing.retain(|id| !led_elsewhere(*id));
        let checkpointing = self.checkpoint_running.is_some() || !self.checkpoint_queue.is_empty();
        // Whoever opens the stores next finds nobody else in them.
        let is_busy = checkpointing || self.scrubs.is_running();
        if self.handing.is_empty() && !is_busy && !self.ready_said {
            self.ready_said = true;
            self.effects.push(Effect::ReadyToStop);
        }
    }

    fn keep_up_with_catalog(&mut self) {
        if let Err(error) = self.follow_catalog() {
            self.effects.push(Effect::Fail { why: error.to_string() });
        }
    }

    /// Whether the node is about to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }
}

impl Core for Node {
    type Command = Command;
    type Effect = Effect;

    fn command(&mut self, now: Now, command: Command) {
        match command {
            Command::Request { id, request, body } => self.request(now, id, request, body),
            Command::Checkpointed { group, result } => self.checkpointed(group, result),
            Command::JobDone(done) => self.repl.job_done(done),
            Command::Scrubbed(step) => self.scrubbed(step),
            Command::Fetched { number, answer } => self.fetched(number, answer),
            Command::Surroundings { peers, log } => {
                self.peers = peers;
                self.log = log;
            }
            Command::PrepareToStop => {
                self.stopping = true;
                let shards: Vec<GroupId> = self.repl.groups().filter(|id| *id != CATALOG).collect();
                self.checkpoint_queue = shards.into();
                self.prepare_to_stop();
            }
        }
    }

    fn receive(&mut self, _now: Now, from: &NodeId, meta: &[u8], body: &Bytes) {
        if let Err(error) = self.repl.receive(from, meta, body) {
            self.strange_frames += 1;
            if self.strange_frames <= STRANGE_FRAMES_LOGGED || error != WireError::OtherCluster {
                tracing::warn!(node = %from, %error, "dropped a frame");
            }
        }
    }

    fn unreachable(&mut self, _now: Now, node: &NodeId) {
        self.repl.unreachable(node);
    }

    fn tick(&mut self, now: Now) {
        self.ticks += 1;
        self.now = now;
        self.started.get_or_insert(now);
        let mut events = Vec::new();
        self.repl.tick(now, &mut events);
        events.into_iter().for_each(|event| self.event(event));
        self.expire_sessions();
        if self.ticks % SPACE_LOOK_TICKS == 1 {
            self.look_at_space(now);
            let repl = &self.repl;
            self.differing.look(|group| repl.view(group).map_or(Vec::new(), |view| view.followers));
        }
        self.meet();
        self.tend(now);
        self.queue_checkpoints();
        self.tend_scrub(now);
        self.tend_mends();
        self.look_at_gaps();
        if self.stopping {
            self.prepare_to_stop();
        }
    }

    fn persisted(&mut self, now: Now, batch: u64, locations: &[Location]) -> Vec<Outgoing> {
        self.disk.durable(batch, now);
        self.delete_gone(batch);
        let messages = self.repl.persisted(batch, locations);
        // A snapshot of the catalog may have been switched to: requests that come before the next flush see all of it.
        self.keep_up_with_catalog();
        messages
    }

    fn flush(&mut self, now: Now) -> Turn<Effect> {
        let output = self.repl.flush(now);
        output.events.into_iter().for_each(|event| self.event(event));
        self.look_at_sessions();
        if let Some(batch) = &output.batch {
            self.hosting.gone_with(batch.number);
            self.disk.handed_out(batch.number, now);
        }
        self.keep_up_with_catalog();
        self.effects.extend(output.jobs.into_iter().map(Effect::Job));
        self.start_checkpoint();
        Turn { messages: output.messages, batch: output.batch, effects: std::mem::take(&mut self.effects) }
    }
}
