//! The scrub in the background: every byte of every shard here is read again and compared with its hashes, one shard at a
//! time, in steps off the core's thread, as slowly as asked for.
//!
//! It reads a snapshot of a store, whose slots are kept until it is through. What it finds is logged, counted, and named by
//! `status` until a later scrub of the shard no longer finds it; reads check such a record anew and answer `corrupt`.

use crate::machine::Machine;
use crate::node::{Effect, Node};
use slowdb_proto::ScrubStatus;
use slowdb_repl::{GroupId, Now};
use slowdb_storage::{Corruption, Scrubber};
use std::collections::{BTreeMap, VecDeque};

/// Ticks between two steps.
const STEP_TICKS: u64 = 5;
/// Steps in a second.
const STEPS_PER_SECOND: u64 = 10;
/// Damaged places of one scrub of a shard that are logged one by one.
const LOGGED_MAX: usize = 20;
/// Damaged places of one shard that `status` names.
const NAMED_MAX: usize = 3;

/// How fast a node's shards are scrubbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPace {
    /// Bytes read within a second, of all shards together; 0 for no scrub at all.
    pub bytes_per_second: u64,
    /// Ticks from the end of one round through all shards to the beginning of the next.
    pub pause_ticks: u64,
}

impl Default for ScrubPace {
    /// 8 MiB a second, and an hour between rounds.
    fn default() -> Self {
        ScrubPace { bytes_per_second: 8 << 20, pause_ticks: 60 * 60 * 50 }
    }
}

/// A scrub of a shard that goes on for a step; see [`Effect::Scrub`].
pub struct ScrubStep {
    group: GroupId,
    /// Names the store that is read: another one may take its place meanwhile.
    store: (u64, u64),
    scrubber: Scrubber,
    budget: u64,
    more: bool,
}

impl ScrubStep {
    /// Reads on. Blocks.
    #[must_use = "the node waits for it"]
    pub fn run(mut self: Box<Self>) -> Box<Self> {
        self.more = self.scrubber.step(self.budget);
        self
    }

    /// What was found damaged, once the scrub of the shard is through; empty before.
    pub fn bad(&self) -> Vec<Corruption> {
        let found = self.scrubber.found();
        if !self.more && found.bad.is_empty() && found.digest != self.scrubber.snapshot().digest() {
            let file = format!("{}/{}.{}", crate::shard::SHARDS, self.store.0, self.store.1);
            let what = "the digest of the records is not the one that was kept up write by write";
            return vec![Corruption { file, offset: 0, slot: None, what }];
        }
        if self.more { Vec::new() } else { found.bad.clone() }
    }
}

/// What was read in a round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    records: u64,
    bytes: u64,
    bad: u64,
}

/// How far the scrub of all shards is.
#[derive(Default)]
pub(crate) struct Scrubs {
    /// The shard that is scrubbed, between two steps.
    waiting: Option<Box<ScrubStep>>,
    /// A step is under way.
    running: bool,
    /// Shards that this round has not come to yet.
    queue: VecDeque<GroupId>,
    /// The round that is under way.
    round: Option<Round>,
    /// The last one that was finished, and when.
    last: Option<(Round, u64)>,
    rounds: u64,
    ticks: u64,
    next_round_at: u64,
    /// What the last scrub of each shard found.
    damaged: BTreeMap<GroupId, Vec<Corruption>>,
    /// Records that were written anew.
    mended: u64,
}

impl Scrubs {
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    pub(crate) fn status(&self, bytes_per_second: u64, now: Now) -> ScrubStatus {
        let (last, finished) = self.last.unzip();
        let Round { records, bytes, bad } = last.unwrap_or_default();
        let reading = self.waiting.as_ref().map_or(0, |step| step.scrubber.bytes_read());
        ScrubStatus {
            bytes_per_second,
            rounds: self.rounds,
            finished_ms_ago: finished.map(|at| now.micros.saturating_sub(at) / 1000),
            records,
            bytes,
            bad,
            bytes_this_round: self.round.map_or(0, |round| round.bytes) + reading,
            damaged: self.damaged.values().map(|bad| bad.len() as u64).sum(),
            mended: self.mended,
        }
    }

    /// What an operator has to hear, by group.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = (GroupId, String)> {
        self.damaged.iter().map(|(group, bad)| {
            let named: Vec<String> = bad
                .iter()
                .take(NAMED_MAX)
                .map(|bad| format!("{} at byte {}", bad.file, bad.offset))
                .collect();
            let more = bad.len() - named.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let what =
                format!("{} damaged places were found by the scrub: {}{more}", bad.len(), named.join(", "));
            (*group, what)
        })
    }

    fn found(&mut self, step: &ScrubStep) {
        let (group, bad) = (step.group, step.bad());
        for bad in bad.iter().take(LOGGED_MAX) {
            let Corruption { file, offset, slot, what } = bad;
            tracing::error!(%group, file, offset, slot, what, "the scrub found damage");
        }
        if bad.len() > LOGGED_MAX {
            tracing::error!(%group, places = bad.len(), "the scrub found more damage");
        }
        let round = self.round.get_or_insert_default();
        round.records += step.scrubber.found().records;
        round.bytes += step.scrubber.bytes_read();
        round.bad += bad.len() as u64;
        if bad.is_empty() {
            self.damaged.remove(&group);
        } else {
            self.damaged.insert(group, bad);
        }
    }

    /// What was in a slot is good again.
    pub(crate) fn mended(&mut self, group: GroupId, slot: u32) {
        self.mended += 1;
        let Some(bad) = self.damaged.get_mut(&group) else { return };
        bad.retain(|bad| bad.slot != Some(slot));
        if bad.is_empty() {
            self.damaged.remove(&group);
        }
    }
}

impl Node {
    /// To be called at every tick.
    pub(crate) fn tend_scrub(&mut self, now: Now) {
        let pace = self.setup.scrub;
        self.scrubs.ticks += 1;
        let due = self.scrubs.ticks.is_multiple_of(STEP_TICKS);
        if pace.bytes_per_second == 0 || self.scrubs.running || !due || self.is_stopping() {
            return;
        }
        let Some(mut step) = self.scrubs.waiting.take().or_else(|| self.next_scrub(now)) else { return };
        if self.scrubbed_store(step.group) != Some(step.store) {
            // The replica is gone, or goes on from a snapshot: there is another store to look at in the next round.
            return;
        }
        step.budget = pace.bytes_per_second.div_ceil(STEPS_PER_SECOND);
        self.scrubs.running = true;
        self.effects.push(Effect::Scrub(step));
    }

    /// A step is done.
    pub(crate) fn scrubbed(&mut self, step: Box<ScrubStep>) {
        self.scrubs.running = false;
        if step.more {
            self.scrubs.waiting = Some(step);
        } else if self.scrubbed_store(step.group) == Some(step.store) {
            self.scrubs.found(&step);
            self.mends.found(step.group, step.store, &step.bad());
        }
    }

    /// Begins with the next shard of the round, or ends the round, or begins one.
    fn next_scrub(&mut self, now: Now) -> Option<Box<ScrubStep>> {
        let scrubs = &mut self.scrubs;
        if scrubs.queue.is_empty() {
            if let Some(round) = scrubs.round.take() {
                let Round { records, bytes, bad } = round;
                tracing::info!(records, bytes, bad, "all shards were scrubbed");
                scrubs.last = Some((round, now.micros));
                scrubs.rounds += 1;
                scrubs.next_round_at = scrubs.ticks + self.setup.scrub.pause_ticks;
                let repl = &self.repl;
                scrubs.damaged.retain(|group, _| repl.machine(*group).is_some());
            }
            if scrubs.ticks < scrubs.next_round_at {
                return None;
            }
            scrubs.queue = self.repl.groups().filter(|id| *id != crate::catalog::CATALOG).collect();
            if !scrubs.queue.is_empty() {
                scrubs.round = Some(Round::default());
            }
        }
        let group = scrubs.queue.pop_front()?;
        let store = self.scrubbed_store(group)?;
        let snapshot = self.repl.machine(group)?.shard()?.records_snapshot();
        match snapshot {
            Ok(snapshot) => {
                let scrubber = Scrubber::new(snapshot);
                Some(Box::new(ScrubStep { group, store, scrubber, budget: 0, more: true }))
            }
            Err(error) => {
                tracing::warn!(%group, %error, "not scrubbed in this round");
                None
            }
        }
    }

    /// Which store a group has here.
    pub(crate) fn scrubbed_store(&self, group: GroupId) -> Option<(u64, u64)> {
        self.repl.machine(group).and_then(Machine::shard).map(crate::shard::ShardMachine::store_name)
    }
}
