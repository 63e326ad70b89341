//! What was acknowledged at [`crate::AckLevel::One`] and overtaken: kept, and offered until it is taken care of.

use super::Replicator;
use super::words::OpenGroupError;
use crate::ids::{GroupId, Membership, NodeId, ReplicaId};
use crate::machine::StateMachine;
use crate::quarantine::{CutEntry, Overtaken, Quarantined, offer_note};
use crate::wal::{Record, Recovered};

impl<M: StateMachine> Replicator<M> {
    /// Groups of which proposals are kept here that were acknowledged at [`crate::AckLevel::One`] and overtaken, until the
    /// group's leader says that they are taken care of.
    pub fn quarantined_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.quarantine.groups()
    }

    /// What is kept here of a group's overtaken proposals.
    pub fn quarantined(&self, id: GroupId) -> Quarantined {
        self.quarantine.view(id)
    }

    /// Where the replicas of a group are that has none here: one after the other is offered what is kept.
    pub fn offer_to(&mut self, id: GroupId, replicas: Vec<(ReplicaId, NodeId)>) {
        self.quarantine.set_route(id, replicas);
    }

    /// A group is no more: what is kept of it is let go.
    pub fn forget_quarantined(&mut self, id: GroupId) {
        self.records.extend(self.quarantine.forget(id));
    }

    /// The log holds a replica that is needed no more and was not opened: it is gone for good. What it held is kept as in
    /// [`Replicator::remove`].
    ///
    /// # Errors
    /// [`OpenGroupError::Malformed`]: what the log says of a replica makes no sense, or cannot be read.
    pub fn discard(&mut self, membership: &Membership, recovered: &Recovered) -> Result<(), OpenGroupError> {
        let own = membership.own;
        let malformed = |_| OpenGroupError::Malformed(own);
        self.quarantine.recover(recovered).map_err(OpenGroupError::Malformed)?;
        if let Some(found) = recovered.groups.get(&own.0) {
            let fork = found.hard_state.commit;
            let mut entries = Vec::new();
            for entry in found.entries.iter().filter(|entry| entry.index > fork && entry.kind == 0) {
                let data = self.reader.read(entry.location).map_err(|_| OpenGroupError::Malformed(own))?;
                entries.push(CutEntry { term: entry.term, index: entry.index, data });
            }
            let overtaken =
                Overtaken::of_entries(membership.group, own, &entries, fork).map_err(malformed)?;
            self.quarantine.keep(overtaken, &mut self.records);
        }
        self.records.push(Record::Removed { group: own.0 });
        Ok(())
    }

    /// Offers what was overtaken to those who lead now.
    pub(super) fn offer_quarantined(&mut self) {
        if !M::TAKES_LATE {
            return;
        }
        let ids: Vec<GroupId> = self.quarantine.groups().collect();
        for id in ids {
            let leader = self.groups.get(&id).map(|group| (group.membership.own, group.engine.leader()));
            if leader.is_some_and(|(_, leader)| leader.is_none()) {
                continue;
            }
            let Some((holder, entry)) = self.quarantine.next_offer(id, self.ticks) else { continue };
            #[cfg(feature = "canary")]
            if self.canary == Some(crate::Canary::SettledUnheard) {
                self.records.extend(self.quarantine.forget(id));
            }
            self.wake(id);
            match (leader, self.groups.get_mut(&id)) {
                (Some((own, Some(leader))), Some(group)) if own == leader => {
                    group.take_late(holder, &entry);
                    self.dirty.insert(id);
                }
                (Some((_, Some(leader))), _) => self.offers.push((id, offer_note(holder, leader, entry))),
                _ => {
                    if let Some(to) = self.quarantine.next_on_route(id) {
                        self.offers.push((id, offer_note(holder, to, entry)));
                    }
                }
            }
        }
    }
}
