//! Who waits for a group's answers: proposals, each answered exactly once.

use super::proposals::Whom;
use super::{Event, Failure, Group};
use crate::entry::AckLevel;
use crate::ids::{Member, NodeId};
use crate::machine::StateMachine;
use crate::{Now, Position};

impl<M: StateMachine> Group<M> {
    /// Answers those whose deadline has passed.
    pub(super) fn expire(&mut self, now: Now, events: &mut Vec<Event<M::Outcome>>) {
        let group = self.id;
        let applied = self.engine.applied();
        let late = |deadline: u64| deadline <= now.micros;
        let term = self.leading.unwrap_or_default();
        let members = self.membership.members.len() as u32;
        let mut standing = Vec::new();
        for (index, entry) in &mut self.waiters {
            for waiter in entry.waiters.iter_mut().filter(|w| !w.answered && late(w.deadline)) {
                waiter.answered = true;
                let Whom::Embedder(token) = waiter.whom else { continue };
                let first = Position { term, index: *index, offset: waiter.offset };
                let stands = waiter.level == AckLevel::All && *index <= applied;
                match waiter.outcome.take().filter(|_| stands) {
                    Some(outcome) => standing.push((token, first, outcome)),
                    None => events.push(Event::Failed { token, group, why: Failure::Timeout }),
                }
            }
        }
        for (token, first, outcome) in standing {
            let missing = self.missing(first.index);
            let durable_on = members.saturating_sub(missing.len() as u32);
            events.push(Event::Stands { token, group, first, outcome, durable_on, members, missing });
        }
        let waiting_bytes = &mut self.waiting_bytes;
        self.queue.retain(|proposal| {
            if late(proposal.deadline) {
                *waiting_bytes -= proposal.body.len();
                if let Whom::Embedder(token) = proposal.whom {
                    events.push(Event::Failed { token, group, why: Failure::Timeout });
                }
            }
            !late(proposal.deadline)
        });
    }

    pub(super) fn missing(&self, index: u64) -> Vec<NodeId> {
        let behind = self.engine.progress().filter(|p| p.matched < index);
        let mut nodes: Vec<_> = behind
            .filter_map(|p| self.membership.member(p.replica))
            .map(|m: &Member| m.node.clone())
            .collect();
        nodes.sort();
        nodes
    }

    /// Whoever waits on a leadership that is gone is told so.
    pub(super) fn notice_leadership(&mut self, events: &mut Vec<Event<M::Outcome>>) {
        let term = self.engine.term();
        let leads = self.engine.is_leader() && self.halted.is_none();
        if self.leading.is_some_and(|led| !leads || led != term) {
            self.leading = None;
            self.forget_digests();
            self.fail_waiters(events);
        }
        if leads {
            self.leading = Some(term);
        } else {
            self.fail_unasked(events);
        }
        let told = (self.engine.leader(), term);
        if self.told_leader != Some(told) {
            self.told_leader = Some(told);
            self.redirect_reads(events);
            let leader = told.0.and_then(|id| self.membership.member(id)).map(|m| m.node.clone());
            events.push(Event::Leader { group: self.id, leader, term });
        }
    }

    pub(super) fn fail_waiters(&mut self, events: &mut Vec<Event<M::Outcome>>) {
        let group = self.id;
        for (_, entry) in std::mem::take(&mut self.waiters) {
            self.waiting_bytes -= entry.bytes;
            for waiter in entry.waiters.into_iter().filter(|w| !w.answered) {
                match waiter.whom {
                    Whom::Embedder(token) => {
                        events.push(Event::Failed { token, group, why: Failure::LeaderChanged });
                    }
                    // It offers it again.
                    Whom::Holder(replica, was) => drop(self.late.remove(&(replica, was))),
                }
            }
        }
    }

    pub(super) fn fail_unasked(&mut self, events: &mut Vec<Event<M::Outcome>>) {
        let group = self.id;
        let why = if self.halted.is_some() { Failure::Halted } else { Failure::NotLeader };
        for proposal in self.queue.drain(..) {
            self.waiting_bytes -= proposal.body.len();
            match proposal.whom {
                Whom::Embedder(token) => events.push(Event::Failed { token, group, why: why.clone() }),
                Whom::Holder(replica, was) => drop(self.late.remove(&(replica, was))),
            }
        }
        if self.halted.is_some() {
            self.fail_reads(&why, events);
        }
    }

    pub(super) fn answer_proposals(&mut self, events: &mut Vec<Event<M::Outcome>>) {
        let Some(term) = self.leading else { return };
        let (applied, durable) = (self.engine.applied(), self.engine.durable());
        let reach = applied.max(durable);
        if self.waiters.first_key_value().is_none_or(|(first, _)| *first > reach) {
            return;
        }
        let matched: Vec<u64> = self.engine.progress().map(|p| p.matched).collect();
        let members = self.membership.members.len() as u32;
        let counts_learners = self.counts_learners();
        let voters = self.membership.members.iter().filter(|member| member.part.votes()).count() as u32;
        for (&index, entry) in self.waiters.range_mut(..=reach) {
            let durable_on = matched.iter().filter(|matched| **matched >= index).count() as u32;
            for waiter in entry.waiters.iter_mut().filter(|w| !w.answered) {
                let reached = match waiter.level {
                    AckLevel::One => index <= durable,
                    AckLevel::Quorum => index <= applied || (counts_learners && durable_on > voters / 2),
                    AckLevel::All => index <= applied && durable_on == members,
                };
                if reached {
                    waiter.answered = true;
                    let first = Position { term, index, offset: waiter.offset };
                    let outcome = waiter.outcome.take();
                    match waiter.whom {
                        Whom::Embedder(token) => {
                            events.push(Event::Acked { token, first, outcome, durable_on, members });
                        }
                        Whom::Holder(replica, was) => {
                            self.late.remove(&(replica, was));
                            if outcome.is_some_and(|outcome| M::settles(&outcome)) {
                                self.settled.push((replica, was));
                            }
                        }
                    }
                }
            }
        }
        let waiting_bytes = &mut self.waiting_bytes;
        self.waiters.retain(|index, entry| {
            if *index <= applied {
                // Those who wait for all replicas hold up nobody's bytes.
                *waiting_bytes -= std::mem::take(&mut entry.bytes);
            }
            *index > applied || entry.waiters.iter().any(|w| !w.answered)
        });
    }
}
