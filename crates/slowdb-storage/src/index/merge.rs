//! What a checkpoint writes: a delta of what changed, which may take in deltas below it, or a new base.
#![expect(unsafe_code, reason = "reads records of mapped files, should a table be damaged")]

use std::sync::Arc;

use super::build::IndexBuilder;
use super::chain::Chain;
use super::file::Index;
use crate::bitmap::Bitmap;
use crate::entry::Entry;
use crate::error::Corruption;
use crate::hash;
use crate::overlay::Overlay;
use crate::shared::Shared;

/// How many deltas there can be above a base: a lookup looks at all of them in the worst case.
const DELTAS_MAX: usize = 8;
/// A delta takes in one below it that has up to so many times as many changes as it has already. So each change is
/// written anew a few times for each four times that what comes after it has grown.
const RATIO: u64 = 4;

/// A new index file, and those that it is above.
pub(crate) struct Merged {
    pub(crate) file: IndexBuilder,
    pub(crate) below: Vec<Arc<Index>>,
}

/// The index file `number` as of a checkpoint at which the slots in `live` live, so many that are `records`, of the
/// `slots` that had been used: each is in the present chain or in the overlay.
pub(crate) fn merge(
    shared: &Shared,
    present: Option<&Chain>,
    overlay: &Overlay,
    live: &Bitmap,
    (number, slots, records): (u64, u64, u64),
) -> Result<Merged, Corruption> {
    let files = present.map_or(&[][..], Chain::files);
    let mut missing = live.clone();
    let mut entries: Vec<Entry> =
        overlay.entries().filter(|entry| missing.take(entry.slot() as usize)).collect();
    let mut died: Vec<u32> = present.into_iter().flat_map(|present| present.live.minus(live)).collect();
    let sizes: Vec<u64> = files.iter().map(|file| file.changes()).collect();
    let changes = (entries.len() + died.len()) as u64;
    let is_damaged = files.iter().any(|file| file.is_damaged());
    let taken_in = taken_in(sizes.split_last().map(|(_, deltas)| deltas), changes, records);
    if let Some(taken_in) = taken_in.filter(|_| !is_damaged) {
        let (taken, below) = files.split_at(taken_in);
        let slots_below = below[0].slots();
        for file in taken {
            take_in(shared, file, &mut missing, |entry| entries.push(entry))?;
            died.extend(file.died().filter(|slot| !live.get(*slot as usize)));
        }
        died.retain(|slot| u64::from(*slot) < slots_below);
        let file = IndexBuilder::delta(number, slots, (below[0].number(), slots_below), &entries, died);
        return Ok(Merged { file, below: below.to_vec() });
    }
    let mut file = IndexBuilder::base(number, records, slots, live);
    entries.into_iter().for_each(|entry| file.add(entry));
    for below in files {
        take_in(shared, below, &mut missing, |entry| file.add(entry))?;
    }
    if missing.count() > 0 {
        return Err(files.last().expect("the overlay leads to what was written").unfit());
    }
    Ok(Merged { file, below: Vec::new() })
}

/// How many of the deltas below it a new one with so many changes takes in, if it is not better to write a new base.
/// `deltas` has the changes of each, from the newest on; none if there is no base.
fn taken_in(deltas: Option<&[u64]>, changes: u64, records: u64) -> Option<usize> {
    let deltas = deltas?;
    let all = changes + deltas.iter().sum::<u64>();
    if all * 2 >= records {
        return None;
    }
    let mut size = changes;
    let taken = deltas.iter().enumerate().take_while(|(n, delta)| {
        let takes = **delta <= size * RATIO || deltas.len() - n >= DELTAS_MAX;
        size += **delta;
        takes
    });
    Some(taken.count())
}

/// Gives `add` the entries of a file whose slots are in `missing`, and takes them out of it: the others are of records
/// that died, or that were replaced in the same slot since.
fn take_in(
    shared: &Shared,
    file: &Index,
    missing: &mut Bitmap,
    mut add: impl FnMut(Entry),
) -> Result<(), Corruption> {
    let (mut led_to, mut fits) = (file.led_to()?, true);
    let whole = file.for_each(|entry| {
        fits &= led_to.take(entry.slot() as usize);
        if missing.take(entry.slot() as usize) {
            add(entry);
        }
    });
    if !fits || whole && led_to.count() > 0 {
        return Err(file.unfit());
    }
    for slot in led_to.ones().filter(|slot| missing.take(*slot as usize)) {
        // SAFETY: the slot lives as of the checkpoint under way and of the one before it, which is the durable one,
        // so it is not cleared before this one is finished.
        add(unsafe { entry_of(shared, slot)? });
    }
    Ok(())
}

/// The entry of a record that a damaged page led to. Only of a good record: another id would make it pass for a
/// missing one.
///
/// # Safety
/// The slot is written and not cleared as long as this runs.
unsafe fn entry_of(shared: &Shared, slot: u32) -> Result<Entry, Corruption> {
    // SAFETY: promised by the caller.
    let record = unsafe { shared.record(slot)? };
    Ok(Entry::new(hash::fingerprint(record.id, shared.hash_seed), slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of so many records of which `changes` change between checkpoints: how often each change is written in
    /// all, and how many deltas there were at most.
    fn written(records: u64, changes: u64, checkpoints: u64) -> (u64, usize) {
        let (mut deltas, mut written, mut most) = (Vec::new(), 0, 0);
        for _ in 0..checkpoints {
            match taken_in(Some(&deltas), changes, records) {
                Some(taken) => {
                    let size = changes + deltas.drain(..taken).sum::<u64>();
                    written += size;
                    deltas.insert(0, size);
                }
                None => {
                    written += records;
                    deltas.clear();
                }
            }
            most = most.max(deltas.len());
            assert!(deltas.iter().sum::<u64>() * 2 < records);
        }
        (written / (changes * checkpoints), most)
    }

    #[test]
    fn what_a_change_costs_grows_with_the_logarithm_of_the_store_and_lookups_look_at_few_files() {
        for records in [10, 100, 10_000, 1_000_000, 100_000_000] {
            for changes in [1, 7, 100, 10_000] {
                let (times, most) = written(records, changes, 30_000);
                let levels = (records / changes).max(1).ilog(4) + 2;
                assert!(most <= DELTAS_MAX.min(levels as usize), "{records} {changes}: {most} deltas");
                let full_rewrite = (records / changes).max(1);
                assert!(
                    times <= u64::from(levels) * 6 && times <= full_rewrite + 1,
                    "{records} {changes}: {times} times"
                );
            }
        }
    }

    #[test]
    fn without_a_base_or_with_half_of_it_changed_a_new_one_is_written() {
        assert_eq!(taken_in(None, 1, 100), None);
        assert_eq!(taken_in(Some(&[]), 49, 100), Some(0));
        assert_eq!(taken_in(Some(&[]), 50, 100), None);
        assert_eq!(taken_in(Some(&[10, 30]), 9, 100), Some(2));
        assert_eq!(taken_in(Some(&[10, 30]), 10, 100), None);
        assert_eq!(taken_in(Some(&[5, 40]), 1, 1000), Some(0));
        assert_eq!(taken_in(Some(&[4, 30]), 1, 1000), Some(1));
        assert_eq!(taken_in(Some(&[1, 100, 1000, 9000, 1, 1, 1, 1]), 0, 100_000), Some(1));
    }
}
