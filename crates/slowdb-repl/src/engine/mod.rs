//! The consensus engine of one group: TiKV's `raft` crate behind an interface of ours.
//!
//! Nothing outside this module names that crate, so it could be replaced. What has to be got right around
//! it, and where that is done:
//! - nothing is stepped, proposed or ticked between `ready()` and `advance_append_async`: [`Engine::flush`];
//! - messages of a leader leave at once, those of others only when what they rest on is durable:
//!   [`Flushed::send`] and [`Flushed::held`];
//! - a group's only voter elects itself before its term is durable, and could lead that term a second time
//!   after a power loss: until then its messages are held as well;
//! - entries are added to an append that waits to be sent, without a look at where it begins:
//!   [`Engine::aligned`];
//! - the only randomness inside, the election time-out, is replaced by a function of seed and state after
//!   every call that may have redrawn it: [`Engine::fix_timeout`];
//! - followers never forward proposals, and forwarded ones are not taken from the network: [`Engine::propose`]
//!   and the `wire` module;
//! - a commit index beyond the end of the log panics inside, and so does a confirmation beyond it:
//!   [`Engine::step`] refuses them first;
//! - an applied index beyond the persisted commit panics at start: [`Engine::open`] raises the commit;
//! - a change of members takes effect when it is applied, and is kept with the index that made it so: what is
//!   applied again after a restart is known by it ([`Engine::apply_members`]);
//! - the state machine may hold durably what was applied after a change of members that was not written down yet:
//!   what the log says of members up to there is applied again when it is opened ([`caught_up`]);
//! - changes of members are read as protobuf only where they are proposed; the log and the network carry an
//!   encoding of ours ([`log::data_of`]);
//! - a second change while one is pending becomes an empty entry without an error, so it is refused first:
//!   [`Engine::propose_members`];
//! - a leader that is removed, or demoted, does not step down: it is made to ([`Engine::apply_members`]);
//! - a joint configuration is left by a proposal of ours, never by the engine;
//! - the engine never sends snapshots: it is told that there is none yet, and the receiver's engine is handed one
//!   when it is durable there, as if its leader had just sent it ([`Engine::restore`]). So there is nothing to report;
//! - groups begin at index 1, which no entry has: a new replica has too little log to begin with, always, and gets a
//!   snapshot, which says who the members are;
//! - read requests are dropped without a word before the leader has committed in its term:
//!   [`Engine::read`] says so, the caller retries with a fresh context.

#![expect(
    clippy::field_reassign_with_default,
    reason = "the generated messages have fields that are not ours to name"
)]

mod beats;
mod log;
mod members;
mod restore;
pub(crate) mod wire;

use crate::ids::{Membership, ReplicaId};
use crate::quarantine::CutEntry;
use crate::wal::{HardState, Location, Record, RecoveredGroup, WalReader};
pub(crate) use beats::Beat;
use bytes::Bytes;
use log::{GroupLog, data_of, kind_to_byte};
pub(crate) use members::caught_up;
pub(crate) use raft::eraftpb::Message;
use raft::eraftpb::{EntryType, MessageType};
use raft::{Config, RawNode, StateRole};
use std::collections::BTreeSet;
use xxhash_rust::xxh3::xxh3_64;

/// Where a new group's log begins: its first entry follows on this.
pub(crate) const INITIAL: (u64, u64) = (1, 1);
/// Ticks between heartbeats of a leader.
pub(crate) const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a leader after which an election may start; drawn from this to twice this.
pub(crate) const ELECTION_TICKS: usize = 12;
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
const MESSAGES_IN_FLIGHT_MAX: usize = 64;
const UNCOMMITTED_BYTES_MAX: u64 = 64 * 1024 * 1024;
const APPLY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A replica's part in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// Orders the proposals.
    Leader,
    /// Follows.
    Follower,
    /// Asks for votes, or whether it would get them.
    Candidate,
}

/// A committed entry, in the order of the log.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) term: u64,
    pub(crate) index: u64,
    /// Whether it is a change of members.
    pub(crate) members: bool,
    pub(crate) data: Bytes,
}

/// What has to be done after the engine was fed.
#[derive(Default)]
pub(crate) struct Flushed {
    /// To send now.
    pub(crate) send: Vec<Message>,
    /// Entries that the records cut, and the index up to which the log stays as it is.
    pub(crate) cut: Vec<CutEntry>,
    pub(crate) fork: u64,
    /// To make durable, in this order.
    pub(crate) records: Vec<Record>,
    /// (term, index) of the entries among the records, in order.
    pub(crate) entries: Vec<(u64, u64)>,
    /// Number to hand to [`Engine::persisted`] once the records are durable.
    pub(crate) ready: u64,
    /// To send only then.
    pub(crate) held: Vec<Message>,
    /// The log goes on from this index, where a snapshot was made. It is applied once the records are durable.
    pub(crate) restored: Option<u64>,
    /// To apply.
    pub(crate) committed: Vec<Committed>,
    /// Reads that a majority has confirmed: (context, index that must be applied first).
    pub(crate) reads: Vec<(u64, u64)>,
}

/// How far another replica is, as its leader sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) replica: ReplicaId,
    pub(crate) matched: u64,
    pub(crate) active: bool,
}

/// Why a group cannot go on as what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The log ends before what was applied.
    #[error(
        "the log ends at {last}, but {applied} was applied: synced log was lost, so this replica cannot vote again"
    )]
    LogLost {
        /// Last entry in the log.
        last: u64,
        /// Last entry applied.
        applied: u64,
    },
    /// What the state machine holds is older than the log that is left.
    #[error(
        "the state machine holds {applied}, but the log begins after {compacted}: its checkpoint was lost"
    )]
    CheckpointLost {
        /// Last entry applied.
        applied: u64,
        /// Last entry that was removed from the log.
        compacted: u64,
    },
    /// A leader speaks of entries as committed that this replica had and has no more.
    #[error("the leader knows this replica to hold {commit}, its log ends at {last}: synced log was lost")]
    BehindOwnPast {
        /// Commit index for this replica.
        commit: u64,
        /// Last entry in the log.
        last: u64,
    },
    /// An entry that was applied cannot be read any more.
    #[error("entry {index} cannot be read: {why}")]
    Unreadable {
        /// The entry.
        index: u64,
        /// Why.
        why: String,
    },
    /// The engine refuses its configuration.
    #[error("consensus engine: {0}")]
    Config(String),
}

pub(crate) struct Engine {
    raw: RawNode<GroupLog>,
    seed: u64,
    /// The ready with a term or vote that is not durable yet.
    term_unsaved: Option<u64>,
    /// The membership that comes with the snapshot that the engine was handed.
    restoring: Option<Membership>,
    /// The commit index moved since the hard state was last handed out to be made durable.
    commit_unsaved: bool,
    #[cfg(feature = "canary")]
    canary: Option<crate::Canary>,
}

impl Engine {
    /// Opens the engine of a group: a new one, or one that goes on from what the log holds. `applied` is what
    /// the state machine holds durably.
    pub(crate) fn open(
        membership: &Membership,
        recovered: Option<&RecoveredGroup>,
        applied: u64,
        reader: WalReader,
        seed: u64,
    ) -> Result<Self, EngineError> {
        let mut group_log = GroupLog::new(membership, reader);
        match recovered {
            Some(recovered) => group_log.recover(recovered),
            None if membership.members.is_empty() => {}
            None => group_log.restore(INITIAL.0, INITIAL.1, membership),
        }
        // What a new group begins with is nothing, and held by any state machine.
        let applied = if group_log.first() == INITIAL.0 + 1 { applied.max(INITIAL.0) } else { applied };
        if group_log.last() < applied {
            return Err(EngineError::LogLost { last: group_log.last(), applied });
        }
        if group_log.first() > applied + 1 {
            return Err(EngineError::CheckpointLost { applied, compacted: group_log.first() - 1 });
        }
        group_log.raise_commit(applied.max(membership.index));
        if group_log.hard_state().commit > group_log.last() {
            let hard_state = group_log.hard_state();
            return Err(EngineError::LogLost { last: group_log.last(), applied: hard_state.commit });
        }
        let config = Config {
            id: membership.own.0,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: APPLY_BYTES_MAX,
            ..Config::default()
        };
        // The engine's own log lines are of use to its developers; what matters is logged around it.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw =
            RawNode::new(&config, group_log, &logger).map_err(|e| EngineError::Config(e.to_string()))?;
        let mut engine = Engine {
            raw,
            seed,
            term_unsaved: None,
            restoring: None,
            commit_unsaved: false,
            #[cfg(feature = "canary")]
            canary: None,
        };
        engine.fix_timeout();
        Ok(engine)
    }

    #[cfg(feature = "canary")]
    pub(crate) fn set_canary(&mut self, canary: Option<crate::Canary>) {
        self.canary = canary;
    }

    /// The time-out is a function of seed, replica and term, so that whole runs replay exactly: whatever the
    /// engine drew from its own source is overwritten after every call that may have drawn.
    fn fix_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        let mut key = [0; 24];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&raft.id.to_le_bytes());
        key[16..].copy_from_slice(&raft.term.to_le_bytes());
        let draw = xxh3_64(&key) as usize % ELECTION_TICKS;
        raft.set_randomized_election_timeout(ELECTION_TICKS + draw);
    }

    /// Time passes. False if that changed nothing but how late it is.
    pub(crate) fn tick(&mut self) -> bool {
        if self.is_restoring() {
            self.raw.raft.election_elapsed = 0;
        }
        let did_more = self.raw.tick();
        if did_more {
            self.fix_timeout();
        }
        did_more
    }

    /// A message arrived from a member.
    pub(crate) fn step(&mut self, message: Message) -> Result<(), EngineError> {
        let last = self.last_index();
        let own_term = self.raw.raft.term;
        if message.msg_type == MessageType::MsgHeartbeat && message.term >= own_term && message.commit > last
        {
            return Err(EngineError::BehindOwnPast { commit: message.commit, last });
        }
        // Nobody can hold more than the leader of the term has ordered; the engine would try to send what follows.
        if message.msg_type == MessageType::MsgAppendResponse && !message.reject && message.index > last {
            return Ok(());
        }
        if message.msg_type == MessageType::MsgTimeoutNow && self.is_restoring() {
            return Ok(());
        }
        #[cfg(feature = "canary")]
        let message = self.distort(message);
        // An error means that the message is not for this state of affairs, which the protocol survives.
        let _ = self.raw.step(message);
        self.fix_timeout();
        Ok(())
    }

    /// Planted bug: an append of a deposed leader is taken for one of the present term.
    #[cfg(feature = "canary")]
    fn distort(&self, mut message: Message) -> Message {
        let own_term = self.raw.raft.term;
        let stale = message.msg_type == MessageType::MsgAppend && message.term < own_term;
        if self.canary == Some(crate::Canary::TermNotChecked) && stale && !self.is_leader() {
            message.term = own_term;
        }
        message
    }

    /// Stands for election at once.
    pub(crate) fn campaign(&mut self) {
        if self.is_restoring() {
            return;
        }
        // Refused only while an election is under way or impossible, and then there is nothing to do.
        let _ = self.raw.campaign();
        self.fix_timeout();
    }

    /// Appends an entry, if this replica leads. Returns its (term, index).
    pub(crate) fn propose(&mut self, data: Vec<u8>) -> Option<(u64, u64)> {
        if !self.is_leader() {
            return None;
        }
        self.raw.propose(Vec::new(), data).ok()?;
        Some((self.raw.raft.term, self.raw.raft.raft_log.last_index()))
    }

    /// Members that need what this log does not hold any more, since this was last asked.
    pub(crate) fn take_behind(&self) -> BTreeSet<ReplicaId> {
        self.raw.store().take_behind()
    }

    /// Whether [`Engine::take_behind`] would give any.
    pub(crate) fn has_behind(&self) -> bool {
        self.raw.store().has_behind()
    }

    /// See [`GroupLog::index_over`].
    pub(crate) fn index_over(&self, bytes: u64) -> u64 {
        self.raw.store().index_over(bytes)
    }

    /// See [`GroupLog::index_before`].
    pub(crate) fn index_before(&self, segment: u64) -> u64 {
        self.raw.store().index_before(segment)
    }

    /// Asks a majority whether this replica still leads; the answer comes as a read of `context`. False if
    /// the question cannot be asked now.
    pub(crate) fn read(&mut self, context: u64) -> bool {
        let raft = &self.raw.raft;
        let committed_in_term =
            raft.raft_log.term(raft.raft_log.committed).is_ok_and(|term| term == raft.term);
        if !self.is_leader() || !committed_in_term {
            return false;
        }
        self.raw.read_index(context.to_le_bytes().to_vec());
        true
    }

    /// Hands leadership to a member.
    pub(crate) fn transfer(&mut self, to: ReplicaId) {
        self.raw.transfer_leader(to.0);
        self.fix_timeout();
    }

    /// Whether leadership is being handed over.
    pub(crate) fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// The connection to a member was lost, or messages to it were dropped.
    pub(crate) fn unreachable(&mut self, replica: ReplicaId) {
        self.raw.report_unreachable(replica.0);
    }

    /// Everything up to the ready of this number is durable.
    pub(crate) fn persisted(&mut self, ready: u64) {
        if self.term_unsaved.is_some_and(|unsaved| unsaved <= ready) {
            self.term_unsaved = None;
        }
        self.raw.on_persist_ready(ready);
    }

    /// Where an entry lies in the log on disk.
    pub(crate) fn located(&mut self, term: u64, index: u64, location: Location) {
        self.raw.mut_store().located(term, index, location);
    }

    /// Applied entries need not stay in memory.
    pub(crate) fn evict(&mut self) {
        let applied = self.applied();
        self.raw.mut_store().evict(applied);
    }

    /// Forgets entries up to `index`; the record to be made durable if there were any.
    pub(crate) fn compact(&mut self, group: u64, index: u64) -> Option<Record> {
        let index = index.min(self.applied());
        let term = self.raw.mut_store().compact(index)?;
        Some(Record::Compacted { group, index, term })
    }

    /// Whether a call of [`Engine::flush`] would give anything.
    pub(crate) fn has_output(&self) -> bool {
        self.raw.has_ready()
    }

    /// Hands out everything that is to be done. To be called until [`Engine::has_output`] is false, after
    /// whatever was committed has been applied and [`Engine::applied_to`] called.
    ///
    /// An error means that what is about to be cut cannot be read, so that it cannot be kept either.
    pub(crate) fn flush(&mut self, group: u64) -> Result<Flushed, String> {
        let mut ready = self.raw.ready();
        let mut out = Flushed { ready: ready.number(), ..Flushed::default() };
        let unreadable = |error: raft::Error| format!("what is to be cut cannot be read: {error}");
        if !ready.snapshot().is_empty() {
            // What is committed here is part of every history to come.
            out.fork = self.raw.store().hard_state().commit;
            out.cut = self.raw.store().after(out.fork).map_err(unreadable)?;
        } else if let Some(first) = ready.entries().first() {
            out.fork = first.index - 1;
            out.cut = self.raw.store().after(out.fork).map_err(unreadable)?;
        }
        out.send = self.aligned(ready.take_messages());
        out.held = self.aligned(ready.take_persisted_messages());
        for entry in ready.take_committed_entries() {
            let members = entry.entry_type != EntryType::EntryNormal;
            let data = data_of(&entry).clone();
            out.committed.push(Committed { term: entry.term, index: entry.index, members, data });
        }
        out.reads = ready.take_read_states().iter().filter_map(read_of).collect();
        out.restored = self.take_restored(&ready, group, &mut out.records);
        let entries = ready.take_entries();
        if !entries.is_empty() {
            for entry in &entries {
                out.entries.push((entry.term, entry.index));
                let kind = kind_to_byte(entry.entry_type);
                let data = data_of(entry).clone();
                let (leader_term, term, index) = (self.raw.raft.term, entry.term, entry.index);
                out.records.push(Record::Entry { group, leader_term, term, index, kind, data });
            }
            self.raw.mut_store().append(&entries);
        }
        // After the entries, so that no crash leaves a commit index beyond them.
        if let Some(hard_state) = ready.hs() {
            let before = self.raw.store().hard_state();
            let state = HardState { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit };
            let elected = (state.term, state.vote) != (before.term, before.vote);
            if elected && !self.forgets_votes() {
                out.records.push(Record::HardState { group, state });
                self.term_unsaved = Some(out.ready);
                self.commit_unsaved = false;
            } else {
                self.commit_unsaved = true;
            }
            self.raw.mut_store().set_hard_state(state);
        }
        self.raw.advance_append_async(ready);
        // It says that the leader is heard, and nothing of what is durable: a slow disk must not look like a dead node.
        let (urgent, held) = std::mem::take(&mut out.held)
            .into_iter()
            .partition(|message| message.msg_type == MessageType::MsgHeartbeatResponse);
        out.held = held;
        let urgent: Vec<Message> = urgent;
        out.send.extend(urgent);
        if self.term_unsaved.is_some() {
            out.held.splice(0..0, std::mem::take(&mut out.send));
        }
        Ok(out)
    }

    /// Entries that are not known to be committed, with the index up to which they are: what goes when the replica does.
    pub(crate) fn uncommitted(&self) -> Result<(u64, Vec<CutEntry>), String> {
        let committed = self.committed();
        let entries = self.raw.store().after(committed).map_err(|error| error.to_string())?;
        Ok((committed, entries))
    }

    /// With `batch_append` the engine adds entries to an append that waits to be sent. If that one has none yet,
    /// it does not look where it begins: when a rejection came in between, the entries begin earlier than the
    /// message says, and would be taken for others. What it means is an append of these entries, so that is
    /// what is sent. It is dropped, as networks do, if this replica cannot vouch for what comes before them:
    /// it leads no more, or that part of the log is freed.
    fn aligned(&self, messages: Vec<Message>) -> Vec<Message> {
        let align = |mut message: Message| {
            if let Some(first) = message.entries.first().filter(|first| first.index != message.index + 1) {
                let before = first.index.checked_sub(1)?;
                let vouches = self.is_elected() && message.term == self.term();
                message.log_term = self.term_at(before).filter(|_| vouches)?;
                message.index = before;
            }
            Some(message)
        };
        messages.into_iter().filter_map(align).collect()
    }

    #[cfg(feature = "canary")]
    fn forgets_votes(&self) -> bool {
        self.canary == Some(crate::Canary::VoteNotPersisted)
    }

    #[cfg(not(feature = "canary"))]
    fn forgets_votes(&self) -> bool {
        false
    }

    /// The hard state, if its commit index moved since it was last handed out. It rides along with the next
    /// record that has to be durable anyway: losing it costs nothing but a later commit.
    pub(crate) fn take_commit_record(&mut self, group: u64) -> Option<Record> {
        if !std::mem::take(&mut self.commit_unsaved) || self.forgets_votes() {
            return None;
        }
        Some(Record::HardState { group, state: self.raw.store().hard_state() })
    }

    /// Committed entries were applied up to here.
    pub(crate) fn applied_to(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
    }

    /// Whether this replica leads. The only voter of a group elects itself at once: it leads when its vote is durable, or
    /// without power it could vote for another one in the same term.
    pub(crate) fn is_leader(&self) -> bool {
        self.is_elected() && self.has_term_saved()
    }

    fn is_elected(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether the term that this replica is in, and its vote, are durable: else nothing may be said in that term.
    fn has_term_saved(&self) -> bool {
        let raft = &self.raw.raft;
        let handed_out = self.raw.store().hard_state();
        self.term_unsaved.is_none() && (handed_out.term, handed_out.vote) == (raft.term, raft.vote)
    }

    pub(crate) fn role(&self) -> ReplicaRole {
        match self.raw.raft.state {
            StateRole::Leader if self.is_leader() => ReplicaRole::Leader,
            StateRole::Follower => ReplicaRole::Follower,
            StateRole::Leader | StateRole::Candidate | StateRole::PreCandidate => ReplicaRole::Candidate,
        }
    }

    pub(crate) fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub(crate) fn leader(&self) -> Option<ReplicaId> {
        let id = self.raw.raft.leader_id;
        (id != 0 && (!self.is_elected() || self.is_leader())).then_some(ReplicaId(id))
    }

    pub(crate) fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub(crate) fn applied(&self) -> u64 {
        self.raw.raft.raft_log.applied
    }

    /// Last entry that is durable here.
    pub(crate) fn durable(&self) -> u64 {
        self.raw.raft.raft_log.persisted
    }

    pub(crate) fn first_index(&self) -> u64 {
        self.raw.store().first()
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        self.raw.raft.raft_log.term(index).ok()
    }

    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        self.raw.store().bytes_after(index)
    }

    /// On a leader: how far every member is, itself included.
    pub(crate) fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        let own = self.raw.raft.id;
        self.raw.raft.prs().iter().map(move |(id, progress)| Progress {
            replica: ReplicaId(*id),
            matched: progress.matched,
            active: *id == own || progress.recent_active,
        })
    }
}

fn read_of(state: &raft::ReadState) -> Option<(u64, u64)> {
    let context: [u8; 8] = state.request_ctx.as_slice().try_into().ok()?;
    Some((u64::from_le_bytes(context), state.index))
}
