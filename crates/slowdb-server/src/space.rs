//! Room on the disk: writes are refused while there is still enough for everything else.
//!
//! A full disk stops its node, so it is not let get full by writes. A node looks at the free space of its disk; once that
//! is below a mark, it refuses writes to the shards that it leads, and tells the leaders of the others that it has replicas
//! of, who refuse them too: what they took would have to be written here as well. What nobody refuses: deletes, which give
//! space back and whose log entries take the place of older ones, reads, and what the cluster does by itself.

use crate::catalog::Catalog;
use crate::node::Node;
use crate::requests::{Answer, error};
use crate::tend::Told;
use bytes::Bytes;
use slowdb_disk::Space;
use slowdb_proto::{Code, ErrorReply, NodeState, Op, SpaceStatus};
use slowdb_repl::{GroupId, NodeId, Now};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Bounds of the mark that is a share of the disk: room for the log's segments and for checkpoints of many shards, and no
/// more than makes sense on a large disk.
const MIN_FREE_BOUNDS: (u64, u64) = (256 << 20, 2 << 30);
/// That share, as a divisor.
const MIN_FREE_SHARE: u64 = 20;
/// Writes are taken again once so much more than the mark is free, as a divisor of it.
const ENOUGH_SHARE: u64 = 4;
/// How long the word of another node holds, in microseconds. It says so every second while it is short of space.
const WORD_HOLDS_MICROS: u64 = 3_000_000;
/// When it makes sense to try again, in milliseconds.
const LOW_SPACE_RETRY_MS: u32 = 1_000;

/// Whether a write of a client takes space that is not given back soon.
pub(crate) fn takes_space(op: &Op<'_>) -> bool {
    match op {
        Op::Put { .. } | Op::Replay { .. } => true,
        Op::Delete { .. } | Op::Discard { .. } | Op::SetPolicy(_) => false,
    }
}

/// What another node said of its disk.
#[derive(Clone, Copy, Debug)]
struct Word {
    free: u64,
    enough: u64,
    until: u64,
}

/// The room on the disk of this node, and of others that are short of it.
#[derive(Debug)]
pub(crate) struct SpaceWatch {
    /// As it was asked for.
    min_free: Option<u64>,
    seen: Option<Space>,
    refuses: bool,
    /// The disk did not say how much is free when it was last asked.
    failed: bool,
    others: BTreeMap<String, Word>,
}

impl SpaceWatch {
    /// Refuses below `min_free` bytes: 0 for never, `None` for a share of the disk.
    pub(crate) fn new(min_free: Option<u64>) -> Self {
        SpaceWatch { min_free, seen: None, refuses: false, failed: false, others: BTreeMap::new() }
    }

    /// The mark below which writes are refused, and the one from which they are taken again.
    fn marks(&self) -> (u64, u64) {
        let share = |space: Space| (space.total / MIN_FREE_SHARE).clamp(MIN_FREE_BOUNDS.0, MIN_FREE_BOUNDS.1);
        let low = self.min_free.or(self.seen.map(share)).unwrap_or_default();
        (low, low.saturating_add(low / ENOUGH_SHARE))
    }

    fn see(&mut self, space: Space) {
        self.seen = Some(space);
        let (low, enough) = self.marks();
        self.refuses = space.free < if self.refuses { enough } else { low };
    }

    /// Another node is short of space.
    pub(crate) fn heard(&mut self, node: &str, free: u64, enough: u64, now: Now) {
        let word = Word { free, enough, until: now.micros + WORD_HOLDS_MICROS };
        self.others.insert(node.to_owned(), word);
    }

    fn forget_old_words(&mut self, now: Now) {
        self.others.retain(|_, word| now.micros < word.until);
    }

    /// The other nodes that are known to be short of space.
    pub(crate) fn low_others(&self) -> Vec<String> {
        self.others.keys().cloned().collect()
    }

    /// Bytes that are free, and how many there would have to be, on a node that is short of space.
    fn shortage(&self, own: &str, node: &str) -> Option<(u64, u64)> {
        if node == own {
            return self.refuses.then(|| (self.free().unwrap_or_default(), self.marks().1));
        }
        self.others.get(node).map(|word| (word.free, word.enough))
    }

    fn free(&self) -> Option<u64> {
        self.seen.filter(|_| !self.failed).map(|space| space.free)
    }

    pub(crate) fn status(&self) -> SpaceStatus {
        let (low_bytes, enough_bytes) = self.marks();
        SpaceStatus { free_bytes: self.free(), low_bytes, enough_bytes, refuses_writes: self.refuses }
    }

    pub(crate) fn warning(&self) -> Option<String> {
        let (low, enough) = self.marks();
        self.refuses.then(|| {
            format!(
                "its disk is nearly full: {} are free, and since they were fewer than {} writes to the shards that it has \
                 replicas of are refused, until {} are free again",
                mib(self.free().unwrap_or_default()),
                mib(low),
                mib(enough)
            )
        })
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Node {
    /// To be called now and then.
    pub(crate) fn look_at_space(&mut self, now: Now) {
        self.space.forget_old_words(now);
        let refused = self.space.refuses;
        match self.setup.disk.space() {
            Ok(space) => {
                self.space.failed = false;
                self.space.see(space);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.space.failed, true) {
                    tracing::warn!(%error, "the disk does not say how much is free");
                }
            }
        }
        let (free, (low, enough)) = (self.space.free().unwrap_or_default(), self.space.marks());
        match (refused, self.space.refuses) {
            (false, true) => tracing::warn!(free, low, enough, "the disk is nearly full: writes are refused"),
            (true, false) => tracing::info!(free, "there is room on the disk again: writes are taken"),
            _ => {}
        }
        if self.space.refuses {
            self.tell_leaders_of_low_space(free, enough);
        }
    }

    /// Once each node that leads a group with a replica here; the catalog's leader is one of them.
    fn tell_leaders_of_low_space(&mut self, free: u64, enough: u64) {
        let mut leaders: BTreeMap<NodeId, GroupId> = BTreeMap::new();
        for group in self.repl.groups() {
            if let Some((Some(leader), _)) = self.repl.leader(group).filter(|_| !self.repl.leads(group)) {
                leaders.entry(leader).or_insert(group);
            }
        }
        let word = Bytes::from(Told::LowSpace { free, enough }.encode());
        for group in leaders.into_values() {
            self.repl.forward(group, word.clone());
        }
    }

    /// Refuses to write to a group that has a replica on a node that is short of space.
    pub(crate) fn check_space(&self, group: GroupId) -> Answer<()> {
        if !self.space.refuses && self.space.others.is_empty() {
            return Ok(());
        }
        let members =
            self.repl.membership(group).map(|membership| &membership.members[..]).unwrap_or_default();
        let mut nodes = members.iter().map(|member| member.node.as_str());
        let Some((node, (free, enough))) =
            nodes.find_map(|node| Some((node, self.space.shortage(&self.name, node)?)))
        else {
            return Ok(());
        };
        let message = format!(
            "the disk of node {node}, which has a replica of {group}, is nearly full: {} are free, and writes are taken again \
             when there are {}. Nothing was changed; make room there or delete records, and try again",
            mib(free),
            mib(enough)
        );
        let refused = ErrorReply { retry_after_ms: LOW_SPACE_RETRY_MS, ..*error(Code::LowSpace, message) };
        Err(Box::new(refused))
    }

    /// The nodes that are to get nothing new for want of space, as far as this node knows: sorted.
    pub(crate) fn low_nodes(&self) -> Vec<String> {
        let own = self.space.refuses.then(|| self.name.clone());
        let mut nodes: Vec<String> = self.space.low_others().into_iter().chain(own).collect();
        nodes.sort();
        nodes
    }

    /// The catalog as the planner is to see it: nodes that are short of space get nothing new.
    pub(crate) fn with_low_cordoned<'a>(&self, catalog: &'a Catalog) -> Cow<'a, Catalog> {
        let low = self.low_nodes();
        if low.is_empty() {
            return Cow::Borrowed(catalog);
        }
        let mut catalog = catalog.clone();
        let takes = catalog.nodes.iter_mut().filter(|node| node.state == NodeState::Active);
        takes.filter(|node| low.contains(&node.id)).for_each(|node| node.state = NodeState::Cordoned);
        Cow::Owned(catalog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn refuses(watch: &mut SpaceWatch, free: u64) -> bool {
        watch.see(Space { free, total: 1_000 * GIB });
        watch.refuses
    }

    #[test]
    fn it_refuses_below_one_mark_and_takes_again_from_a_higher_one() {
        let mut watch = SpaceWatch::new(Some(1_000));
        let seen = [2_000, 1_000, 999, 1_000, 1_249, 1_250, 1_000, 999, 5_000];
        let said = seen.map(|free| refuses(&mut watch, free));
        assert_eq!(said, [false, false, true, true, true, false, false, true, false]);
        assert_eq!((watch.status().low_bytes, watch.status().enough_bytes), (1_000, 1_250));
    }

    #[test]
    fn unless_told_otherwise_the_mark_is_a_bounded_share_of_the_disk() {
        for (total, low) in [(GIB, GIB / 4), (10 * GIB, GIB / 2), (40 * GIB, 2 * GIB), (4_000 * GIB, 2 * GIB)]
        {
            let mut watch = SpaceWatch::new(None);
            watch.see(Space { free: total, total });
            assert_eq!(watch.marks().0, low, "of {total}");
        }
        let mut never = SpaceWatch::new(Some(0));
        assert!(!refuses(&mut never, 0));
    }

    #[test]
    fn the_word_of_another_node_is_forgotten_when_it_is_not_said_again() {
        let at = |micros| Now { micros, wall_millis: 0 };
        let mut watch = SpaceWatch::new(Some(1_000));
        watch.heard("n2", 5, 10, at(1_000_000));
        watch.forget_old_words(at(3_900_000));
        assert_eq!((watch.shortage("n1", "n2"), watch.shortage("n1", "n1")), (Some((5, 10)), None));
        watch.heard("n2", 6, 10, at(3_900_000));
        watch.forget_old_words(at(6_800_000));
        assert_eq!(watch.shortage("n1", "n2"), Some((6, 10)));
        watch.forget_old_words(at(6_900_000));
        assert_eq!(watch.low_others(), Vec::<String>::new());
    }
}
