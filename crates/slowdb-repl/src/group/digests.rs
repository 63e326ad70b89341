//! Digests of a group's replicas, compared at the same entry.

use super::{Event, Group, Sink};
use crate::engine::wire::Payload;
use crate::entry::EntryBuilder;
use crate::ids::ReplicaId;
use crate::machine::StateMachine;
use crate::note::{Note, Says};
use std::collections::{BTreeMap, VecDeque};

/// Ticks after which a leader compares digests if anything was written since it last did.
const COMPARE_TICKS: u64 = 50 * 30;
/// Comparisons that are remembered, for those who are behind.
const COMPARISONS_MAX: usize = 64;

/// What is known of the group's digests.
#[derive(Default)]
pub(super) struct Digests {
    /// The last comparisons applied here: index, digest.
    own: VecDeque<(u64, [u8; 16])>,
    /// On a leader: what the others said of the comparison at this index.
    said: BTreeMap<ReplicaId, (u64, [u8; 16])>,
    /// On a leader: the last index at which another replica's digest was the same as here.
    equal: BTreeMap<ReplicaId, u64>,
    /// Replicas whose difference was told, so that it is told once for each index.
    told: BTreeMap<ReplicaId, u64>,
    compared_at: u64,
}

impl<M: StateMachine> Group<M> {
    /// Has all replicas compare digests at one entry, and note an intent there. False if this replica does not lead.
    pub(crate) fn compare_digests(&mut self, intent: u64) -> bool {
        self.digests.compared_at = self.ticks;
        self.engine.propose(EntryBuilder::compare(self.floor, intent)).is_some()
    }

    /// Compares now and then, if there is something new to compare.
    pub(super) fn compare_sometimes(&mut self) {
        if cfg!(feature = "unguarded") {
            return;
        }
        let compared = self.digests.own.back().map_or(0, |(index, _)| *index);
        let due = self.ticks >= self.digests.compared_at + COMPARE_TICKS;
        if due && self.engine.is_leader() && self.applied.index > compared && self.halted.is_none() {
            self.compare_digests(0);
        }
    }

    /// A comparison is applied.
    pub(super) fn apply_comparison(&mut self, index: u64, term: u64, sink: &mut Sink<'_, M::Outcome>) {
        let digest = self.machine.digest();
        self.digests.own.push_back((index, digest));
        if self.digests.own.len() > COMPARISONS_MAX {
            self.digests.own.pop_front();
        }
        if let Some(leader) = self.engine.leader().filter(|leader| *leader != self.membership.own) {
            let says = Says::Digest { index, term, digest };
            sink.messages
                .push((self.id, Payload::Note(Note { from: self.membership.own, to: leader, says })));
        }
        let said: Vec<_> = self.digests.said.iter().map(|(from, said)| (*from, said.0, said.1)).collect();
        for (from, index, digest) in said {
            sink.events.extend(self.judge(from, index, digest));
        }
    }

    /// Another replica says what its digest was at an entry.
    pub(super) fn hear_digest(
        &mut self,
        from: ReplicaId,
        index: u64,
        digest: [u8; 16],
    ) -> Option<Event<M::Outcome>> {
        self.digests.said.insert(from, (index, digest));
        self.judge(from, index, digest)
    }

    fn judge(&mut self, from: ReplicaId, index: u64, digest: [u8; 16]) -> Option<Event<M::Outcome>> {
        let own = self.digests.own.iter().find(|own| own.0 == index)?.1;
        if own == digest {
            self.digests.equal.insert(from, index);
            return None;
        }
        self.digests.equal.remove(&from);
        if self.digests.told.insert(from, index) == Some(index) {
            return None;
        }
        let node = self.membership.member(from)?.node.clone();
        Some(Event::DigestDiffers { group: self.id, node, index })
    }

    /// The last index at which a replica's digest was seen to be the same as here; 0 if none was.
    pub(crate) fn equal_at(&self, replica: ReplicaId) -> u64 {
        self.digests.equal.get(&replica).copied().unwrap_or_default()
    }

    /// Who leads no more forgets what it heard as a leader.
    pub(super) fn forget_digests(&mut self) {
        let Digests { own, compared_at, .. } = std::mem::take(&mut self.digests);
        self.digests = Digests { own, compared_at, ..Digests::default() };
    }
}
