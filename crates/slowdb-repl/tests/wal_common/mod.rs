//! What the tests of the write-ahead log share: a seeded random source, a model of what the log holds, and a
//! comparison of the two.

#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use slowdb_disk::Disk;
use slowdb_repl::wal::{HardState, Record, Recovered, Wal};

/// A seeded random source (splitmix64).
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Bytes {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        Bytes::from(out)
    }
}

/// The seeds to run: the one in `WAL_SEED`, or `count` fixed ones.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("WAL_SEED") {
        Ok(seed) => vec![seed.parse().expect("WAL_SEED is a number")],
        Err(_) => {
            let count =
                std::env::var("WAL_SEEDS").map_or(count, |n| n.parse().expect("WAL_SEEDS is a number"));
            (1..=count).collect()
        }
    }
}

/// Fails with the seed and the command that replays it.
pub(crate) fn fail(test: &str, seed: u64, why: &str) -> ! {
    panic!(
        "seed {seed}: {why}\nreplay: WAL_SEED={seed} cargo test -p slowdb-repl --test {test} -- --nocapture"
    )
}

/// What the log should know of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelGroup {
    pub(crate) hard: HardState,
    pub(crate) config: Option<Bytes>,
    pub(crate) base: (u64, u64),
    /// (term, kind, payload) of the entries after `base`.
    pub(crate) entries: Vec<(u64, u8, Bytes)>,
}

impl ModelGroup {
    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        let place = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(place as usize).map(|entry| entry.0)
    }
}

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) groups: BTreeMap<u64, ModelGroup>,
    pub(crate) removed: BTreeSet<u64>,
    pub(crate) overtaken: BTreeMap<(u64, u64, u64, u64), Bytes>,
}

impl Model {
    /// Takes in a record that is known to be valid.
    pub(crate) fn apply(&mut self, record: &Record) {
        let id = record.group();
        if let Record::Removed { .. } = record {
            self.groups.remove(&id);
            self.removed.insert(id);
            return;
        }
        match record {
            Record::Overtaken { term, index, data, .. } => {
                let offset = u64::from_le_bytes(*data.first_chunk().expect("has an offset"));
                self.overtaken.insert((id, *term, *index, offset), data.clone());
                return;
            }
            Record::Settled { term, index, offset, .. } => {
                self.overtaken.remove(&(id, *term, *index, *offset));
                return;
            }
            _ => {}
        }
        let group = self.groups.entry(id).or_default();
        match record {
            Record::Entry { term, index, kind, data, .. } => {
                group.entries.truncate((index - group.base.0 - 1) as usize);
                group.entries.push((*term, *kind, data.clone()));
                if *term > group.hard.term {
                    group.hard = HardState { term: *term, vote: 0, commit: group.hard.commit };
                }
            }
            Record::HardState { state, .. } => group.hard = *state,
            Record::Config { data, .. } => group.config = Some(data.clone()),
            Record::Compacted { index, term, .. } => {
                if group.term_at(*index) == Some(*term) {
                    group.entries.drain(..(index - group.base.0) as usize);
                } else {
                    group.entries.clear();
                }
                group.base = (*index, *term);
                group.hard.commit = group.hard.commit.max(*index);
                if *term > group.hard.term {
                    group.hard = HardState { term: *term, vote: 0, commit: group.hard.commit };
                }
            }
            Record::Snapshot { index, term, data, .. } => {
                group.entries.clear();
                group.config = Some(data.clone());
                group.base = (*index, *term);
                group.hard.commit = group.hard.commit.max(*index);
                if *term > group.hard.term {
                    group.hard = HardState { term: *term, vote: 0, commit: group.hard.commit };
                }
            }
            Record::Removed { .. } | Record::Overtaken { .. } | Record::Settled { .. } => {}
        }
    }

    /// What a log says it holds, payloads read back.
    pub(crate) fn of(recovered: &Recovered, wal: &Wal) -> Result<Self, String> {
        let reader = wal.reader();
        let mut model = Self {
            removed: recovered.removed.clone(),
            overtaken: recovered.overtaken.clone(),
            ..Self::default()
        };
        for (id, found) in &recovered.groups {
            let mut group = ModelGroup {
                hard: found.hard_state,
                config: found.config.clone(),
                base: found.compacted,
                entries: Vec::new(),
            };
            for entry in &found.entries {
                if entry.index != group.last() + 1 {
                    return Err(format!("group {id}: entry {} follows on {}", entry.index, group.last()));
                }
                let data = reader.read(entry.location);
                let data = data.map_err(|error| format!("group {id}, entry {}: {error}", entry.index))?;
                group.entries.push((entry.term, entry.kind, data));
            }
            model.groups.insert(*id, group);
        }
        Ok(model)
    }
}

/// Draws a record that a correct group could append now.
pub(crate) fn draw_record(rng: &mut Rng, model: &Model, data_bytes_max: u64) -> Record {
    let id = draw_group(rng, model);
    let default = ModelGroup::default();
    let group = model.groups.get(&id).unwrap_or(&default);
    let hard = group.hard;
    match rng.below(20) {
        0..=1 => {
            let commit = hard.commit + rng.below(group.last() - hard.commit + 1);
            let mut state = HardState { commit, ..hard };
            if rng.one_in(3) {
                state = HardState { term: hard.term + 1 + rng.below(3), vote: rng.below(4), commit };
            } else if state.vote == 0 {
                state.vote = rng.below(4);
            }
            Record::HardState { group: id, state }
        }
        2 => Record::Config { group: id, data: draw_data(rng, 200) },
        3..=4 => {
            let index = group.base.0 + rng.below(group.last() - group.base.0 + 1);
            let index = if rng.one_in(3) { group.last() } else { index };
            let term = group.term_at(index).unwrap_or(0);
            Record::Compacted { group: id, index, term }
        }
        5 if rng.one_in(4) => {
            let index = hard.commit + 1 + rng.below(12);
            Record::Compacted { group: id, index, term: hard.term + 1 }
        }
        6 if rng.one_in(12) => Record::Removed { group: id },
        // They are kept for groups that are gone, too.
        8 => {
            let group = model.removed.first().copied().filter(|_| rng.one_in(4)).unwrap_or(id);
            let mut data = rng.below(3).to_le_bytes().to_vec();
            data.extend_from_slice(&draw_data(rng, 3000));
            Record::Overtaken { group, term: 1 + rng.below(4), index: 1 + rng.below(9), data: data.into() }
        }
        9 if !model.overtaken.is_empty() => {
            let nth = rng.below(model.overtaken.len() as u64) as usize;
            let key = model.overtaken.keys().nth(nth).copied().unwrap_or_default();
            Record::Settled { group: key.0, term: key.1, index: key.2, offset: key.3 }
        }
        7 if rng.one_in(6) => {
            let index = hard.commit.max(1) + rng.below(12);
            let term = group.base.1.max(1) + rng.below(hard.term + 2);
            Record::Snapshot { group: id, index, term, data: draw_data(rng, 200) }
        }
        _ => {
            let mut index = group.last() + 1;
            if rng.one_in(6) && group.last() > hard.commit {
                index = hard.commit + 1 + rng.below(group.last() - hard.commit);
            }
            let floor = group.term_at(index - 1).unwrap_or(0).max(1);
            let term = floor.max(hard.term.max(1) + u64::from(rng.one_in(10)));
            let data = if rng.one_in(60) {
                let len = data_bytes_max - rng.below(data_bytes_max / 2);
                rng.bytes(len as usize)
            } else {
                draw_data(rng, 3000)
            };
            let kind = rng.below(256) as u8;
            let leader_term = term.max(hard.term) + rng.below(2);
            Record::Entry { group: id, leader_term, term, index, kind, data }
        }
    }
}

/// One of five live groups; a removed one is followed by one with a new id.
fn draw_group(rng: &mut Rng, model: &Model) -> u64 {
    let mut id = rng.below(5);
    while model.removed.contains(&id) {
        id += 5;
    }
    id
}

fn draw_data(rng: &mut Rng, len_max: u64) -> Bytes {
    let len = rng.below(len_max) >> rng.below(8);
    rng.bytes(len as usize)
}

/// Copies a directory from one disk to another, durably.
pub(crate) fn copy_dir(from: &dyn Disk, to: &dyn Disk, dir: &str) {
    to.create_dir_all(dir).expect("creates the directory");
    for name in from.list(dir).expect("lists the directory") {
        let path = format!("{dir}/{name}");
        let source = from.open(&path, false).expect("opens the source");
        let mut bytes = vec![0; source.len().expect("has a length") as usize];
        source.read_at(&mut bytes, 0).expect("reads the source");
        let target = to.open(&path, true).expect("creates the target");
        target.allocate(0, bytes.len() as u64).expect("has room");
        target.write_at(&[std::io::IoSlice::new(&bytes)], 0).expect("writes the target");
        target.sync().expect("syncs the target");
    }
    to.sync_dir(dir).expect("syncs the directory");
}
