//! What became of writes that were acknowledged at `one` and overtaken by a failover: looking, and resolving.

use crate::collection::{Collection, Shape, WriteOptions, Written, write};
use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::leader::AtLeader;
use crate::pool::Answer;
use crate::reads::{Source, fresh};
use crate::search::unexpected;
use bytes::Bytes;
use slowdb_proto::limits::CONFLICT_PAGE_MAX;
use slowdb_proto::{
    ConflictEntry, ConflictPage, ConflictsRequest, Loser, OpsBuilder, Position, ReadLevel, Reply, RequestKind,
};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What a conflict is called: its shard, and the position that the late write had first. As text `3:2.17.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConflictName {
    /// Its shard.
    pub shard: u32,
    /// Position that the late write had in the log of the leader that was overtaken.
    pub was: Position,
}

/// A text that names no conflict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' names no conflict: write it as SHARD:TERM.INDEX.OFFSET, like 3:2.17.0")]
pub struct ParseConflictNameError {
    text: String,
}

impl fmt::Display for ConflictName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shard, self.was)
    }
}

impl FromStr for ConflictName {
    type Err = ParseConflictNameError;

    fn from_str(text: &str) -> Result<Self, ParseConflictNameError> {
        let parts =
            text.split_once(':').and_then(|(shard, was)| Some((shard.parse().ok()?, was.parse().ok()?)));
        let wrong = || ParseConflictNameError { text: text.chars().take(80).collect() };
        parts.map(|(shard, was)| ConflictName { shard, was }).ok_or_else(wrong)
    }
}

/// A record that lost.
#[derive(Clone, Debug, PartialEq)]
pub struct LostRecord {
    /// Its vector.
    pub vector: Vec<f32>,
    /// What went with it.
    pub payload: Bytes,
}

/// What became of a late write.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// Its shard.
    pub shard: u32,
    /// What is known of it.
    pub entry: ConflictEntry,
    /// The record that lost, if one did and it was asked for.
    pub lost: Option<LostRecord>,
}

impl Conflict {
    /// What it is called.
    pub fn name(&self) -> ConflictName {
        ConflictName { shard: self.shard, was: self.entry.was }
    }
}

/// The conflicts of a collection, page by page, shard after shard. Each page is read at its own moment, at quorum.
#[derive(Debug)]
pub struct Conflicts {
    collection: Collection,
    shape: Shape,
    timeout: Option<Duration>,
    shard: u32,
    from: Position,
    /// Whether a page was given out.
    is_begun: bool,
}

impl Conflicts {
    /// The next page: entries of one shard in the order of their names, maybe none; `None` after the last.
    ///
    /// # Errors
    /// See [`ClientError`]. After an error the same page can be asked for again, but for [`ClientError::Replaced`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<Conflict>>, ClientError> {
        if self.shard >= self.shape.num_shards {
            return Ok(None);
        }
        let deadline = self.collection.deadline(self.timeout);
        let (page, next) = loop {
            let asked = Asked { shard: self.shard, from: self.from, limit: CONFLICT_PAGE_MAX, losers: false };
            match self.collection.conflict_page(self.shape, asked, deadline).await {
                Err(ClientError::Replaced { .. }) if !self.is_begun && !deadline.is_over() => {
                    self.shape = self.collection.shape().await?;
                }
                outcome => break outcome?,
            }
        };
        self.is_begun = true;
        match next {
            Some(next) => self.from = next,
            None => (self.shard, self.from) = (self.shard + 1, Position::START),
        }
        Ok(Some(page))
    }
}

/// Which entries are wanted.
#[derive(Clone, Copy)]
struct Asked {
    shard: u32,
    from: Position,
    limit: usize,
    losers: bool,
}

impl Collection {
    /// What became of the writes that a failover overtook. The time is for each page; the client's own if not given.
    ///
    /// # Errors
    /// [`ClientError::UnknownCollection`].
    pub async fn conflicts(&self, timeout: Option<Duration>) -> Result<Conflicts, ClientError> {
        let shape = self.shape().await?;
        let collection = self.clone();
        Ok(Conflicts { collection, shape, timeout, shard: 0, from: Position::START, is_begun: false })
    }

    /// One conflict, with what lost in it, read at quorum.
    ///
    /// # Errors
    /// [`ClientError::NoConflict`]; else see [`ClientError`].
    pub async fn conflict(
        &self,
        name: ConflictName,
        timeout: Option<Duration>,
    ) -> Result<Conflict, ClientError> {
        let deadline = self.deadline(timeout);
        loop {
            match self.conflict_of(self.shape().await?, name, deadline).await {
                Err(ClientError::Replaced { .. }) if !deadline.is_over() => {}
                outcome => return outcome,
            }
        }
    }

    async fn conflict_of(
        &self,
        shape: Shape,
        name: ConflictName,
        deadline: Deadline,
    ) -> Result<Conflict, ClientError> {
        let asked = Asked { shard: name.shard, from: name.was, limit: 1, losers: true };
        let (page, _) = self.conflict_page(shape, asked, deadline).await?;
        let found = page.into_iter().find(|conflict| conflict.entry.was == name.was);
        found.ok_or(ClientError::NoConflict { name })
    }

    /// Writes what lost in a conflict, as a new write, and removes the conflict: both at once. What was written to the
    /// record since the conflict was decided is replaced only if it is to be `anyway`.
    ///
    /// # Errors
    /// [`ClientError::NoConflict`]; [`ClientError::NothingLost`]; [`ClientError::WrittenSince`]; else as
    /// [`Collection::put_if`].
    pub async fn replay_conflict(
        &self,
        name: ConflictName,
        anyway: bool,
        options: &WriteOptions,
    ) -> Result<Written, ClientError> {
        let shape = self.shape().await?;
        let entry = self.conflict_of(shape, name, self.deadline(options.timeout)).await?.entry;
        let id = entry.id;
        let mut ops = OpsBuilder::new();
        ops.replay(&id, name.was, anyway)?;
        let (body, deadline) = (Bytes::from(ops.finish()), self.deadline(options.timeout));
        let reply = write(self, shape, name.shard, body, options.level, deadline).await?;
        match reply.unmet.first().map(|unmet| unmet.current) {
            Some(None) => Err(ClientError::NoConflict { name }),
            Some(Some(_)) if entry.loser.is_none() => Err(ClientError::NothingLost { name }),
            Some(Some(since)) => Err(ClientError::WrittenSince { name, id, since }),
            None => Ok(Written {
                shard: name.shard,
                position: reply.first,
                existed: reply.replaced.map(|replaced| replaced > 0),
                durable_on: reply.durable_on,
                replicas: reply.replicas,
            }),
        }
    }

    /// Removes a conflict, and what lost in it.
    ///
    /// # Errors
    /// [`ClientError::NoConflict`]; else as [`Collection::put_if`].
    pub async fn discard_conflict(
        &self,
        name: ConflictName,
        options: &WriteOptions,
    ) -> Result<(), ClientError> {
        let conflict = self.conflict(name, options.timeout).await?;
        match self.discard_conflicts(&[conflict], options).await? {
            0 => Err(ClientError::NoConflict { name }),
            _ => Ok(()),
        }
    }

    /// Removes conflicts of one shard, a page of [`Conflicts`], and what lost in them. Says how many were still there.
    ///
    /// # Errors
    /// [`ClientError::BadInput`] if they are too many, or of several shards; else as [`Collection::put_if`].
    pub async fn discard_conflicts(
        &self,
        conflicts: &[Conflict],
        options: &WriteOptions,
    ) -> Result<usize, ClientError> {
        let Some(shard) = conflicts.first().map(|conflict| conflict.shard) else { return Ok(0) };
        if conflicts.iter().any(|conflict| conflict.shard != shard) {
            let message = "conflicts of several shards: discard them shard by shard".to_owned();
            return Err(ClientError::BadInput { code: slowdb_proto::Code::BadRequest, message });
        }
        let mut ops = OpsBuilder::new();
        for Conflict { entry, .. } in conflicts {
            ops.discard(&entry.id, entry.was)?;
        }
        let (body, deadline) = (Bytes::from(ops.finish()), self.deadline(options.timeout));
        let reply = write(self, self.shape().await?, shard, body, options.level, deadline).await?;
        Ok(conflicts.len() - reply.unmet.len().min(conflicts.len()))
    }

    async fn conflict_page(
        &self,
        shape: Shape,
        asked: Asked,
        deadline: Deadline,
    ) -> Result<(Vec<Conflict>, Option<Position>), ClientError> {
        let Collection { inner, name, session } = self;
        let Asked { shard, from, limit, losers } = asked;
        let source = Source { level: Some(ReadLevel::Quorum), only: None, session };
        let request = |_| {
            RequestKind::Conflicts(ConflictsRequest {
                collection: name.to_string(),
                first_group: shape.first_group,
                shard,
                fresh: fresh(inner, name, &[shard], source, deadline),
                from,
                limit: limit as u32,
                losers,
            })
        };
        let read = |answer: Answer| {
            let Answer { reply: Reply::Conflicts(page), body, .. } = answer else {
                return Err(unexpected("a question for conflicts", &answer.reply));
            };
            let bytes = body.len();
            let goes_on = page.next.is_none_or(|next| next > from);
            let page = split(*page, body, losers, shape.dimension).filter(|_| goes_on);
            page.ok_or_else(|| format!("conflicts whose {bytes} bytes do not add up"))
        };
        let call = AtLeader { inner, collection: name, shape, shard, deadline, is_write: false, only: None };
        call.run(request, Bytes::new(), read).await
    }
}

/// Takes a page apart; `None` if its parts do not add up.
fn split(
    page: ConflictPage,
    mut rest: Bytes,
    losers: bool,
    dimension: usize,
) -> Option<(Vec<Conflict>, Option<Position>)> {
    let mut conflicts = Vec::with_capacity(page.entries.len());
    for entry in page.entries {
        let lost = match entry.loser {
            Some(Loser::Put { payload_bytes }) if losers => {
                let payload_bytes = payload_bytes as usize;
                if rest.len() < dimension * 4 + payload_bytes {
                    return None;
                }
                let vector = rest.split_to(dimension * 4);
                let vector = vector.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
                Some(LostRecord { vector, payload: rest.split_to(payload_bytes) })
            }
            _ => None,
        };
        conflicts.push(Conflict { shard: page.at.shard, entry, lost });
    }
    rest.is_empty().then_some((conflicts, page.next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        let name = ConflictName { shard: 3, was: Position::new(2, 17, 0) };
        assert_eq!(name.to_string(), "3:2.17.0");
        assert_eq!("3:2.17.0".parse(), Ok(name));
        for text in ["", "3", "3:", "2.17.0", "3:2.17", "-1:2.17.0", "3:2.17.0.1", "x:2.17.0"] {
            assert!(text.parse::<ConflictName>().is_err(), "{text}");
        }
    }
}
