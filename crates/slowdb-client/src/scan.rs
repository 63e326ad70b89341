//! All records of a collection, page by page, shard after shard.

use crate::collection::{Collection, Shape};
use crate::coverage::{MissingShard, check_coverage, suffices};
use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::leader::AtLeader;
use crate::pool::Answer;
use crate::reads::{Source, fresh, read_shard};
use crate::search::unexpected;
use bytes::Bytes;
use slowdb_proto::limits::SCAN_RECORDS_MAX;
use slowdb_proto::{Code, PageRecord, Position, ReadLevel, Reply, RequestKind, ScanRequest, ShardPosition};
use std::time::Duration;

/// How to scan.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Who may answer; the collection's own level if not given.
    pub level: Option<ReadLevel>,
    /// Only records whose ids begin with this. Default: all.
    pub prefix: String,
    /// Whether vectors are wanted. Default: no.
    pub vectors: bool,
    /// Whether payloads are wanted. Default: no.
    pub payloads: bool,
    /// Most records of a page, up to 10,000. Default: 1,000.
    pub page: usize,
    /// Share of the shards, 0 to 1, that have to answer. Default: 1.
    pub min_coverage: f64,
    /// For each page; the client's own time-out if not given.
    pub timeout: Option<Duration>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        ScanOptions {
            level: None,
            prefix: String::new(),
            vectors: false,
            payloads: false,
            page: 1_000,
            min_coverage: 1.0,
            timeout: None,
        }
    }
}

/// A record in a page.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanRecord {
    /// Its id.
    pub id: String,
    /// Position of the write that made it.
    pub position: Position,
    /// Its vector, if vectors were wanted.
    pub vector: Option<Vec<f32>>,
    /// What goes with it, if payloads were wanted.
    pub payload: Option<Bytes>,
}

/// Some records of one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanPage {
    /// The shard, and how far it was applied at least when the page was read.
    pub at: ShardPosition,
    /// In the order of their ids.
    pub records: Vec<ScanRecord>,
}

/// A scan under way. A record that is there all the time is in exactly one page; one that is written or removed meanwhile
/// may be in one or not. Each page is read at its own moment.
#[derive(Debug)]
pub struct Scan {
    collection: Collection,
    options: ScanOptions,
    shape: Shape,
    shard: u32,
    after: Option<String>,
    missing: Vec<MissingShard>,
    /// Whether a page was given out.
    is_begun: bool,
}

impl Scan {
    pub(crate) fn new(
        collection: Collection,
        shape: Shape,
        options: ScanOptions,
    ) -> Result<Self, ClientError> {
        check_coverage(options.min_coverage)?;
        if options.page == 0 || options.page > SCAN_RECORDS_MAX {
            let message =
                format!("a page of {} records: it has to be from 1 to {SCAN_RECORDS_MAX}", options.page);
            return Err(ClientError::BadInput { code: Code::BadRequest, message });
        }
        Ok(Scan { collection, options, shape, shard: 0, after: None, missing: Vec::new(), is_begun: false })
    }

    /// The next page, which may be empty; `None` after the last.
    ///
    /// # Errors
    /// See [`ClientError`]. With [`ScanOptions::min_coverage`] a shard that cannot be read is passed over as long as
    /// enough others are left, and is named by [`Scan::missing`]. After an error the same page can be asked for again,
    /// but for [`ClientError::Replaced`]: there are no more pages of a collection that is gone.
    pub async fn next_page(&mut self) -> Result<Option<ScanPage>, ClientError> {
        let mut deadline = self.collection.deadline(self.options.timeout);
        while self.shard < self.shape.num_shards {
            let shards = self.shape.num_shards;
            match self.page(deadline).await {
                Ok((page, more)) => {
                    self.is_begun = true;
                    self.after = page.records.last().map(|record| record.id.clone()).filter(|_| more);
                    if self.after.is_none() {
                        self.shard += 1;
                    }
                    return Ok(Some(page));
                }
                Err(ClientError::Replaced { .. }) if !self.is_begun && !deadline.is_over() => {
                    self.shape = self.collection.shape().await?;
                    self.shard = 0;
                    self.missing.clear();
                }
                Err(error) => {
                    let covered = shards as usize - self.missing.len() - 1;
                    if !error.is_of_shard() || !suffices(covered, shards as usize, self.options.min_coverage)
                    {
                        return Err(error);
                    }
                    self.missing.push(MissingShard { shard: self.shard, reason: error.to_string() });
                    self.after = None;
                    self.shard += 1;
                    deadline = self.collection.deadline(self.options.timeout);
                }
            }
        }
        Ok(None)
    }

    /// Shards that were passed over so far. Pages that were given of them before stay good.
    pub fn missing(&self) -> &[MissingShard] {
        &self.missing
    }

    async fn page(&self, deadline: Deadline) -> Result<(ScanPage, bool), ClientError> {
        let Collection { inner, name, session } = &self.collection;
        let source = Source { level: self.options.level, only: None, session };
        let request = || {
            RequestKind::Scan(ScanRequest {
                collection: name.to_string(),
                first_group: self.shape.first_group,
                shard: self.shard,
                fresh: fresh(inner, name, &[self.shard], source, deadline),
                prefix: self.options.prefix.clone(),
                after: self.after.clone(),
                limit: self.options.page as u32,
                vectors: self.options.vectors,
                payloads: self.options.payloads,
            })
        };
        let read = |answer: Answer| {
            let Answer { reply: Reply::Page { at, records, more }, body, .. } = answer else {
                return Err(unexpected("a scan", &answer.reply));
            };
            let bytes = body.len();
            let page = self.split(at, records, body).filter(|page| !(more && page.records.is_empty()));
            let page = page.ok_or_else(|| format!("a page whose {bytes} bytes do not add up"))?;
            Ok((at, (page, more)))
        };
        let shard = self.shard;
        let call = AtLeader {
            inner,
            collection: name,
            shape: self.shape,
            shard,
            deadline,
            is_write: false,
            only: None,
        };
        Ok(read_shard(&call, source, request, read).await?.1)
    }

    /// Takes a page apart; `None` if its parts do not add up.
    fn split(&self, at: ShardPosition, infos: Vec<PageRecord>, mut rest: Bytes) -> Option<ScanPage> {
        let mut records = Vec::with_capacity(infos.len());
        for PageRecord { id, position, payload_bytes } in infos {
            let mut take = |is_wanted: bool, len: usize| {
                if is_wanted && rest.len() < len {
                    return Err(());
                }
                Ok(is_wanted.then(|| rest.split_to(len)))
            };
            let vector = take(self.options.vectors, self.shape.dimension * 4).ok()?;
            let payload = take(self.options.payloads, payload_bytes as usize).ok()?;
            let floats =
                |bytes: Bytes| bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
            // A copy, so that a small payload does not keep a large reply in memory.
            let payload = payload.map(|bytes| Bytes::copy_from_slice(&bytes));
            records.push(ScanRecord { id, position, vector: vector.map(floats), payload });
        }
        rest.is_empty().then_some(ScanPage { at, records })
    }
}
