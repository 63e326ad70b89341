//! A leader is cut off from its peers while clients reach both sides; afterwards every acknowledged write is accounted
//! for.

use super::{Input, NUM_SHARDS, START_DEADLINE};
use crate::cluster::{Cluster, view};
use crate::direct::Direct;
use crate::overtaken::{self, Account, Acked, Value};
use crate::ui::{Said, detail, step, thousands};
use anyhow::{Context, Result, ensure};
use slowdb_client::{Collection, ReadOptions, WriteLevel, WriteOptions};
use slowdb_ring::shard_of;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Records of the sample that are imported.
const RECORDS: usize = 300;
/// Writes of each kind.
const EACH: usize = 8;
const DEADLINE: Duration = Duration::from_secs(120);

pub(super) async fn run(cluster: &mut Cluster, input: &Input) -> Result<()> {
    let client = step("start three nodes", super::start(cluster)).await?;
    let collection = client.collection("default");
    let records: Vec<(String, Vec<f32>)> =
        input.data.ids.iter().cloned().zip(input.data.vectors().map(<[f32]>::to_vec)).take(RECORDS).collect();
    step("import", import(&collection, &records)).await?;
    view::wait_equal(&client, cluster, START_DEADLINE).await?;

    let (old, shards) = view::View::of(&client).await.busiest_leader().context("nobody leads")?;
    let shards: BTreeSet<u32> = shards.into_iter().collect();
    let plan = Plan::new(&records, &shards, cluster.shape().num_shards)?;
    let direct = Direct::to(cluster, &old).await?;
    detail(format!("{old} leads {} shards; now no packet passes between it and the others,", shards.len()));
    detail("while clients go on to reach all three");
    cluster.relays().context("the cluster has no relays")?.isolate(&old);
    let late = step("old side, at one", async {
        let map = client.map();
        let default = map.collections.iter().find(|it| it.name == "default").context("no collection")?;
        let late = overtaken::write_at_one(&direct, default, &plan.old_side).await?;
        ensure!(!late.is_empty(), "{old} acknowledged nothing: it had stepped down already");
        let said = format!("{} of {} writes acknowledged by {old} alone", late.len(), plan.old_side.len());
        Ok((late, said))
    })
    .await?;
    let other_side = step("other side", other_side(&collection, &plan, &late)).await?;

    cluster.relays().context("the cluster has no relays")?.heal();
    step("heal", async {
        overtaken::wait_decided(&client, cluster, DEADLINE).await?;
        Ok(((), format!("{old} is back; nothing waits in quarantine, digests equal")))
    })
    .await?;
    let account = step("account", account(&collection, &late, &other_side)).await?;
    step("the rest", untouched(&collection, &records, &late, &other_side)).await?;
    step("resolve", resolve(&collection, &late)).await?;
    step("equal again", async {
        view::wait_equal(&client, cluster, DEADLINE).await?;
        Ok(((), "all replicas at one position with one digest, conflict logs included".into()))
    })
    .await?;
    let row = |what: &str, value: usize| println!("  {what:<52} {value}");
    println!("\nSummary");
    row("acknowledged at one by the leader that was cut off", late.len());
    row("  applied when it was back", account.applied + account.held);
    row("  lost to what the others wrote, kept as conflicts", account.lost);
    row("  replaced what the others wrote, which is kept", account.replaced);
    row("acknowledged on the other side", other_side.len());
    row("acknowledged writes not accounted for", 0);
    Ok(())
}

/// What is written where.
struct Plan {
    /// At `one`, to the leader that is cut off.
    old_side: Vec<(String, Value)>,
    /// Afterwards, to the new leaders.
    new_side: Vec<(String, Value, WriteLevel)>,
}

impl Plan {
    fn new(records: &[(String, Vec<f32>)], shards: &BTreeSet<u32>, num_shards: u32) -> Result<Plan> {
        let is_there = |id: &str| shards.contains(&shard_of(id.as_bytes(), num_shards));
        let mut known = records.iter().filter(|(id, _)| is_there(id)).map(|(id, _)| id.clone());
        let mut known = || known.next().context("there are too few records in the shards of one leader");
        let mut fresh = (0..).map(|n| format!("conflict-demo-{n}")).filter(|id| is_there(id));
        let dimension = records[0].1.len();
        // Every write its own vector, so that none can pass for another.
        let mut count = 0.0_f32;
        let mut vector = || {
            count += 1.0;
            Some(vec![count; dimension])
        };
        let mut plan = Plan { old_side: Vec::new(), new_side: Vec::new() };
        for _ in 0..EACH {
            // Different ids: nothing conflicts.
            plan.old_side.extend(fresh.next().map(|id| (id, vector())));
            plan.old_side.push((known()?, vector()));
            plan.old_side.push((known()?, None));
            plan.new_side.push((known()?, vector(), WriteLevel::Quorum));
            plan.new_side.extend(fresh.next().map(|id| (id, vector(), WriteLevel::One)));
            // The same ids on both sides.
            for (here, there, level) in [
                (vector(), vector(), WriteLevel::One),
                (vector(), vector(), WriteLevel::Quorum),
                (vector(), None, WriteLevel::Quorum),
                (None, vector(), WriteLevel::One),
            ] {
                let id = known()?;
                plan.old_side.push((id.clone(), here));
                plan.new_side.push((id, there, level));
            }
        }
        // At quorum first: that waits for the new leaders.
        plan.new_side.sort_by_key(|(_, _, level)| *level == WriteLevel::One);
        Ok(plan)
    }
}

async fn import(collection: &Collection, records: &[(String, Vec<f32>)]) -> Said<()> {
    let puts: Vec<slowdb_client::Put<'_>> =
        records.iter().map(|(id, vector)| slowdb_client::Put { id, vector, payload: &[] }).collect();
    let options = WriteOptions { timeout: Some(Duration::from_secs(30)), ..WriteOptions::default() };
    collection.put_batch(&puts, &options).await?;
    Ok(((), format!("{} vectors at quorum", thousands(records.len() as u64))))
}

async fn other_side(collection: &Collection, plan: &Plan, late: &[Acked]) -> Said<BTreeMap<String, Value>> {
    // Each shard counts its own terms.
    let term_of =
        |shard: u32| late.iter().filter(|it| it.name.shard == shard).map(|it| it.name.was.term).max();
    let mut written = BTreeMap::new();
    let mut at_one = 0;
    for (id, value, level) in &plan.new_side {
        let position = overtaken::write(collection, id, value, *level).await?;
        let term = term_of(shard_of(id.as_bytes(), NUM_SHARDS)).unwrap_or_default();
        ensure!(position.term > term, "{id:?} was written at {position}, by a leader that was cut off");
        written.insert(id.clone(), value.clone());
        at_one += usize::from(*level == WriteLevel::One);
    }
    let said = format!(
        "{} writes acknowledged by new leaders, {at_one} at one and {} at quorum",
        written.len(),
        written.len() - at_one
    );
    Ok((written, said))
}

async fn account(
    collection: &Collection,
    late: &[Acked],
    other_side: &BTreeMap<String, Value>,
) -> Said<Account> {
    let account = overtaken::account(collection, late, other_side).await?;
    let Account { held, applied, lost, replaced } = account;
    let said = format!(
        "{} late writes: {} there, {lost} lost and kept, {replaced} replaced others, which are kept; none missing",
        late.len(),
        held + applied
    );
    Ok((account, said))
}

/// What neither side wrote to is as it was imported.
async fn untouched(
    collection: &Collection,
    records: &[(String, Vec<f32>)],
    late: &[Acked],
    other_side: &BTreeMap<String, Value>,
) -> Said<()> {
    let touched: BTreeSet<&str> =
        late.iter().map(|acked| acked.id.as_str()).chain(other_side.keys().map(String::as_str)).collect();
    let rest: Vec<_> = records.iter().filter(|(id, _)| !touched.contains(id.as_str())).collect();
    let ids: Vec<&str> = rest.iter().map(|(id, _)| id.as_str()).collect();
    let found = collection.get_many(&ids, &ReadOptions::default()).await?.records;
    for ((id, vector), record) in rest.iter().zip(found) {
        ensure!(record.is_some_and(|record| record.vector == *vector), "{id:?} is not what was imported");
    }
    Ok(((), format!("{} records that neither side wrote to are as they were", rest.len())))
}

/// Replays the first record that lost, discards all else.
async fn resolve(collection: &Collection, late: &[Acked]) -> Said<()> {
    let options = WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() };
    let conflicts = overtaken::conflicts(collection).await?;
    let lost = |acked: &&Acked| {
        acked.value.is_some() && conflicts.get(&acked.name).is_some_and(|c| c.entry.loser.is_some())
    };
    let mut said = String::new();
    if let Some(Acked { id, value, name }) = late.iter().find(lost) {
        collection.replay_conflict(*name, false, &options).await?;
        let there = collection.get(id, &ReadOptions::default()).await?.map(|record| record.vector);
        ensure!(there == *value, "{id:?} was replayed from {name}, and is not what lost");
        said = format!("{name} replayed, '{id}' is what lost again; ");
    }
    let mut discarded = 0;
    let mut pages = collection.conflicts(None).await?;
    while let Some(page) = pages.next_page().await? {
        discarded += collection.discard_conflicts(&page, &options).await?;
    }
    let left = overtaken::conflicts(collection).await?.len();
    ensure!(left == 0, "{left} conflicts are left");
    Ok(((), format!("{said}{discarded} entries discarded, none left")))
}
