//! Proposals: they wait for their turn, are merged into entries, and somebody waits for each of them.

use super::Group;
use super::words::{Failure, Proposal, Token};
use crate::entry::{AckLevel, EntryBuilder, ProposalHeader};
use crate::ids::ReplicaId;
use crate::machine::StateMachine;
use crate::{Now, Position};
use bytes::Bytes;

/// Proposals are merged into one entry up to this many bytes, if an entry can have as many.
const MERGED_BYTES_MAX: usize = 1024 * 1024;

/// A proposal that waits for its turn.
pub(super) struct Queued {
    /// But for the time, which it gets when it is proposed, if it is not late.
    pub(super) header: ProposalHeader,
    pub(super) body: Bytes,
    pub(super) deadline: u64,
    pub(super) whom: Whom,
}

/// Who waits for a proposal.
#[derive(Clone, Copy)]
pub(super) enum Whom {
    /// The embedder.
    Embedder(Token),
    /// A replica that keeps it until it is settled. It is late, and had this position.
    Holder(ReplicaId, Position),
}

pub(super) struct Waiter<O> {
    pub(super) whom: Whom,
    pub(super) level: AckLevel,
    pub(super) deadline: u64,
    pub(super) offset: u32,
    pub(super) outcome: Option<O>,
    pub(super) answered: bool,
}

pub(super) struct EntryWaiters<O> {
    pub(super) bytes: usize,
    pub(super) waiters: Vec<Waiter<O>>,
}

impl<M: StateMachine> Group<M> {
    pub(crate) fn propose(&mut self, proposal: Proposal) {
        let Proposal { token, level, retry, writes, client, sequence, body, deadline } = proposal;
        let origin = self.membership.own.0;
        let header = ProposalHeader { level, retry, writes, client, sequence, hlc: 0, origin, late: None };
        self.enqueue(Queued { header, body, deadline, whom: Whom::Embedder(token) });
    }

    /// Whether an entry can hold a proposal with this body, be it on time or late.
    ///
    /// # Errors
    /// [`Failure::TooLarge`].
    pub(crate) fn check_fits(&self, body: &[u8]) -> Result<(), Failure> {
        let bytes = EntryBuilder::entry_bytes(EntryBuilder::proposal_bytes(body.len()));
        let limit = self.entry_bytes_max;
        if bytes > limit { Err(Failure::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    pub(super) fn enqueue(&mut self, queued: Queued) {
        self.waiting_bytes += queued.body.len();
        self.queue.push_back(queued);
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.queue.len() + self.waiters.len()
    }

    /// Merges what is queued into as few entries as fit.
    pub(super) fn propose_queued(&mut self, hlc: &mut Hlc, now: Now) {
        let merged_max = self.entry_bytes_max.min(MERGED_BYTES_MAX);
        while !self.queue.is_empty() && self.engine.is_leader() {
            self.floor = self.floor.max(self.min_matched());
            let mut bytes = 0;
            let mut count = 0;
            let mut writes = 0u32;
            for proposal in &self.queue {
                let more = EntryBuilder::proposal_bytes(proposal.body.len());
                let fits = EntryBuilder::entry_bytes(bytes + more) <= merged_max;
                let sum = writes.checked_add(proposal.header.writes).filter(|_| fits);
                if count > 0 && sum.is_none() {
                    break;
                }
                writes = sum.unwrap_or(proposal.header.writes);
                bytes += more;
                count += 1;
            }
            let mut builder = EntryBuilder::new(self.floor, bytes);
            let offsets: Vec<u32> = self
                .queue
                .iter()
                .take(count)
                .map(|proposal| {
                    let header = proposal.header;
                    let hlc = if header.late.is_some() { header.hlc } else { hlc.next(now) };
                    builder.push(&ProposalHeader { hlc, ..header }, &proposal.body)
                })
                .collect();
            let Some((term, index)) = self.engine.propose(builder.finish()) else { return };
            self.leading = Some(term);
            let waiters = self.queue.drain(..count).zip(offsets);
            let mut entry = EntryWaiters { bytes: 0, waiters: Vec::with_capacity(count) };
            for (proposal, offset) in waiters {
                entry.bytes += proposal.body.len();
                let Queued { header, deadline, whom, .. } = proposal;
                // What is late is settled by being applied, and not before.
                let level = if header.late.is_some() { AckLevel::Quorum } else { header.level };
                entry.waiters.push(Waiter { whom, level, deadline, offset, outcome: None, answered: false });
            }
            self.waiters.insert(index, entry);
        }
    }
}

/// Hybrid logical time: never falls, follows the wall clock, counts within a millisecond.
#[derive(Debug, Default)]
pub(crate) struct Hlc(u64);

impl Hlc {
    pub(super) fn next(&mut self, now: Now) -> u64 {
        self.0 = self.0.saturating_add(1).max(now.wall_millis << 16);
        self.0
    }

    pub(super) fn observe(&mut self, seen: u64) {
        self.0 = self.0.max(seen);
    }
}
