//! Snapshots of a group, on their way out and in.
//!
//! A leader that has no log any more for a member makes a snapshot and offers it. The member asks for it part by part,
//! so the pace is the receiver's, and a connection that was lost costs a part. What arrives is staged beside the present
//! state and made durable; when its digest is right, the consensus engine is told to go on from there, and once *that*
//! is durable, the state machine is switched.

use super::{Event, Group, Sink};
use crate::Position;
use crate::engine::wire::Payload;
use crate::ids::ReplicaId;
use crate::machine::{ApplyError, SnapshotSource, Staging, StateMachine};
use crate::note::{Note, Offer, Says};
use crate::replicator::Job;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Ticks between offers to one member.
const OFFER_TICKS: u64 = 12;
/// Ticks after which a snapshot that nobody asks for is dropped, and the log behind it let go.
const SOURCE_IDLE_TICKS: u64 = 50 * 30;
/// Ticks without an answer after which a part is asked for again.
const PART_RETRY_TICKS: u64 = 25;
/// Ticks without an answer after which another snapshot may be taken instead.
const SENDER_LOST_TICKS: u64 = 50 * 3;
/// Times that a part is asked for without an answer. Then the snapshot is given up: a leader offers another.
const ASKED_MAX: u32 = 8;
/// About how large a part is, for the pace.
pub(crate) const PART_BYTES: usize = 256 * 1024;

/// Both directions.
#[derive(Default)]
pub(super) struct Transfers {
    sending: Option<Sending>,
    offered: BTreeMap<ReplicaId, u64>,
    receiving: Option<Receiving>,
    installing: Option<Installing>,
}

struct Sending {
    offer: Offer,
    source: Box<dyn SnapshotSource>,
    used_at: u64,
}

struct Receiving {
    from: ReplicaId,
    offer: Offer,
    cursor: u64,
    bytes: u64,
    /// When the part at `cursor` was asked for; `None` if it still has to be.
    asked_at: Option<u64>,
    /// How often it was asked for.
    asked: u32,
    heard_at: u64,
    staged: Staged,
}

enum Staged {
    Filling(Box<dyn Staging>),
    Finishing,
    Durable,
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
        let is_over = |r: &Receiving| committed >= r.offer.index || r.asked > ASKED_MAX;
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
        self.transfers.sending = Some(Sending { offer: offer.clone(), source, used_at: ticks });
        Ok(offer)
    }

    /// Log after this index is kept for those who take in a snapshot.
    pub(super) fn pinned_by_snapshot(&self) -> u64 {
        self.transfers.sending.as_ref().map_or(u64::MAX, |sending| sending.offer.index)
    }

    /// A note about snapshots arrived.
    pub(super) fn hear_transfer(&mut self, from: ReplicaId, says: Says) -> Option<Note> {
        let own = self.membership.own;
        let answer = |says| Some(Note { from: own, to: from, says });
        match says {
            Says::Offer(offer) => {
                self.consider(from, offer);
                None
            }
            Says::Want { id, cursor } => answer(self.part(id, cursor)),
            Says::Part { id, cursor, next, body } => {
                self.take_part(from, id, cursor, next, &body);
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

    fn part(&mut self, id: u64, cursor: u64) -> Says {
        let ticks = self.ticks;
        let Some(sending) = self.transfers.sending.as_mut().filter(|sending| sending.offer.id == id) else {
            return Says::Gone { id };
        };
        sending.used_at = ticks;
        let mut body = Vec::with_capacity(PART_BYTES + 4096);
        match sending.source.read(cursor, &mut body) {
            Ok(next) => Says::Part { id, cursor, next, body: Bytes::from(body) },
            Err(error) => {
                tracing::error!(group = %self.id, %error, "a snapshot cannot be read");
                self.transfers.sending = None;
                Says::Gone { id }
            }
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
        let busy = self.transfers.receiving.as_ref().is_some_and(|receiving| {
            !receiving.is_filling() || receiving.heard_at + SENDER_LOST_TICKS > ticks
        });
        if installs || !member || !known || busy || self.halted.is_some() {
            return;
        }
        // What was there of another snapshot makes room first.
        self.transfers.receiving = None;
        match self.machine.stage(offer.index) {
            Ok(staging) => {
                self.transfers.receiving = Some(Receiving {
                    from,
                    offer,
                    cursor: 0,
                    bytes: 0,
                    asked_at: None,
                    asked: 0,
                    heard_at: ticks,
                    staged: Staged::Filling(staging),
                });
            }
            Err(error) => tracing::error!(group = %self.id, %error, "cannot take in a snapshot"),
        }
    }

    /// The next part to ask for, if it is time to, and whether it was asked for before. The caller keeps the pace, in
    /// which a part counts once: one that is asked for in vain must not take the others' turn.
    pub(crate) fn next_want(&mut self) -> Option<(Note, bool)> {
        let own = self.membership.own;
        let ticks = self.ticks;
        let receiving = self.transfers.receiving.as_mut().filter(|receiving| receiving.is_filling())?;
        if receiving.asked_at.is_some_and(|asked| asked + PART_RETRY_TICKS > ticks) {
            return None;
        }
        let again = receiving.asked_at.replace(ticks).is_some();
        receiving.asked += 1;
        let says = Says::Want { id: receiving.offer.id, cursor: receiving.cursor };
        Some((Note { from: own, to: receiving.from, says }, again))
    }

    fn take_part(&mut self, from: ReplicaId, id: u64, cursor: u64, next: Option<u64>, body: &Bytes) {
        let ticks = self.ticks;
        let Some(receiving) = self.transfers.receiving.as_mut() else { return };
        if receiving.from != from || receiving.offer.id != id || receiving.cursor != cursor {
            return;
        }
        let Staged::Filling(staging) = &mut receiving.staged else { return };
        if let Err(error) = staging.write(body) {
            tracing::error!(group = %self.id, %error, "a snapshot cannot be taken in");
            self.transfers.receiving = None;
            return;
        }
        receiving.bytes += body.len() as u64;
        receiving.heard_at = ticks;
        receiving.asked = 0;
        match next.filter(|next| *next > cursor) {
            Some(next) => {
                receiving.cursor = next;
                receiving.asked_at = None;
            }
            None => {
                let staged = std::mem::replace(&mut receiving.staged, Staged::Finishing);
                if let Staged::Filling(staging) = staged {
                    self.finish = Some(staging);
                }
            }
        }
    }

    /// Hands out the job that makes a staged snapshot durable.
    pub(super) fn hand_out_jobs(&mut self, sink: &mut Sink<'_, M::Outcome>) {
        if let Some(staging) = self.finish.take() {
            sink.jobs.push(Job { group: self.id, work: staging.finish() });
        }
    }

    /// Whether a snapshot is arriving, or waits to be switched to.
    pub(super) fn is_receiving(&self) -> bool {
        self.transfers.receiving.is_some()
    }

    /// The job is done.
    pub(crate) fn staged(&mut self, result: Result<[u8; 16], ApplyError>) {
        let finishing = |receiving: &&mut Receiving| matches!(receiving.staged, Staged::Finishing);
        // The result may be that of a job for a replica that is gone.
        let Some(receiving) = self.transfers.receiving.as_mut().filter(finishing) else { return };
        match result {
            Ok(digest) if digest == receiving.offer.digest => receiving.staged = Staged::Durable,
            Ok(_) => {
                tracing::error!(group = %self.id, "a snapshot arrived with another digest than it was sent with");
                self.transfers.receiving = None;
            }
            Err(error) => {
                tracing::error!(group = %self.id, %error, "a snapshot cannot be made durable");
                self.transfers.receiving = None;
            }
        }
    }

    /// Lets the consensus engine go on from a snapshot that is durable here, as soon as it can.
    pub(super) fn restore_staged(&mut self) {
        let durable = |receiving: &Receiving| matches!(receiving.staged, Staged::Durable);
        let Some(receiving) = self.transfers.receiving.as_ref().filter(|r| durable(r)) else { return };
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

impl Receiving {
    fn is_filling(&self) -> bool {
        matches!(self.staged, Staged::Filling(_))
    }
}
