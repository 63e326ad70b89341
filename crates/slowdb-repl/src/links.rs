//! How long answers take on the way to other nodes and back, and whether it is this node that is far from all.
//!
//! A leader stamps a heartbeat to each node with the tick at which it leaves; the answer carries the stamp back. Beside
//! the stamp it says how quick its quickest link to anybody else is. So a node that finds all its links slow knows
//! whether others among themselves have better ones: if nobody has, the whole network is slow, and it is as good a
//! leader as any. Time is counted in ticks that this node really took, so that its own pauses do not look like a slow
//! network. What was not heard of for a while is forgotten.

use crate::ids::NodeId;
use std::collections::BTreeMap;

/// Links are timed in this part of a tick.
const PARTS: u64 = 16;
/// A link is slow when an answer takes longer: 120 ms, in which a healthy one within a region answers ten times over.
const SLOW_PARTS: u64 = 6 * PARTS;
/// And when others have one that is so many times as quick.
const TIMES_QUICKER: u64 = 3;
/// Answers after which a link is judged.
const SAMPLES_MIN: u32 = 8;
/// How many answers the moving average goes back, about.
const SAMPLES_AVERAGED: u64 = 8;
/// Ticks after which what was heard last says nothing about now.
const FRESH_TICKS: u64 = 50;
/// A quickest link that is not known.
const UNKNOWN: u16 = u16::MAX;

/// What a heartbeat carries beside its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The sender's tick.
    pub(crate) tick: u64,
    /// How long an answer takes on the sender's quickest link to another node than the receiver, in sixteenths of a
    /// tick; [`UNKNOWN`] if it has none.
    pub(crate) quickest: u16,
}

#[derive(Debug)]
struct Link {
    /// Moving average of the time that an answer takes.
    parts: u64,
    samples: u32,
    heard_at: u64,
}

/// All links of a node, as far as it leads groups with replicas at their other ends.
#[derive(Debug, Default)]
pub(crate) struct Links {
    tick: u64,
    links: BTreeMap<NodeId, Link>,
    /// The quickest link that each other node has to a third, and when it said so.
    others: BTreeMap<NodeId, (u64, u64)>,
}

impl Links {
    /// One tick of time passed.
    pub(crate) fn tick(&mut self) {
        self.tick += 1;
        let oldest = self.tick.saturating_sub(FRESH_TICKS);
        self.links.retain(|_, link| link.heard_at >= oldest);
        self.others.retain(|_, (_, heard_at)| *heard_at >= oldest);
    }

    /// What a heartbeat to this node is to carry.
    pub(crate) fn stamp(&self, to: &NodeId) -> Stamp {
        let quickest = self.judged().filter(|(node, _)| *node != to).map(|(_, parts)| parts).min();
        let quickest = quickest.map_or(UNKNOWN, |parts| parts.min(u64::from(UNKNOWN - 1)) as u16);
        Stamp { tick: self.tick, quickest }
    }

    /// A heartbeat arrived.
    pub(crate) fn heard(&mut self, from: &NodeId, stamp: Stamp) {
        if stamp.quickest == UNKNOWN {
            self.others.remove(from);
        } else {
            self.others.insert(from.clone(), (u64::from(stamp.quickest), self.tick));
        }
    }

    /// The answer to a heartbeat arrived. One that was stamped in another life of this node says nothing.
    pub(crate) fn answered(&mut self, from: &NodeId, stamp: Stamp) {
        let Some(ticks) = self.tick.checked_sub(stamp.tick).filter(|ticks| *ticks <= FRESH_TICKS) else {
            return;
        };
        let sample = ticks * PARTS;
        let new = Link { parts: sample, samples: 0, heard_at: self.tick };
        let link = self.links.entry(from.clone()).or_insert(new);
        link.parts = (link.parts * (SAMPLES_AVERAGED - 1) + sample) / SAMPLES_AVERAGED;
        link.samples = link.samples.saturating_add(1);
        link.heard_at = self.tick;
    }

    /// The links that were timed often enough.
    fn judged(&self) -> impl Iterator<Item = (&NodeId, u64)> {
        let judged = self.links.iter().filter(|(_, link)| link.samples >= SAMPLES_MIN);
        judged.map(|(node, link)| (node, link.parts))
    }

    /// Whether all of at least two links are slow, and some other node has a much quicker one to a third.
    pub(crate) fn are_slow(&self) -> bool {
        let (mut count, mut quickest) = (0, u64::MAX);
        for (_, parts) in self.judged() {
            count += 1;
            quickest = quickest.min(parts);
        }
        let others = self.others.values().map(|(parts, _)| *parts);
        count >= 2 && is_slow(quickest, others)
    }

    /// Whether the link to this node is slow, and one to another node much quicker.
    pub(crate) fn is_slow_to(&self, node: &NodeId) -> bool {
        let Some((_, parts)) = self.judged().find(|(other, _)| *other == node) else { return false };
        is_slow(parts, self.judged().filter(|(other, _)| *other != node).map(|(_, parts)| parts))
    }
}

fn is_slow(parts: u64, mut others: impl Iterator<Item = u64>) -> bool {
    parts > SLOW_PARTS && others.any(|other| other * TIMES_QUICKER <= parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name)
    }

    /// Links on which answers take so many ticks, after a while.
    fn links(ticks: &[(&str, u64)]) -> Links {
        let mut links = Links::default();
        for _ in 0..100 {
            links.tick();
            for (name, ticks) in ticks {
                let stamp = Stamp { tick: links.tick.saturating_sub(*ticks), quickest: UNKNOWN };
                links.answered(&node(name), stamp);
            }
        }
        links
    }

    #[test]
    fn links_are_slow_only_if_others_have_quicker_ones() {
        let mut far = links(&[("b", 10), ("c", 12)]);
        assert!(!far.are_slow(), "nobody says that it is quicker elsewhere");
        far.heard(&node("b"), links(&[("a", 10), ("c", 9)]).stamp(&node("a")));
        assert!(!far.are_slow(), "it is slow everywhere");
        far.heard(&node("b"), links(&[("a", 10), ("c", 1)]).stamp(&node("a")));
        assert!(far.are_slow());
        far.heard(&node("b"), links(&[("a", 1)]).stamp(&node("a")));
        assert!(!far.are_slow(), "its link to this node is none that others have");
    }

    #[test]
    fn one_quick_link_or_only_one_link_is_no_reason() {
        let quick = links(&[("b", 1), ("c", 1)]).stamp(&node("a"));
        for few in [&[("b", 1), ("c", 12), ("d", 12)][..], &[("b", 12)]] {
            let mut links = links(few);
            links.heard(&node("b"), quick);
            assert!(!links.are_slow(), "{few:?}");
        }
    }

    #[test]
    fn the_node_at_the_other_end_is_told_from_its_neighbours() {
        let links = links(&[("b", 12), ("c", 1)]);
        assert!(links.is_slow_to(&node("b")));
        assert!(!links.is_slow_to(&node("c")));
        assert!(!links.is_slow_to(&node("d")), "never heard");
    }

    #[test]
    fn what_was_heard_long_ago_or_in_another_life_says_nothing() {
        let mut far = links(&[("b", 10), ("c", 12)]);
        far.heard(&node("b"), Stamp { tick: 0, quickest: 1 });
        assert!(far.are_slow());
        (0..=FRESH_TICKS).for_each(|_| far.tick());
        assert!(!far.are_slow());
        far.answered(&node("b"), Stamp { tick: u64::MAX, quickest: UNKNOWN });
        far.answered(&node("b"), Stamp { tick: 1, quickest: UNKNOWN });
        assert!(far.links.is_empty());
    }
}
