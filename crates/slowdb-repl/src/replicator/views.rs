//! How groups look from here.

use super::Replicator;
use super::words::{FollowerView, GroupView};
use crate::Position;
use crate::ids::{GroupId, Membership};
use crate::machine::StateMachine;

/// What is looked at over and over of every group.
#[derive(Clone, Copy, Debug)]
pub struct Glance<'a> {
    /// The group.
    pub group: GroupId,
    /// Who is in it, as far as this replica has applied it.
    pub membership: &'a Membership,
    /// Whether this node leads it.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// Last position applied.
    pub applied: Position,
}

impl<M: StateMachine> Replicator<M> {
    /// All groups at a glance, in the order of their ids.
    pub fn glances(&self) -> impl Iterator<Item = Glance<'_>> {
        self.groups.iter().map(|(id, group)| Glance {
            group: *id,
            membership: &group.membership,
            leads: group.engine.is_leader() && group.halted.is_none(),
            term: group.engine.term(),
            applied: group.applied,
        })
    }

    /// A group as it looks from here.
    pub fn view(&self, id: GroupId) -> Option<GroupView> {
        let group = self.groups.get(&id)?;
        let own = group.membership.own;
        let leads = group.engine.is_leader();
        let others = group.engine.progress().filter(|p| leads && p.replica != own);
        let mut followers: Vec<_> = others
            .filter_map(|progress| {
                let member = group.membership.member(progress.replica)?;
                Some(FollowerView {
                    replica: member.replica,
                    node: member.node.clone(),
                    part: member.part,
                    matched: progress.matched,
                    active: progress.active,
                    pinned_bytes: group.engine.bytes_after(progress.matched),
                    equal_at: group.equal_at(member.replica),
                })
            })
            .collect();
        followers.sort_by(|a, b| a.node.cmp(&b.node));
        Some(GroupView {
            replica: own,
            role: group.engine.role(),
            part: group.membership.member(own).map(|member| member.part),
            term: group.engine.term(),
            leader: self.leader(id).and_then(|(leader, _)| leader),
            first_index: group.engine.first_index(),
            last_index: group.engine.last_index(),
            committed: group.engine.committed(),
            applied: group.applied,
            checkpointed: group.checkpointed,
            halted: group.halted.clone(),
            arriving: group.arriving(),
            followers,
        })
    }
}
