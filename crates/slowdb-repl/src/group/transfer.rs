//! Snapshots of a group, on their way out and in.
//!
//! A leader that has no log any more for a member makes a snapshot and offers it. The member asks for it part by part,
//! a few at a time, so the pace is the receiver's, and a connection that was lost costs what was under way. What arrives
//! is staged beside the present state and made durable; when its digest is right, the consensus engine is told to go on
//! from there, and once *that* is durable, the state machine is switched.
//!
//! Reading and writing parts takes its time, and the thread of the core has elections to hold: both are handed out as
//! jobs.

mod receiving;
mod sending;

use super::{Event, Group, Sink};
use crate::engine::wire::Payload;
use crate::ids::{GroupId, ReplicaId};
use crate::machine::{ApplyError, Staging, StateMachine};
use crate::note::{Note, Offer, Says, SnapshotPart};
use crate::{Now, Position};
use receiving::{Receiving, Wanted};
use sending::{ReadParts, Sending};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

/// Ticks between offers to one member.
const OFFER_TICKS: u64 = 12;
/// Ticks after which a snapshot that nobody asks for is dropped, and the log behind it let go.
const SOURCE_IDLE_TICKS: u64 = 50 * 30;
/// Parts of one snapshot that a receiver has under way at a time, or waiting for a job that writes them.
const WINDOW_PARTS: u64 = 12;
/// About how large a part is, for the pace.
pub(crate) const PART_BYTES: usize = 512 * 1024;

/// Both directions.
#[derive(Default)]
pub(super) struct Transfers {
    sending: Option<Sending>,
    offered: BTreeMap<ReplicaId, u64>,
    receiving: Option<Receiving>,
    /// The job that has the staging. Another one cannot begin under the same name meanwhile.
    writing: Option<u64>,
    installing: Option<Installing>,
    /// Jobs handed out so far.
    jobs: u64,
    /// Bytes that were asked for beyond what parts count in the pace.
    more_bytes: i64,
    /// Microseconds of [`Now::micros`] at the last flush, for what is said of the time that a snapshot took.
    flushed_at: u64,
}

/// Work for a thread that may block. Its result goes to [`Replicator::job_done`](crate::Replicator::job_done).
pub struct Job {
    group: GroupId,
    replica: ReplicaId,
    number: u64,
    work: Work,
}

type Work = Box<dyn FnOnce() -> Result<Done, ApplyError> + Send>;

/// A job that was run.
pub struct JobDone {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    number: u64,
    result: Result<Done, ApplyError>,
}

enum Done {
    Read(ReadParts),
    Wrote(Box<dyn Staging>),
    Finished([u8; 16]),
}

impl Job {
    /// Does the work. It reads and writes files. A panic in it counts as its failure.
    pub fn run(self) -> JobDone {
        let Job { group, replica, number, work } = self;
        let result = std::panic::catch_unwind(AssertUnwindSafe(work));
        let result = result.unwrap_or_else(|_| Err(ApplyError("it panicked".to_owned())));
        JobDone { group, replica, number, result }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Job { group, replica, number, work: _ } = self;
        f.debug_struct("Job")
            .field("group", group)
            .field("replica", replica)
            .field("number", number)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for JobDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let JobDone { group, replica, number, result } = self;
        f.debug_struct("JobDone")
            .field("group", group)
            .field("replica", replica)
            .field("number", number)
            .field("error", &result.as_ref().err())
            .finish_non_exhaustive()
    }
}

/// The log goes on from a snapshot as soon as that is durable.
struct Installing {
    ready: u64,
    at: Position,
    incarnation: u64,
}

/// How far a snapshot has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arriving {
    /// Bytes that are here.
    pub bytes: u64,
    /// About how many there will be.
    pub of_bytes: u64,
}

impl<M: StateMachine> Group<M> {
    /// Offers snapshots to the members that need one. To be called at every tick.
    pub(super) fn tick_transfers(&mut self) -> Vec<Note> {
        let ticks = self.ticks;
        let idle = |sending: &Sending| sending.used_at + SOURCE_IDLE_TICKS <= ticks;
        if self.transfers.sending.as_ref().is_some_and(idle) {
            self.transfers.sending = None;
        }
        // It would ask for ever, and what may be asked for in a second is shared by all groups.
        let committed = self.engine.committed();
        let is_over = |r: &Receiving| committed >= r.offer.index || r.is_in_vain();
        if self.transfers.receiving.as_ref().is_some_and(|r| r.is_filling() && is_over(r)) {
            self.transfers.receiving = None;
        }
        let behind = self.engine.take_behind();
        if behind.is_empty() || !self.engine.is_leader() || self.halted.is_some() {
            return Vec::new();
        }
        let own = self.membership.own;
        let mut notes = Vec::new();
        for to in behind {
            let last = self.transfers.offered.get(&to);
            if last.is_some_and(|last| last + OFFER_TICKS > ticks) {
                continue;
            }
            match self.offer(to) {
                Ok(offer) => notes.push(Note { from: own, to, says: Says::Offer(offer) }),
                Err(error) => {
                    tracing::warn!(group = %self.id, %error, "no snapshot for a member that needs one")
                }
            }
            self.transfers.offered.insert(to, ticks);
        }
        notes
    }

    /// The snapshot at hand if the log still follows on it and it knows of the receiver, or a new one.
    fn offer(&mut self, to: ReplicaId) -> Result<Offer, ApplyError> {
        let first = self.engine.first_index();
        let ticks = self.ticks;
        let fits = |offer: &Offer| offer.index + 1 >= first && offer.members.member(to).is_some();
        // To be offered is not to be used: a receiver that never takes it does not keep it, nor the log behind it.
        if let Some(sending) = self.transfers.sending.as_ref().filter(|s| fits(&s.offer)) {
            return Ok(sending.offer.clone());
        }
        let source = self.machine.snapshot()?;
        let offer = Offer {
            // Ids of one leader differ by the index, those of different leaders by who sends them.
            id: self.applied.index,
            index: self.applied.index,
            term: self.applied.term,
            offset: self.applied.offset,
            bytes: source.bytes(),
            digest: source.digest(),
            members: self.membership.clone(),
        };
        self.transfers.sending = Some(Sending::new(offer.clone(), source, ticks));
        Ok(offer)
    }

    /// Log after this index is kept for those who take in a snapshot.
    pub(super) fn pinned_by_snapshot(&self) -> u64 {
        self.transfers.sending.as_ref().map_or(u64::MAX, |sending| sending.offer.index)
    }

    /// A note about snapshots arrived.
    pub(super) fn hear_transfer(&mut self, from: ReplicaId, says: Says) -> Option<Note> {
        match says {
            Says::Offer(offer) => {
                self.consider(from, offer);
                None
            }
            Says::Want { id, part } => {
                let ticks = self.ticks;
                let sending = self.transfers.sending.as_mut().filter(|sending| sending.offer.id == id);
                let is_here = sending.is_some_and(|sending| sending.want(from, part, ticks));
                (!is_here).then(|| Note { from: self.membership.own, to: from, says: Says::Gone { id } })
            }
            Says::Part { id, part } => {
                self.take_part(from, id, part);
                None
            }
            Says::Gone { id } => {
                let gone = |r: &Receiving| r.from == from && r.offer.id == id;
                if matches!(self.transfers.receiving.as_ref(), Some(r) if gone(r) && r.is_filling()) {
                    self.transfers.receiving = None;
                }
                None
            }
            Says::Digest { .. }
            | Says::Overtaken { .. }
            | Says::Settled { .. }
            | Says::Forward { .. }
            | Says::ReadAsked { .. }
            | Says::ReadConfirmed { .. } => None,
        }
    }

    /// A leader offers a snapshot: it is taken if it is needed, and no other one is on its way.
    fn consider(&mut self, from: ReplicaId, offer: Offer) {
        if self.engine.committed() >= offer.index {
            // The leader would not offer it if it knew: the word that it had arrived was lost.
            return self.engine.tell_committed(from);
        }
        let installs = self.transfers.installing.is_some();
        let member = offer.members.member(self.membership.own).is_some();
        // A leader offers to those who have answered it, and so are in its term at least.
        let known = offer.term <= self.engine.term();
        let ticks = self.ticks;
        let busy = |receiving: &Receiving| !receiving.is_filling() || !receiving.is_sender_lost();
        let busy = self.transfers.receiving.as_ref().is_some_and(busy);
        let writes = self.transfers.writing.is_some();
        if installs || !member || !known || busy || writes || self.halted.is_some() {
            return;
        }
        // What was there of another snapshot makes room first.
        self.transfers.receiving = None;
        match self.machine.stage(offer.index) {
            Ok(staging) => {
                let now = self.transfers.flushed_at;
                self.transfers.receiving = Some(Receiving::new(from, offer, staging, ticks, now));
            }
            Err(error) => tracing::error!(group = %self.id, %error, "cannot take in a snapshot"),
        }
    }

    /// Whether parts of a snapshot are missing here.
    pub(crate) fn misses_parts(&self) -> bool {
        self.transfers.receiving.as_ref().is_some_and(Receiving::is_filling) && self.halted.is_none()
    }

    /// Parts of a snapshot that are under way, or wait to be written.
    pub(crate) fn parts_under_way(&self) -> u64 {
        self.transfers.receiving.as_ref().map_or(0, Receiving::parts_under_way)
    }

    /// The next part to ask for, if it is time to, and whether it was asked for before. The caller keeps the pace, in
    /// which a part counts once: one that is asked for in vain must not take the others' turn. `may_ask_on` if the pace
    /// allows for a part that was not asked for before.
    pub(crate) fn next_want(&mut self, may_ask_on: bool) -> Option<(Note, bool)> {
        let own = self.membership.own;
        let receiving = self.transfers.receiving.as_mut()?;
        let Wanted { part, again } = receiving.next_want(may_ask_on, self.ticks)?;
        let says = Says::Want { id: receiving.offer.id, part };
        Some((Note { from: own, to: receiving.from, says }, again))
    }

    /// Bytes that were taken from the pace beyond what parts count in it, since this was asked last.
    pub(crate) fn take_more_bytes(&mut self) -> i64 {
        std::mem::take(&mut self.transfers.more_bytes)
    }

    fn take_part(&mut self, from: ReplicaId, id: u64, part: SnapshotPart) {
        let ticks = self.ticks;
        let receiving = self.transfers.receiving.as_mut();
        let Some(receiving) = receiving.filter(|r| r.from == from && r.offer.id == id) else { return };
        self.transfers.more_bytes += receiving.take(part, ticks);
    }

    /// Hands out the jobs that read and write parts.
    pub(super) fn hand_out_jobs(&mut self, now: Now, sink: &mut Sink<'_, M::Outcome>) {
        let (group, replica) = (self.id, self.membership.own);
        let transfers = &mut self.transfers;
        transfers.flushed_at = now.micros;
        let number = transfers.jobs + 1;
        if let Some(work) = transfers.sending.as_mut().and_then(|sending| sending.next_job(number)) {
            transfers.jobs = number;
            sink.jobs.push(Job { group, replica, number, work });
        }
        let number = transfers.jobs + 1;
        if let Some(work) =
            transfers.receiving.as_mut().and_then(|receiving| receiving.next_job(number, now.micros))
        {
            transfers.jobs = number;
            transfers.writing = Some(number);
            sink.jobs.push(Job { group, replica, number, work });
        }
    }

    /// A job is done. It may be that of a snapshot that is gone.
    pub(crate) fn job_done(&mut self, done: JobDone) {
        let JobDone { number, result, .. } = done;
        if self.transfers.writing == Some(number) {
            self.transfers.writing = None;
            self.wrote(number, result);
        } else if self.transfers.sending.as_ref().is_some_and(|sending| sending.is_read_by(number)) {
            self.has_read(result);
        }
    }

    /// Whether a snapshot is under way, in either direction.
    pub(super) fn has_transfers(&self) -> bool {
        let Transfers { sending, receiving, writing, installing, .. } = &self.transfers;
        sending.is_some() || receiving.is_some() || writing.is_some() || installing.is_some()
    }

    /// Whether a snapshot is arriving, or waits to be switched to.
    pub(super) fn is_receiving(&self) -> bool {
        self.transfers.receiving.is_some()
    }

    fn has_read(&mut self, result: Result<Done, ApplyError>) {
        let Some(sending) = self.transfers.sending.as_mut() else { return };
        let (own, id) = (self.membership.own, sending.offer.id);
        match result {
            Ok(Done::Read(ReadParts { cursors, parts })) => {
                sending.take_back(cursors);
                let note = |(to, part)| Note { from: own, to, says: Says::Part { id, part } };
                self.outbox.extend(parts.into_iter().map(note));
            }
            Ok(Done::Wrote(_) | Done::Finished(_)) => {}
            Err(error) => {
                tracing::error!(group = %self.id, %error, "a snapshot cannot be read");
                let receivers = self.transfers.sending.take().map(Sending::into_receivers);
                let gone = |to| Note { from: own, to, says: Says::Gone { id } };
                self.outbox.extend(receivers.into_iter().flatten().map(gone));
            }
        }
    }

    fn wrote(&mut self, number: u64, result: Result<Done, ApplyError>) {
        let receiving = self.transfers.receiving.as_mut();
        let Some(receiving) = receiving.filter(|receiving| receiving.is_with(number)) else { return };
        match result {
            Ok(Done::Wrote(staging)) => receiving.take_back(staging),
            Ok(Done::Finished(digest)) if receiving.finished(digest) => {
                let (bytes, arrived) = (receiving.bytes, receiving.arrived_in_micros());
                let (arrived_ms, ms) =
                    (arrived / 1_000, receiving.micros_until(self.transfers.flushed_at) / 1_000);
                tracing::info!(group = %self.id, bytes, arrived_ms, durable_ms = ms, "took in a snapshot");
            }
            Ok(Done::Finished(_)) => {
                tracing::error!(group = %self.id, "a snapshot arrived with another digest than it was sent with");
                self.transfers.receiving = None;
            }
            Ok(Done::Read(_)) => {}
            Err(error) => {
                tracing::error!(group = %self.id, %error, "a snapshot cannot be taken in");
                self.transfers.receiving = None;
            }
        }
    }

    /// Lets the consensus engine go on from a snapshot that is durable here, as soon as it can.
    pub(super) fn restore_staged(&mut self) {
        let Some(receiving) = self.transfers.receiving.as_ref().filter(|r| r.is_durable()) else { return };
        if self.engine.committed() >= receiving.offer.index {
            self.transfers.receiving = None;
            return;
        }
        let mut members = receiving.offer.members.clone();
        members.own = self.membership.own;
        members.group = self.id;
        members.incarnation = receiving.offer.index;
        self.engine.restore(receiving.offer.index, receiving.offer.term, &members);
    }

    /// The log goes on from a snapshot once the ready of this number is durable.
    pub(super) fn restoring(&mut self, ready: u64, index: u64) {
        let receiving = self.transfers.receiving.take();
        let Some(Receiving { offer, .. }) = receiving.filter(|receiving| receiving.offer.index == index)
        else {
            self.halt(format!("the log goes on from a snapshot at {index} that is not here"));
            return;
        };
        let at = Position { term: offer.term, index, offset: offer.offset };
        self.transfers.installing = Some(Installing { ready, at, incarnation: index });
        let own = self.membership.own;
        self.membership =
            crate::Membership { group: self.id, own, index, incarnation: index, ..offer.members };
        self.members_changed = true;
        self.strangers.meet(&self.membership);
    }

    /// Everything up to this ready is durable: a snapshot that the log goes on from is switched to.
    pub(super) fn install_durable(&mut self, ready: u64) {
        let Some(installing) = self.transfers.installing.take_if(|i| i.ready <= ready) else { return };
        if let Err(error) = self.machine.install(installing.incarnation) {
            self.halt(format!("a snapshot cannot be switched to: {error}"));
            return;
        }
        self.machine.forget();
        self.applied = installing.at;
        self.checkpointed = installing.at.index;
        self.floor = self.floor.max(installing.at.index);
        self.engine.applied_to(installing.at.index);
    }

    pub(super) fn check_transfers(&self) {
        self.transfers.receiving.iter().for_each(Receiving::check_invariants);
    }

    /// How far a snapshot has arrived, if one is on its way.
    pub(crate) fn arriving(&self) -> Option<Arriving> {
        let receiving = self.transfers.receiving.as_ref()?;
        Some(Arriving { bytes: receiving.bytes, of_bytes: receiving.offer.bytes.max(receiving.bytes) })
    }

    /// The group's members as of a snapshot were taken over.
    pub(super) fn tell_members(&mut self, sink: &mut Sink<'_, M::Outcome>) {
        if std::mem::take(&mut self.members_changed) {
            sink.events.push(Event::Members { group: self.id });
        }
    }

    /// Sends notes.
    pub(super) fn send_notes(&self, notes: Vec<Note>, sink: &mut Sink<'_, M::Outcome>) {
        sink.messages.extend(notes.into_iter().map(|note| (self.id, Payload::Note(note))));
    }
}
