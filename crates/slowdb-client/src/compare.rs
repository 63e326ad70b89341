//! Whether all replicas of a shard hold the same records; and if not, which they are.
//!
//! Each replica is asked for its digests of ranges of ids, and only of ranges where those differ for the hashes of its
//! records. No two replicas are asked at the same position of their log, so a record may differ because of a write that one
//! of them has not applied yet. What is reported was proven by two looks, the later one at a replica that had by then
//! applied all that could show in the earlier one ([`is_proven`]).

use crate::collection::{Collection, Shape};
use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::leader::{AtLeader, any_replica};
use crate::pool::Answer;
use crate::race::Race;
use crate::search::unexpected;
use slowdb_proto::limits::{HASHES_MAX, TIMEOUT_MS_MAX};
use slowdb_proto::{
    Freshness, GroupPosition, HashesRequest, Position, RangeDigest, ReadLevel, RecordHash, Reply,
    RequestKind, ShardPosition,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often the same records are looked at, at most, until it is known what differs. Those that are written to all the
/// time may stay undecided.
const LOOKS_MAX: usize = 6;

/// How to compare.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// The search ends when so many records were found that differ. Default: 100.
    pub limit: usize,
    /// For the whole shard; the client's own time-out if not given.
    pub timeout: Option<Duration>,
}

impl Default for CompareOptions {
    fn default() -> Self {
        CompareOptions { limit: 100, timeout: None }
    }
}

/// What the replicas of a shard hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The shard by number.
    pub shard: u32,
    /// Its group.
    pub group: u64,
    /// The replicas that were compared, by their nodes.
    pub replicas: Vec<ComparedReplica>,
    /// Replicas that did not answer.
    pub missing: Vec<MissingReplica>,
    /// Records that are proven to differ, in the order of their ids.
    pub differences: Vec<Difference>,
    /// Ids that were written to so often that nothing is known about them.
    pub undecided: Vec<String>,
    /// Whether there are ranges that differ and were not looked into, since the limit was reached.
    pub more: bool,
}

impl Comparison {
    /// Whether all replicas answered, and hold the same records.
    pub fn is_equal(&self) -> bool {
        self.missing.is_empty() && self.differences.is_empty() && self.undecided.is_empty() && !self.more
    }
}

/// A replica that was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedReplica {
    /// Its node.
    pub node: String,
    /// How many records it held at the first look.
    pub records: u64,
    /// How far it was applied then at least.
    pub applied: Position,
}

/// A replica that was not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingReplica {
    /// Its node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// A record that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its id.
    pub id: String,
    /// What each of the replicas holds under it.
    pub held: Vec<HeldRecord>,
}

/// What a replica holds under an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRecord {
    /// Its node.
    pub node: String,
    /// The write that made the record, and the hash of id, position, vector and payload; `None`: no record.
    pub record: Option<(Position, [u8; 16])>,
}

/// What a replica held of some ranges.
#[derive(Debug)]
struct Look {
    node: String,
    at: ShardPosition,
    held: BTreeMap<String, (Position, [u8; 16])>,
}

/// Whether an id differs for certain.
///
/// By the later look nothing was written to the id after the write that made its record, up to a position that is not
/// before any that the earlier look shows. If the earlier look shows that write, it has to show the same record.
fn is_proven(earlier: &Look, later: &Look, id: &str) -> bool {
    later.at.applied >= earlier.at.latest
        && later.held.get(id).is_some_and(|record| record.0 <= earlier.at.applied)
        && later.held.get(id) != earlier.held.get(id)
}

/// The ids that not all replicas hold the same of.
fn differing(looks: &[Look]) -> BTreeSet<String> {
    let differs = |id: &&String| looks.iter().any(|look| look.held.get(*id) != looks[0].held.get(*id));
    looks.iter().flat_map(|look| look.held.keys()).filter(differs).cloned().collect()
}

/// The ranges that differ, with as many records in each as a replica has at most.
fn differing_ranges(replicas: &[Vec<RangeDigest>]) -> Vec<(u16, u64)> {
    let Some(ranges) = replicas.iter().map(Vec::len).max() else { return Vec::new() };
    let range = |n: usize| {
        let of = |ranges: &Vec<RangeDigest>| ranges.get(n).copied();
        let first = replicas.first().and_then(of);
        let records = || replicas.iter().filter_map(of).map(|range| range.records).max().unwrap_or_default();
        replicas.iter().any(|ranges| of(ranges) != first).then(|| (n as u16, records()))
    };
    (0..ranges.min(1 << 16)).filter_map(range).collect()
}

/// As many ranges as one request should ask for, from the front.
fn next_ranges(ranges: &mut Vec<(u16, u64)>) -> Vec<u16> {
    let mut records = 0;
    // Half of what a reply holds: it may have become more since.
    let fits = |(_, more): &&(u16, u64)| {
        records += more;
        records <= HASHES_MAX as u64 / 2
    };
    let count = ranges.iter().take_while(fits).count().max(1).min(ranges.len());
    ranges.drain(..count).map(|(range, _)| range).collect()
}

struct Compare<'a> {
    collection: &'a Collection,
    shape: Shape,
    shard: u32,
    deadline: Deadline,
}

impl Compare<'_> {
    /// Asks one replica. The time that is left is divided, so that one that is silent leaves some for the others' next
    /// looks.
    async fn ask<T>(
        &self,
        node: &str,
        seen: Option<GroupPosition>,
        ranges: &[u16],
        read: impl Fn(Reply) -> Result<T, Reply>,
    ) -> Result<T, ClientError> {
        let Collection { inner, name, .. } = self.collection;
        let deadline = Deadline::after(self.deadline.left() / 3);
        let request = || {
            let wait_ms = (deadline.left() / 2).as_millis().clamp(1, u128::from(TIMEOUT_MS_MAX)) as u32;
            let level = Some(if seen.is_some() { ReadLevel::Session } else { ReadLevel::One });
            RequestKind::Hashes(HashesRequest {
                collection: name.to_string(),
                first_group: self.shape.first_group,
                shard: self.shard,
                fresh: Freshness { level, seen: seen.into_iter().collect(), wait_ms },
                ranges: ranges.to_vec(),
            })
        };
        let (shape, shard, only) = (self.shape, self.shard, Some(node));
        let at = AtLeader { inner, collection: name, shape, shard, deadline, is_write: false, only };
        let read =
            |answer: Answer| read(answer.reply).map_err(|other| unexpected("hashes of records", &other));
        any_replica(&at, request, read).await
    }

    /// Looks at some ranges of all replicas, which have applied all up to a position if one is given.
    async fn look(
        &self,
        nodes: &[String],
        seen: Option<GroupPosition>,
        ranges: &[u16],
        missing: &mut Vec<MissingReplica>,
    ) -> Result<Vec<Look>, ClientError> {
        let read = |reply| match reply {
            Reply::Hashes { at, records } => Ok((at, records)),
            other => Err(other),
        };
        let answers = self.ask_all(nodes, missing, |node| self.ask(node, seen, ranges, read)).await?;
        let look = |(node, (at, records)): (String, (ShardPosition, Vec<RecordHash>))| {
            let held = records.into_iter().map(|record| (record.id, (record.position, record.hash)));
            Look { node, at, held: held.collect() }
        };
        Ok(answers.into_iter().map(look).collect())
    }

    /// Asks all at once; those that do not answer are missing.
    async fn ask_all<'n, T: Send, F: Future<Output = Result<T, ClientError>> + Send>(
        &self,
        nodes: &'n [String],
        missing: &mut Vec<MissingReplica>,
        ask: impl Fn(&'n str) -> F,
    ) -> Result<Vec<(String, T)>, ClientError> {
        let mut race = Race::new();
        for node in nodes.iter().filter(|node| missing.iter().all(|it| it.node != **node)) {
            let answer = ask(node);
            race.push(async move { (node.clone(), answer.await) });
        }
        let mut answers = Vec::new();
        while !race.is_empty() {
            match race.next().await {
                (node, Ok(answer)) => answers.push((node, answer)),
                (node, Err(error)) if error.is_of_shard() => {
                    missing.push(MissingReplica { node, reason: error.to_string() });
                }
                (_, Err(error)) => return Err(error),
            }
        }
        answers.sort_by(|a, b| a.0.cmp(&b.0));
        missing.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(answers)
    }

    /// Looks at some ranges until it is known what differs in them.
    async fn search(
        &self,
        nodes: &[String],
        ranges: &[u16],
        found: &mut Comparison,
    ) -> Result<(), ClientError> {
        let mut earlier = self.look(nodes, None, ranges, &mut found.missing).await?;
        let mut open = differing(&earlier);
        for _ in 1..LOOKS_MAX {
            if open.is_empty() {
                break;
            }
            let latest = earlier.iter().map(|look| look.at.latest).max().unwrap_or_default();
            let seen = Some(GroupPosition { group: found.group, position: latest });
            let later = self.look(nodes, seen, ranges, &mut found.missing).await?;
            for id in &open {
                if earlier.iter().any(|before| later.iter().any(|after| is_proven(before, after, id))) {
                    let held = |look: &Look| HeldRecord {
                        node: look.node.clone(),
                        record: look.held.get(id).copied(),
                    };
                    let held = later.iter().map(held).collect();
                    found.differences.push(Difference { id: id.clone(), held });
                }
            }
            let is_found = |id: &String| found.differences.iter().any(|difference| difference.id == *id);
            // What differs no more was written to meanwhile.
            let still = differing(&later);
            open.retain(|id| still.contains(id) && !is_found(id));
            earlier = later;
        }
        found.undecided.extend(open);
        Ok(())
    }
}

pub(crate) async fn compare(
    collection: &Collection,
    shape: Shape,
    shard: u32,
    options: &CompareOptions,
    deadline: Deadline,
) -> Result<Comparison, ClientError> {
    let run = Compare { collection, shape, shard, deadline };
    let inner = &collection.inner;
    let at =
        AtLeader { inner, collection: &collection.name, shape, shard, deadline, is_write: false, only: None };
    let (group, nodes) = at.group_and_replicas()?;
    let mut found = Comparison {
        shard,
        group,
        replicas: Vec::new(),
        missing: Vec::new(),
        differences: Vec::new(),
        undecided: Vec::new(),
        more: false,
    };
    let read = |reply| match reply {
        Reply::Ranges { at, ranges } => Ok((at, ranges)),
        other => Err(other),
    };
    let answers = run.ask_all(&nodes, &mut found.missing, |node| run.ask(node, None, &[], read)).await?;
    let mut digests = Vec::with_capacity(answers.len());
    for (node, (at, ranges)) in answers {
        let records = ranges.iter().map(|range| range.records).sum();
        found.replicas.push(ComparedReplica { node, records, applied: at.applied });
        digests.push(ranges);
    }
    let mut ranges = differing_ranges(&digests);
    while !ranges.is_empty() {
        if found.differences.len() >= options.limit {
            found.more = true;
            break;
        }
        let some = next_ranges(&mut ranges);
        run.search(&nodes, &some, &mut found).await?;
    }
    found.differences.sort_by(|a, b| a.id.cmp(&b.id));
    found.more |= found.differences.len() > options.limit;
    found.differences.truncate(options.limit);
    found.undecided.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(index: u64) -> Position {
        Position::new(1, index, 0)
    }

    fn look(applied: u64, latest: u64, held: &[(&str, u64, u8)]) -> Look {
        let at = ShardPosition { shard: 0, group: 7, applied: position(applied), latest: position(latest) };
        let record =
            |(id, index, hash): &(&str, u64, u8)| ((*id).to_owned(), (position(*index), [*hash; 16]));
        Look { node: "n".to_owned(), at, held: held.iter().map(record).collect() }
    }

    #[test]
    fn only_what_no_write_explains_is_proven() {
        // The earlier replica had applied write 5, and the later one says that nothing came after it.
        assert!(is_proven(&look(6, 8, &[("a", 5, 1)]), &look(8, 9, &[("a", 5, 2)]), "a"), "another hash");
        assert!(is_proven(&look(6, 8, &[]), &look(8, 9, &[("a", 5, 2)]), "a"), "missing");
        assert!(
            is_proven(&look(6, 8, &[("a", 6, 1)]), &look(8, 9, &[("a", 5, 2)]), "a"),
            "6 was not applied"
        );
        let explained = [
            (look(6, 8, &[]), look(8, 9, &[("a", 7, 2)]), "write 7 may have come after the earlier look"),
            (look(6, 8, &[("a", 5, 1)]), look(8, 9, &[]), "it may have been removed after the earlier look"),
            (look(6, 8, &[("a", 8, 1)]), look(7, 7, &[("a", 5, 2)]), "the later one is behind"),
            (look(6, 8, &[("a", 5, 1)]), look(8, 9, &[("a", 5, 1)]), "the same"),
        ];
        for (earlier, later, why) in explained {
            assert!(!is_proven(&earlier, &later, "a"), "{why}");
        }
    }

    #[test]
    fn ranges_are_asked_for_in_parts_that_fit_into_a_reply() {
        let range = |records, digest| RangeDigest { records, digest: [digest; 16] };
        let one = vec![range(9_000, 1), range(3_000, 1), range(1, 1), range(HASHES_MAX as u64, 1)];
        let other = vec![range(9_000, 2), range(4_000, 1), range(1, 1), range(0, 0)];
        let mut ranges = differing_ranges(&[one.clone(), one.clone(), other]);
        assert_eq!(ranges, [(0, 9_000), (1, 4_000), (3, HASHES_MAX as u64)]);
        assert_eq!(next_ranges(&mut ranges), [0]);
        assert_eq!(next_ranges(&mut ranges), [1]);
        assert_eq!(next_ranges(&mut ranges), [3]);
        assert!(ranges.is_empty() && differing_ranges(&[one.clone(), one]).is_empty());
    }
}
