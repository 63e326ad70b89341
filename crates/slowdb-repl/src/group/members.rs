//! Changes of a group's members.

use super::{Event, Failure, Group, Sink};
use crate::engine::Committed;
use crate::ids::{Member, Membership, NodeId, Part, ReplicaId};
use crate::machine::StateMachine;
use bytes::Bytes;

/// A change of a group's members. One at a time: the next can be asked for when this one has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new replica, which gets the log and has no vote. Its id was never used before.
    AddLearner {
        /// The replica.
        replica: ReplicaId,
        /// The node that it is on.
        node: NodeId,
    },
    /// A learner is a member no more.
    RemoveLearner {
        /// The replica.
        replica: ReplicaId,
    },
    /// Makes learners voters, and voters learners or no members, all at once, by a joint configuration that stays until
    /// [`MemberChange::LeaveJoint`].
    EnterJoint {
        /// Learners that are to vote.
        promote: Vec<ReplicaId>,
        /// Voters that are to be learners.
        demote: Vec<ReplicaId>,
        /// Voters that are to be no members.
        remove: Vec<ReplicaId>,
    },
    /// Leaves the joint configuration: from now on the new one decides alone.
    LeaveJoint,
}

/// Why a change of members was refused. Nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// See [`Failure`].
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Another one has not been applied yet.
    #[error("another change of members is under way")]
    Pending,
    /// It was decided by somebody who did not know yet what had been decided before.
    #[error("the change was made with intent {intent}, the group has seen {seen}")]
    Stale {
        /// The intent of the change.
        intent: u64,
        /// The latest that the group has seen.
        seen: u64,
    },
    /// It does not fit the present members.
    #[error("{0}")]
    Invalid(String),
}

impl Membership {
    /// The members after a change; says what does not fit.
    pub(crate) fn changed(&self, change: &MemberChange) -> Result<Membership, String> {
        let mut next = self.clone();
        let part_of = |replica: &ReplicaId| self.member(*replica).map(|member| member.part);
        let set = |next: &mut Membership, replica: &ReplicaId, part: Part| {
            let member = next.members.iter_mut().find(|member| member.replica == *replica);
            if let Some(member) = member {
                member.part = part;
            }
        };
        match change {
            MemberChange::LeaveJoint if self.is_joint() => {
                // A leader that is none afterwards would lead a group that takes nothing from it.
                if self.member(self.own).and_then(|own| own.part.after()) != Some(Part::Voter) {
                    return Err(format!("{} leads: it has to hand over before it goes", self.own));
                }
                next.members.retain_mut(|member| match member.part.after() {
                    Some(part) => {
                        member.part = part;
                        true
                    }
                    None => false,
                });
            }
            MemberChange::LeaveJoint => return Err("there is no joint configuration to leave".to_owned()),
            _ if self.is_joint() => return Err("a joint configuration has to be left first".to_owned()),
            MemberChange::AddLearner { replica, node } => {
                if part_of(replica).is_some() || replica.0 == 0 {
                    return Err(format!("{replica} cannot be added: it is a member"));
                }
                if let Some(other) = self.replica_on(node) {
                    return Err(format!("node {node} has {other} already"));
                }
                next.members.push(Member { replica: *replica, node: node.clone(), part: Part::Learner });
            }
            MemberChange::RemoveLearner { replica } => {
                if part_of(replica) != Some(Part::Learner) {
                    return Err(format!("{replica} is no learner"));
                }
                next.members.retain(|member| member.replica != *replica);
            }
            MemberChange::EnterJoint { promote, demote, remove } => {
                for replica in promote {
                    if part_of(replica) != Some(Part::Learner) {
                        return Err(format!("{replica} cannot be promoted: it is no learner"));
                    }
                    set(&mut next, replica, Part::Entering);
                }
                for (replica, part) in
                    demote.iter().map(|r| (r, Part::Demoted)).chain(remove.iter().map(|r| (r, Part::Leaving)))
                {
                    if part_of(replica) != Some(Part::Voter) {
                        return Err(format!("{replica} is no voter"));
                    }
                    if *replica == self.own {
                        return Err(format!("{replica} leads: it has to hand over before it goes"));
                    }
                    set(&mut next, replica, part);
                }
                if !next.is_joint() {
                    return Err("nothing is to change".to_owned());
                }
            }
        }
        if next.is_sound() { Ok(next) } else { Err("nobody would have a vote".to_owned()) }
    }
}

impl<M: StateMachine> Group<M> {
    /// Proposes a change of members. It is applied like any other entry; [`Event::Members`] says so.
    pub(crate) fn change_members(&mut self, change: &MemberChange, intent: u64) -> Result<(), MemberError> {
        let seen = self.membership.intent;
        if intent < seen && !self.takes_stale_intents() {
            return Err(MemberError::Stale { intent, seen });
        }
        if self.engine.is_changing_members() {
            return Err(MemberError::Pending);
        }
        let next = self.membership.changed(change).map_err(MemberError::Invalid)?;
        #[cfg(feature = "canary")]
        let next = if self.canary == Some(crate::Canary::JointSkipped) { next.without_joint() } else { next };
        let next = Membership { intent: intent.max(seen), ..next };
        let (bytes, limit) = (next.encode().len(), self.entry_bytes_max);
        if bytes > limit {
            return Err(Failure::TooLarge { bytes, limit }.into());
        }
        self.engine.propose_members(&self.membership, &next).ok_or(Failure::NotLeader)?;
        Ok(())
    }

    /// A committed change takes effect. One that is applied again after a restart has its effect already.
    pub(super) fn apply_members(
        &mut self,
        entry: &Committed,
        sink: &mut Sink<'_, M::Outcome>,
    ) -> Result<(), String> {
        if entry.index <= self.membership.index {
            return Ok(());
        }
        let next = Membership::decode(&entry.data);
        let next = next.ok_or_else(|| format!("the change of members at {} is malformed", entry.index))?;
        if next.intent < self.membership.intent && !self.takes_stale_intents() {
            // A later intent was on its way when it was proposed. All replicas leave it out.
            return Ok(());
        }
        let next = Membership {
            group: self.id,
            own: self.membership.own,
            index: entry.index,
            incarnation: self.membership.incarnation,
            intent: next.intent.max(self.membership.intent),
            members: next.members,
        };
        self.engine.apply_members(&self.membership, &next)?;
        self.membership = next;
        self.strangers.meet(&self.membership);
        self.note_membership(sink);
        Ok(())
    }

    /// An intent was noted.
    pub(super) fn note_intent(&mut self, intent: u64, sink: &mut Sink<'_, M::Outcome>) {
        if intent > self.membership.intent {
            self.membership.intent = intent;
            self.note_membership(sink);
        }
    }

    #[cfg(feature = "canary")]
    fn takes_stale_intents(&self) -> bool {
        self.canary == Some(crate::Canary::StaleIntent)
    }

    #[cfg(not(feature = "canary"))]
    fn takes_stale_intents(&self) -> bool {
        false
    }

    /// The membership is written down, and told.
    fn note_membership(&mut self, sink: &mut Sink<'_, M::Outcome>) {
        let group = self.id;
        let data = Bytes::from(self.membership.encode());
        sink.records.push(crate::wal::Record::Config { group: self.membership.own.0, data });
        sink.events.push(Event::Members { group });
    }
}

#[cfg(feature = "canary")]
impl Membership {
    /// Planted bug: what a joint configuration would lead to, at once.
    fn without_joint(&self) -> Membership {
        let mut next = self.clone();
        next.members.retain_mut(|member| match member.part.after() {
            Some(part) => {
                member.part = part;
                true
            }
            None => false,
        });
        next
    }
}
