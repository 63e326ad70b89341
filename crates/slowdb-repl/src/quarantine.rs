//! Proposals that were acknowledged by one node only, and that another history overtook.
//!
//! Whoever is about to cut such a proposal from its log, or to drop a log that holds it, keeps it here first: the records
//! made of it go to the log on disk ahead of those that cut it. Then it is offered to whoever leads the group now, in the
//! form of [`ProposalHeader::late`], again and again until that leader says that it is settled. It outlives its replica:
//! one that is removed may have been the only one that held it.
//!
//! An overtaken proposal on disk, in a record of the write-ahead log:
//!
//! ```text
//! 0    offset     u64   that it had in its entry; term and index are the record's, and its group is the replica
//! 8    group      u64
//! 16   proposal         laid out as in an entry, and late
//! ```

use crate::entry::{EntryBuilder, EntryView, Late, ProposalHeader};
use crate::ids::{GroupId, ReplicaId};
use crate::note::{Note, Says};
use crate::wal::{Record, Recovered};
use crate::{AckLevel, Position};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that are offered at a time, but for a single proposal that is larger.
const OFFER_BYTES: usize = 256 * 1024;
/// Proposals that are offered at a time.
const OFFER_PROPOSALS: usize = 256;
/// Ticks after which what was not settled is offered again.
const OFFER_TICKS: u64 = 50;

/// An entry that is about to be cut.
#[derive(Debug)]
pub(crate) struct CutEntry {
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) data: Bytes,
}

/// A proposal that was overtaken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overtaken {
    group: GroupId,
    replica: ReplicaId,
    was: Position,
    /// The proposal as it is offered, and kept.
    header: ProposalHeader,
    body: Bytes,
}

impl Overtaken {
    /// Those proposals of entries that somebody may take for written although no majority has them. Up to `fork`, a
    /// majority has what the replica has.
    ///
    /// # Errors
    /// An entry is malformed; all that is to be kept of the others would be lost with it, so it is said.
    pub(crate) fn of_entries(
        group: GroupId,
        replica: ReplicaId,
        entries: &[CutEntry],
        fork: u64,
    ) -> Result<Vec<Overtaken>, String> {
        let mut overtaken = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.data.is_empty()) {
            let view =
                EntryView::parse(entry.term, entry.index, &entry.data).map_err(|error| error.to_string())?;
            // One that was late already is kept by whoever offered it.
            let acked_early = view
                .proposals()
                .iter()
                .filter(|proposal| proposal.header.level == AckLevel::One && proposal.header.late.is_none());
            overtaken.extend(acked_early.map(|proposal| {
                let late = Late { was: proposal.first, fork };
                let header = ProposalHeader { retry: true, late: Some(late), ..proposal.header };
                let body = entry.data.slice_ref(proposal.body);
                Overtaken { group, replica, was: proposal.first, header, body }
            }));
        }
        Ok(overtaken)
    }

    fn record(&self) -> Record {
        let mut data = Vec::with_capacity(128 + self.body.len());
        data.extend_from_slice(&u64::from(self.was.offset).to_le_bytes());
        data.extend_from_slice(&self.group.0.to_le_bytes());
        EntryBuilder::lay_out(&mut data, &self.header, &self.body);
        let Position { term, index, .. } = self.was;
        Record::Overtaken { group: self.replica.0, term, index, data: data.into() }
    }

    fn from_record(replica: u64, data: &Bytes) -> Option<Overtaken> {
        let (_, rest) = data.split_first_chunk::<8>()?;
        let (group, proposal) = rest.split_first_chunk::<8>()?;
        let (header, body) = EntryBuilder::read_back(proposal)?;
        let was = header.late?.was;
        let group = GroupId(u64::from_le_bytes(*group));
        Some(Overtaken { group, replica: ReplicaId(replica), was, header, body: data.slice_ref(body) })
    }

    fn bytes(&self) -> usize {
        EntryBuilder::proposal_bytes(self.body.len())
    }
}

#[derive(Debug, Default)]
struct OfGroup {
    kept: BTreeMap<(ReplicaId, Position), Overtaken>,
    /// Offered, and not settled yet.
    offered: BTreeSet<(ReplicaId, Position)>,
    /// When something was offered last.
    offered_at: Option<u64>,
    /// Where its replicas are, for a group that has none here.
    route: Vec<(ReplicaId, crate::NodeId)>,
    turn: usize,
}

/// All of a node's overtaken proposals.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    groups: BTreeMap<GroupId, OfGroup>,
    bytes: usize,
    /// What the log held when it was opened is in it.
    is_recovered: bool,
}

/// What a group's quarantine holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// Proposals.
    pub proposals: usize,
    /// About how many bytes they take.
    pub bytes: usize,
}

impl Quarantine {
    /// What the log on disk held when it was opened, of all groups: taken once, with the first that is opened. Says what
    /// makes no sense.
    pub(crate) fn recover(&mut self, recovered: &Recovered) -> Result<(), ReplicaId> {
        if self.is_recovered {
            return Ok(());
        }
        for ((replica, ..), data) in &recovered.overtaken {
            let overtaken = Overtaken::from_record(*replica, data).ok_or(ReplicaId(*replica))?;
            self.insert(overtaken);
        }
        self.is_recovered = true;
        Ok(())
    }

    fn insert(&mut self, overtaken: Overtaken) -> bool {
        let of_group = self.groups.entry(overtaken.group).or_default();
        let bytes = overtaken.bytes();
        let is_new = of_group.kept.insert((overtaken.replica, overtaken.was), overtaken).is_none();
        if is_new {
            self.bytes += bytes;
        }
        is_new
    }

    /// Keeps proposals; the records go to the log ahead of those that cut them.
    pub(crate) fn keep(&mut self, overtaken: Vec<Overtaken>, records: &mut Vec<Record>) {
        for overtaken in overtaken {
            let record = overtaken.record();
            if self.insert(overtaken) {
                records.push(record);
            }
        }
    }

    /// A leader says that a proposal is settled. Gives the record that says so, if it was kept here.
    pub(crate) fn settle(&mut self, group: GroupId, replica: ReplicaId, was: Position) -> Option<Record> {
        let of_group = self.groups.get_mut(&group)?;
        let settled = of_group.kept.remove(&(replica, was))?;
        of_group.offered.remove(&(replica, was));
        self.bytes -= settled.bytes();
        if of_group.kept.is_empty() {
            self.groups.remove(&group);
        }
        let Position { term, index, offset } = was;
        Some(Record::Settled { group: replica.0, term, index, offset: u64::from(offset) })
    }

    /// Nothing of a group is worth keeping any more: it is no more.
    pub(crate) fn forget(&mut self, group: GroupId) -> Vec<Record> {
        let kept: Vec<_> = self.groups.get(&group).map_or(Vec::new(), |g| g.kept.keys().copied().collect());
        kept.into_iter().filter_map(|(replica, was)| self.settle(group, replica, was)).collect()
    }

    /// Groups that something is kept of.
    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn view(&self, group: GroupId) -> Quarantined {
        let kept = self.groups.get(&group).map(|of_group| &of_group.kept);
        kept.map_or_else(Quarantined::default, |kept| Quarantined {
            proposals: kept.len(),
            bytes: kept.values().map(Overtaken::bytes).sum(),
        })
    }

    /// Where the replicas of a group are that has none here.
    pub(crate) fn set_route(&mut self, group: GroupId, replicas: Vec<(ReplicaId, crate::NodeId)>) {
        if let Some(of_group) = self.groups.get_mut(&group) {
            of_group.route = replicas;
        }
    }

    /// The node of a replica of a group that has none here.
    pub(crate) fn node_of(&self, group: GroupId, replica: ReplicaId) -> Option<&crate::NodeId> {
        let route = &self.groups.get(&group)?.route;
        route.iter().find(|(known, _)| *known == replica).map(|(_, node)| node)
    }

    /// The oldest proposals of a group, as they are to be offered now, if it is time to: an entry of late proposals, all
    /// from one replica.
    pub(crate) fn next_offer(&mut self, group: GroupId, ticks: u64) -> Option<(ReplicaId, Bytes)> {
        let of_group = self.groups.get_mut(&group)?;
        let waits = of_group.offered_at.is_some_and(|at| at + OFFER_TICKS > ticks);
        if waits && !of_group.offered.is_empty() {
            return None;
        }
        let (replica, _) = *of_group.kept.keys().next()?;
        let mut builder = EntryBuilder::new(0, 0);
        let mut bytes = 0;
        of_group.offered.clear();
        for (key, overtaken) in of_group.kept.iter().take(OFFER_PROPOSALS) {
            bytes += overtaken.bytes();
            if key.0 != replica || (bytes > OFFER_BYTES && !of_group.offered.is_empty()) {
                break;
            }
            builder.push(&overtaken.header, &overtaken.body);
            of_group.offered.insert(*key);
        }
        of_group.offered_at = Some(ticks);
        Some((replica, builder.finish().into()))
    }

    /// Whom to send an offer to that no replica here can pass on: one after the other.
    pub(crate) fn next_on_route(&mut self, group: GroupId) -> Option<ReplicaId> {
        let of_group = self.groups.get_mut(&group)?;
        let (replica, _) = of_group.route.get(of_group.turn.checked_rem(of_group.route.len())?)?;
        of_group.turn = of_group.turn.wrapping_add(1);
        Some(*replica)
    }
}

/// The note that carries an offer.
pub(crate) fn offer_note(from: ReplicaId, to: ReplicaId, entry: Bytes) -> Note {
    Note { from, to, says: Says::Overtaken { entry } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AckLevel;

    #[test]
    fn the_log_is_taken_once_however_many_groups_are_opened() {
        let was = Position { term: 3, index: 12, offset: 0 };
        let header = ProposalHeader {
            level: AckLevel::One,
            retry: true,
            writes: 1,
            client: [7; 16],
            sequence: 1,
            hlc: 1,
            origin: 1,
            late: Some(Late { was, fork: 10 }),
        };
        let (group, replica) = (GroupId(5), ReplicaId(6));
        let overtaken = Overtaken { group, replica, was, header, body: Bytes::from_static(b"body") };
        let Record::Overtaken { data, .. } = overtaken.record() else { panic!("it is that of a proposal") };
        let recovered =
            Recovered { overtaken: BTreeMap::from([((6, 3, 12, 0), data)]), ..Recovered::default() };
        let mut quarantine = Quarantine::default();
        quarantine.recover(&recovered).expect("it makes sense");
        assert_eq!(quarantine.view(group).proposals, 1);
        quarantine.settle(group, replica, was).expect("it was kept");
        quarantine.recover(&recovered).expect("it makes sense");
        assert_eq!(quarantine.view(group).proposals, 0, "what is settled came back with the next group");
    }
}
