//! Replicas that spoke to this one and are no members, as far as is known here: they are remembered, to be answered.

use crate::ids::{Membership, NodeId, ReplicaId};
use std::collections::BTreeMap;

/// How many are remembered.
const STRANGERS_MAX: usize = 64;

/// Nodes of strangers. Of too many, the one that has been silent for longest is forgotten.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// Each with the tick at which it was last heard.
    by_replica: BTreeMap<ReplicaId, (NodeId, u64)>,
}

impl Strangers {
    /// A replica that is no member speaks.
    pub(super) fn hear(&mut self, replica: ReplicaId, node: &NodeId, tick: u64) {
        if self.by_replica.len() >= STRANGERS_MAX && !self.by_replica.contains_key(&replica) {
            let silent = self.by_replica.iter().min_by_key(|(replica, (_, heard))| (*heard, **replica));
            if let Some(replica) = silent.map(|(replica, _)| *replica) {
                self.by_replica.remove(&replica);
            }
        }
        self.by_replica.insert(replica, (node.clone(), tick));
    }

    /// The node that a stranger spoke from.
    pub(super) fn node_of(&self, replica: ReplicaId) -> Option<&NodeId> {
        self.by_replica.get(&replica).map(|(node, _)| node)
    }

    /// Others are members now: those are strangers no more.
    pub(super) fn meet(&mut self, membership: &Membership) {
        self.by_replica.retain(|replica, _| membership.member(*replica).is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GroupId, Member, Part};

    #[test]
    fn the_stranger_that_is_silent_for_longest_makes_room() {
        let mut strangers = Strangers::default();
        let node = NodeId::new("n");
        let most = STRANGERS_MAX as u64;
        (1..=most).for_each(|replica| strangers.hear(ReplicaId(replica), &node, replica / 2));
        strangers.hear(ReplicaId(1), &node, 50);
        strangers.hear(ReplicaId(most), &node, 50);
        for (next, gone) in [(most + 1, 2), (most + 2, 3)] {
            strangers.hear(ReplicaId(next), &node, 50);
            assert_eq!(strangers.by_replica.len(), STRANGERS_MAX);
            assert!(
                strangers.node_of(ReplicaId(next)).is_some() && strangers.node_of(ReplicaId(gone)).is_none()
            );
        }
    }

    #[test]
    fn who_becomes_a_member_is_a_stranger_no_more() {
        let mut strangers = Strangers::default();
        let node = NodeId::new("n");
        (1..=2).for_each(|replica| strangers.hear(ReplicaId(replica), &node, 7));
        let member = Member { replica: ReplicaId(2), node, part: Part::Learner };
        let members = vec![member];
        let group = GroupId(9);
        strangers.meet(&Membership {
            group,
            own: ReplicaId(2),
            index: 1,
            incarnation: 0,
            intent: 0,
            members,
        });
        assert_eq!(strangers.by_replica.keys().collect::<Vec<_>>(), [&ReplicaId(1)]);
    }
}
