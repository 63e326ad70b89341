//! What a group is to be, and what it was last known to be.
//!
//! The catalog says what is wanted; the committed configuration of the group itself decides what is. Whoever leads the
//! group brings the second to the first, step by step, and reports every configuration that was committed. A replica is
//! dropped from the catalog, and may then be deleted where it was, only when such a report says that it is no member, and
//! that nobody who does not know so can make it one again.

use rkyv::{Archive, Deserialize, Serialize};
use slowdb_proto::{Standing, Wanted};
use slowdb_repl::{GroupId, Member, Membership, NodeId, Part, ReplicaId};

/// What a group is to be.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupSpec {
    pub(crate) group: u64,
    /// Epoch of the catalog that last wanted something else of this group. Changes of members carry it as their intent.
    pub(crate) epoch: u64,
    pub(crate) replicas: Vec<Replica>,
    /// The node that is to lead.
    pub(crate) leader: String,
    /// The last report was of the configuration at this index, and this intent.
    pub(crate) reported: (u64, u64),
    /// Why it is as it is.
    pub(crate) reason: String,
    /// Whom the group began with: replica, node, and whether it votes.
    pub(crate) founders: Vec<(u64, String, bool)>,
}

/// A replica, as it is wanted and as it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) replica: u64,
    pub(crate) node: String,
    pub(crate) wanted: Wanted,
    pub(crate) standing: Standing,
    /// Epoch since which it is wanted like that.
    pub(crate) since: u64,
}

/// A committed configuration, as the group's leader reports it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) group: u64,
    pub(crate) index: u64,
    pub(crate) intent: u64,
    pub(crate) members: Vec<(u64, Standing)>,
}

impl Report {
    pub(crate) fn of(membership: &Membership) -> Self {
        let standing = |part| match part {
            Part::Learner => Standing::Learner,
            Part::Voter => Standing::Voter,
            Part::Entering | Part::Leaving | Part::Demoted => Standing::Changing,
        };
        Report {
            group: membership.group.0,
            index: membership.index,
            intent: membership.intent,
            members: membership.members.iter().map(|m| (m.replica.0, standing(m.part))).collect(),
        }
    }

    fn standing(&self, replica: u64) -> Standing {
        let found = self.members.iter().find(|(member, _)| *member == replica);
        found.map_or(Standing::None, |(_, standing)| *standing)
    }
}

impl GroupSpec {
    /// A new group on these nodes. The first is to lead; of an even number the last has no vote.
    pub(crate) fn new(group: u64, epoch: u64, nodes: &[String], next_replica: &mut u64) -> Self {
        let mut replicas = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let (wanted, standing) = if at < voters_of(nodes.len()) {
                (Wanted::Voter, Standing::Voter)
            } else {
                (Wanted::Learner, Standing::Learner)
            };
            let replica = take_id(next_replica);
            replicas.push(Replica { replica, node: node.clone(), wanted, standing, since: epoch });
        }
        let leader = nodes.first().cloned().unwrap_or_default();
        let founder = |r: &Replica| (r.replica, r.node.clone(), r.wanted == Wanted::Voter);
        let founders = replicas.iter().map(founder).collect();
        GroupSpec {
            group,
            epoch,
            replicas,
            leader,
            reported: (0, 0),
            reason: "first placement".into(),
            founders,
        }
    }

    /// Wants replicas on these nodes, voters first. Those on other nodes are to go. Gives whether anything is different.
    pub(crate) fn want(
        &mut self,
        epoch: u64,
        nodes: &[(String, Wanted)],
        leader: &str,
        reason: &str,
        next_replica: &mut u64,
    ) -> bool {
        let before = (self.replicas.clone(), self.leader.clone());
        for replica in &mut self.replicas {
            let target = nodes.iter().find(|(node, _)| *node == replica.node);
            let wanted = match target {
                // What was once to go does not come back under the same id.
                Some((_, wanted)) if replica.wanted != Wanted::Gone => *wanted,
                _ => Wanted::Gone,
            };
            if replica.wanted != wanted {
                replica.wanted = wanted;
                replica.since = epoch;
            }
        }
        for (node, wanted) in nodes {
            if !self.replicas.iter().any(|replica| replica.node == *node) {
                let replica = take_id(next_replica);
                let (node, wanted) = (node.clone(), *wanted);
                self.replicas.push(Replica { replica, node, wanted, standing: Standing::None, since: epoch });
            }
        }
        leader.clone_into(&mut self.leader);
        let different = before != (self.replicas.clone(), self.leader.clone());
        if before.0 != self.replicas {
            self.epoch = epoch;
            reason.clone_into(&mut self.reason);
        }
        different
    }

    /// A configuration was committed. Gives whether anything is known now that was not.
    pub(crate) fn note(&mut self, report: &Report) -> bool {
        if (report.index, report.intent) <= self.reported {
            return false;
        }
        self.reported = (report.index, report.intent);
        for replica in &mut self.replicas {
            replica.standing = report.standing(replica.replica);
        }
        // Whoever leads next has seen this intent, and so knows at least that these are to go.
        let is_over = |replica: &Replica| {
            replica.wanted == Wanted::Gone
                && replica.standing == Standing::None
                && replica.since <= report.intent
        };
        self.replicas.retain(|replica| !is_over(replica));
        true
    }

    /// Whether a report of this configuration would change anything.
    pub(crate) fn is_news(&self, report: &Report) -> bool {
        let mut next = self.clone();
        next.note(report) && next.replicas != self.replicas
    }

    /// Whether it is what is wanted.
    pub(crate) fn is_settled(&self) -> bool {
        self.replicas.iter().all(|replica| {
            matches!(
                (replica.wanted, replica.standing),
                (Wanted::Voter, Standing::Voter) | (Wanted::Learner, Standing::Learner)
            )
        })
    }

    /// Replicas that are to stay, or to come.
    pub(crate) fn staying(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.wanted != Wanted::Gone)
    }

    /// The replica on a node that is to be there, or still is.
    pub(crate) fn replica_on(&self, node: &str) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.node == node)
    }

    /// The membership that a replica on this node begins with: that of the group if it was there from its beginning,
    /// else none until it is spoken to. `None` if there is no replica on the node.
    pub(crate) fn first_membership(&self, own: &str) -> Option<Membership> {
        let replica = self.replica_on(own)?.replica;
        let (group, own) = (GroupId(self.group), ReplicaId(replica));
        if !self.founders.iter().any(|(founder, ..)| *founder == replica) {
            return Some(Membership::joining(group, own));
        }
        let member = |(replica, node, votes): &(u64, String, bool)| Member {
            replica: ReplicaId(*replica),
            node: NodeId::new(node),
            part: if *votes { Part::Voter } else { Part::Learner },
        };
        Some(Membership::new(group, own, self.founders.iter().map(member).collect()))
    }
}

/// Voters among so many replicas: an odd number.
pub(crate) fn voters_of(replicas: usize) -> usize {
    replicas - usize::from(replicas.is_multiple_of(2) && replicas > 0)
}

fn take_id(next: &mut u64) -> u64 {
    let id = *next;
    *next += 1;
    id
}

#[cfg(test)]
mod tests;
