//! Replicas that were seen to have another digest than this node's, for as long as they may have it.

use slowdb_repl::{FollowerView, GroupId, NodeId};
use std::collections::BTreeMap;

/// Each with the entry at which it had it.
#[derive(Default)]
pub(crate) struct Differences(BTreeMap<(GroupId, NodeId), u64>);

impl Differences {
    /// The replica on a node had another digest at this entry than this node's, which leads.
    pub(crate) fn note(&mut self, group: GroupId, node: NodeId, index: u64) {
        self.0.insert((group, node), index);
    }

    /// Lets go of those that are over: the replica had the same digest later, or it or this node's is gone. So it is with
    /// those of groups that this node leads no more, which have no followers: who leads now compares anew.
    pub(crate) fn look(&mut self, followers: impl Fn(GroupId) -> Vec<FollowerView>) {
        self.0.retain(|(group, node), index| {
            followers(*group).iter().any(|follower| follower.node == *node && follower.equal_at <= *index)
        });
    }

    /// Group, node and entry of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, &NodeId, u64)> {
        self.0.iter().map(|((group, node), index)| (*group, node, *index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowdb_repl::{Part, ReplicaId};

    const GROUP: GroupId = GroupId(7);

    fn follower(node: &str, equal_at: u64) -> FollowerView {
        let (replica, node) = (ReplicaId(equal_at), NodeId::new(node));
        FollowerView {
            replica,
            node,
            part: Part::Voter,
            matched: 90,
            active: true,
            pinned_bytes: 0,
            equal_at,
        }
    }

    fn after(followers: &[FollowerView]) -> usize {
        let mut differences = Differences::default();
        differences.note(GROUP, NodeId::new("bob"), 50);
        differences.look(|group| if group == GROUP { followers.to_vec() } else { Vec::new() });
        differences.iter().count()
    }

    #[test]
    fn a_difference_ends_when_the_digests_are_equal_or_a_replica_is_gone() {
        assert_eq!(after(&[follower("bob", 0), follower("cyd", 60)]), 1, "not compared since");
        assert_eq!(after(&[follower("bob", 60)]), 0, "it was repaired, or replaced");
        assert_eq!(after(&[follower("cyd", 0)]), 0, "it is no member any more");
        assert_eq!(after(&[]), 0, "another node leads, or the replica here is gone");
    }
}
