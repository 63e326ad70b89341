//! Collecting writes into one batch for each shard.
//!
//! Pure. A batch is handed out when it is full by count or bytes; when all open batches together pass the
//! bound, the largest is handed out, so that memory is bounded however many shards there are.

use slowdb_proto::{OpsBuilder, OpsError};
use std::collections::BTreeMap;

/// Bounds of a [`Batcher`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) writes: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) total_bytes: usize,
}

/// A batch that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) shard: u32,
    /// Number of its first write, over all shards.
    pub(crate) first: u64,
    pub(crate) writes: usize,
    pub(crate) bytes: Vec<u8>,
}

/// The open batches.
///
/// Invariants: no open batch is empty; `total_bytes` is the sum of their lengths and at most the bound.
#[derive(Debug)]
pub(crate) struct Batcher {
    limits: BatchLimits,
    /// By shard: the number of the first write, over all shards, and the writes.
    open: BTreeMap<u32, (u64, OpsBuilder)>,
    total_bytes: usize,
    /// Writes that were taken.
    taken: u64,
}

impl Batcher {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Batcher { limits, open: BTreeMap::new(), total_bytes: 0, taken: 0 }
    }

    /// Adds a put; gives the batches that have to be sent now, in order. On an error nothing was added.
    pub(crate) fn put(
        &mut self,
        shard: u32,
        id: &str,
        vector: &[f32],
        payload: &[u8],
    ) -> Result<Vec<Batch>, OpsError> {
        let mut ready = Vec::new();
        let bytes = OpsBuilder::put_bytes(id, vector.len(), payload.len());
        let fits = |open: &OpsBuilder| open.len() + bytes <= self.limits.batch_bytes;
        if let Some((_, open)) = self.open.get_mut(&shard).filter(|(_, open)| fits(open)) {
            open.put(id, vector, payload)?;
        } else {
            // The new batch first: if this write is refused, the old one stays as it is.
            let mut fresh = OpsBuilder::new();
            fresh.put(id, vector, payload)?;
            ready.extend(self.take(shard));
            self.open.insert(shard, (self.taken, fresh));
        }
        self.taken += 1;
        self.total_bytes += bytes;
        let (_, open) = &self.open[&shard];
        let is_full = open.writes() >= self.limits.writes || open.len() >= self.limits.batch_bytes;
        if is_full {
            ready.extend(self.take(shard));
        }
        while self.total_bytes > self.limits.total_bytes {
            ready.extend(self.take_largest());
        }
        Ok(ready)
    }

    /// Every write below this number was handed out.
    pub(crate) fn handed_out(&self) -> u64 {
        self.open.values().map(|(first, _)| *first).min().unwrap_or(self.taken)
    }

    /// The largest open batch.
    pub(crate) fn take_largest(&mut self) -> Option<Batch> {
        let (&shard, _) = self.open.iter().max_by_key(|(_, (_, open))| open.len())?;
        self.take(shard)
    }

    fn take(&mut self, shard: u32) -> Option<Batch> {
        let (first, open) = self.open.remove(&shard)?;
        self.total_bytes -= open.len();
        Some(Batch { shard, first, writes: open.writes(), bytes: open.finish() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slowdb_proto::{Op, Ops};

    fn limits() -> BatchLimits {
        BatchLimits { writes: 3, batch_bytes: 1_000, total_bytes: 1_000 }
    }

    #[test]
    fn a_batch_is_handed_out_when_it_is_full() {
        let mut batcher = Batcher::new(limits());
        assert!(batcher.put(0, "a", &[1.0], b"").expect("good").is_empty());
        assert!(batcher.put(1, "b", &[1.0], b"").expect("good").is_empty());
        assert!(batcher.put(0, "c", &[1.0], b"").expect("good").is_empty());
        let ready = batcher.put(0, "d", &[1.0], b"").expect("good");
        assert_eq!(ready.iter().map(|b| (b.shard, b.writes)).collect::<Vec<_>>(), [(0, 3)]);
        assert_eq!(batcher.take_largest().map(|b| (b.shard, b.writes)), Some((1, 1)));
        assert!(batcher.take_largest().is_none());
    }

    #[test]
    fn a_refused_write_changes_nothing() {
        let mut batcher = Batcher::new(limits());
        batcher.put(0, "a", &[1.0; 200], b"").expect("good");
        let before = batcher.total_bytes;
        // It would not fit beside the first, and is bad as well.
        batcher.put(0, "b", &[f32::NAN; 200], b"").expect_err("not finite");
        batcher.put(0, "", &[1.0], b"").expect_err("no id");
        batcher.put(5, "", &[1.0], b"").expect_err("no id");
        assert_eq!(batcher.total_bytes, before);
        assert_eq!(batcher.take_largest().map(|b| b.writes), Some(1));
        assert!(batcher.take_largest().is_none());
    }

    proptest! {
        /// Every write comes out once, in its shard, in order; no bound is passed.
        #[test]
        fn nothing_is_lost_or_reordered(writes in prop::collection::vec((0u32..5, 1usize..100), 0..200)) {
            let mut batcher = Batcher::new(limits());
            let mut out: BTreeMap<u32, Vec<String>> = BTreeMap::new();
            let mut wanted: BTreeMap<u32, Vec<String>> = BTreeMap::new();
            let mut collect = |batch: Batch| {
                let ops = Ops::check_layout(&batch.bytes).expect("a good batch");
                assert_eq!(ops.writes() as usize, batch.writes);
                assert!(batch.writes <= 3 && batch.bytes.len() <= 1_000);
                out.entry(batch.shard).or_default().extend(ops.iter().map(|op: Op<'_>| op.id().to_owned()));
            };
            for (i, (shard, dimension)) in writes.into_iter().enumerate() {
                let id = format!("id{i}");
                batcher.put(shard, &id, &vec![0.5; dimension], b"p").expect("good").into_iter().for_each(&mut collect);
                wanted.entry(shard).or_default().push(id);
                prop_assert!(batcher.total_bytes <= 1_000);
                let open: usize = batcher.open.values().map(|(_, open)| open.writes()).sum();
                let behind = i as u64 + 1 - batcher.handed_out();
                prop_assert!(behind >= open as u64 && (behind > 0) == (open > 0));
            }
            while let Some(batch) = batcher.take_largest() {
                collect(batch);
            }
            prop_assert_eq!(batcher.total_bytes, 0);
            prop_assert_eq!(out, wanted);
        }
    }
}
