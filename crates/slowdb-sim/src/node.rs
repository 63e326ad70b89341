//! One simulated node: the real core on a simulated disk, driven in the order in which the real driver does it.
//!
//! Time, network and clients are the cluster's business. What a turn asks for comes back as a list of [`Wish`]es.

use crate::events::Stop;
use crate::identity::{has_to_ask, others};
use crate::options::Options;
use crate::random::Random;
use bytes::Bytes;
use slowdb_disk::{Disk, SimDisk};
use slowdb_proto::Reply;
use slowdb_repl::driver::Core;
use slowdb_repl::wal::{Location, Record, Wal, WalError, WalOptions};
use slowdb_repl::{Batch, GroupId, Job, Limits, NodeId, Now, Outgoing};
use slowdb_server::{
    CheckpointPace, Command, Effect, Fetch, GroupProbe, Identity, Node, NodeSetup, Own, RequestId, ScrubPace,
    ScrubStep,
};
use slowdb_storage::CheckpointJob;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Inputs that the real driver takes in one turn.
const INPUTS_PER_TURN: usize = 256;

/// Silence after which replicas are rebuilt elsewhere, in runs in which they are not to be.
const NODE_DOWN_AFTER: u64 = 30_000_000;

/// Small steps, so that a scrub of a shard of some hundred records goes on while it is written to.
const SCRUB: ScrubPace = ScrubPace { bytes_per_second: 40 * 1024, pause_ticks: 100 };

/// What arrives at a node.
pub(crate) enum Input {
    Frame { from: usize, meta: Bytes, body: Bytes },
    Unreachable { node: usize },
    Command(Command),
}

/// What a node wants done outside.
pub(crate) enum Wish {
    Send(Outgoing),
    Answer {
        client: usize,
        attempt: u64,
        reply: Reply,
        body: Vec<Bytes>,
    },
    Checkpoint {
        group: GroupId,
        job: CheckpointJob,
    },
    Job(Job),
    /// Another node is asked for a record.
    Fetch(Fetch),
    /// These are the other nodes now.
    Peers(BTreeSet<String>),
    /// The log has written an entry.
    Logged {
        term: u64,
        index: u64,
        data: Bytes,
    },
    /// The log has something to sync.
    Sync,
    /// The log has nothing to do: if that stays so, it is marked.
    Idle,
    /// It is ready to be stopped, as it was asked to be.
    ReadyToStop,
    /// It has to stop.
    Stop(String),
}

/// What the log has written and is about to sync.
struct Syncing {
    batch: u64,
    locations: Vec<Location>,
    frees: bool,
}

pub(crate) struct Running {
    core: Node,
    pub(crate) own: Own,
    wal: Wal,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) wake_scheduled: bool,
    /// It was asked to stop, and will.
    pub(crate) stops: bool,
    ticked: bool,
    queue: VecDeque<Batch>,
    syncing: Option<Syncing>,
    /// A step of the scrub, which is run at the next turn. Nothing is woken for it.
    scrubbing: Option<Box<ScrubStep>>,
    /// The last batch handed to the log.
    last_batch: u64,
    /// Request → client and attempt.
    requests: BTreeMap<u64, (usize, u64)>,
    next_request: u64,
    /// The groups as they were when last looked at, sorted.
    probes: Vec<GroupProbe>,
    /// As they were before that: what is filled anew.
    probes_before: Vec<GroupProbe>,
    /// The catalog's epoch then.
    pub(crate) catalog_epoch: u64,
    /// Names of the nodes that it holds connections to.
    pub(crate) peers: BTreeSet<String>,
}

pub(crate) struct SimNode {
    pub(crate) index: usize,
    pub(crate) name: NodeId,
    pub(crate) disk: SimDisk,
    /// Its process is there, or comes back by itself.
    pub(crate) present: bool,
    /// On an empty disk it joins the cluster that is there, and founds none.
    pub(crate) joins: bool,
    /// Its disk is lost, and what the cluster knows of it was not removed yet.
    pub(crate) lost: bool,
    /// It wants to join, and has not been answered.
    pub(crate) asking: Option<Identity>,
    /// Group → replica on its disk, as far as was seen.
    pub(crate) held: BTreeMap<u64, u64>,
    pub(crate) running: Option<Running>,
    /// Counts starts and stops: what was meant for an earlier life is void.
    pub(crate) life: u32,
    pub(crate) paused_until: u64,
    pub(crate) slow_until: u64,
    pub(crate) slow_factor: u64,
    pub(crate) wall_offset: i64,
    /// A sync was made to fail since its power was last lost: it may stop, or halt groups.
    pub(crate) disk_failed: bool,
    /// Its disk has been given little room.
    pub(crate) disk_full: bool,
    /// So many bits of its disk flip once it has closed its log.
    pub(crate) rots: u64,
    /// Bits of its disk have flipped.
    pub(crate) rotten: bool,
    random: Random,
}

/// What changed in a group since it was last looked at.
pub(crate) struct Change {
    pub(crate) before: Option<GroupProbe>,
    pub(crate) after: GroupProbe,
}

pub(crate) fn node_name(index: usize) -> String {
    format!("n{index}")
}

impl SimNode {
    pub(crate) fn new(index: usize, random: Random) -> Self {
        SimNode {
            index,
            name: NodeId::new(&node_name(index)),
            disk: SimDisk::new(),
            present: false,
            joins: false,
            lost: false,
            asking: None,
            held: BTreeMap::new(),
            running: None,
            life: 0,
            paused_until: 0,
            slow_until: 0,
            slow_factor: 1,
            wall_offset: 0,
            disk_failed: false,
            disk_full: false,
            rots: 0,
            rotten: false,
            random,
        }
    }

    /// A number of its own stream.
    pub(crate) fn draw(&mut self) -> u64 {
        self.random.next()
    }

    fn now(&self, micros: u64) -> Now {
        let wall = 1_700_000_000_000 + (micros / 1000) as i64 + self.wall_offset;
        Now { micros, wall_millis: wall as u64 }
    }

    /// Starts it on what its disk holds. It runs then, or it has to ask first whether it may join: see
    /// [`SimNode::join_request`]. An error says why it cannot.
    pub(crate) fn start(&mut self, options: &Options) -> Result<(), String> {
        self.life += 1;
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let identity = self.identify(options, &*disk)?;
        if has_to_ask(&identity) {
            self.asking = Some(identity);
            return Ok(());
        }
        let peers = others(&identity);
        let log_id = u64::from_le_bytes(identity.storage[..8].try_into().expect("8 of 16 bytes"));
        let instance = self.random.next();
        let own = Own::new(Arc::clone(&disk), identity, instance);
        let (wal, recovered) = Wal::open(Arc::clone(&disk), "wal", wal_options(options, log_id))
            .map_err(|error| error.to_string())?;
        let setup = NodeSetup {
            disk,
            own: own.clone(),
            seed: instance,
            extent_bytes: options.disk.extent_bytes,
            limits: limits(options),
            checkpoints: checkpoint_pace(options),
            node_down_after: options.changes.map_or(NODE_DOWN_AFTER, |changes| changes.node_down_after),
            // Disks that get full are a fault of their own.
            min_free: Some(0),
            scrub: SCRUB,
        };
        // The checkers are to find a planted bug, in the runs that they always found it in.
        #[cfg(feature = "canary")]
        let setup = match options.bug {
            Some(_) => NodeSetup { scrub: ScrubPace { bytes_per_second: 0, ..SCRUB }, ..setup },
            None => setup,
        };
        let core = Node::open(setup, &recovered, wal.reader()).map_err(|error| error.to_string())?;
        #[cfg(feature = "canary")]
        let core = plant(core, options);
        self.running = Some(Running {
            core,
            own,
            wal,
            inbox: VecDeque::new(),
            wake_scheduled: false,
            stops: false,
            ticked: false,
            queue: VecDeque::new(),
            syncing: None,
            scrubbing: None,
            last_batch: 0,
            requests: BTreeMap::new(),
            next_request: 1,
            probes: Vec::new(),
            probes_before: Vec::new(),
            catalog_epoch: 0,
            peers,
        });
        Ok(())
    }

    /// Takes it away. What it holds of its disk is gone before the disk loses anything.
    pub(crate) fn stop(&mut self, how: Stop) {
        self.running = None;
        self.asking = None;
        self.life += 1;
        if how == Stop::PowerLoss {
            let random = &mut self.random;
            self.disk = self.disk.crash(&mut || random.next());
        }
    }

    /// Whether its disk gives it reason to stop, or to halt groups.
    pub(crate) fn has_bad_disk(&self) -> bool {
        self.disk_failed || self.disk_full
    }

    /// A client's request arrived.
    pub(crate) fn request(
        &mut self,
        client: usize,
        attempt: u64,
        request: slowdb_proto::Request,
        body: Bytes,
    ) {
        let Some(running) = &mut self.running else { return };
        let id = running.next_request;
        running.next_request += 1;
        running.requests.insert(id, (client, attempt));
        let command = Command::Request { id: RequestId(id), request, body };
        running.inbox.push_back(Input::Command(command));
    }

    /// Requests that were not answered yet.
    pub(crate) fn requests_open(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.requests.len())
    }

    /// Notes that a tick is due; several that fall together are one.
    pub(crate) fn tick(&mut self) {
        if let Some(running) = &mut self.running {
            running.ticked = true;
        }
    }

    /// One turn: hears what has arrived, thinks once, says what is to be done.
    pub(crate) fn turn(
        &mut self,
        micros: u64,
        names: &[NodeId],
        wishes: &mut Vec<Wish>,
    ) -> Result<(), WalError> {
        let now = self.now(micros);
        let Some(running) = &mut self.running else { return Ok(()) };
        running.wake_scheduled = false;
        if let Some(step) = running.scrubbing.take() {
            let step = step.run();
            if let Some(bad) = step.bad().first().filter(|_| !self.rotten) {
                wishes.push(Wish::Stop(format!("the scrub found damage: {bad}")));
            }
            running.core.command(now, Command::Scrubbed(step));
        }
        if std::mem::take(&mut running.ticked) {
            running.core.tick(now);
        }
        for _ in 0..INPUTS_PER_TURN {
            match running.inbox.pop_front() {
                Some(Input::Frame { from, meta, body }) => {
                    running.core.receive(now, &names[from], &meta, &body)
                }
                Some(Input::Unreachable { node }) => running.core.unreachable(now, &names[node]),
                Some(Input::Command(command)) => running.core.command(now, command),
                None => break,
            }
        }
        running.flush(now, wishes)
    }

    /// The sync that was under way is done: reports it, and begins the next if something is queued.
    pub(crate) fn synced(&mut self, micros: u64, wishes: &mut Vec<Wish>) -> Result<(), WalError> {
        let now = self.now(micros);
        let Some(running) = &mut self.running else { return Ok(()) };
        let Some(done) = running.syncing.take() else { return Ok(()) };
        running.wal.sync()?;
        let messages = running.core.persisted(now, done.batch, &done.locations);
        wishes.extend(messages.into_iter().map(Wish::Send));
        if done.frees {
            running.wal.release()?;
        }
        running.flush(now, wishes)?;
        running.write_queued(wishes)?;
        if running.syncing.is_none() {
            wishes.push(Wish::Idle);
        }
        Ok(())
    }

    /// The last batch that the log was given, as long as it is not busy with it.
    pub(crate) fn idle_since(&self) -> Option<u64> {
        self.running.as_ref().filter(|running| running.syncing.is_none()).map(|running| running.last_batch)
    }

    /// The log was idle for a while.
    pub(crate) fn mark(&mut self) -> Result<(), WalError> {
        self.running.as_mut().map_or(Ok(()), |running| running.wal.mark())
    }

    /// The end of a process that was asked to stop: the log is closed.
    pub(crate) fn close(&mut self) -> Result<(), WalError> {
        self.running.take().map_or(Ok(()), |running| running.wal.close())
    }

    /// Looks at all groups and says what is different, and which there were and are no more.
    pub(crate) fn changes(&mut self, mut see: impl FnMut(&Node, Change), mut gone: impl FnMut(GroupProbe)) {
        let Some(running) = &mut self.running else { return };
        std::mem::swap(&mut running.probes, &mut running.probes_before);
        running.probes.clear();
        running.core.probe(|probe| running.probes.push(probe));
        let mut before = running.probes_before.iter().peekable();
        for after in &running.probes {
            while let Some(lost) = before.next_if(|before| before.group < after.group) {
                gone(*lost);
            }
            let before = before.next_if(|before| before.group == after.group);
            if before != Some(after) {
                see(&running.core, Change { before: before.copied(), after: *after });
            }
        }
        before.copied().for_each(gone);
    }

    /// The groups as they were when last looked at.
    pub(crate) fn probes(&self) -> &[GroupProbe] {
        self.running.as_ref().map_or(&[], |running| &running.probes)
    }

    /// Each term of a shard's history with the index at which it begins.
    pub(crate) fn terms(&self, group: GroupId) -> Option<Vec<(u64, u64)>> {
        self.running.as_ref()?.core.terms(group)
    }

    /// A group of which it keeps writes that were overtaken.
    pub(crate) fn quarantines(&self) -> Option<GroupId> {
        self.running.as_ref()?.core.quarantined_groups().next()
    }

    pub(crate) fn why_halted(&self, group: GroupId) -> String {
        let why = self.running.as_ref().and_then(|running| running.core.halted(group));
        why.unwrap_or("unknown").to_owned()
    }

    pub(crate) fn check_invariants(&self) {
        if let Some(running) = &self.running {
            running.core.check_invariants();
        }
    }
}

impl Running {
    /// The real core.
    pub(crate) fn core(&self) -> &Node {
        &self.core
    }

    fn flush(&mut self, now: Now, wishes: &mut Vec<Wish>) -> Result<(), WalError> {
        let turn = self.core.flush(now);
        wishes.extend(turn.messages.into_iter().map(Wish::Send));
        if let Some(batch) = turn.batch {
            self.last_batch = batch.number;
            self.queue.push_back(batch);
            if self.syncing.is_none() {
                self.write_queued(wishes)?;
            }
        }
        for effect in turn.effects {
            match effect {
                Effect::Reply { id, reply, body } => wishes.push(self.answer(id, reply, body)),
                Effect::Read { id, work } => {
                    let (reply, body) = work.run();
                    wishes.push(self.answer(id, reply, body));
                }
                Effect::Checkpoint { group, job } => wishes.push(Wish::Checkpoint { group, job }),
                Effect::Job(job) => wishes.push(Wish::Job(job)),
                Effect::Scrub(step) => self.scrubbing = Some(step),
                Effect::Fetch(fetch) => wishes.push(Wish::Fetch(fetch)),
                Effect::Peers(peers) => {
                    let names = peers.into_iter().map(|(node, _)| node.as_str().to_owned());
                    wishes.push(Wish::Peers(names.collect()));
                }
                Effect::Delete(work) => work(),
                Effect::Fail { why } => wishes.push(Wish::Stop(why)),
                Effect::ReadyToStop => wishes.push(Wish::ReadyToStop),
            }
        }
        Ok(())
    }

    fn answer(&mut self, id: RequestId, reply: Reply, body: Vec<Bytes>) -> Wish {
        let asked = self.requests.remove(&id.0);
        let (client, attempt) = asked.unwrap_or_else(|| panic!("{id:?} was answered twice, with {reply:?}"));
        Wish::Answer { client, attempt, reply, body }
    }

    /// The log's thread: appends all that is queued, to be made durable with one sync.
    fn write_queued(&mut self, wishes: &mut Vec<Wish>) -> Result<(), WalError> {
        let mut syncing = Syncing { batch: 0, locations: Vec::new(), frees: false };
        while let Some(batch) = self.queue.pop_front() {
            self.wal.append(&batch.records, &mut syncing.locations)?;
            syncing.batch = batch.number;
            wishes.extend(batch.records.iter().filter_map(|record| match record {
                Record::Entry { term, index, data, kind: 0, .. } => {
                    Some(Wish::Logged { term: *term, index: *index, data: data.clone() })
                }
                _ => None,
            }));
            syncing.frees |= batch.records.iter().any(|record| matches!(record, Record::Compacted { .. }));
        }
        if syncing.batch > 0 {
            self.syncing = Some(syncing);
            wishes.push(Wish::Sync);
        }
        Ok(())
    }
}

fn wal_options(options: &Options, log_id: u64) -> WalOptions {
    WalOptions {
        segment_bytes: options.disk.segment_bytes,
        spare_segments: options.disk.spare_segments,
        log_id,
        #[cfg(feature = "canary")]
        chain_not_checked: options.bug == Some(crate::Bug::ChainNotChecked),
    }
}

fn limits(options: &Options) -> Limits {
    // Segments are small, and so is what they have to hold.
    let entry_bytes_max = usize::try_from(wal_options(options, 0).data_bytes_max()).unwrap_or(usize::MAX);
    let limits = Limits { entry_bytes_max, ..Limits::default() };
    let Some(changes) = options.changes else { return limits };
    Limits {
        retained_bytes_per_group: changes.retained_bytes,
        snapshot_bytes_per_second: changes.snapshot_bytes_per_second,
        ..limits
    }
}

fn checkpoint_pace(options: &Options) -> CheckpointPace {
    CheckpointPace {
        bytes: options.disk.checkpoint_bytes,
        ticks: options.disk.checkpoint_ticks,
        #[cfg(feature = "canary")]
        canary_reuse_early: options.bug == Some(crate::Bug::SlotReusedEarly),
    }
}

#[cfg(feature = "canary")]
fn plant(mut core: Node, options: &Options) -> Node {
    use crate::Bug;
    use slowdb_repl::Canary;
    use slowdb_server::Canary as Server;
    core.set_canary(match options.bug {
        Some(Bug::AckBeforeSync) => Some(Canary::AckBeforeSync),
        Some(Bug::VoteNotPersisted) => Some(Canary::VoteNotPersisted),
        Some(Bug::ReadWithoutMajority) => Some(Canary::ReadWithoutMajority),
        Some(Bug::TermNotChecked) => Some(Canary::TermNotChecked),
        Some(Bug::LearnerCounted) => Some(Canary::LearnerCounted),
        Some(Bug::JointSkipped) => Some(Canary::JointSkipped),
        Some(Bug::StaleExecutor) => Some(Canary::StaleIntent),
        Some(Bug::CutNotKept) => Some(Canary::CutNotKept),
        Some(Bug::ReplacedNotKept) => Some(Canary::ReplacedNotKept),
        Some(Bug::SettledUnheard) => Some(Canary::SettledUnheard),
        Some(Bug::RestsUnsettled) => Some(Canary::RestsUnsettled),
        Some(_) | None => None,
    });
    slowdb_server::plant(match options.bug {
        Some(Bug::RemovalFirst) => Some(Server::RemovalFirst),
        Some(Bug::RemovalByWish) => Some(Server::RemovalByWish),
        Some(Bug::SnapshotWithoutTerms) => Some(Server::SnapshotWithoutTerms),
        Some(Bug::ReplicaIdReused) => Some(Server::ReplicaIdReused),
        Some(Bug::StaleExecutor) => Some(Server::StaleExecutor),
        Some(Bug::RetryExecuted) => Some(Server::RetryExecuted),
        Some(Bug::ConditionByLeader) => Some(Server::ConditionByLeader),
        Some(Bug::LateAppliedAgain) => Some(Server::LateAppliedAgain),
        Some(Bug::TombstonesDropped) => Some(Server::TombstonesDropped),
        Some(Bug::SessionNotAwaited) => Some(Server::SessionNotAwaited),
        Some(Bug::PolicyIgnored) => Some(Server::PolicyIgnored),
        Some(Bug::SiblingDropped) => Some(Server::SiblingDropped),
        Some(Bug::ReplayedAgain) => Some(Server::ReplayedAgain),
        Some(_) | None => None,
    });
    core
}
