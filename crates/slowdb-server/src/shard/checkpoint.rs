//! Checkpoints of a shard, and compaction: what makes its store durable, and keeps its files small.

use super::ShardMachine;
use rkyv::rancor::Error as RkyvError;
use slowdb_storage::{CheckpointDone, CheckpointJob, WriteError};

/// The store is compacted a little after every so many bytes of records: then a call takes a few milliseconds.
const COMPACT_EVERY: u64 = 1024 * 1024;
/// It moves twice as much as was written, with which a store of random writes stays below one and a half times the
/// size of its records.
const COMPACT_TIMES: u64 = 2;

impl ShardMachine {
    /// To be called after each entry.
    pub(super) fn compact_if_churned(&mut self) {
        if self.churned >= COMPACT_EVERY {
            self.compact();
        }
    }

    /// Moves records together, if it pays. That changes nothing that replicas share.
    fn compact(&mut self) {
        let budget = std::mem::take(&mut self.churned).max(COMPACT_EVERY) * COMPACT_TIMES;
        match self.store.compact(budget) {
            Ok(done) => self.compacted |= done.has_more || done.records_moved > 0,
            Err(WriteError::NoSpace(_)) => {}
            // The next write or checkpoint fails likewise, and is answered with it.
            Err(error) => tracing::warn!(replica = self.place.replica, %error, "not compacted"),
        }
    }

    /// Begins a checkpoint of what is applied; `None` if there is nothing new or one is being made.
    pub(crate) fn begin_checkpoint(&mut self) -> Result<Option<CheckpointJob>, String> {
        if self.torn {
            return Err("an entry was applied in part: a checkpoint would pass it off as whole".to_owned());
        }
        if self.in_progress.is_some() || (self.index <= self.held && !self.compacted) {
            return Ok(None);
        }
        self.compacted = false;
        let mark = rkyv::to_bytes::<RkyvError>(&self.mark()).map_err(|error| error.to_string())?;
        let job = self.store.begin_checkpoint(&mark).map_err(|error| error.to_string())?;
        self.in_progress = Some(self.index);
        self.bytes_since = 0;
        Ok(Some(job))
    }

    /// The checkpoint is durable. Returns the index that it reaches.
    pub(crate) fn finish_checkpoint(&mut self, done: CheckpointDone) -> Result<u64, String> {
        if self.in_progress.is_none() {
            // It was begun before a snapshot was switched to: another store's.
            return Ok(self.held);
        }
        self.store.finish_checkpoint(done).map_err(|error| error.to_string())?;
        self.held = self.in_progress.take().unwrap_or(self.held).max(self.held);
        // What only the checkpoint before needed is free now.
        self.compact();
        if self.compacted {
            // Another checkpoint is due in a while, though nothing may be written until then.
            self.bytes_since = self.bytes_since.max(1);
        }
        Ok(self.held)
    }

    /// There will be no checkpoint.
    pub(crate) fn abandon_checkpoint(&mut self) {
        self.in_progress = None;
        // What it would have held is still to be held.
        self.bytes_since = self.bytes_since.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::ShardPlace;
    use slowdb_disk::SimDisk;
    use slowdb_proto::{OpsBuilder, Position};
    use slowdb_repl::{AckLevel, ProposalHeader, ProposalView};
    use slowdb_storage::Options;
    use std::sync::Arc;

    fn apply(shard: &mut ShardMachine, index: u64, batch: OpsBuilder) {
        let writes = batch.len() as u32;
        let body = batch.finish();
        let header = ProposalHeader {
            level: AckLevel::Quorum,
            retry: false,
            client: [7; 16],
            sequence: index,
            hlc: index,
            origin: 1,
            writes,
            late: None,
        };
        let first = Position::new(1, index, 0);
        shard.apply(&ProposalView { header, first, body: &body }).expect("the disk works");
        shard.end_of_entry(index, 0);
    }

    /// Until nothing is due any more. Says how many checkpoints were made.
    fn checkpoint_all(shard: &mut ShardMachine) -> usize {
        let mut made = 0;
        while shard.bytes_since() > 0 {
            let job = shard.begin_checkpoint().expect("it can").expect("it is due");
            shard.finish_checkpoint(job.run().expect("the disk works")).expect("it is the last one begun");
            made += 1;
        }
        made
    }

    #[test]
    fn what_was_deleted_is_given_back_though_nothing_more_is_written() {
        const DIMENSION: usize = 256;
        let disk = SimDisk::new();
        let mut options = Options::new(DIMENSION);
        options.extent_bytes = 1 << 17;
        let place = ShardPlace { disk: Arc::new(disk.clone()), replica: 4, options };
        let mut shard = ShardMachine::open(place, 0).expect("it opens");
        shard.begin_term(1, 2).expect("it is the first");
        let mut index = 2;
        let mut each = |shard: &mut ShardMachine, write: &dyn Fn(&mut OpsBuilder, u32)| {
            for first in (0..10_000).step_by(500) {
                let mut batch = OpsBuilder::new();
                (first..first + 500).for_each(|n| write(&mut batch, n));
                index += 1;
                apply(shard, index, batch);
            }
        };
        each(&mut shard, &|batch, n| {
            batch.put(&n.to_string(), &[n as f32; DIMENSION], b"").expect("a good put")
        });
        checkpoint_all(&mut shard);
        let full = disk.bytes_used();
        each(&mut shard, &|batch, n| {
            if n % 16 > 0 {
                batch.delete(&n.to_string()).expect("a good delete");
            }
        });
        let made = checkpoint_all(&mut shard);
        assert!((2..20).contains(&made), "{made} checkpoints");
        assert!(disk.bytes_used() < full / 4, "{} of {full} bytes", disk.bytes_used());
        let record = shard.reader().records.get(b"16").expect("it is good").expect("it is there");
        assert_eq!((record.vector[0], shard.records()), (16.0, 625));
    }
}
