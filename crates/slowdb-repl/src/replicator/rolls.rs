//! Groups that rest: nothing happens in them, so that not even their time is counted one by one.
//!
//! A leader puts a group in which all is settled on the roll of every node that has a replica of it ([`crate::roll`]). Once
//! all of them have agreed with their rolls, the group rests: it is not ticked, and calls of the rolls are its heartbeats. A
//! replica that agreed rests as well. Both are woken, with as much time passed for them as has, by anything that has to
//! do with them, and when the node at the other end is silent. From then on they are groups like all others.
//!
//! So a call means neither more nor less than a heartbeat of each group on the roll, and an answer than one of each replica:
//! - a group is taken off its rolls before a call could say of it what is not so any more;
//! - a replica that is awake hears a call as the heartbeat that it stands for; if that is news to it, the roll is not
//!   agreed with any more;
//! - a roll is named by its checksum, so that neither lost words nor a restart can have two nodes agree on different
//!   rolls.

use super::Replicator;
use crate::Now;
use crate::engine::wire::Payload;
use crate::engine::{Engine, HEARTBEAT_TICKS};
use crate::group::{Event, Group};
use crate::ids::{GroupId, NodeId};
use crate::machine::StateMachine;
use crate::roll::{Entry, Roll, Word};
use std::collections::{BTreeMap, BTreeSet};

/// Ticks between looks at whether an idle group can rest.
const REST_LOOK_TICKS: u64 = 16;
/// Ticks between looks at what is to be done now and then in a group that rests.
const RESTING_LOOK_TICKS: u64 = 256;
/// Ticks between checks of what must hold in a group that rests, where such is checked at all.
const RESTING_CHECK_TICKS: u64 = 8;
/// Ticks of silence after which the groups that rest on another node's word are woken: three calls, and half of the time
/// after which the first of them may stand for election.
const SILENT_TICKS: u64 = 3 * HEARTBEAT_TICKS as u64;
/// Ticks before a roll is told again that was not agreed with.
const TELL_AGAIN_TICKS: u64 = 25;
/// Groups on one roll.
const ROLL_GROUPS_MAX: usize = 16_384;

/// The roll of the groups that this node leads and another one follows.
#[derive(Default)]
struct Called {
    entries: BTreeMap<GroupId, Entry>,
    sum: u64,
    /// The other node was sent the roll as it is.
    is_told: bool,
    /// It is not told before this tick.
    tell_from: u64,
    /// The other node agreed with the roll as it is.
    is_agreed: bool,
    /// The last roll that the other node agreed with. Every group that rests on its word is on it.
    agreed_sum: Option<u64>,
    /// When it last answered for a roll that it agreed with.
    answered_at: u64,
}

impl Called {
    fn changed(&mut self) {
        (self.is_told, self.is_agreed) = (false, false);
    }
}

/// The roll of the groups that another node leads and this one follows, once this one agreed with it.
struct Heard {
    entries: BTreeMap<GroupId, Entry>,
    sum: u64,
    heard_at: u64,
    /// Groups on it that do not rest here.
    awake: BTreeSet<GroupId>,
}

/// All rolls of a node.
#[derive(Default)]
pub(super) struct Rolls {
    called: BTreeMap<NodeId, Called>,
    heard: BTreeMap<NodeId, Heard>,
    /// Groups that rest here, with the tick up to which their time is counted.
    resting: BTreeMap<GroupId, u64>,
    /// All others. What is done for each of them at every tick leaves those that rest alone: were it a thousand, only to look
    /// whether they rest would be most of what a tick costs.
    awake: BTreeSet<GroupId>,
    /// For the next flush.
    words: Vec<(NodeId, Word)>,
}

impl Rolls {
    pub(super) fn rests(&self, id: GroupId) -> bool {
        self.resting.contains_key(&id)
    }

    /// A group is here, and awake.
    pub(super) fn begin(&mut self, id: GroupId) {
        self.awake.insert(id);
    }

    /// A group, which is awake, is gone.
    pub(super) fn end(&mut self, id: GroupId) {
        self.awake.remove(&id);
    }

    /// The groups that do not rest.
    pub(super) fn awake(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.awake.iter().copied()
    }

    fn rest(&mut self, id: GroupId, ticks: u64) {
        if self.awake.remove(&id) {
            self.resting.insert(id, ticks);
        }
    }

    /// Groups to look at in this tick, in order: those that are awake, and now and then one that rests.
    fn due(&self, ticks: u64) -> Vec<GroupId> {
        let is_due = |id: &GroupId| ticks.wrapping_add(id.0).is_multiple_of(RESTING_LOOK_TICKS);
        let mut due: Vec<GroupId> = self.resting.keys().filter(|id| is_due(id)).copied().collect();
        due.extend(self.awake());
        due.sort_unstable();
        due
    }

    pub(super) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    pub(super) fn take_words(&mut self) -> Vec<(NodeId, Word)> {
        std::mem::take(&mut self.words)
    }
}

impl<M: StateMachine> Replicator<M> {
    /// To be called before anything is done with a group.
    pub(super) fn wake(&mut self, id: GroupId) {
        let Some(counted) = self.rolls.resting.remove(&id) else { return };
        self.rolls.awake.insert(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let ticks = self.ticks;
        group.pass(ticks - counted);
        let mut silent = 0;
        if group.engine.is_leader() {
            let own = group.membership.own;
            for member in group.membership.members.iter().filter(|member| member.replica != own) {
                let called = self.rolls.called.get(&member.node);
                let ago = called.map_or(SILENT_TICKS, |called| ticks - called.answered_at);
                group.engine.set_heard(member.replica, ago < SILENT_TICKS);
            }
        } else if let Some(leader) = group.engine.leader().and_then(|leader| group.node_of(leader))
            && let Some(heard) = self.rolls.heard.get_mut(leader)
        {
            silent = ticks - heard.heard_at;
            heard.awake.insert(id);
        }
        group.engine.wake(silent);
    }

    fn wake_all(&mut self, ids: impl IntoIterator<Item = GroupId>) {
        ids.into_iter().for_each(|id| self.wake(id));
    }

    /// A replica is about to go.
    pub(super) fn leave_rolls(&mut self, id: GroupId) {
        self.wake(id);
        for called in self.rolls.called.values_mut() {
            if called.entries.remove(&id).is_some() {
                called.changed();
            }
        }
        let on = self.rolls.heard.iter().filter(|(_, heard)| heard.entries.contains_key(&id));
        let nodes: Vec<NodeId> = on.map(|(node, _)| node.clone()).collect();
        nodes.iter().for_each(|node| self.disagree(node));
    }

    /// One tick of time passed for all groups.
    pub(super) fn tick_groups(&mut self, now: Now, compacts: bool, events: &mut Vec<Event<M::Outcome>>) {
        let (ticks, retained) = (self.ticks, self.limits.retained_bytes_per_group);
        let oldest_segment = self.newest_segment.saturating_sub(self.limits.retained_segments);
        let (mut woken, mut may_rest) = (Vec::new(), Vec::new());
        for id in self.rolls.due(ticks) {
            let Some(group) = self.groups.get_mut(&id).filter(|group| group.halted.is_none()) else {
                continue;
            };
            let turn = ticks.wrapping_add(id.0);
            let resting = self.rolls.resting.get_mut(&id);
            let rests = resting.is_some();
            let has_work = match resting {
                Some(counted) => {
                    group.pass(ticks - std::mem::replace(counted, ticks));
                    group.look(now, events)
                }
                None => group.tick(now, events, &mut self.beats),
            };
            if rests || compacts {
                self.records.extend(group.compact(retained, oldest_segment));
                if group.awaits_checkpoint(oldest_segment) {
                    self.awaiting_checkpoint.insert(id);
                }
            }
            if has_work {
                woken.push(id);
            } else if !rests && turn.is_multiple_of(REST_LOOK_TICKS) && !self.dirty.contains(&id) {
                may_rest.push(id);
            }
        }
        for id in woken {
            self.wake(id);
            self.dirty.insert(id);
        }
        // After the others were ticked: this tick is part of the silence.
        self.wake_for_silence();
        may_rest.into_iter().for_each(|id| self.rest_leading(id));
        if ticks.is_multiple_of(HEARTBEAT_TICKS as u64) {
            self.call_rolls();
        }
    }

    /// Whoever rests on the word of a node that is silent goes on by itself.
    fn wake_for_silence(&mut self) {
        let is_silent = |since: u64| since + SILENT_TICKS <= self.ticks;
        let mut woken = Vec::new();
        for called in self.rolls.called.values_mut().filter(|called| is_silent(called.answered_at)) {
            called.is_agreed = false;
            woken.extend(called.entries.keys().copied());
        }
        // The roll is still agreed with: the next call, should it only be late, is heard by all on it.
        let silent = self.rolls.heard.values().filter(|heard| is_silent(heard.heard_at));
        for heard in silent.filter(|heard| heard.awake.len() < heard.entries.len()) {
            woken.extend(heard.entries.keys().copied());
        }
        self.wake_all(woken);
    }

    /// Puts a group that this node leads on the rolls of the others, if all is settled in it. It rests once they agreed.
    fn rest_leading(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id).filter(|group| group.may_rest()) else { return };
        let Some(settled) = group.engine.settled() else { return };
        let mut rests = true;
        for member in group.membership.members.iter().filter(|member| member.replica != settled.from) {
            let entry = Entry { to: member.replica, ..settled };
            let called = self.rolls.called.entry(member.node.clone()).or_default();
            if called.entries.get(&id) != Some(&entry) {
                rests = false;
                if called.entries.len() < ROLL_GROUPS_MAX {
                    called.entries.insert(id, entry);
                    called.changed();
                }
            }
            rests &= called.is_agreed;
        }
        if rests {
            self.rolls.rest(id, self.ticks);
        }
    }

    /// Calls every roll, or tells it where it is not known yet.
    fn call_rolls(&mut self) {
        let (rolls, groups, ticks) = (&mut self.rolls, &self.groups, self.ticks);
        for (node, called) in &mut rolls.called {
            let before = called.entries.len();
            // What rests has not changed.
            called.entries.retain(|id, entry| {
                let is_so = |group: &Group<M>| {
                    group.halted.is_none()
                        && group.engine.says(entry)
                        && group.node_of(entry.to).is_some_and(|of| of == node)
                };
                rolls.resting.contains_key(id) || groups.get(id).is_some_and(is_so)
            });
            if called.entries.len() != before {
                called.changed();
            }
            if called.entries.is_empty() {
                continue;
            }
            let stamp = self.links.stamp(node);
            if called.is_told {
                rolls.words.push((node.clone(), Word::Call { sum: called.sum, stamp }));
            } else if called.tell_from <= ticks {
                let roll = Roll::of(called.entries.clone());
                (called.is_told, called.sum) = (true, roll.sum);
                rolls.words.push((node.clone(), Word::Roll { roll, stamp }));
            }
        }
    }

    /// Another node speaks of a roll.
    pub(super) fn hear_of_roll(&mut self, from: &NodeId, word: Word) {
        match word {
            Word::Call { sum, stamp } => {
                self.links.heard(from, stamp);
                let is_known = self.hear_call(from, sum);
                self.rolls.words.push((from.clone(), Word::Answer { sum, is_known, stamp }));
            }
            Word::Roll { roll: Roll { entries, sum, .. }, stamp } => {
                self.links.heard(from, stamp);
                let is_known = self.hear_roll(from, sum, entries);
                self.rolls.words.push((from.clone(), Word::Answer { sum, is_known, stamp }));
            }
            Word::Answer { sum, is_known, stamp } => {
                self.links.answered(from, stamp);
                self.hear_answer(from, sum, is_known);
            }
        }
    }

    fn hear_roll(&mut self, from: &NodeId, sum: u64, entries: BTreeMap<GroupId, Entry>) -> bool {
        let mut before = BTreeMap::new();
        if let Some(heard) = self.rolls.heard.get_mut(from) {
            heard.heard_at = self.ticks;
            before = std::mem::take(&mut heard.entries);
        }
        let changed = before.iter().filter(|(id, entry)| entries.get(id) != Some(entry));
        self.wake_all(changed.map(|(id, _)| *id));
        let mut awake = BTreeSet::new();
        let mut agrees = true;
        for (id, entry) in &entries {
            // It rests on the word of this node, or of another one by mistake.
            if self.rolls.rests(*id) && before.get(id) == Some(entry) {
                continue;
            }
            self.wake(*id);
            awake.insert(*id);
            agrees &= self.hear_for(from, *id, entry);
        }
        let heard = Heard { entries, sum, heard_at: self.ticks, awake };
        self.rolls.heard.insert(from.clone(), heard);
        if !agrees {
            self.disagree(from);
        }
        agrees
    }

    fn hear_call(&mut self, from: &NodeId, sum: u64) -> bool {
        let Some(heard) = self.rolls.heard.get_mut(from).filter(|heard| heard.sum == sum) else {
            self.disagree(from);
            return false;
        };
        heard.heard_at = self.ticks;
        let awake: Vec<(GroupId, Entry)> =
            heard.awake.iter().filter_map(|id| Some((*id, *heard.entries.get(id)?))).collect();
        for (id, entry) in awake {
            if !self.hear_for(from, id, &entry) {
                self.disagree(from);
                return false;
            }
            let may_rest = self.groups.get(&id).is_some_and(|group| group.may_rest());
            if may_rest && !self.dirty.contains(&id) {
                self.rolls.rest(id, self.ticks);
                if let Some(heard) = self.rolls.heard.get_mut(from) {
                    heard.awake.remove(&id);
                }
            }
        }
        true
    }

    /// A call is, for a replica that is awake, a heartbeat. False if it is news to it, or there is no such replica.
    fn hear_for(&mut self, from: &NodeId, id: GroupId, entry: &Entry) -> bool {
        let group = self.groups.get_mut(&id).filter(|group| group.halted.is_none());
        let Some(group) = group.filter(|group| group.membership.own == entry.to) else { return false };
        let mut answers = Vec::new();
        let heartbeat = Payload::Consensus(Engine::heartbeat(entry));
        if group.receive(from, heartbeat, &mut answers) {
            self.dirty.insert(id);
        }
        // The answer to the call is the answer.
        !answers.is_empty()
    }

    /// From now on there is no roll that this node agreed with.
    fn disagree(&mut self, from: &NodeId) {
        let Some(heard) = self.rolls.heard.get(from) else { return };
        let ids: Vec<GroupId> = heard.entries.keys().copied().collect();
        self.wake_all(ids);
        self.rolls.heard.remove(from);
    }

    fn hear_answer(&mut self, from: &NodeId, sum: u64, is_known: bool) {
        let ticks = self.ticks;
        let Some(called) = self.rolls.called.get_mut(from) else { return };
        if !is_known {
            called.changed();
            called.tell_from = ticks + TELL_AGAIN_TICKS;
            called.agreed_sum = None;
            let ids: Vec<GroupId> = called.entries.keys().copied().collect();
            return self.wake_all(ids);
        }
        if called.is_told && called.sum == sum {
            (called.is_agreed, called.agreed_sum) = (true, Some(sum));
        }
        if called.agreed_sum == Some(sum) {
            called.answered_at = ticks;
        }
    }

    /// Whether what must hold in a group is checked at present. In one that rests nothing changes: what does not hold, does
    /// not hold the next time either.
    pub(super) fn is_looked_at(&self, id: GroupId) -> bool {
        self.ticks.wrapping_add(id.0).is_multiple_of(RESTING_CHECK_TICKS) || !self.rolls.rests(id)
    }

    pub(super) fn check_rolls(&self) {
        let resting = self.rolls.resting.len();
        assert_eq!(resting + self.rolls.awake.len(), self.groups.len(), "a group rests or is awake");
        assert!(self.rolls.awake().all(|id| self.groups.contains_key(&id) && !self.rolls.rests(id)));
        for id in self.rolls.resting.keys().filter(|id| self.is_looked_at(**id)) {
            let group = &self.groups[id];
            assert!(group.may_rest() && !self.dirty.contains(id), "{id} rests, and there is something to do");
            let entry = group.engine.settled();
            assert_eq!(entry.is_some(), group.engine.is_leader(), "{id} rests unsettled");
        }
    }
}
