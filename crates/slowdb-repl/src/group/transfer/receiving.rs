//! A snapshot on its way in.
//!
//! Parts have numbers, from 0 on. A window of them is under way; what arrives out of order waits for those before it.
//! What is next in order is written by a job, one at a time, which takes the staging along and brings it back.

use super::{Done, PART_BYTES, WINDOW_PARTS, Work};
use crate::ids::ReplicaId;
use crate::machine::Staging;
use crate::note::{Offer, SnapshotPart};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Ticks without an answer after which all that was asked for is taken for lost.
const RETRY_TICKS: u64 = 25;
/// Times that a part is asked for without an answer, after which another snapshot may be taken instead. Time alone says
/// nothing of the sender: others may have had their turn to ask.
const ASKED_IN_VAIN_LOST: u32 = 6;
/// Then the snapshot is given up: a leader offers another.
const ASKED_IN_VAIN_MAX: u32 = 8;

/// Parts that are written by one job.
const WRITE_PARTS_MAX: usize = 4;

/// Invariants: `handed` ≤ `asked_end` ≤ `handed` + the window; what was asked for and what has arrived are apart, and from
/// `handed` on below `asked_end`.
pub(super) struct Receiving {
    pub(super) from: ReplicaId,
    pub(super) offer: Offer,
    /// Bytes that have arrived.
    pub(super) bytes: u64,
    /// Microseconds of [`crate::Now::micros`] at which it began, and at which all had arrived.
    began_at: u64,
    arrived_at: u64,
    staged: Staged,
    /// Parts below this one are in the staging, or a job writes them.
    handed: u64,
    /// Parts below this one were asked for, once at least.
    asked_end: u64,
    /// Parts that are under way.
    asked: BTreeSet<u64>,
    /// Parts that wait to be written.
    arrived: BTreeMap<u64, Bytes>,
    /// How many parts there are, once the last one was heard of.
    parts: Option<u64>,
    /// When something was asked for, or arrived, last.
    waits_since: u64,
    /// How often what was under way was taken for lost since something arrived.
    in_vain: u32,
}

enum Staged {
    /// At hand.
    Here(Box<dyn Staging>),
    /// With the job of this number, which may make it durable too.
    Away { job: u64, finishes: bool },
    /// All of it is durable.
    Durable,
}

/// A part to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) part: u64,
    /// It was asked for before.
    pub(super) again: bool,
}

impl Receiving {
    pub(super) fn new(
        from: ReplicaId,
        offer: Offer,
        staging: Box<dyn Staging>,
        ticks: u64,
        now: u64,
    ) -> Self {
        Receiving {
            from,
            offer,
            bytes: 0,
            began_at: now,
            arrived_at: now,
            staged: Staged::Here(staging),
            handed: 0,
            asked_end: 0,
            asked: BTreeSet::new(),
            arrived: BTreeMap::new(),
            parts: None,
            waits_since: ticks,
            in_vain: 0,
        }
    }

    /// How long it took until all parts were here.
    pub(super) fn arrived_in_micros(&self) -> u64 {
        self.micros_until(self.arrived_at)
    }

    pub(super) fn micros_until(&self, now: u64) -> u64 {
        now.saturating_sub(self.began_at)
    }

    /// Whether parts are still missing.
    pub(super) fn is_filling(&self) -> bool {
        matches!(self.staged, Staged::Here(_) | Staged::Away { finishes: false, .. })
    }

    pub(super) fn is_durable(&self) -> bool {
        matches!(self.staged, Staged::Durable)
    }

    pub(super) fn is_with(&self, number: u64) -> bool {
        matches!(self.staged, Staged::Away { job, .. } if job == number)
    }

    /// The sender has not answered for so long that another one's snapshot is as good.
    pub(super) fn is_sender_lost(&self) -> bool {
        self.in_vain >= ASKED_IN_VAIN_LOST
    }

    /// Nobody answers.
    pub(super) fn is_in_vain(&self) -> bool {
        self.in_vain > ASKED_IN_VAIN_MAX
    }

    /// Parts that were asked for and wait for their turn to be written; none while the sender does not answer, so that others
    /// need not wait for it.
    pub(super) fn parts_under_way(&self) -> u64 {
        if self.in_vain > 0 { 0 } else { self.asked_end - self.handed }
    }

    /// The next part to ask for, if it is time to. `may_ask_on` if parts may be asked for that were not yet.
    pub(super) fn next_want(&mut self, may_ask_on: bool, ticks: u64) -> Option<Wanted> {
        if !self.is_filling() {
            return None;
        }
        if !self.asked.is_empty() && self.waits_since + RETRY_TICKS <= ticks {
            self.asked.clear();
            self.in_vain += 1;
        }
        // Only one at a time of a sender that is silent: it, or the way to it, has enough to do.
        if self.in_vain > 0 && !self.asked.is_empty() {
            return None;
        }
        let end = (self.handed + WINDOW_PARTS).min(self.parts.unwrap_or(u64::MAX));
        let is_missing = |part: &u64| !self.asked.contains(part) && !self.arrived.contains_key(part);
        let part = (self.handed..end).find(is_missing)?;
        let again = part < self.asked_end;
        if !again && !may_ask_on {
            return None;
        }
        self.asked.insert(part);
        self.asked_end = self.asked_end.max(part + 1);
        self.waits_since = ticks;
        Some(Wanted { part, again })
    }

    /// A part arrived. Gives by how many bytes it took more of the pace than a part counts; the last one, which may be
    /// small, and parts that there are not, as is known with it, give back what they counted too much.
    pub(super) fn take(&mut self, part: SnapshotPart, ticks: u64) -> i64 {
        let SnapshotPart { number, last, body } = part;
        let is_due = (self.handed..self.asked_end).contains(&number) && !self.arrived.contains_key(&number);
        if !self.is_filling() || !is_due {
            return 0;
        }
        self.asked.remove(&number);
        self.waits_since = ticks;
        self.in_vain = 0;
        self.bytes += body.len() as u64;
        let mut more = body.len().saturating_sub(PART_BYTES) as i64;
        let unused = PART_BYTES.saturating_sub(body.len()) as i64;
        self.arrived.insert(number, body);
        if last {
            let end = number + 1;
            more -= unused + (self.asked_end - end) as i64 * PART_BYTES as i64;
            self.parts = Some(end);
            self.asked_end = end;
            self.asked.split_off(&end);
            self.arrived.split_off(&end);
        }
        more
    }

    /// Writes what has arrived in order, if no other job does. `number` names the job.
    pub(super) fn next_job(&mut self, number: u64, now: u64) -> Option<Work> {
        if !self.arrived.contains_key(&self.handed) || !matches!(self.staged, Staged::Here(_)) {
            return None;
        }
        let mut bodies = Vec::new();
        while bodies.len() < WRITE_PARTS_MAX
            && let Some(body) = self.arrived.remove(&self.handed)
        {
            bodies.push(body);
            self.handed += 1;
        }
        let finishes = self.parts == Some(self.handed);
        self.arrived_at = now;
        let away = Staged::Away { job: number, finishes };
        let Staged::Here(mut staging) = std::mem::replace(&mut self.staged, away) else { return None };
        Some(Box::new(move || {
            bodies.iter().try_for_each(|body| staging.write(body))?;
            if finishes { staging.finish().map(Done::Finished) } else { Ok(Done::Wrote(staging)) }
        }))
    }

    /// The job has written what it was given.
    pub(super) fn take_back(&mut self, staging: Box<dyn Staging>) {
        self.staged = Staged::Here(staging);
    }

    /// The job has made all of it durable. False if it is not what was offered.
    pub(super) fn finished(&mut self, digest: [u8; 16]) -> bool {
        self.staged = Staged::Durable;
        digest == self.offer.digest
    }

    pub(super) fn check_invariants(&self) {
        assert!((self.handed..=self.handed + WINDOW_PARTS).contains(&self.asked_end));
        let mut open = self.asked.iter().chain(self.arrived.keys());
        assert!(open.all(|part| (self.handed..self.asked_end).contains(part)));
        assert!(self.asked.iter().all(|part| !self.arrived.contains_key(part)));
    }
}
