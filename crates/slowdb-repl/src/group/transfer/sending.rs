//! A snapshot on its way out.
//!
//! Receivers ask for parts by their numbers. Where a part begins is known once the part before it has been read, so the
//! cursors are noted on the way. Reading and hashing is a job: only one runs at a time, and it reads what was asked for
//! by then.

use super::{Done, PART_BYTES, WINDOW_PARTS, Work};
use crate::ids::ReplicaId;
use crate::machine::{ApplyError, SnapshotSource};
use crate::note::{Offer, SnapshotPart};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Parts that are read by one job: what it holds until it is done is bounded by that.
const READ_PARTS_MAX: usize = 4;
/// Parts that may wait to be read. Who asks for more than that asks again.
const WANTED_PARTS_MAX: usize = 64;

pub(super) struct Sending {
    pub(super) offer: Offer,
    pub(super) used_at: u64,
    source: Arc<dyn SnapshotSource>,
    wanted: VecDeque<(ReplicaId, u64)>,
    /// All who asked so far.
    receivers: BTreeSet<ReplicaId>,
    /// Parts whose cursor is known.
    known: u64,
    cursors: Cursors,
    /// The job that reads, and has the cursors meanwhile.
    job: Option<u64>,
}

/// Where parts begin, as far as they have been read.
pub(in crate::group) struct Cursors {
    starts: Vec<u64>,
    /// The last of them is the last part.
    ended: bool,
}

/// What a job has read.
pub(in crate::group) struct ReadParts {
    pub(super) cursors: Cursors,
    pub(super) parts: Vec<(ReplicaId, SnapshotPart)>,
}

impl Sending {
    pub(super) fn new(offer: Offer, source: Box<dyn SnapshotSource>, ticks: u64) -> Self {
        let cursors = Cursors { starts: vec![0], ended: false };
        Sending {
            offer,
            used_at: ticks,
            source: source.into(),
            wanted: VecDeque::new(),
            receivers: BTreeSet::new(),
            known: 1,
            cursors,
            job: None,
        }
    }

    /// Somebody asks for a part. False if it asks for one that it cannot know of: it means another snapshot, of an
    /// earlier life of this node.
    pub(super) fn want(&mut self, from: ReplicaId, part: u64, ticks: u64) -> bool {
        if part >= self.known + WINDOW_PARTS {
            return false;
        }
        self.used_at = ticks;
        self.receivers.insert(from);
        if self.wanted.len() < WANTED_PARTS_MAX && !self.wanted.contains(&(from, part)) {
            self.wanted.push_back((from, part));
        }
        true
    }

    /// Reads what is wanted, if no other job does. `number` names the job.
    pub(super) fn next_job(&mut self, number: u64) -> Option<Work> {
        if self.job.is_some() || self.wanted.is_empty() {
            return None;
        }
        self.job = Some(number);
        let wanted = self.wanted.drain(..self.wanted.len().min(READ_PARTS_MAX)).collect();
        let cursors = std::mem::replace(&mut self.cursors, Cursors { starts: Vec::new(), ended: true });
        let source = Arc::clone(&self.source);
        Some(Box::new(move || Ok(Done::Read(cursors.read_all(&*source, wanted)?))))
    }

    pub(super) fn is_read_by(&self, job: u64) -> bool {
        self.job == Some(job)
    }

    pub(super) fn into_receivers(self) -> BTreeSet<ReplicaId> {
        self.receivers
    }

    /// The job is done.
    pub(super) fn take_back(&mut self, cursors: Cursors) {
        self.known = cursors.starts.len() as u64;
        self.cursors = cursors;
        self.job = None;
    }
}

impl Cursors {
    fn read_all(
        mut self,
        source: &dyn SnapshotSource,
        wanted: Vec<(ReplicaId, u64)>,
    ) -> Result<ReadParts, ApplyError> {
        let mut parts = Vec::with_capacity(wanted.len());
        for (to, number) in wanted {
            parts.extend(self.read(source, number)?.map(|part| (to, part)));
        }
        Ok(ReadParts { cursors: self, parts })
    }

    /// The part of this number; `None` if there are fewer.
    fn read(&mut self, source: &dyn SnapshotSource, number: u64) -> Result<Option<SnapshotPart>, ApplyError> {
        // The word that asked for those before it was lost.
        while !self.ended && self.starts.len() as u64 <= number {
            self.read_known(source, self.starts.len() - 1)?;
        }
        if number >= self.starts.len() as u64 {
            return Ok(None);
        }
        let body = self.read_known(source, number as usize)?;
        let last = self.ended && number + 1 == self.starts.len() as u64;
        Ok(Some(SnapshotPart { number, last, body: Bytes::from(body) }))
    }

    /// Reads a part whose cursor is known, and notes where the next one begins.
    fn read_known(&mut self, source: &dyn SnapshotSource, at: usize) -> Result<Vec<u8>, ApplyError> {
        let cursor = self.starts[at];
        let mut body = Vec::with_capacity(PART_BYTES + 4096);
        let next = source.read(cursor, &mut body)?;
        if at + 1 == self.starts.len() {
            match next.filter(|next| *next > cursor) {
                Some(next) => self.starts.push(next),
                None => self.ended = true,
            }
        }
        Ok(body)
    }
}
