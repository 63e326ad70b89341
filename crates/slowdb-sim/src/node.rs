//! One simulated node: the real core on a simulated disk, driven in the order in which the real driver does it.
//!
//! Time, network and clients are the cluster's business. What a turn asks for comes back as a list of [`Wish`]es.

use crate::events::Stop;
use crate::keys::DIMENSION;
use crate::options::Options;
use crate::random::Random;
use bytes::Bytes;
use slowdb_disk::{Disk, SimDisk};
use slowdb_proto::{Metric, Reply};
use slowdb_repl::driver::Core;
use slowdb_repl::wal::{Location, Record, Wal, WalError, WalOptions};
use slowdb_repl::{Batch, FinishJob, GroupId, Limits, NodeId, Now, Outgoing};
use slowdb_server::{
    CheckpointPace, Command, Effect, Founding, GroupProbe, Identity, Node, NodeSetup, Own, RequestId,
};
use slowdb_storage::CheckpointJob;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Inputs that the real driver takes in one turn.
const INPUTS_PER_TURN: usize = 256;

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
    Job {
        group: GroupId,
        work: FinishJob,
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
    ticked: bool,
    queue: VecDeque<Batch>,
    syncing: Option<Syncing>,
    /// The last batch handed to the log.
    last_batch: u64,
    /// Request → client and attempt.
    requests: BTreeMap<u64, (usize, u64)>,
    next_request: u64,
    probes: Vec<GroupProbe>,
}

pub(crate) struct SimNode {
    pub(crate) name: NodeId,
    pub(crate) disk: SimDisk,
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
            name: NodeId::new(&node_name(index)),
            disk: SimDisk::new(),
            running: None,
            life: 0,
            paused_until: 0,
            slow_until: 0,
            slow_factor: 1,
            wall_offset: 0,
            disk_failed: false,
            disk_full: false,
            random,
        }
    }

    fn now(&self, micros: u64) -> Now {
        let wall = 1_700_000_000_000 + (micros / 1000) as i64 + self.wall_offset;
        Now { micros, wall_millis: wall as u64 }
    }

    /// Starts it on what its disk holds. An error says why it cannot.
    pub(crate) fn start(&mut self, options: &Options) -> Result<(), String> {
        self.life += 1;
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let identity = match Identity::load(&*disk).map_err(|error| error.to_string())? {
            Some(identity) => identity,
            None => self.identify(options, &*disk)?,
        };
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
            limits: Limits::default(),
            checkpoints: checkpoint_pace(options),
            node_down_after: 30_000_000,
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
            ticked: false,
            queue: VecDeque::new(),
            syncing: None,
            last_batch: 0,
            requests: BTreeMap::new(),
            next_request: 1,
            probes: Vec::new(),
        });
        Ok(())
    }

    fn identify(&mut self, options: &Options, disk: &dyn Disk) -> Result<Identity, String> {
        if disk.exists("wal").map_err(|error| error.to_string())? {
            return Err("there is a log, but no identity".into());
        }
        let mut storage = [0; 16];
        storage[..8].copy_from_slice(&self.random.next().to_le_bytes());
        storage[8..].copy_from_slice(&self.random.next().to_le_bytes());
        let address = |index: usize| (node_name(index), format!("{}:8000", node_name(index)));
        let founding = Founding {
            nodes: (0..options.nodes).map(address).collect(),
            zone: None,
            dimension: DIMENSION as u32,
            metric: Metric::L2,
            num_shards: options.shards,
            virtual_nodes: 3,
            replication_factor: options.replication_factor,
            weight: 1,
        };
        let node = self.name.as_str().to_owned();
        let identity = Identity {
            node,
            storage,
            cluster: None,
            founding,
            joined: None,
            known: Vec::new(),
            peers: BTreeMap::new(),
        };
        identity.save(disk).map_err(|error| error.to_string())?;
        Ok(identity)
    }

    /// Takes it away. What it holds of its disk is gone before the disk loses anything.
    pub(crate) fn stop(&mut self, how: Stop) {
        self.running = None;
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

    /// Looks at all groups and says what is different.
    pub(crate) fn changes(&mut self, mut see: impl FnMut(Change)) {
        let Some(running) = &mut self.running else { return };
        let mut at = 0;
        let probes = &mut running.probes;
        running.core.probe(|after| {
            let before = probes.get(at).copied();
            if before != Some(after) {
                see(Change { before, after });
                if at < probes.len() { probes[at] = after } else { probes.push(after) }
            }
            at += 1;
        });
    }

    /// The groups as they were when last looked at.
    pub(crate) fn probes(&self) -> &[GroupProbe] {
        self.running.as_ref().map_or(&[], |running| &running.probes)
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
                Effect::Job { group, work } => wishes.push(Wish::Job { group, work }),
                Effect::Peers(_) => {}
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
    core.set_canary(match options.bug {
        Some(Bug::AckBeforeSync) => Some(Canary::AckBeforeSync),
        Some(Bug::VoteNotPersisted) => Some(Canary::VoteNotPersisted),
        Some(Bug::ReadWithoutMajority) => Some(Canary::ReadWithoutMajority),
        Some(Bug::TermNotChecked) => Some(Canary::TermNotChecked),
        Some(Bug::ChainNotChecked | Bug::SlotReusedEarly) | None => None,
    });
    core
}
