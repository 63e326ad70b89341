//! Members of a group, in the engine's words: how a change is proposed, takes effect, and is found in the log again.

use super::log::{conf_state, kind_to_byte};
use super::{Engine, EngineError};
use crate::entry::EntryView;
use crate::ids::{Membership, Part, ReplicaId};
use crate::wal::{RecoveredGroup, WalReader};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, EntryType,
};

impl Engine {
    /// Proposes that the members be others, if this replica leads, may propose, and no other change is pending.
    pub(crate) fn propose_members(&mut self, from: &Membership, to: &Membership) -> Option<(u64, u64)> {
        if !self.is_leader() || self.is_transferring() || self.raw.raft.has_pending_conf() {
            return None;
        }
        self.raw.propose_conf_change(to.encode(), change_between(from, to)).ok()?;
        Some((self.raw.raft.term, self.raw.raft.raft_log.last_index()))
    }

    /// A committed change of members takes effect.
    pub(crate) fn apply_members(&mut self, from: &Membership, to: &Membership) -> Result<(), String> {
        let change = change_between(from, to);
        let now = self.raw.apply_conf_change(&change).map_err(|error| error.to_string())?;
        if !is_same(&now, &conf_state(to)) {
            return Err(format!("a change of members led to {now:?}, and not to {:?}", conf_state(to)));
        }
        self.raw.mut_store().set_config(to);
        // A leader may have got the change that takes its vote from the one before it.
        let votes = to.member(to.own).is_some_and(|own| own.part.votes());
        if self.is_elected() && !votes {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, 0);
            self.fix_timeout();
        }
        Ok(())
    }

    /// Whether a change of members may be under way.
    pub(crate) fn is_changing_members(&self) -> bool {
        self.raw.raft.has_pending_conf()
    }
}

/// A membership as of what the state machine holds. The one that was written down may be older: it is written with the
/// batch after the one that applied it, and the machine may have been quicker to make that durable.
pub(crate) fn caught_up(
    mut membership: Membership,
    recovered: &RecoveredGroup,
    held: u64,
    reader: &WalReader,
) -> Result<Membership, EngineError> {
    for entry in recovered.entries.iter().filter(|entry| entry.index <= held) {
        let changes_members = entry.kind != kind_to_byte(EntryType::EntryNormal);
        let is_news = changes_members && entry.index > membership.index;
        if !is_news && !EntryView::may_compare(entry.len) {
            continue;
        }
        let fail = |why: String| EngineError::Unreadable { index: entry.index, why };
        let data = reader.read(entry.location).map_err(|error| fail(error.to_string()))?;
        if is_news {
            let next =
                Membership::decode(&data).ok_or_else(|| fail("it is no change of members".to_owned()))?;
            if next.intent >= membership.intent {
                membership.index = entry.index;
                membership.intent = next.intent;
                membership.members = next.members;
            }
        } else if !changes_members {
            let view =
                EntryView::parse(entry.term, entry.index, &data).map_err(|error| fail(error.to_string()))?;
            membership.intent = membership.intent.max(view.compares().unwrap_or_default());
        }
    }
    Ok(membership)
}

/// The change, in the engine's words, that leads from one membership to another.
fn change_between(from: &Membership, to: &Membership) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    if from.is_joint() && !to.is_joint() {
        return change;
    }
    let mut changes = Vec::new();
    let mut push = |kind: ConfChangeType, replica: ReplicaId| {
        let mut single = ConfChangeSingle::default();
        single.change_type = kind;
        single.node_id = replica.0;
        changes.push(single);
    };
    for member in &to.members {
        if from.member(member.replica).is_some_and(|before| before.part == member.part) {
            continue;
        }
        push(
            match member.part {
                Part::Voter | Part::Entering => ConfChangeType::AddNode,
                Part::Learner | Part::Demoted => ConfChangeType::AddLearnerNode,
                Part::Leaving => ConfChangeType::RemoveNode,
            },
            member.replica,
        );
    }
    let gone = from.members.iter().filter(|member| to.member(member.replica).is_none());
    gone.for_each(|member| push(ConfChangeType::RemoveNode, member.replica));
    change.set_changes(changes.into());
    if to.is_joint() {
        change.set_transition(ConfChangeTransition::Explicit);
    }
    change
}

fn is_same(a: &ConfState, b: &ConfState) -> bool {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    sorted(&a.voters) == sorted(&b.voters)
        && sorted(&a.learners) == sorted(&b.learners)
        && sorted(&a.voters_outgoing) == sorted(&b.voters_outgoing)
        && sorted(&a.learners_next) == sorted(&b.learners_next)
}
