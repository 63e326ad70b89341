//! [`BulkWriter`]: very many records, batched by shard, several batches under way, bounded memory.

use crate::batcher::{Batch, BatchLimits, Batcher};
use crate::client::Inner;
use crate::collection::{Collection, Shape, write};
use crate::error::ClientError;
use crate::input::{check_id, check_payload, check_vector};
use bytes::Bytes;
use slowdb_proto::limits::{BATCH_BYTES_MAX, BATCH_WRITES_MAX};
use slowdb_proto::{Code, Position, WriteLevel, WriteReply};
use slowdb_ring::shard_of;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How to write in bulk.
#[derive(Clone)]
pub struct BulkOptions {
    /// When a batch counts as written; the collection's own level if not given.
    pub level: Option<WriteLevel>,
    /// For each batch with its retries; the client's own time-out if not given.
    pub timeout: Option<Duration>,
    /// Batches under way at once, over all shards.
    pub in_flight: usize,
    /// Most writes in a batch.
    pub batch_writes: usize,
    /// Most bytes in a batch.
    pub batch_bytes: usize,
    /// Most bytes in all open batches together; when it is reached the largest is sent.
    pub buffer_bytes: usize,
    /// Called after each acknowledgement.
    pub progress: Option<Arc<dyn Fn(BulkProgress) + Send + Sync>>,
}

impl Default for BulkOptions {
    fn default() -> Self {
        BulkOptions {
            level: None,
            timeout: None,
            in_flight: 8,
            batch_writes: 1_000,
            batch_bytes: 4 << 20,
            buffer_bytes: 64 << 20,
            progress: None,
        }
    }
}

impl std::fmt::Debug for BulkOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BulkOptions")
            .field("level", &self.level)
            .field("in_flight", &self.in_flight)
            .field("batch_writes", &self.batch_writes)
            .field("batch_bytes", &self.batch_bytes)
            .finish_non_exhaustive()
    }
}

/// How far a bulk write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkProgress {
    /// Records acknowledged.
    pub written: u64,
    /// So many records from the first one on are acknowledged, without a gap: where to go on after an interruption.
    pub through: u64,
}

/// What a bulk write did.
#[derive(Clone, Debug, Default)]
pub struct BulkReport {
    /// Records acknowledged.
    pub written: u64,
    /// For each shard that was written to, what happened there.
    pub shards: BTreeMap<u32, BulkShard>,
}

/// What a bulk write did in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkShard {
    /// Records acknowledged.
    pub written: u64,
    /// Highest position of a write that was acknowledged.
    pub position: Position,
    /// Longest time from sending a batch to its acknowledgement, retries and failovers included.
    pub wait_max: Duration,
}

/// Writes records as they come. [`BulkWriter::finish`] has to be called: what is dropped before is not sent.
///
/// Invariant: every record that was taken is in an open batch, in one that is ready, under way, counted as
/// written, or `failed` is set. A batch is taken out of `ready` only when it can be sent at once.
#[derive(Debug)]
pub struct BulkWriter {
    collection: Collection,
    shape: Shape,
    options: BulkOptions,
    batcher: Batcher,
    ready: VecDeque<Batch>,
    under_way: JoinSet<Outcome>,
    /// The number of the first write of each batch that is under way.
    firsts: BTreeSet<u64>,
    report: BulkReport,
    /// Records that stand at quorum without having reached the level.
    at_quorum: u64,
    failed: Option<ClientError>,
}

#[derive(Debug)]
struct Outcome {
    shard: u32,
    first: u64,
    writes: usize,
    took: Duration,
    result: Result<WriteReply, ClientError>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl BulkWriter {
    pub(crate) fn new(
        collection: Collection,
        shape: Shape,
        options: BulkOptions,
    ) -> Result<Self, ClientError> {
        let checks = [
            ("in_flight", options.in_flight, 1_024),
            ("batch_writes", options.batch_writes, BATCH_WRITES_MAX),
            ("batch_bytes", options.batch_bytes, BATCH_BYTES_MAX),
            ("buffer_bytes", options.buffer_bytes, usize::MAX),
        ];
        for (name, value, max) in checks {
            if value == 0 || value > max {
                let message = format!("{name} is {value}; it has to be from 1 to {max}");
                return Err(ClientError::BadInput { code: Code::BadRequest, message });
            }
        }
        let limits = BatchLimits {
            writes: options.batch_writes,
            batch_bytes: options.batch_bytes,
            total_bytes: options.buffer_bytes,
        };
        Ok(BulkWriter {
            collection,
            shape,
            options,
            batcher: Batcher::new(limits),
            ready: VecDeque::new(),
            under_way: JoinSet::new(),
            firsts: BTreeSet::new(),
            report: BulkReport::default(),
            at_quorum: 0,
            failed: None,
        })
    }

    /// Adds a record; waits while as much is under way as may be. Records of one shard may be written in
    /// any order: ids should differ. If it is cancelled while it waits, this record was not taken, and
    /// nothing else is lost.
    ///
    /// # Errors
    /// [`ClientError::BadInput`]: this record was not taken, the others are not affected.
    /// [`ClientError::Partial`]: a batch could not be written; nothing more will be.
    pub async fn put(&mut self, id: &str, vector: &[f32], payload: &[u8]) -> Result<(), ClientError> {
        self.send_ready().await?;
        check_id(id)?;
        check_vector(vector, self.shape.dimension)?;
        check_payload(payload)?;
        let shard = shard_of(id.as_bytes(), self.shape.num_shards);
        self.ready.extend(self.batcher.put(shard, id, vector, payload)?);
        // No waiting from here on: whoever is cancelled has to know whether the record was taken.
        self.send_while_there_is_room();
        Ok(())
    }

    /// Sends what is left and waits for all acknowledgements.
    ///
    /// # Errors
    /// [`ClientError::Partial`] says how many records were written.
    pub async fn finish(mut self) -> Result<BulkReport, ClientError> {
        self.ready.extend(std::iter::from_fn(|| self.batcher.take_largest()));
        self.send_ready().await?;
        while self.wait_for_one().await {}
        if self.failed.is_some() {
            return Err(self.stop().await);
        }
        Ok(std::mem::take(&mut self.report))
    }

    /// Sends all batches that are ready.
    async fn send_ready(&mut self) -> Result<(), ClientError> {
        loop {
            self.send_while_there_is_room();
            if self.failed.is_some() {
                return Err(self.stop().await);
            }
            if self.ready.is_empty() {
                return Ok(());
            }
            self.wait_for_one().await;
        }
    }

    fn send_while_there_is_room(&mut self) {
        while let Some(joined) = self.under_way.try_join_next() {
            self.note(joined);
        }
        while self.failed.is_none()
            && self.under_way.len() < self.options.in_flight
            && let Some(batch) = self.ready.pop_front()
        {
            self.send(batch);
        }
    }

    fn send(&mut self, batch: Batch) {
        let (collection, shape, level) = (self.collection.clone(), self.shape, self.options.level);
        let deadline = collection.deadline(self.options.timeout);
        self.firsts.insert(batch.first);
        self.under_way.spawn(async move {
            let sent = Instant::now();
            let body = Bytes::from(batch.bytes);
            let result = write(&collection, shape, batch.shard, body, level, deadline).await;
            Outcome {
                shard: batch.shard,
                first: batch.first,
                writes: batch.writes,
                took: sent.elapsed(),
                result,
            }
        });
    }

    /// False if nothing was under way.
    async fn wait_for_one(&mut self) -> bool {
        match self.under_way.join_next().await {
            Some(joined) => {
                self.note(joined);
                true
            }
            None => false,
        }
    }

    fn note(&mut self, joined: Result<Outcome, tokio::task::JoinError>) {
        let outcome = match joined {
            Ok(outcome) => outcome,
            Err(error) => {
                let message = format!("a task that was writing a batch ended: {error}");
                self.failed.get_or_insert(ClientError::Internal { message });
                return;
            }
        };
        let shard = self.report.shards.entry(outcome.shard).or_default();
        shard.wait_max = shard.wait_max.max(outcome.took);
        match outcome.result {
            Ok(reply) => {
                let last = Position {
                    offset: reply.first.offset.saturating_add(reply.writes.saturating_sub(1)),
                    ..reply.first
                };
                shard.position = shard.position.max(last);
                shard.written += outcome.writes as u64;
                self.report.written += outcome.writes as u64;
                self.firsts.remove(&outcome.first);
                if let Some(progress) = &self.options.progress {
                    let ready = self.ready.iter().map(|batch| batch.first);
                    let waiting = ready.chain(self.firsts.first().copied()).min();
                    let handed_out = self.batcher.handed_out();
                    let through = waiting.map_or(handed_out, |first| first.min(handed_out));
                    progress(BulkProgress { written: self.report.written, through });
                }
            }
            Err(error) => {
                if error.code() == Code::LevelNotReached.as_str() {
                    self.at_quorum += outcome.writes as u64;
                }
                self.failed.get_or_insert(error);
            }
        }
    }

    /// After a failure: waits for what is under way, since it may yet be acknowledged.
    async fn stop(&mut self) -> ClientError {
        while self.wait_for_one().await {}
        let source = self.failed.clone().expect("only called after a failure");
        let (written, at_quorum) = (self.report.written, self.at_quorum);
        ClientError::Partial { written, at_quorum, source: Box::new(source) }
    }
}
