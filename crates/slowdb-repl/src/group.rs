//! One group on this node: the consensus engine, the state machine, and who waits for what.
//!
//! Invariants, checked by [`Group::check_invariants`]:
//! - waiters exist only while this replica leads, and only for the term it leads;
//! - held messages leave in the order in which what they rest on becomes durable;
//! - a proposal is answered exactly once.

mod answers;
mod digests;
mod late;
mod members;
mod proposals;
mod reads;
mod strangers;
mod transfer;
mod words;

use crate::engine::wire::Payload;
use crate::engine::{Beat, Committed, Engine, Message};
use crate::entry::EntryView;
use crate::ids::{GroupId, Membership, NodeId, ReplicaId};
use crate::machine::StateMachine;
use crate::note::{Note, Says};
use crate::quarantine::Overtaken;
use crate::{Now, Position};
use bytes::Bytes;
use digests::Digests;
pub use members::{MemberChange, MemberError};
pub(crate) use proposals::Hlc;
use proposals::{EntryWaiters, Queued};
use reads::Reads;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use strangers::Strangers;
pub(crate) use transfer::PART_BYTES;
use transfer::Transfers;
pub use transfer::{Arriving, Job, JobDone};
pub use words::{Event, Failure, Proposal, Token};

/// Ticks between looks at what is to be done now and then in a group in which nothing happens.
const QUIET_LOOK_TICKS: u64 = 16;

struct Outstanding {
    batch: u64,
    ready: u64,
    held: Vec<Message>,
}

/// Where a group puts what it has to say during a flush.
pub(crate) struct Sink<'a, O> {
    pub(crate) batch: u64,
    pub(crate) messages: &'a mut Vec<(GroupId, Payload)>,
    pub(crate) jobs: &'a mut Vec<Job>,
    pub(crate) records: &'a mut Vec<crate::wal::Record>,
    pub(crate) entries: &'a mut Vec<(GroupId, u64, u64)>,
    pub(crate) events: &'a mut Vec<Event<O>>,
    /// Proposals that the records cut.
    pub(crate) overtaken: &'a mut Vec<Overtaken>,
    /// Proposals that are taken care of, with the replica that keeps them.
    pub(crate) settled: &'a mut Vec<(GroupId, ReplicaId, Position)>,
}

pub(crate) struct Group<M: StateMachine> {
    pub(crate) id: GroupId,
    pub(crate) membership: Membership,
    pub(crate) engine: Engine,
    pub(crate) machine: M,
    /// Why the group does nothing any more.
    pub(crate) halted: Option<String>,
    pub(crate) applied: Position,
    /// Every member has everything up to here.
    pub(crate) floor: u64,
    /// The state machine holds everything up to here durably.
    pub(crate) checkpointed: u64,
    /// See [`Limits`](crate::Limits).
    entry_bytes_max: usize,
    /// Bytes of proposals that wait here.
    pub(crate) waiting_bytes: usize,
    queue: VecDeque<Queued>,
    /// Late proposals that are under way, by who keeps them and the position they had.
    late: BTreeSet<(ReplicaId, Position)>,
    /// Those that are taken care of, and whose holders are to be told.
    settled: Vec<(ReplicaId, Position)>,
    waiters: BTreeMap<u64, EntryWaiters<M::Outcome>>,
    leading: Option<u64>,
    reads: Reads,
    outstanding: VecDeque<Outstanding>,
    /// Notes that wait to be sent.
    outbox: Vec<Note>,
    /// Events that wait to be told.
    news: Vec<Event<M::Outcome>>,
    strangers: Strangers,
    digests: Digests,
    transfers: Transfers,
    members_changed: bool,
    told_leader: Option<(Option<ReplicaId>, u64)>,
    told_halted: bool,
    /// There was nothing left to do after the last flush.
    quiet: bool,
    ticks: u64,
    #[cfg(feature = "canary")]
    pub(crate) canary: Option<crate::Canary>,
}

impl<M: StateMachine> Group<M> {
    /// A group that was just opened; `life` is drawn for each life of the node.
    pub(crate) fn new(
        membership: Membership,
        engine: Engine,
        machine: M,
        life: u64,
        entry_bytes_max: usize,
    ) -> Self {
        // A new group begins at an index that no state machine has to hold.
        let held = engine.applied();
        let term = engine.term_at(held).unwrap_or_default();
        Group {
            id: membership.group,
            membership,
            halted: None,
            applied: Position { term, index: held, offset: 0 },
            floor: engine.first_index() - 1,
            checkpointed: held,
            entry_bytes_max,
            waiting_bytes: 0,
            queue: VecDeque::new(),
            late: BTreeSet::new(),
            settled: Vec::new(),
            waiters: BTreeMap::new(),
            leading: None,
            reads: Reads::new(life),
            outstanding: VecDeque::new(),
            outbox: Vec::new(),
            news: Vec::new(),
            strangers: Strangers::default(),
            digests: Digests::default(),
            transfers: Transfers::default(),
            members_changed: false,
            told_leader: None,
            told_halted: false,
            quiet: false,
            ticks: 0,
            #[cfg(feature = "canary")]
            canary: None,
            engine,
            machine,
        }
    }

    /// A message arrived from a replica on this node. What is to be sent at once goes to `beats`; says whether there is
    /// more to do than that.
    pub(crate) fn receive(
        &mut self,
        node: &NodeId,
        message: Payload,
        beats: &mut Vec<(GroupId, Payload)>,
    ) -> bool {
        let (from, _) = crate::engine::wire::parties(&message);
        let member = self.membership.member(from);
        let is_member = member.is_some();
        if member.is_some_and(|member| member.node != *node) {
            return false;
        }
        if !is_member {
            // This replica may not have heard yet of a change that made the other one.
            self.strangers.hear(from, node, self.ticks);
        }
        let message = match message {
            Payload::Consensus(message) if is_member => match self.engine.hear_beat(message) {
                Beat::Noted(answer) => {
                    beats.extend(consensus(self.id, answer));
                    return false;
                }
                Beat::ForEngine(message) => Payload::Consensus(message),
            },
            message => message,
        };
        match message {
            Payload::Consensus(message) => {
                if let Err(error) = self.engine.step(message) {
                    self.halt(error.to_string());
                }
            }
            Payload::Note(Note { says: Says::Digest { index, digest, .. }, .. }) => {
                let event = self.hear_digest(from, index, digest);
                self.news.extend(event);
            }
            Payload::Note(Note { says: Says::Forward { body }, .. }) => {
                if self.engine.is_leader() {
                    self.news.push(Event::Forwarded { group: self.id, from: node.clone(), body });
                }
            }
            Payload::Note(Note { says: Says::Overtaken { entry }, .. }) => self.take_late(from, &entry),
            Payload::Note(Note { says: Says::ReadAsked { context }, .. }) => {
                self.hear_read_asked(from, context)
            }
            Payload::Note(Note { says: Says::ReadConfirmed { context, index }, .. }) => {
                self.hear_read_confirmed(&context, index);
            }
            Payload::Note(note) => {
                let answer = self.hear_transfer(from, note.says);
                self.outbox.extend(answer);
            }
            // It is of no group.
            Payload::Roll(_) => return false,
        }
        true
    }

    /// Sends something to the leader. False if none is known, or this replica leads.
    pub(crate) fn forward(&mut self, body: Bytes) -> bool {
        let own = self.membership.own;
        let Some(to) = self.engine.leader().filter(|leader| *leader != own) else { return false };
        self.outbox.push(Note { from: own, to, says: Says::Forward { body } });
        true
    }

    /// The node that a replica is on, as far as it is known.
    pub(crate) fn node_of(&self, replica: ReplicaId) -> Option<&NodeId> {
        let member = self.membership.member(replica).map(|member| &member.node);
        member.or_else(|| self.strangers.node_of(replica))
    }

    pub(crate) fn halt(&mut self, why: String) {
        self.halted.get_or_insert(why);
    }

    /// One tick of time passed. Heartbeats go to `beats`; says whether there is more to do than to send them.
    pub(crate) fn tick(
        &mut self,
        now: Now,
        events: &mut Vec<Event<M::Outcome>>,
        beats: &mut Vec<(GroupId, Payload)>,
    ) -> bool {
        self.pass(1);
        let did_more = self.engine.tick();
        if did_more {
            beats.extend(consensus(self.id, self.engine.take_beats()));
        }
        let is_quiet = self.quiet && !(did_more && self.engine.has_output());
        if is_quiet && !(self.ticks + self.id.0).is_multiple_of(QUIET_LOOK_TICKS) {
            return false;
        }
        self.look(now, events)
    }

    /// So many ticks of time passed, and nothing else.
    pub(crate) fn pass(&mut self, ticks: u64) {
        self.ticks += ticks;
    }

    /// Looks at what is to be done now and then; says whether there is something to do.
    pub(crate) fn look(&mut self, now: Now, events: &mut Vec<Event<M::Outcome>>) -> bool {
        self.engine.evict();
        self.compare_sometimes();
        let offers = self.tick_transfers();
        self.outbox.extend(offers);
        self.expire(now, events);
        self.tick_reads(now, events);
        self.has_work()
    }

    /// Whether a flush could do anything. What waits for others counts, too: with time it is asked for again.
    fn has_work(&self) -> bool {
        let waits = !self.queue.is_empty() || !self.waiters.is_empty() || !self.reads.is_empty();
        let has_news = !self.outbox.is_empty()
            || !self.news.is_empty()
            || !self.settled.is_empty()
            || self.members_changed;
        let told = (self.engine.leader(), self.engine.term());
        waits
            || has_news
            || self.is_receiving()
            || self.engine.has_behind()
            || self.told_leader != Some(told)
            || self.halted.is_some() != self.told_halted
            || self.engine.has_output()
    }

    /// Whether nothing is to be done, and nothing waited for, as long as nobody speaks to this replica.
    pub(crate) fn may_rest(&self) -> bool {
        self.quiet
            && self.halted.is_none()
            && self.outstanding.is_empty()
            && self.late.is_empty()
            && !self.membership.is_joint()
            && !self.has_transfers()
    }

    /// Whether something waits for this batch or an earlier one.
    pub(crate) fn has_outstanding(&self, batch: u64) -> bool {
        self.outstanding.front().is_some_and(|o| o.batch <= batch)
    }

    /// The batch of this number is durable, and with it all before it.
    pub(crate) fn persisted(&mut self, batch: u64, messages: &mut Vec<(GroupId, Payload)>) {
        while self.outstanding.front().is_some_and(|o| o.batch <= batch) {
            if let Some(done) = self.outstanding.pop_front() {
                self.engine.persisted(done.ready);
                self.install_durable(done.ready);
                messages.extend(consensus(self.id, done.held));
            }
        }
    }

    /// Does all that can be done without waiting: proposes, asks, persists, sends, applies, answers.
    pub(crate) fn flush(&mut self, hlc: &mut Hlc, now: Now, sink: &mut Sink<'_, M::Outcome>) {
        if self.halted.is_none() {
            self.restore_staged();
            self.propose_queued(hlc, now);
            self.ask_reads();
            while self.engine.has_output() && self.halted.is_none() {
                self.flush_engine(hlc, sink);
            }
        }
        let notes = std::mem::take(&mut self.outbox);
        self.send_notes(notes, sink);
        self.hand_out_jobs(now, sink);
        self.tell_members(sink);
        sink.events.append(&mut self.news);
        self.notice_leadership(sink.events);
        self.answer_proposals(sink.events);
        self.answer_reads(sink.events);
        let id = self.id;
        sink.settled.extend(self.settled.drain(..).map(|(holder, was)| (id, holder, was)));
        if let Some(why) = self.halted.as_ref().filter(|_| !self.told_halted) {
            self.told_halted = true;
            sink.events.push(Event::Halted { group: self.id, why: why.clone() });
        }
        self.quiet = !self.has_work();
    }

    fn flush_engine(&mut self, hlc: &mut Hlc, sink: &mut Sink<'_, M::Outcome>) {
        // The log on disk knows replicas, whose ids are never used again, and not groups.
        let own = self.membership.own.0;
        let flushed = match self.engine.flush(own) {
            Ok(flushed) => flushed,
            Err(why) => return self.halt(why),
        };
        // Ahead of the records that cut them.
        if let Err(why) = self.keep_overtaken(&flushed, sink) {
            return self.halt(why);
        }
        sink.messages.extend(consensus(self.id, flushed.send));
        if let Some(index) = flushed.restored {
            self.restoring(flushed.ready, index);
        }
        let needs_sync = !flushed.records.is_empty();
        if needs_sync {
            sink.records.extend(flushed.records);
            sink.entries.extend(flushed.entries.into_iter().map(|(term, index)| (self.id, term, index)));
            sink.records.extend(self.engine.take_commit_record(own));
        }
        let waits_for = if needs_sync { Some(sink.batch) } else { self.outstanding.back().map(|o| o.batch) };
        match waits_for.filter(|_| !self.acks_before_sync()) {
            Some(batch) => {
                self.outstanding.push_back(Outstanding { batch, ready: flushed.ready, held: flushed.held });
            }
            None => {
                self.engine.persisted(flushed.ready);
                self.install_durable(flushed.ready);
                sink.messages.extend(consensus(self.id, flushed.held));
            }
        }
        for entry in &flushed.committed {
            if let Err(why) = self.apply(entry, hlc, sink) {
                self.halt(why);
                return;
            }
        }
        if let Some(last) = flushed.committed.last() {
            self.engine.applied_to(last.index);
        }
        for (context, index) in flushed.reads {
            self.confirm_reads(context, index);
        }
    }

    fn apply(
        &mut self,
        entry: &Committed,
        hlc: &mut Hlc,
        sink: &mut Sink<'_, M::Outcome>,
    ) -> Result<(), String> {
        let Committed { term, index, members, data } = entry;
        if *term != self.applied.term {
            self.machine.begin_term(*term, *index).map_err(|error| error.to_string())?;
        }
        // Should the machine fail, this is what it holds for certain.
        let mut held = self.applied;
        self.applied = Position { term: *term, index: *index, offset: 0 };
        if data.is_empty() || *members {
            if *members {
                self.apply_members(entry, sink)?;
            }
            return self.machine.end_of_entry(*index, 0).map_err(|error| error.to_string());
        }
        let view = EntryView::parse(*term, *index, data).map_err(|error| error.to_string())?;
        if let Some(intent) = view.compares() {
            self.apply_comparison(*index, *term, sink);
            self.note_intent(intent, sink);
        }
        let waiting = self.leading == Some(*term);
        let mut waiters = self.waiters.get_mut(index).filter(|_| waiting);
        for (at, proposal) in view.proposals().iter().enumerate() {
            hlc.observe(proposal.header.hlc);
            let outcome = match self.machine.apply(proposal) {
                Ok(outcome) => outcome,
                Err(error) => {
                    self.applied = held;
                    return Err(error.to_string());
                }
            };
            if let Some(waiter) = waiters.as_mut().and_then(|entry| entry.waiters.get_mut(at)) {
                waiter.outcome = Some(outcome);
            }
            self.applied.offset = proposal.first.offset + proposal.header.writes.saturating_sub(1);
            held = self.applied;
        }
        self.machine.end_of_entry(*index, view.floor()).map_err(|error| error.to_string())?;
        self.floor = self.floor.max(view.floor());
        Ok(())
    }

    /// The entry that every member has, as far as the leader knows.
    fn min_matched(&self) -> u64 {
        self.engine.progress().map(|progress| progress.matched).min().unwrap_or_default()
    }

    /// Frees log that neither this replica nor any other needs, and log that others need: beyond so many bytes, and in
    /// segments older than this one.
    pub(crate) fn compact(&mut self, retained_bytes: u64, oldest_segment: u64) -> Option<crate::wal::Record> {
        if self.engine.is_leader() {
            self.floor = self.floor.max(self.min_matched());
        }
        let too_old = self.engine.index_before(oldest_segment);
        let wanted = self.floor.max(self.engine.index_over(retained_bytes)).max(too_old);
        let allowed = self.checkpointed.min(self.pinned_by_snapshot());
        self.engine.compact(self.membership.own.0, wanted.min(allowed))
    }

    /// Whether only a checkpoint of the state machine lets go of segments older than this one.
    pub(crate) fn awaits_checkpoint(&self, oldest_segment: u64) -> bool {
        self.engine.index_before(oldest_segment) > self.checkpointed
    }

    #[cfg(feature = "canary")]
    fn acks_before_sync(&self) -> bool {
        self.canary == Some(crate::Canary::AckBeforeSync)
    }

    #[cfg(not(feature = "canary"))]
    fn acks_before_sync(&self) -> bool {
        false
    }

    #[cfg(feature = "canary")]
    fn counts_learners(&self) -> bool {
        self.canary == Some(crate::Canary::LearnerCounted)
    }

    #[cfg(not(feature = "canary"))]
    fn counts_learners(&self) -> bool {
        false
    }

    #[cfg(feature = "canary")]
    fn reads_unasked(&self) -> bool {
        self.canary == Some(crate::Canary::ReadWithoutMajority) && self.engine.is_leader()
    }

    #[cfg(not(feature = "canary"))]
    fn reads_unasked(&self) -> bool {
        false
    }

    /// What must hold after every turn; called by tests and simulation.
    pub(crate) fn check_invariants(&self) {
        assert!(self.leading.is_some() || self.waiters.is_empty(), "{}: waiters without leadership", self.id);
        let ordered = self.outstanding.iter().zip(self.outstanding.iter().skip(1));
        for (earlier, later) in ordered {
            assert!(
                earlier.batch <= later.batch && earlier.ready < later.ready,
                "{}: held out of order",
                self.id
            );
        }
        // A machine that failed in the middle of an entry is where nobody knows; the group is halted then.
        assert!(
            self.applied.index == self.engine.applied() || self.halted.is_some(),
            "{}: applied differs from the engine's",
            self.id
        );
        assert!(self.engine.applied() <= self.engine.committed(), "{}: applied beyond the commit", self.id);
        let queued: usize = self.queue.iter().map(|p| p.body.len()).sum();
        let waiting: usize = self.waiters.values().map(|entry| entry.bytes).sum();
        assert_eq!(queued + waiting, self.waiting_bytes, "{}: bytes that wait", self.id);
        self.check_transfers();
    }
}

fn consensus(
    group: GroupId,
    messages: impl IntoIterator<Item = Message>,
) -> impl Iterator<Item = (GroupId, Payload)> {
    messages.into_iter().map(move |message| (group, Payload::Consensus(message)))
}
