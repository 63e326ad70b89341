//! Writes at `one` to a leader that is cut off from its peers: making them, waiting until they are decided, and
//! accounting for every one of them and of those that were written on the other side meanwhile.

use crate::cluster::{Cluster, view};
use crate::direct::Direct;
use anyhow::{Context, Result, bail, ensure};
use slowdb_client::{Became, Client, Collection, Conflict, ConflictName, Loser, ReadOptions, WriteOptions};
use slowdb_proto::{
    ClientId, CollectionInfo, OpsBuilder, Position, Reply, RequestKind, WriteLevel, WriteRequest,
};
use slowdb_ring::shard_of;
use std::collections::BTreeMap;
use std::time::Duration;

/// For one request, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is written under an id: a vector, or `None` for a delete.
pub type Value = Option<Vec<f32>>;

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Acked {
    /// The record.
    pub id: String,
    /// What was written.
    pub value: Value,
    /// Where, so that its conflict is called like this.
    pub name: ConflictName,
}

/// How many late writes came to which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// In the history all along.
    pub held: usize,
    /// Applied late, and there.
    pub applied: usize,
    /// Lost, and kept in the conflict log.
    pub lost: usize,
    /// Replaced what the other side had written, which is kept in the conflict log.
    pub replaced: usize,
}

/// Writes all of this at `one` to the leader of their shards, and to nobody else. Gives what was acknowledged: a leader
/// that hears of no majority steps down after a while.
///
/// # Errors
/// If the node gives no answer.
pub async fn write_at_one(
    direct: &Direct,
    collection: &CollectionInfo,
    writes: &[(String, Value)],
) -> Result<Vec<Acked>> {
    let mut acked = Vec::new();
    for (sequence, (id, value)) in (1..).zip(writes) {
        let shard = shard_of(id.as_bytes(), collection.shards.len() as u32);
        let mut ops = OpsBuilder::new();
        match value {
            Some(vector) => ops.put(id, vector, &[])?,
            None => ops.delete(id)?,
        }
        let (name, client) = (collection.name.clone(), ClientId([7; 16]));
        let first_group = collection.first_group().context("a collection without shards")?;
        let level = Some(WriteLevel::One);
        let write =
            WriteRequest { collection: name, first_group, shard, level, client, sequence, retry: false };
        match direct.ask(RequestKind::Write(write), ops.finish(), PATIENCE).await?.0 {
            Reply::Written(written) => {
                let name = ConflictName { shard, was: written.first };
                acked.push(Acked { id: id.clone(), value: value.clone(), name });
            }
            Reply::Error(_) => break,
            other => bail!("not an answer to a write: {other:?}"),
        }
    }
    Ok(acked)
}

/// Writes at a level through the client. Gives the position.
///
/// # Errors
/// If it is not acknowledged within half a minute.
pub async fn write(collection: &Collection, id: &str, value: &Value, level: WriteLevel) -> Result<Position> {
    let options = WriteOptions { level: Some(level), timeout: Some(PATIENCE) };
    let written = match value {
        Some(vector) => collection.put(id, vector, &options).await?,
        None => collection.delete(id, &options).await?,
    };
    Ok(written.position)
}

/// Waits until all replicas are equal and no node keeps an overtaken write that is not decided.
///
/// # Errors
/// If that takes longer.
pub async fn wait_decided(client: &Client, cluster: &Cluster, deadline: Duration) -> Result<()> {
    let replicas = (cluster.shape().replication_factor as usize).min(cluster.shape().nodes);
    view::wait(client, "all overtaken writes are decided", deadline, |view| {
        cluster.check_alive()?;
        // A replica that is where the others are has cut what was overtaken: by then it is kept, or decided already.
        let equal = view.agreements(replicas).values().all(|a| *a == view::Agreement::Equal);
        let groups = || view.nodes.values().flat_map(|node| &node.groups);
        Ok(equal && view.is_complete(cluster) && groups().all(|group| group.late.quarantined == 0))
    })
    .await?;
    view::wait_equal(client, cluster, deadline).await?;
    Ok(())
}

/// All conflicts of a collection by name, without what lost.
///
/// # Errors
/// As of the client.
pub async fn conflicts(collection: &Collection) -> Result<BTreeMap<ConflictName, Conflict>> {
    let mut all = BTreeMap::new();
    let mut pages = collection.conflicts(Some(PATIENCE)).await?;
    while let Some(page) = pages.next_page().await? {
        all.extend(page.into_iter().map(|conflict| (conflict.name(), conflict)));
    }
    Ok(all)
}

/// Accounts for every late write, and for what the other side wrote last under each id: it is there, or it is in the
/// conflict log with its bytes.
///
/// # Errors
/// The first write that is neither there nor in the log.
pub async fn account(
    collection: &Collection,
    late: &[Acked],
    other_side: &BTreeMap<String, Value>,
) -> Result<Account> {
    let conflicts = conflicts(collection).await?;
    let read = ReadOptions { timeout: Some(PATIENCE), ..ReadOptions::default() };
    let mut account = Account::default();
    for Acked { id, value, name } in late {
        let record = collection.get(id, &read).await?;
        let there = record.as_ref().map(|record| record.vector.clone());
        let other = other_side.get(id);
        let Some(conflict) = conflicts.get(name) else {
            let is_held = record.is_some_and(|record| record.position == name.was);
            ensure!(is_held, "{id:?}, acknowledged at {name}, is neither there nor in the conflict log");
            account.held += 1;
            continue;
        };
        ensure!(conflict.entry.id == *id, "conflict {name} is about {:?}, not {id:?}", conflict.entry.id);
        match conflict.entry.became {
            Became::Applied | Became::AlreadyThere => {
                ensure!(there == *value, "{id:?} was applied late, and is not what was written");
                ensure!(other.is_none(), "{id:?} was written on both sides, and applied without a conflict");
                account.applied += 1;
            }
            Became::Lost => {
                let lost = lost(collection, *name).await?;
                ensure!(lost == *value, "{id:?} lost, and what is kept in {name} is not what was written");
                ensure!(Some(&there) == other, "{id:?} lost, but the other side's write is not there");
                account.lost += 1;
            }
            Became::Replaced => {
                let lost = lost(collection, *name).await?;
                ensure!(there == *value, "{id:?} replaced what was there, and is not what was written");
                ensure!(Some(&lost) == other, "{id:?}: what was replaced is not kept in {name}");
                account.replaced += 1;
            }
            Became::Superseded => bail!("{id:?} was written once, and superseded in {name}"),
        }
    }
    let lates: BTreeMap<&str, ()> = late.iter().map(|acked| (acked.id.as_str(), ())).collect();
    for (id, value) in other_side.iter().filter(|(id, _)| !lates.contains_key(id.as_str())) {
        let there = collection.get(id, &read).await?.map(|record| record.vector);
        ensure!(there == *value, "{id:?} is not what the other side wrote");
    }
    Ok(account)
}

/// What is kept of a loser.
async fn lost(collection: &Collection, name: ConflictName) -> Result<Value> {
    let conflict = collection.conflict(name, Some(PATIENCE)).await?;
    match conflict.entry.loser.with_context(|| format!("nothing is kept in {name}"))? {
        Loser::Delete => Ok(None),
        Loser::Put { .. } => Ok(conflict.lost.map(|lost| lost.vector)),
    }
}
