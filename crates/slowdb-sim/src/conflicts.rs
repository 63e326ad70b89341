//! What the checkers have to know of late writes and is not in any answer: from where on a shard goes by the policy that
//! the run is to have, and how writes were made that late ones met.

use crate::events::{Event, EventLog, Outcome};
use crate::keys::Keys;
use crate::options::Options;
use slowdb_proto::{ConflictPolicy, Ops, Position, WriteLevel};
use slowdb_repl::{AckLevel, EntryView, GroupId};
use slowdb_server::Node;
use std::collections::{BTreeMap, BTreeSet};

/// A shard, and a position in its log.
type Place = (u32, Position);

#[derive(Default)]
pub(crate) struct Conflicts {
    /// Shards of which no replica was seen yet that goes by the policy of the run, if that is not the one that they are
    /// founded with.
    waiting: BTreeMap<u32, ConflictPolicy>,
    /// Level and hybrid logical time of each write that any log was given, late ones apart.
    made: BTreeMap<Place, (WriteLevel, u64)>,
}

impl Conflicts {
    /// Expects the policy of the run to reach all shards.
    pub(crate) fn expect(&mut self, options: &Options) {
        if options.conflicts != ConflictPolicy::default() {
            self.waiting = (0..options.shards).map(|shard| (shard, options.conflicts)).collect();
        }
    }

    /// A shard that does not go by the policy yet.
    pub(crate) fn waits(&self) -> Option<u32> {
        self.waiting.first_key_value().map(|(shard, _)| *shard)
    }

    /// A replica has applied a group up to here. The shard, if that is the first that goes by the policy.
    pub(crate) fn applied(&mut self, core: &Node, group: GroupId) -> Option<u32> {
        let shard = u32::try_from(group.0.checked_sub(1)?).ok()?;
        let wanted = *self.waiting.get(&shard)?;
        if core.conflict_policy(group) != Some(wanted) {
            return None;
        }
        self.waiting.remove(&shard);
        Some(shard)
    }

    /// A log was given an entry.
    pub(crate) fn logged(&mut self, keys: &Keys, term: u64, index: u64, entry: &[u8]) {
        // Entries of terms that begin are empty, and those of the catalog hold no writes to records.
        let Ok(entry) = EntryView::parse(term, index, entry) else { return };
        for proposal in entry.proposals().iter().filter(|proposal| proposal.header.late.is_none()) {
            let Ok(ops) = Ops::check_layout(proposal.body) else { continue };
            let level = match proposal.header.level {
                AckLevel::One => WriteLevel::One,
                AckLevel::Quorum => WriteLevel::Quorum,
                AckLevel::All => WriteLevel::All,
            };
            for (offset, op) in (proposal.first.offset..).zip(ops.iter()) {
                let Some(key) = keys.key(op.id()) else { continue };
                let position = Position { offset, ..proposal.first };
                self.made.insert((keys.shard(key), position), (level, proposal.header.hlc));
            }
        }
    }

    /// Tells how everything was made that is said to have been met.
    pub(crate) fn tell(&self, now: u64, log: &mut EventLog) {
        let mut shards = BTreeMap::new();
        let mut met: BTreeSet<Place> = BTreeSet::new();
        for (_, event) in log.events() {
            match event {
                Event::Invoke { op, shard, .. } => drop(shards.insert(*op, *shard)),
                Event::Return { op, outcome: Outcome::Conflicts { entries } } => {
                    let places = entries.iter().filter_map(|entry| Some((*shards.get(op)?, entry.met?)));
                    met.extend(places);
                }
                _ => {}
            }
        }
        for (shard, position) in met {
            if let Some((level, hlc)) = self.made.get(&(shard, position)).copied() {
                log.push(now, Event::Made { shard, position, level, hlc });
            }
        }
    }
}
