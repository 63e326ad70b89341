//! [`Collection`]: reading and writing records.

use crate::bulk::{BulkOptions, BulkReport, BulkWriter};
use crate::client::Inner;
use crate::compare::{self, CompareOptions, Comparison};
use crate::count::{self, CountOptions, Counted};
use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::input::{check_id, check_payload, check_vector};
use crate::leader::AtLeader;
use crate::pool::Answer;
use crate::reads::Source;
use crate::routes::Routes;
use crate::scan::{Scan, ScanOptions};
use crate::search::{Search, SearchOptions, SearchResults};
use crate::session::Session;
use crate::{reads, search};
use bytes::Bytes;
use slowdb_proto::{
    ClusterMap, CollectionInfo, Condition, Metric, OpsBuilder, Position, ReadLevel, Reply, RequestKind,
    ShardPosition, WriteLevel, WriteReply, WriteRequest,
};
use slowdb_ring::shard_of;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// When a write counts as written; the collection's own level if not given.
    pub level: Option<WriteLevel>,
    /// The client's own time-out if not given. `put_batch` gives each of its batches so long.
    pub timeout: Option<Duration>,
}

/// How to read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Who may answer; the collection's own level if not given.
    pub level: Option<ReadLevel>,
    /// For the whole call; the client's own time-out if not given.
    pub timeout: Option<Duration>,
}

/// A record to write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Put<'a> {
    /// Its id, 1 to 512 bytes.
    pub id: &'a str,
    /// Its vector, of the collection's dimension.
    pub vector: &'a [f32],
    /// What goes with it, up to 64 KiB; may be empty.
    pub payload: &'a [u8],
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its shard.
    pub shard: u32,
    /// Its place in the shard's log: the record's version.
    pub position: Position,
    /// Whether there was a record under this id. Not known at level `one`.
    pub existed: Option<bool>,
    /// Replicas on which it is known to be durable.
    pub durable_on: u32,
    /// Replicas placed for the shard.
    pub replicas: u32,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Its vector.
    pub vector: Vec<f32>,
    /// What goes with it.
    pub payload: Bytes,
    /// Its shard.
    pub shard: u32,
    /// Position of the write that made it.
    pub position: Position,
    /// What lost against it and was kept, where the collection keeps both. A write to the record with
    /// [`Condition::IfVersion`] of its position lets go of them; other writes leave them.
    pub siblings: Vec<Sibling>,
}

/// What lost against a record, and was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Sibling {
    /// Position that its own write had.
    pub position: Position,
    /// Its vector.
    pub vector: Vec<f32>,
    /// What goes with it.
    pub payload: Bytes,
}

/// Records that were read.
#[derive(Clone, Debug, PartialEq)]
pub struct GetResults {
    /// In the order of the ids asked for; `None`: there is no such record.
    pub records: Vec<Option<Record>>,
    /// How far each shard was applied at least when it was read, in the order of shards.
    pub shards: Vec<ShardPosition>,
}

/// What is known of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Tells it from others of its name.
    pub(crate) first_group: u64,
    pub(crate) dimension: usize,
    pub(crate) metric: Metric,
    pub(crate) num_shards: u32,
    /// Level of reads that name none, as far as this client knows: it decides whom they are sent to, not how they are
    /// answered.
    pub(crate) read_level: ReadLevel,
}

/// A collection of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Collection {
    pub(crate) inner: Arc<Inner>,
    pub(crate) name: Arc<str>,
    pub(crate) session: Session,
}

impl std::fmt::Debug for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection").field("name", &self.name).finish()
    }
}

impl Collection {
    pub(crate) fn new(inner: Arc<Inner>, name: String) -> Self {
        let session = inner.session.clone();
        Collection { inner, name: name.into(), session }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same collection, read and written in this session.
    ///
    /// # Errors
    /// [`ClientError::BadInput`] if the session is of another cluster.
    pub fn in_session(&self, session: &Session) -> Result<Collection, ClientError> {
        session.bind(self.inner.cluster)?;
        Ok(Collection { session: session.clone(), ..self.clone() })
    }

    /// The session that it is read and written in: its client's, unless it was put into another one.
    pub fn session(&self) -> Session {
        self.session.clone()
    }

    /// Components of each vector.
    ///
    /// # Errors
    /// [`ClientError::UnknownCollection`].
    pub async fn dimension(&self) -> Result<usize, ClientError> {
        Ok(self.shape().await?.dimension)
    }

    /// Makes or replaces a record.
    ///
    /// # Errors
    /// [`ClientError::BadInput`] before anything is sent; else see [`ClientError`]. Only
    /// [`ClientError::OutcomeUnknown`], and a refusal with code `unknown_outcome` or `level_not_reached`, can
    /// mean that the write took effect.
    pub async fn put(
        &self,
        id: &str,
        vector: &[f32],
        options: &WriteOptions,
    ) -> Result<Written, ClientError> {
        self.put_record(Put { id, vector, payload: &[] }, options).await
    }

    /// Makes or replaces a record with a payload.
    ///
    /// # Errors
    /// As [`Collection::put`].
    pub async fn put_record(&self, put: Put<'_>, options: &WriteOptions) -> Result<Written, ClientError> {
        self.put_one(put, None, options).await
    }

    /// Makes or replaces a record if a condition holds when the write is applied: compare-and-set. A record's version
    /// is [`Record::position`] of a read, or [`Written::position`] of the write that made it.
    ///
    /// # Errors
    /// As [`Collection::put`]; [`ClientError::ConditionNotMet`] with the version that there was, and nothing changed,
    /// not even by a retry of this write; a refusal at level `one`, which cannot carry conditions.
    pub async fn put_if(
        &self,
        put: Put<'_>,
        condition: Condition,
        options: &WriteOptions,
    ) -> Result<Written, ClientError> {
        self.put_one(put, Some(condition), options).await
    }

    async fn put_one(
        &self,
        put: Put<'_>,
        condition: Option<Condition>,
        options: &WriteOptions,
    ) -> Result<Written, ClientError> {
        let deadline = self.deadline(options.timeout);
        loop {
            let shape = self.shape().await?;
            check_id(put.id)?;
            check_vector(put.vector, shape.dimension)?;
            check_payload(put.payload)?;
            let mut ops = OpsBuilder::new();
            ops.put_if(put.id, put.vector, put.payload, condition)?;
            match self.write_one(shape, put.id, ops, options.level, deadline).await {
                Err(ClientError::Replaced { .. }) if !deadline.is_over() => {}
                outcome => return outcome,
            }
        }
    }

    /// Removes a record. `existed` in the answer says whether there was one.
    ///
    /// # Errors
    /// As [`Collection::put`].
    pub async fn delete(&self, id: &str, options: &WriteOptions) -> Result<Written, ClientError> {
        self.delete_record(id, None, options).await
    }

    /// Removes a record if a condition holds when the write is applied: compare-and-set, as [`Collection::put_if`].
    ///
    /// # Errors
    /// As [`Collection::put_if`].
    pub async fn delete_if(
        &self,
        id: &str,
        condition: Condition,
        options: &WriteOptions,
    ) -> Result<Written, ClientError> {
        self.delete_record(id, Some(condition), options).await
    }

    async fn delete_record(
        &self,
        id: &str,
        condition: Option<Condition>,
        options: &WriteOptions,
    ) -> Result<Written, ClientError> {
        let deadline = self.deadline(options.timeout);
        loop {
            let shape = self.shape().await?;
            check_id(id)?;
            let mut ops = OpsBuilder::new();
            ops.delete_if(id, condition)?;
            match self.write_one(shape, id, ops, options.level, deadline).await {
                Err(ClientError::Replaced { .. }) if !deadline.is_over() => {}
                outcome => return outcome,
            }
        }
    }

    async fn write_one(
        &self,
        shape: Shape,
        id: &str,
        ops: OpsBuilder,
        level: Option<WriteLevel>,
        deadline: Deadline,
    ) -> Result<Written, ClientError> {
        let shard = shard_of(id.as_bytes(), shape.num_shards);
        let body = Bytes::from(ops.finish());
        let reply = write(self, shape, shard, body, level, deadline).await?;
        if let Some(unmet) = reply.unmet.first() {
            return Err(ClientError::ConditionNotMet { id: id.to_owned(), current: unmet.current });
        }
        Ok(Written {
            shard,
            position: reply.first,
            existed: reply.replaced.map(|replaced| replaced > 0),
            durable_on: reply.durable_on,
            replicas: reply.replicas,
        })
    }

    /// Writes many records, batched by shard. Nothing is sent unless all of them are good. Records of one
    /// shard may be written in any order: ids should differ.
    ///
    /// # Errors
    /// As [`Collection::put`]; [`ClientError::Partial`] if some were written.
    pub async fn put_batch(
        &self,
        puts: &[Put<'_>],
        options: &WriteOptions,
    ) -> Result<BulkReport, ClientError> {
        let deadline = self.deadline(options.timeout);
        loop {
            match self.write_all(puts, options).await {
                Err(ClientError::Partial { written: 0, at_quorum: 0, source })
                    if matches!(*source, ClientError::Replaced { .. }) && !deadline.is_over() => {}
                outcome => return outcome,
            }
        }
    }

    async fn write_all(&self, puts: &[Put<'_>], options: &WriteOptions) -> Result<BulkReport, ClientError> {
        let shape = self.shape().await?;
        for put in puts {
            check_id(put.id)?;
            check_vector(put.vector, shape.dimension)?;
            check_payload(put.payload)?;
        }
        let bulk = BulkOptions { level: options.level, timeout: options.timeout, ..BulkOptions::default() };
        let mut writer = BulkWriter::new(self.clone(), shape, bulk)?;
        for put in puts {
            writer.put(put.id, put.vector, put.payload).await?;
        }
        writer.finish().await
    }

    /// For writing very many records in a bounded amount of memory.
    ///
    /// # Errors
    /// [`ClientError::UnknownCollection`]; [`ClientError::BadInput`] for options out of bounds.
    pub async fn bulk_writer(&self, options: BulkOptions) -> Result<BulkWriter, ClientError> {
        let shape = self.shape().await?;
        BulkWriter::new(self.clone(), shape, options)
    }

    /// Reads a record; `None` if there is none.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, id: &str, options: &ReadOptions) -> Result<Option<Record>, ClientError> {
        Ok(self.get_many(&[id], options).await?.records.pop().flatten())
    }

    /// Reads many records; the answer is in the order of `ids`, and says how far each shard was applied.
    ///
    /// # Errors
    /// See [`ClientError`]. There is no partial answer.
    pub async fn get_many(&self, ids: &[&str], options: &ReadOptions) -> Result<GetResults, ClientError> {
        let from = Source { level: options.level, only: None, session: &self.session };
        self.get_of(ids, from, self.deadline(options.timeout)).await
    }

    /// Reads a record as one node has it, at level `one`: what it has applied, however old that is. For a
    /// program beside a node, and for comparing replicas. The time is the client's own if not given.
    ///
    /// # Errors
    /// [`ClientError::ShardUnavailable`] if that node has no replica of the record's shard, or did not answer
    /// in time: no other one is asked instead. Else see [`ClientError`].
    pub async fn get_from(
        &self,
        node: &str,
        id: &str,
        timeout: Option<Duration>,
    ) -> Result<Option<Record>, ClientError> {
        let from = Source { level: Some(ReadLevel::One), only: Some(node), session: &self.session };
        let found = self.get_of(&[id], from, self.deadline(timeout)).await?;
        Ok(found.records.into_iter().next().flatten())
    }

    async fn get_of(
        &self,
        ids: &[&str],
        from: Source<'_>,
        deadline: Deadline,
    ) -> Result<GetResults, ClientError> {
        loop {
            let shape = self.shape().await?;
            ids.iter().try_for_each(|id| check_id(id))?;
            match reads::get_many(&self.inner, &self.name, shape, ids, from, deadline).await {
                Err(ClientError::Replaced { .. }) if !deadline.is_over() => {}
                outcome => return outcome,
            }
        }
    }

    /// The exact `k` nearest records to each query, over all shards. Queries lie one after the other.
    ///
    /// # Errors
    /// See [`ClientError`]. If a shard cannot be searched in time, the error names it, unless
    /// [`SearchOptions::min_coverage`] says that the others are enough.
    pub async fn search(
        &self,
        queries: &[f32],
        options: &SearchOptions,
    ) -> Result<SearchResults, ClientError> {
        let mut timeout = options.timeout.unwrap_or(self.inner.timeout);
        loop {
            let (began, shape) = (Instant::now(), self.shape().await?);
            match Search::new(self, shape, options, timeout)?.run(queries).await {
                Err(ClientError::Replaced { .. }) if began.elapsed() < timeout => timeout -= began.elapsed(),
                outcome => return outcome,
            }
        }
    }

    /// How many records there are, each shard counted at its own moment.
    ///
    /// # Errors
    /// See [`ClientError`]. If a shard does not answer in time, the error names it, unless
    /// [`CountOptions::min_coverage`] says that the others are enough.
    pub async fn count(&self, options: &CountOptions) -> Result<Counted, ClientError> {
        let deadline = self.deadline(options.timeout);
        loop {
            match count::count(self, self.shape().await?, options, deadline).await {
                Err(ClientError::Replaced { .. }) if !deadline.is_over() => {}
                outcome => return outcome,
            }
        }
    }

    /// Whether all replicas of a shard hold the same records; and if not, which those are. Replicas that do not answer are
    /// named in the result.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::BadInput`] if there is no such shard.
    pub async fn compare(&self, shard: u32, options: &CompareOptions) -> Result<Comparison, ClientError> {
        let deadline = self.deadline(options.timeout);
        loop {
            match compare::compare(self, self.shape().await?, shard, options, deadline).await {
                Err(ClientError::Replaced { .. }) if !deadline.is_over() => {}
                outcome => return outcome,
            }
        }
    }

    /// How many shards it has.
    ///
    /// # Errors
    /// [`ClientError::UnknownCollection`].
    pub async fn num_shards(&self) -> Result<u32, ClientError> {
        Ok(self.shape().await?.num_shards)
    }

    /// All records, page by page.
    ///
    /// # Errors
    /// [`ClientError::UnknownCollection`]; [`ClientError::BadInput`] for options out of bounds.
    pub async fn scan(&self, options: ScanOptions) -> Result<Scan, ClientError> {
        let shape = self.shape().await?;
        Scan::new(self.clone(), shape, options)
    }

    /// When a call ends that begins now.
    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Deadline {
        Deadline::after(timeout.unwrap_or(self.inner.timeout))
    }

    /// The shape, asking around once if this client has not heard of the collection.
    pub(crate) async fn shape(&self) -> Result<Shape, ClientError> {
        if let Some(shape) = self.known_shape() {
            return Ok(shape);
        }
        let map = self.inner.refresh_all(self.inner.timeout.min(Duration::from_secs(1))).await;
        self.known_shape().ok_or_else(|| unknown_collection(&self.name, &map))
    }

    fn known_shape(&self) -> Option<Shape> {
        let routes = self.inner.read_routes();
        let info = routes.collection(&self.name)?;
        Some(Shape {
            first_group: info.first_group()?,
            dimension: info.dimension as usize,
            metric: info.metric,
            num_shards: info.shards.len() as u32,
            read_level: info.settings.read_level,
        })
    }
}

/// The collection of this name, if it is the one that the shape is of.
pub(crate) fn same<'a>(
    routes: &'a Routes,
    name: &str,
    shape: Shape,
) -> Result<&'a CollectionInfo, ClientError> {
    match routes.collection(name) {
        Some(info) if info.first_group() == Some(shape.first_group) => Ok(info),
        Some(_) => Err(ClientError::Replaced { name: name.to_owned() }),
        None => Err(unknown_collection(name, &routes.map())),
    }
}

pub(crate) fn unknown_collection(name: &str, map: &ClusterMap) -> ClientError {
    let names: Vec<String> = map.collections.iter().map(|c| format!("'{}'", c.name)).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    ClientError::UnknownCollection { name: name.to_owned(), known }
}

/// Writes one batch to its shard, once, however many attempts that takes. With [`ClientError::Replaced`] nothing was written.
pub(crate) async fn write(
    collection: &Collection,
    shape: Shape,
    shard: u32,
    body: Bytes,
    level: Option<WriteLevel>,
    deadline: Deadline,
) -> Result<WriteReply, ClientError> {
    let Collection { inner, name, session } = collection;
    let sequence = inner.next_sequence();
    let request = |retry| {
        let (collection, first_group, client) = (name.to_string(), shape.first_group, inner.id);
        RequestKind::Write(WriteRequest { collection, first_group, shard, level, client, sequence, retry })
    };
    let call = AtLeader { inner, collection: name, shape, shard, deadline, is_write: true, only: None };
    let read = |answer: Answer| match answer.reply {
        Reply::Written(reply) => Ok(reply),
        other => Err(search::unexpected("a write", &other)),
    };
    let reply = call.run(request, body, read).await?;
    session.wrote(&reply);
    Ok(reply)
}
