//! From what a group is to what is wanted: the next step of whoever leads it.
//!
//! Pure. The steps of a move, each of which may be the first that a new leader takes:
//!
//! 1. a replica that is to come is added as a learner, and gets a snapshot and the log;
//! 2. digests are compared, until its is the leader's at one entry;
//! 3. a leader that is to go hands over;
//! 4. a joint configuration gives votes to those that are to have them, and takes them from those that are not;
//! 5. it is left, and learners that are to go are removed;
//! 6. the leader reports each configuration; what is reported gone is dropped by the catalog, and then deleted.

use crate::catalog::{GroupSpec, Replica};
use slowdb_proto::Wanted;
use slowdb_repl::{FollowerView, MemberChange, Membership, NodeId, Part, ReplicaId};

/// What a leader has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, or wait.
    None,
    /// Change the members.
    Change(MemberChange),
    /// Compare digests, and note the intent.
    Compare,
    /// Let another replica lead.
    HandOver(ReplicaId),
}

/// What a leader sees of its group.
pub(crate) struct Sight<'a> {
    pub(crate) membership: &'a Membership,
    pub(crate) followers: &'a [FollowerView],
    pub(crate) committed: u64,
}

/// The next step.
pub(crate) fn next_step(spec: &GroupSpec, sight: &Sight<'_>) -> Step {
    let Sight { membership, .. } = sight;
    if spec.epoch < membership.intent {
        // Somebody who knew more has decided already.
        return Step::None;
    }
    if membership.is_joint() {
        return leave_joint(sight);
    }
    let part = |replica: &Replica| membership.member(ReplicaId(replica.replica)).map(|member| member.part);
    let free = |replica: &&Replica| membership.replica_on(&NodeId::new(&replica.node)).is_none();
    if let Some(new) = spec.staying().filter(free).find(|replica| part(replica).is_none()) {
        let (replica, node) = (ReplicaId(new.replica), NodeId::new(&new.node));
        return Step::Change(MemberChange::AddLearner { replica, node });
    }
    if let Some(step) = votes(spec, sight) {
        return step;
    }
    let goes = |replica: &&Replica| replica.wanted == Wanted::Gone && part(replica) == Some(Part::Learner);
    if let Some(gone) = spec.replicas.iter().find(goes) {
        return Step::Change(MemberChange::RemoveLearner { replica: ReplicaId(gone.replica) });
    }
    let over = |replica: &Replica| replica.wanted == Wanted::Gone && part(replica).is_none();
    if spec.epoch > membership.intent && spec.replicas.iter().any(over) {
        // Nothing has to change for it, but who leads next must know that these are gone.
        return Step::Compare;
    }
    lead(spec, sight)
}

/// Out of a joint configuration; by somebody who stays a voter.
fn leave_joint(sight: &Sight<'_>) -> Step {
    let Sight { membership, followers, .. } = sight;
    let stays = |part: Part| part.after() == Some(Part::Voter);
    if membership.member(membership.own).is_some_and(|own| stays(own.part)) {
        return Step::Change(MemberChange::LeaveJoint);
    }
    let ready = followers.iter().filter(|f| f.active && stays(f.part));
    let next = ready.max_by_key(|f| (f.matched, std::cmp::Reverse(f.replica)));
    next.map_or(Step::None, |next| Step::HandOver(next.replica))
}

/// Votes that are to be given or taken, once those who are to have them are ready.
fn votes(spec: &GroupSpec, sight: &Sight<'_>) -> Option<Step> {
    let Sight { membership, followers, .. } = sight;
    let part = |replica: &Replica| membership.member(ReplicaId(replica.replica)).map(|member| member.part);
    let ids = |wanted: Wanted, part_now: Part| -> Vec<ReplicaId> {
        let found = spec.replicas.iter().filter(|r| r.wanted == wanted && part(r) == Some(part_now));
        found.map(|replica| ReplicaId(replica.replica)).collect()
    };
    let promote = ids(Wanted::Voter, Part::Learner);
    let demote = ids(Wanted::Learner, Part::Voter);
    let remove = ids(Wanted::Gone, Part::Voter);
    if promote.is_empty() && demote.is_empty() && remove.is_empty() {
        return None;
    }
    let all_there = spec.staying().all(|replica| part(replica).is_some());
    let stays = |id: &ReplicaId| spec.staying().any(|r| r.replica == id.0 && r.wanted == Wanted::Voter);
    let voters_left =
        membership.members.iter().filter(|m| m.part == Part::Voter && stays(&m.replica)).count();
    if !all_there || (voters_left == 0 && promote.is_empty()) {
        return Some(Step::None);
    }
    let equal = |id: &ReplicaId| followers.iter().any(|f| f.replica == *id && f.active && f.equal_at > 0);
    if !promote.iter().all(equal) {
        let speaks = |id: &ReplicaId| followers.iter().any(|f| f.replica == *id && f.active && f.matched > 0);
        return Some(if promote.iter().all(speaks) { Step::Compare } else { Step::None });
    }
    if demote.contains(&membership.own) || remove.contains(&membership.own) {
        let ready = |f: &&FollowerView| f.part == Part::Voter && f.active && stays(&f.replica);
        let next = followers.iter().filter(ready).max_by_key(|f| (f.matched, std::cmp::Reverse(f.replica)));
        if let Some(next) = next {
            return Some(Step::HandOver(next.replica));
        }
        // All who stay are new. They get their votes first, and those who go keep theirs until then.
        let mut others = remove;
        others.retain(|id| *id != membership.own);
        let mut demote = demote;
        demote.retain(|id| *id != membership.own);
        if promote.is_empty() && others.is_empty() && demote.is_empty() {
            return Some(Step::None);
        }
        return Some(Step::Change(MemberChange::EnterJoint { promote, demote, remove: others }));
    }
    Some(Step::Change(MemberChange::EnterJoint { promote, demote, remove }))
}

/// The preferred leader leads, if it can.
fn lead(spec: &GroupSpec, sight: &Sight<'_>) -> Step {
    let Sight { membership, followers, committed } = sight;
    let Some(preferred) = spec.staying().find(|replica| replica.node == spec.leader) else {
        return Step::None;
    };
    let preferred = ReplicaId(preferred.replica);
    let ready = |f: &FollowerView| {
        f.replica == preferred && f.part == Part::Voter && f.active && f.matched + 64 >= *committed
    };
    if preferred != membership.own && followers.iter().any(ready) {
        return Step::HandOver(preferred);
    }
    Step::None
}

#[cfg(test)]
mod tests;
