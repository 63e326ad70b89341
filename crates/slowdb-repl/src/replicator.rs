//! All groups of a node: the deterministic core of this crate.
//!
//! It is fed with messages, ticks, proposals, reads and word of what became durable, and hands out messages
//! to send, records to make durable and events. It owns no clock, socket, file or thread, and draws no
//! randomness but from its seed: the same inputs give the same outputs.
//!
//! The order of calls: any number of inputs ([`Replicator::receive`], [`Replicator::tick`],
//! [`Replicator::propose`], [`Replicator::read`], [`Replicator::persisted`], …), then one
//! [`Replicator::flush`], whose output is carried out: messages are sent at once, the batch goes to the log in
//! the order of its number, and when it is synced, `persisted` is called with that number.

mod frames;
mod overtaken;
mod pace;
mod rolls;
mod timing;
mod views;
mod words;

use crate::engine::wire::{self, Payload, WireError};
use crate::engine::{self, Engine, INITIAL};
use crate::group::{Event, Failure, Group, Hlc, JobDone, MemberChange, MemberError, Proposal, Sink, Token};
use crate::ids::{GroupId, Membership, NodeId, Part, ReplicaId};
use crate::links::Links;
use crate::machine::StateMachine;
use crate::note::{FORWARD_BYTES_MAX, Note, Says};
use crate::quarantine::Quarantine;
use crate::wal::{Location, Record, Recovered, RecoveredGroup, WalReader};
use crate::{AckLevel, Now, Position};
use bytes::Bytes;
use pace::Pace;
use rolls::Rolls;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
pub use views::Glance;
pub use words::{
    Batch, ENTRY_BYTES_MAX, FollowerView, GroupView, Lane, Limits, OpenGroupError, Outgoing, Output,
};

/// Ticks between looks at which log can be freed.
const COMPACT_TICKS: u64 = 32;

/// A batch on its way to the disk, with (group, term, index) of its entries.
struct Submitted {
    batch: u64,
    entries: Vec<(GroupId, u64, u64)>,
}

/// All groups of a node.
pub struct Replicator<M: StateMachine> {
    node: NodeId,
    cluster: [u8; 16],
    seed: u64,
    limits: Limits,
    reader: WalReader,
    groups: BTreeMap<GroupId, Group<M>>,
    names: BTreeSet<NodeId>,
    dirty: BTreeSet<GroupId>,
    /// The newest segment of the log that an entry was written to, as far as this was heard.
    newest_segment: u64,
    awaiting_checkpoint: BTreeSet<GroupId>,
    hlc: Hlc,
    next_batch: u64,
    /// Batches that are on their way to the disk.
    submitted: VecDeque<Submitted>,
    /// For the next batch.
    records: Vec<Record>,
    quarantine: Quarantine,
    /// Heartbeats and answers to them, for the next flush.
    beats: Vec<(GroupId, Payload)>,
    /// For other nodes, with the next flush.
    offers: Vec<(GroupId, Note)>,
    ticks: u64,
    links: Links,
    pace: Pace,
    rolls: Rolls,
    #[cfg(feature = "canary")]
    canary: Option<crate::Canary>,
}

impl<M: StateMachine> Replicator<M> {
    /// A replicator without groups. `cluster` is zero as long as the node is part of none; `seed` is where
    /// election time-outs come from, and has to be another one in each life of the node.
    pub fn new(node: NodeId, cluster: [u8; 16], seed: u64, limits: Limits, reader: WalReader) -> Self {
        Replicator {
            node,
            cluster,
            seed,
            limits,
            reader,
            groups: BTreeMap::new(),
            names: BTreeSet::new(),
            dirty: BTreeSet::new(),
            newest_segment: 0,
            awaiting_checkpoint: BTreeSet::new(),
            hlc: Hlc::default(),
            next_batch: 1,
            submitted: VecDeque::new(),
            records: Vec::new(),
            quarantine: Quarantine::default(),
            beats: Vec::new(),
            offers: Vec::new(),
            ticks: 0,
            links: Links::default(),
            pace: Pace::new(limits.snapshot_bytes_per_second),
            rolls: Rolls::default(),
            #[cfg(feature = "canary")]
            canary: None,
        }
    }

    /// Plants a bug in all groups, now and later ones.
    #[cfg(feature = "canary")]
    pub fn set_canary(&mut self, canary: Option<crate::Canary>) {
        self.canary = canary;
        for group in self.groups.values_mut() {
            group.canary = canary;
            group.engine.set_canary(canary);
        }
    }

    /// From now on the node is part of this cluster.
    pub fn set_cluster(&mut self, cluster: [u8; 16]) {
        self.cluster = cluster;
    }

    /// The replicas that a recovered log speaks of, by their groups, with who is in them.
    ///
    /// # Errors
    /// [`OpenGroupError::Malformed`]: what the log says of a replica makes no sense.
    pub fn memberships(recovered: &Recovered) -> Result<BTreeMap<GroupId, Membership>, OpenGroupError> {
        let mut known = BTreeMap::new();
        for (replica, group) in &recovered.groups {
            let membership = group.config.as_deref().and_then(Membership::decode);
            let membership = membership.filter(|membership| membership.own.0 == *replica);
            let membership = membership.ok_or(OpenGroupError::Malformed(ReplicaId(*replica)))?;
            known.insert(membership.group, membership);
        }
        Ok(known)
    }

    /// Opens a new group, or a new replica of one that exists ([`Membership::joining`]). Its membership goes to the log
    /// with the next batch; the preferred leader of a new group stands for election at once.
    ///
    /// # Errors
    /// [`OpenGroupError`]; there is no such group then.
    pub fn create(&mut self, mut membership: Membership, machine: M) -> Result<(), OpenGroupError> {
        let id = membership.group;
        let own = membership.own;
        let joins = membership.members.is_empty();
        membership.index = if joins { 0 } else { INITIAL.0 };
        let stands = membership.members.first().is_some_and(|first| first.replica == own);
        let data = Bytes::from(membership.encode());
        self.insert(membership, None, machine)?;
        self.records.push(if joins {
            Record::Config { group: own.0, data }
        } else {
            Record::Snapshot { group: own.0, index: INITIAL.0, term: INITIAL.1, data }
        });
        if stands && let Some(group) = self.groups.get_mut(&id) {
            group.engine.campaign();
        }
        Ok(())
    }

    /// Opens a replica that the log holds already, on the incarnation of the state machine that its membership names.
    ///
    /// # Errors
    /// [`OpenGroupError`]; the log is as it was, and the group is not open.
    pub fn reopen(
        &mut self,
        membership: Membership,
        recovered: &Recovered,
        machine: M,
    ) -> Result<(), OpenGroupError> {
        let id = membership.group;
        let found = recovered.groups.get(&membership.own.0);
        let found = found.ok_or(OpenGroupError::NotLogged(id, membership.own))?;
        self.quarantine.recover(recovered).map_err(OpenGroupError::Malformed)?;
        self.insert(membership, Some(found), machine)
    }

    /// Removes a replica: it is gone for good, and its id cannot be used again. Its state machine is handed back, for
    /// whoever removes what it keeps. `None` if there is no such replica.
    ///
    /// What it held and may be taken for written, although no majority has it, is kept and offered to the group; see
    /// [`Replicator::offer_to`].
    pub fn remove(&mut self, id: GroupId) -> Option<M> {
        self.leave_rolls(id);
        let group = self.groups.remove(&id)?;
        self.rolls.end(id);
        self.dirty.remove(&id);
        match group.overtaken_by_removal() {
            Ok(overtaken) => self.quarantine.keep(overtaken, &mut self.records),
            Err(why) => {
                tracing::error!(group = %id, why, "the end of a removed replica's log cannot be kept")
            }
        }
        self.records.push(Record::Removed { group: group.membership.own.0 });
        Some(group.machine)
    }

    /// Who is in a group, as far as this replica has applied it.
    pub fn membership(&self, id: GroupId) -> Option<&Membership> {
        self.groups.get(&id).map(|group| &group.membership)
    }

    /// Proposes a change of a group's members. It is refused if the group has seen a later intent; see [`Membership`].
    ///
    /// # Errors
    /// Nothing happened.
    pub fn change_members(
        &mut self,
        id: GroupId,
        change: &MemberChange,
        intent: u64,
    ) -> Result<(), MemberError> {
        self.leading_group(id)?.change_members(change, intent)
    }

    /// Whether a change of members may be under way in a group that this node leads.
    pub fn is_changing_members(&self, id: GroupId) -> bool {
        self.groups.get(&id).is_some_and(|group| group.engine.is_changing_members())
    }

    /// Sends something to the leader of a group, whose replicator gives it out as [`Event::Forwarded`]. It may be lost.
    /// False if the leader is not known or is this node, if there is no replica here, or if it is over 64 KiB.
    pub fn forward(&mut self, id: GroupId, body: Bytes) -> bool {
        self.wake(id);
        let Some(group) = self.groups.get_mut(&id).filter(|_| body.len() <= FORWARD_BYTES_MAX) else {
            return false;
        };
        self.dirty.insert(id);
        group.forward(body)
    }

    /// Has all replicas of a group compare digests; see [`FollowerView::equal_at`] and [`Event::DigestDiffers`]. At the
    /// same entry they note an intent; 0 is none. False if this node does not lead the group.
    pub fn compare_digests(&mut self, id: GroupId, intent: u64) -> bool {
        self.leading_group(id).is_ok_and(|group| group.compare_digests(intent))
    }

    /// A [`Job`](crate::Job) was run.
    pub fn job_done(&mut self, done: JobDone) {
        self.wake(done.group);
        let group = self.groups.get_mut(&done.group);
        // It may be that of a replica that is gone.
        if let Some(group) = group.filter(|group| group.membership.own == done.replica) {
            self.dirty.insert(done.group);
            group.job_done(done);
        }
    }

    fn insert(
        &mut self,
        membership: Membership,
        recovered: Option<&RecoveredGroup>,
        machine: M,
    ) -> Result<(), OpenGroupError> {
        let id = membership.group;
        if self.groups.contains_key(&id) {
            return Err(OpenGroupError::Exists(id));
        }
        if !membership.is_sound() {
            return Err(OpenGroupError::Membership(id));
        }
        let (entry, segment) = (self.limits.entry_bytes_max, self.reader.data_bytes_max());
        if entry as u64 > segment {
            return Err(OpenGroupError::SegmentsTooSmall { group: id, entry, segment });
        }
        let before = membership.clone();
        let membership = match recovered {
            Some(recovered) => engine::caught_up(membership, recovered, machine.held(), &self.reader)
                .map_err(|error| OpenGroupError::Engine(id, error))?,
            None => membership,
        };
        if membership != before {
            let data = Bytes::from(membership.encode());
            self.records.push(Record::Config { group: membership.own.0, data });
        }
        let mut membership = membership;
        membership.members.iter_mut().for_each(|member| member.node = self.shared_name(&member.node));
        let seed = self.seed ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let engine = Engine::open(&membership, recovered, machine.held(), self.reader.clone(), seed)
            .map_err(|error| OpenGroupError::Engine(id, error))?;
        let group = Group::new(membership, engine, machine, self.seed, self.limits.entry_bytes_max);
        #[cfg(feature = "canary")]
        let group = {
            let mut group = group;
            group.canary = self.canary;
            group.engine.set_canary(self.canary);
            group
        };
        self.groups.insert(id, group);
        self.rolls.begin(id);
        self.dirty.insert(id);
        Ok(())
    }

    /// The one copy of a node's name: groups by the thousand compare it with every message.
    fn shared_name(&mut self, node: &NodeId) -> NodeId {
        if let Some(name) = self.names.get(node) {
            return name.clone();
        }
        self.names.insert(node.clone());
        node.clone()
    }

    /// Ids of all groups, sorted.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// Ids of the groups that this node leads, sorted.
    pub fn led(&self) -> impl Iterator<Item = GroupId> + '_ {
        let leads = |group: &Group<M>| group.engine.is_leader() && group.halted.is_none();
        self.groups.iter().filter(move |(_, group)| leads(group)).map(|(id, _)| *id)
    }

    /// All groups with their state machines, in the order of their ids.
    pub fn machines(&self) -> impl Iterator<Item = (GroupId, &M)> {
        self.groups.iter().map(|(id, group)| (*id, &group.machine))
    }

    /// The state machine of a group.
    pub fn machine(&self, id: GroupId) -> Option<&M> {
        self.groups.get(&id).map(|group| &group.machine)
    }

    /// The state machine of a group, for its housekeeping; its replicated state changes by proposals only.
    pub fn machine_mut(&mut self, id: GroupId) -> Option<&mut M> {
        self.groups.get_mut(&id).map(|group| &mut group.machine)
    }

    /// Last position applied in a group.
    pub fn applied(&self, id: GroupId) -> Option<Position> {
        self.groups.get(&id).map(|group| group.applied)
    }

    /// Who leads a group as far as this node knows, and in which term.
    pub fn leader(&self, id: GroupId) -> Option<(Option<NodeId>, u64)> {
        let group = self.groups.get(&id)?;
        let leader = group.engine.leader().and_then(|replica| group.node_of(replica));
        Some((leader.cloned(), group.engine.term()))
    }

    /// Whether this node leads a group.
    pub fn leads(&self, id: GroupId) -> bool {
        self.groups.get(&id).is_some_and(|group| group.engine.is_leader() && group.halted.is_none())
    }

    /// Whether this node leads a group, and takes no proposals for it because another is to lead.
    pub fn is_handing_over(&self, id: GroupId) -> bool {
        self.groups.get(&id).is_some_and(|group| group.engine.is_transferring())
    }

    /// Proposes to a group. Otherwise the answer is an [`Event`].
    ///
    /// # Errors
    /// Nothing happened.
    pub fn propose(&mut self, id: GroupId, proposal: Proposal) -> Result<(), Failure> {
        // Nothing waits in groups that rest.
        let awake = self.rolls.awake().filter_map(|id| self.groups.get(&id));
        let waiting: usize = awake.map(|group| group.waiting_bytes).sum();
        let limits = self.limits;
        let kept = self.quarantine.bytes();
        let group = self.leading_group(id)?;
        if group.engine.is_transferring() {
            return Err(Failure::NotLeader);
        }
        group.check_fits(&proposal.body)?;
        // Every such write may have to be kept, for as long as nobody takes it.
        if proposal.level == AckLevel::One && kept >= limits.quarantine_bytes_max {
            return Err(Failure::Overloaded);
        }
        if waiting + proposal.body.len() > limits.waiting_bytes_max
            || group.queue_len() >= limits.waiting_per_group_max
        {
            return Err(Failure::Overloaded);
        }
        group.propose(proposal);
        Ok(())
    }

    /// Asks to read a group linearizably, on any replica: when [`Event::ReadReady`] comes, the state machine holds
    /// everything that was committed when this was called.
    ///
    /// # Errors
    /// [`Failure::NotLeader`] if there is no replica here or it knows of no leader, and those of a full queue and a
    /// halted group. Otherwise the answer is an [`Event`].
    pub fn read(&mut self, id: GroupId, token: Token, deadline: u64) -> Result<(), Failure> {
        self.wake(id);
        let waiting_max = self.limits.waiting_per_group_max;
        let group = self.groups.get_mut(&id).ok_or(Failure::NotLeader)?;
        if group.halted.is_some() {
            return Err(Failure::Halted);
        }
        if group.engine.leader().is_none() {
            return Err(Failure::NotLeader);
        }
        self.dirty.insert(id);
        if group.reads_waiting() >= waiting_max {
            return Err(Failure::Overloaded);
        }
        group.read(token, deadline);
        Ok(())
    }

    fn leading_group(&mut self, id: GroupId) -> Result<&mut Group<M>, Failure> {
        self.wake(id);
        let group = self.groups.get_mut(&id).ok_or(Failure::NotLeader)?;
        if group.halted.is_some() {
            return Err(Failure::Halted);
        }
        if !group.engine.is_leader() {
            return Err(Failure::NotLeader);
        }
        self.dirty.insert(id);
        Ok(group)
    }

    /// A frame arrived from another node. Messages for replicas that are not here are dropped: the sender
    /// will try again.
    ///
    /// # Errors
    /// [`WireError`]; what it is about was not taken.
    pub fn receive(&mut self, from: &NodeId, meta: &[u8], body: &Bytes) -> Result<(), WireError> {
        for wire::GroupMessage { group: id, mut message } in wire::decode(self.cluster, meta, body)? {
            if let Payload::Note(Note { to, says: Says::Settled { was }, .. }) = message {
                self.records.extend(self.quarantine.settle(id, to, was));
                continue;
            }
            if let Payload::Roll(word) = message {
                self.hear_of_roll(from, word);
                continue;
            }
            if let Some(stamp) = wire::stamp_of(&message) {
                self.links.heard(from, stamp);
            }
            if let Some(stamp) = wire::take_stamp(&mut message) {
                self.links.answered(from, stamp);
            }
            wire::check_entries(&message, self.limits.entry_bytes_max)?;
            if self.rolls.rests(id) {
                // It was asked before the group came to rest.
                if self.groups.get(&id).is_some_and(|group| group.engine.is_mere_answer(&message)) {
                    continue;
                }
                self.wake(id);
            }
            let Some(group) = self.groups.get_mut(&id).filter(|group| group.halted.is_none()) else {
                continue;
            };
            if wire::parties(&message).1 == group.membership.own {
                let has_work = group.receive(from, message, &mut self.beats);
                if has_work {
                    self.dirty.insert(id);
                }
            }
        }
        Ok(())
    }

    /// Messages to a node were dropped, or the connection to it was lost.
    pub fn unreachable(&mut self, node: &NodeId) {
        let replica_on = |group: &Group<M>| group.membership.replica_on(node);
        let led = self.groups.iter().filter(|(_, group)| group.engine.is_leader());
        let on: Vec<_> = led.filter_map(|(id, group)| Some((*id, replica_on(group)?))).collect();
        for (id, replica) in on {
            self.wake(id);
            if let Some(group) = self.groups.get_mut(&id) {
                group.engine.unreachable(replica);
                self.dirty.insert(id);
            }
        }
    }

    /// One tick of time passed.
    pub fn tick(&mut self, now: Now, events: &mut Vec<Event<M::Outcome>>) {
        self.ticks += 1;
        self.links.tick();
        let compacts = self.ticks.is_multiple_of(COMPACT_TICKS);
        self.pace.fill(now);
        self.tick_groups(now, compacts, events);
        self.offer_quarantined();
    }

    /// All batches up to this number are durable; `locations` are those of their entries, in order.
    pub fn persisted(&mut self, batch: u64, locations: &[Location]) -> Vec<Outgoing> {
        let mut at = 0;
        while let Some(done) = self.submitted.pop_front_if(|submitted| submitted.batch <= batch) {
            for (id, term, index) in done.entries {
                let Some(location) = locations.get(at) else { continue };
                self.newest_segment = self.newest_segment.max(location.segment());
                if let Some(group) = self.groups.get_mut(&id) {
                    group.engine.located(term, index, *location);
                }
                at += 1;
            }
        }
        let mut messages = Vec::new();
        for id in self.rolls.awake() {
            if let Some(group) = self.groups.get_mut(&id).filter(|group| group.has_outstanding(batch)) {
                group.persisted(batch, &mut messages);
                self.dirty.insert(id);
            }
        }
        self.frames(messages, Vec::new())
    }

    /// Groups whose state machines have to be checkpointed for old segments of the log to be let go, since this was last
    /// asked; those that are not checkpointed then are named again later.
    pub fn take_awaiting_checkpoint(&mut self) -> BTreeSet<GroupId> {
        std::mem::take(&mut self.awaiting_checkpoint)
    }

    /// The state machine of a group holds everything up to `index` durably.
    pub fn checkpointed(&mut self, id: GroupId, index: u64) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.checkpointed = group.checkpointed.max(index);
        }
    }

    /// Hands leadership of a group to the most advanced other voter that answers. False if there is none, or
    /// nothing to hand over.
    pub fn hand_over(&mut self, id: GroupId) -> bool {
        self.wake(id);
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.engine.is_leader()) else {
            return false;
        };
        let own = group.membership.own;
        let votes = |replica| {
            let part = group.membership.member(replica).map(|member| member.part);
            matches!(part, Some(Part::Voter | Part::Entering))
        };
        let others = group.engine.progress().filter(|p| p.replica != own && p.active && votes(p.replica));
        let best = others.max_by_key(|p| (p.matched, std::cmp::Reverse(p.replica)));
        let Some(to) = best.map(|progress| progress.replica) else { return false };
        if !group.engine.is_transferring() {
            group.engine.transfer(to);
        }
        self.dirty.insert(id);
        true
    }

    /// Hands leadership of a group to a voter. False if this node does not lead it, or is handing over already.
    pub fn hand_over_to(&mut self, id: GroupId, to: ReplicaId) -> bool {
        self.wake(id);
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.engine.is_leader()) else {
            return false;
        };
        if group.engine.is_transferring() || to == group.membership.own {
            return false;
        }
        group.engine.transfer(to);
        self.dirty.insert(id);
        true
    }

    /// Whether a flush would do anything.
    pub fn is_dirty(&self) -> bool {
        let has_messages = !self.offers.is_empty() || !self.beats.is_empty() || self.rolls.has_words();
        !self.dirty.is_empty() || !self.records.is_empty() || has_messages
    }

    /// Does all that can be done without waiting, and says what has to be done outside.
    pub fn flush(&mut self, now: Now) -> Output<M::Outcome> {
        let mut messages = std::mem::take(&mut self.beats);
        let mut records = std::mem::take(&mut self.records);
        let mut entries = Vec::new();
        let mut events = Vec::new();
        let mut jobs = Vec::new();
        let mut settled = Vec::new();
        for id in std::mem::take(&mut self.dirty) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let mut overtaken = Vec::new();
            let mut cuts = Vec::new();
            let mut sink = Sink {
                batch: self.next_batch,
                messages: &mut messages,
                records: &mut cuts,
                overtaken: &mut overtaken,
                settled: &mut settled,
                entries: &mut entries,
                events: &mut events,
                jobs: &mut jobs,
            };
            group.flush(&mut self.hlc, now, &mut sink);
            self.quarantine.keep(overtaken, &mut records);
            records.append(&mut cuts);
            self.note_receiving(id);
        }
        self.ask_for_parts(&mut messages);
        for (group, holder, was) in settled {
            match self.quarantine.settle(group, holder, was) {
                Some(record) => records.push(record),
                None => {
                    let own = self.groups.get(&group).map(|group| group.membership.own);
                    let says = Says::Settled { was };
                    let note = own.map(|own| (group, Payload::Note(Note { from: own, to: holder, says })));
                    messages.extend(note);
                }
            }
        }
        let offers = self.offers.drain(..).map(|(id, note)| (id, Payload::Note(note)));
        messages.extend(offers);
        let batch = (!records.is_empty()).then(|| {
            let number = self.next_batch;
            self.next_batch += 1;
            self.submitted.push_back(Submitted { batch: number, entries });
            Batch { number, records }
        });
        self.stamp_heartbeats(&mut messages);
        let words = self.rolls.take_words();
        Output { messages: self.frames(messages, words), batch, events, jobs }
    }

    /// This node.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Checks what must hold after every turn; of groups that rest, of each in one of eight ticks. For tests and
    /// simulation: it panics on a violation.
    pub fn check_invariants(&self) {
        self.check_rolls();
        for (id, group) in &self.groups {
            if !self.is_looked_at(*id) {
                continue;
            }
            group.check_invariants();
            let has_output = group.halted.is_none() && group.engine.has_output();
            assert!(
                !has_output || self.dirty.contains(id),
                "{id}: its engine has output, and nobody will ask"
            );
        }
    }
}
