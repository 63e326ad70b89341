//! A crash at every sync point of a log's life, with any subset of unsynced sectors lost, and further crashes at every
//! sync point of the openings that follow. And instead of a crash, a sync that fails.

mod wal_common;

use std::sync::Arc;

use bytes::Bytes;
use slowdb_disk::SimDisk;
use slowdb_repl::wal::{HardState, Record, Wal, WalError, WalOptions};
use wal_common::{Model, Rng, fail};

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 16 << 10,
        spare_segments: 2,
        log_id: 77,
        #[cfg(feature = "canary")]
        chain_not_checked: false,
    }
}

fn open(disk: &SimDisk) -> Result<(Wal, Model), String> {
    let opened = Wal::open(Arc::new(disk.clone()), "log", options());
    let (wal, recovered) = opened.map_err(|error| error.to_string())?;
    let model = Model::of(&recovered, &wal)?;
    Ok((wal, model))
}

/// One step of the life that is crashed everywhere.
enum Step {
    Append(Vec<Record>),
    Sync,
    Release,
    Mark,
    Reopen,
}

/// A life with everything in it: several segments, tails that are cut, snapshots, removals, idle groups that must be
/// carried over, releases, recycled segments, openings.
fn life() -> Vec<Step> {
    let mut rng = Rng(5);
    let mut steps = Vec::new();
    let idle = Record::HardState { group: 100, state: HardState { term: 9, vote: 2, commit: 0 } };
    let config = Record::Config { group: 100, data: Bytes::from_static(b"members of 100") };
    let gone = Record::Removed { group: 101 };
    steps.push(Step::Append(vec![idle, config, gone]));
    steps.push(Step::Sync);
    let mut last = [0u64; 2];
    for round in 1..=24u64 {
        for (group, last) in last.iter_mut().enumerate() {
            let group = group as u64;
            let term = 1 + round / 8;
            let mut batch = Vec::new();
            for index in *last + 1..=*last + 3 {
                let len = 700 + rng.below(500) as usize;
                let data = rng.bytes(len);
                batch.push(Record::Entry { group, leader_term: term, term, index, kind: 1, data });
            }
            *last += 3;
            if round % 5 == 0 {
                // A new leader cuts the last entry.
                let data = rng.bytes(50);
                batch.push(Record::Entry { group, leader_term: term, term, index: *last, kind: 2, data });
            }
            let state = HardState { term, vote: 1, commit: *last - 1 };
            batch.push(Record::HardState { group, state });
            steps.push(Step::Append(batch));
        }
        if round % 2 == 0 {
            steps.push(Step::Sync);
        }
        if round % 6 == 0 {
            for (group, last) in last.iter_mut().enumerate() {
                let index = *last - 2;
                steps.push(Step::Append(vec![Record::Compacted {
                    group: group as u64,
                    index,
                    term: 1 + round / 8,
                }]));
            }
            steps.push(Step::Release);
        }
        if round == 9 {
            // One group goes on from a snapshot, far ahead.
            last[1] += 20;
            let data = Bytes::from_static(b"members as of the snapshot");
            let (index, term) = (last[1], 1 + round / 8);
            steps.push(Step::Append(vec![Record::Snapshot { group: 1, index, term, data }]));
        }
        if round % 7 == 0 {
            steps.push(Step::Mark);
        }
        if round == 11 || round == 20 {
            steps.push(Step::Reopen);
        }
    }
    steps
}

/// What a life was, up to where it was cut short.
#[derive(Default)]
struct Past {
    synced: Model,
    unsynced: Vec<Record>,
}

impl Past {
    fn all_synced(&mut self) {
        for record in self.unsynced.drain(..) {
            self.synced.apply(&record);
        }
    }

    /// Whether the state is one that a prefix gives which has all that was synced.
    fn allows(&self, found: &Model) -> bool {
        let mut model = self.synced.clone();
        let mut states = std::iter::once(model.clone()).chain(self.unsynced.iter().map(|record| {
            model.apply(record);
            model.clone()
        }));
        states.any(|state| state == *found)
    }
}

/// Lives until the end, or until the power goes or a sync fails, which is said by `has_failed`.
fn live(disk: &SimDisk, past: &mut Past, has_failed: &dyn Fn() -> bool) -> Result<(), String> {
    let excused = |what: &str| {
        if has_failed() { Ok(()) } else { Err(format!("{what} failed, and nothing was wrong with the disk")) }
    };
    let Ok((mut wal, _)) = open(disk) else { return excused("opening") };
    for step in life() {
        let done = match step {
            Step::Append(records) => {
                past.unsynced.extend(records.iter().cloned());
                wal.append(&records, &mut Vec::new())
            }
            Step::Sync => wal.sync(),
            Step::Release => wal.release().map(drop),
            Step::Mark => {
                let marked = wal.mark();
                if marked.is_ok() {
                    continue;
                }
                marked
            }
            Step::Reopen => {
                drop(wal);
                match open(disk) {
                    Ok((opened, found)) => {
                        wal = opened;
                        past.all_synced();
                        if found != past.synced {
                            return Err("opening again without a crash lost something".to_owned());
                        }
                        continue;
                    }
                    Err(_) => return excused("opening again"),
                }
            }
        };
        match done {
            // An append is not synced; but everything before is, if it had to begin a segment.
            Ok(()) if wal_is_synced(&wal) => past.all_synced(),
            Ok(()) => {}
            Err(WalError::Poisoned { .. } | WalError::Io { .. }) => return excused("a step"),
            Err(error) => return Err(error.to_string()),
        }
    }
    if wal.close().is_err() {
        return excused("closing");
    }
    past.all_synced();
    Ok(())
}

/// Whether nothing is waiting for a sync: then one more sync does nothing.
fn wal_is_synced(wal: &Wal) -> bool {
    wal.stats().unsynced_bytes == 0
}

/// Crashes at sync number `k`, then opens with a crash at each sync point of the opening, and compares each time.
fn crash_at(k: u64, seed: u64) -> Result<(), String> {
    let mut rng = Rng(seed);
    let disk = SimDisk::new();
    disk.crash_at_sync(k);
    let mut past = Past::default();
    live(&disk, &mut past, &|| disk.is_down())?;
    let mut disk = disk.crash(&mut || rng.next());
    for opening_sync in 0.. {
        disk.crash_at_sync(disk.syncs() + opening_sync);
        let opened = open(&disk);
        let finished = !disk.is_down();
        match opened {
            Ok((wal, found)) => {
                if !past.allows(&found) {
                    return Err(format!(
                        "not a prefix with all that was synced, after {opening_sync} crashes"
                    ));
                }
                // What an opening reports must be durable.
                past = Past { synced: found, unsynced: Vec::new() };
                drop(wal);
            }
            Err(why) if finished => return Err(format!("after {opening_sync} crashes while opening: {why}")),
            Err(_) => {}
        }
        disk = disk.crash(&mut || rng.next());
        if finished {
            break;
        }
    }
    let (_, found) = open(&disk)?;
    if found != past.synced {
        return Err("what an opening reported was gone after a crash".to_owned());
    }
    Ok(())
}

#[test]
fn crash_at_every_sync_point() {
    let disk = SimDisk::new();
    let mut past = Past::default();
    live(&disk, &mut past, &|| false).expect("a life without crashes");
    let syncs = disk.syncs();
    assert!(syncs > 60, "the life has {syncs} sync points");
    for k in 0..=syncs {
        for variant in 0..6 {
            let seed = k * 100 + variant;
            if let Err(why) = crash_at(k, seed) {
                fail("wal_crash", seed, &format!("crash at sync {k} of {syncs}: {why}"));
            }
        }
    }
}

/// Sync number `k` fails, then one at each sync point of the openings that follow, without a crash in between. What the
/// first opening reports that succeeds is durable.
fn fail_at(k: u64, seed: u64) -> Result<(), String> {
    let mut rng = Rng(seed);
    let disk = SimDisk::new();
    disk.fail_sync_in(k);
    let mut past = Past::default();
    live(&disk, &mut past, &|| disk.syncs() > k)?;
    for opening_sync in 0.. {
        let at = disk.syncs() + opening_sync;
        disk.fail_sync_in(opening_sync);
        let opened = open(&disk);
        let has_failed = disk.syncs() > at;
        match opened {
            Ok((wal, found)) => {
                if !past.allows(&found) {
                    return Err(format!("not a prefix with all that was synced, opening {opening_sync}"));
                }
                past = Past { synced: found, unsynced: Vec::new() };
                drop(wal);
            }
            Err(why) if !has_failed => return Err(format!("opening {opening_sync}: {why}")),
            Err(_) => {}
        }
        if !has_failed {
            break;
        }
    }
    let (_, found) = open(&disk.crash(&mut || rng.next()))?;
    if found != past.synced {
        return Err("what an opening reported was gone after a crash".to_owned());
    }
    Ok(())
}

#[test]
fn a_failed_sync_at_every_sync_point() {
    let disk = SimDisk::new();
    live(&disk, &mut Past::default(), &|| false).expect("a life without failures");
    let syncs = disk.syncs();
    for k in 0..=syncs {
        for variant in 0..3 {
            let seed = k * 100 + variant;
            if let Err(why) = fail_at(k, seed) {
                fail("wal_crash", seed, &format!("sync {k} of {syncs} fails: {why}"));
            }
        }
    }
}
