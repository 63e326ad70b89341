//! Damaged records are fetched from other replicas.
//!
//! A record's slot holds its hash, and has a checksum of its own. So whatever another replica answers to an ordinary get is
//! right if, and only if, it has that hash, wherever that replica is in the log. What the scrub finds is asked for once from
//! each other replica, in few requests at a time; what none of them has is left to the next round.

use crate::machine::Machine;
use crate::node::{Effect, Node};
use bytes::Bytes;
use slowdb_proto::{Freshness, GetRequest, Reply};
use slowdb_repl::{GroupId, NodeId};
use slowdb_storage::Corruption;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most questions to other replicas under way.
const ASKED_MAX: usize = 4;
/// Most damaged records that wait; more are found again by the next scrub.
const WAITING_MAX: usize = 1024;

/// A record that is to be asked for; see [`Effect::Fetch`].
pub struct Fetch {
    /// What the answer is to be given with.
    pub number: u64,
    /// Who is asked.
    pub node: NodeId,
    /// For what.
    pub get: GetRequest,
}

/// A damaged record.
struct Damaged {
    group: GroupId,
    store: (u64, u64),
    slot: u32,
    /// Who was asked for it.
    asked: BTreeSet<NodeId>,
}

/// Damaged records on their way.
#[derive(Default)]
pub(crate) struct Mends {
    waiting: VecDeque<Damaged>,
    /// By the number of the question, with the id.
    under_way: BTreeMap<u64, (Damaged, String)>,
    last_number: u64,
}

impl Mends {
    /// A scrub found these.
    pub(crate) fn found(&mut self, group: GroupId, store: (u64, u64), bad: &[Corruption]) {
        let room = WAITING_MAX.saturating_sub(self.waiting.len());
        let slots = bad.iter().filter_map(|bad| bad.slot).take(room);
        self.waiting.extend(slots.map(|slot| Damaged { group, store, slot, asked: BTreeSet::new() }));
    }
}

impl Node {
    /// To be called at every tick: asks for what waits.
    pub(crate) fn tend_mends(&mut self) {
        while self.mends.under_way.len() < ASKED_MAX && !self.is_stopping() {
            let Some(damaged) = self.mends.waiting.pop_front() else { return };
            self.ask_for(damaged);
        }
    }

    /// Asks the next replica, unless all were asked, or the record is gone.
    fn ask_for(&mut self, mut damaged: Damaged) {
        let group = damaged.group;
        if self.scrubbed_store(group) != Some(damaged.store) || self.halted.contains_key(&group) {
            return;
        }
        let shard = self.repl.machine(group).and_then(Machine::shard);
        let Some(id) = shard.and_then(|shard| shard.damaged_id(damaged.slot)) else { return };
        let Some((collection, shard)) = self.catalog().and_then(|catalog| catalog.shard_of(group)) else {
            return;
        };
        let members = self.repl.membership(group).map_or(&[][..], |membership| &membership.members);
        let others = members.iter().map(|member| &member.node).filter(|node| *node != self.repl.node());
        let Some(node) = others.filter(|node| !damaged.asked.contains(*node)).min().cloned() else {
            tracing::warn!(%group, slot = damaged.slot, id, "no other replica gave the damaged record");
            return;
        };
        let fresh = Freshness { level: Some(collection.settings.read_floor), seen: Vec::new(), wait_ms: 0 };
        let first_group = collection.shards.first().map_or(0, |first| first.spec.group);
        let get = GetRequest {
            collection: collection.name.clone(),
            first_group,
            shard,
            fresh,
            ids: vec![id.clone()],
        };
        self.mends.last_number += 1;
        let number = self.mends.last_number;
        damaged.asked.insert(node.clone());
        self.mends.under_way.insert(number, (damaged, id));
        self.effects.push(Effect::Fetch(Fetch { number, node, get }));
    }

    /// A replica answered, or did not.
    pub(crate) fn fetched(&mut self, number: u64, answer: Option<(Reply, Bytes)>) {
        let Some((damaged, id)) = self.mends.under_way.remove(&number) else { return };
        let (group, slot) = (damaged.group, damaged.slot);
        if self.scrubbed_store(group) != Some(damaged.store) || self.halted.contains_key(&group) {
            return;
        }
        let Some(shard) = self.repl.machine_mut(group).and_then(Machine::shard_mut) else { return };
        let record = answer.as_ref().and_then(|(reply, body)| one_record(reply, body));
        let mended = record.map_or(Ok(false), |(vector, payload)| shard.mend(slot, &id, vector, payload));
        match mended {
            Ok(true) => {
                tracing::warn!(%group, slot, id, "a damaged record was written anew from another replica");
                self.scrubs.mended(group, slot);
            }
            Ok(false) => self.mends.waiting.push_back(damaged),
            Err(error) => tracing::warn!(%group, slot, id, %error, "a damaged record cannot be written anew"),
        }
    }
}

/// Vector and payload of the one record of an answer.
fn one_record<'a>(reply: &Reply, body: &'a Bytes) -> Option<(&'a [u8], &'a [u8])> {
    let Reply::Records { records, siblings, .. } = reply else { return None };
    let [Some(record)] = records.as_slice() else { return None };
    let beside: usize = siblings.iter().map(|sibling| sibling.payload_bytes as usize).sum();
    let payload_bytes = record.payload_bytes as usize;
    // All vectors are as long as each other; the record comes first.
    let vectors = body.len().checked_sub(payload_bytes.checked_add(beside)?)?;
    let (vector, rest) = body.split_at_checked(vectors / (1 + siblings.len()))?;
    Some((vector, rest.get(..payload_bytes)?))
}
