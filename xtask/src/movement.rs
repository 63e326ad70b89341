//! A cluster on its way from one placement to another: waiting until it is there, counting what moved, and comparing
//! what replicas hold.

use crate::ui::seconds;
use anyhow::{Result, bail, ensure};
use slowdb_client::Client;
use slowdb_proto::{ClusterView, GroupKind, ReplicaInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);

/// Waits until nothing is moving and nothing is planned.
pub async fn settled(
    client: &Client,
    deadline: Duration,
    holds: impl Fn(&ClusterView) -> bool,
) -> Result<ClusterView> {
    let end = Instant::now() + deadline;
    loop {
        let why = match client.cluster().await {
            Ok(view) if view.moves.is_empty() && view.planned.is_empty() && holds(&view) => return Ok(view),
            Ok(view) => format!(
                "{} groups are on their way, {} moves are planned",
                view.moves.len(),
                view.planned.len()
            ),
            Err(error) => error.to_string(),
        };
        if Instant::now() > end {
            bail!("not settled after {}: {why}", seconds(deadline));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Replicas of shards that a node holds.
pub fn held(view: &ClusterView, node: &str) -> u32 {
    view.nodes.iter().find(|info| info.id == node).map_or(0, |info| info.replicas)
}

/// Which nodes each shard of each collection has replicas on, by the number of its group.
#[derive(Clone, Debug, Default)]
pub struct Placement(BTreeMap<u64, BTreeSet<String>>);

impl Placement {
    /// What the catalog's leader says now.
    pub async fn of(client: &Client) -> Result<Placement> {
        let map = client.newest_map().await?;
        let shards = map.collections.into_iter().flat_map(|collection| collection.shards);
        let nodes = |replicas: Vec<ReplicaInfo>| replicas.into_iter().map(|replica| replica.node).collect();
        Ok(Placement(shards.map(|shard| (shard.group, nodes(shard.replicas))).collect()))
    }

    /// Without the replicas on a node.
    pub fn without(mut self, node: &str) -> Placement {
        self.0.values_mut().for_each(|nodes| {
            nodes.remove(node);
        });
        self
    }

    fn replicas(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    fn on(&self, node: &str) -> usize {
        self.0.values().filter(|nodes| nodes.contains(node)).count()
    }

    /// Replicas that each node has got since another placement.
    pub fn gained(&self, since: &Placement) -> BTreeMap<String, usize> {
        let mut gained = BTreeMap::new();
        let none = BTreeSet::new();
        for (group, nodes) in &self.0 {
            for node in nodes.difference(since.0.get(group).unwrap_or(&none)) {
                *gained.entry(node.clone()).or_default() += 1;
            }
        }
        gained
    }

    /// Fewer new replicas than this cannot lead to so many in all, on these nodes evenly.
    pub fn fewest(&self, to: &Placement, nodes: &[String]) -> usize {
        let even = to.replicas() / nodes.len().max(1);
        let short: usize = nodes.iter().map(|node| even.saturating_sub(self.on(node))).sum();
        short.max(to.replicas().saturating_sub(self.replicas()))
    }
}

/// Compares the digests of replicas that are at one position. Writes go on, so not all can be caught at once.
pub async fn equal_replicas(client: &Client) -> Result<Result<usize, String>> {
    let map = client.newest_map().await?;
    let mut open: BTreeMap<u32, usize> = map
        .collections
        .iter()
        .filter(|c| c.name == "default")
        .flat_map(|c| c.shards.iter().map(|shard| (shard.shard, shard.replicas.len())))
        .collect();
    let replicas = open.values().sum();
    for _ in 0..200 {
        let status = client.status(Duration::from_secs(2)).await;
        let mut seen: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for group in status.nodes.iter().filter_map(|node| node.status.as_ref().ok()).flat_map(|s| &s.groups)
        {
            if let GroupKind::Shard { shard, .. } = &group.kind {
                seen.entry(*shard).or_default().push((group.applied, group.digest));
            }
        }
        for (shard, states) in seen {
            for (applied, digest) in &states {
                let other = states.iter().find(|(a, d)| a == applied && d != digest);
                ensure!(other.is_none(), "shard {shard}: replicas differ at {applied}");
            }
            let same = states.iter().all(|state| *state == states[0]);
            if same && open.get(&shard) == Some(&states.len()) {
                open.remove(&shard);
            }
        }
        if open.is_empty() {
            return Ok(Ok(replicas));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(Err(format!("shards {:?} were never seen at one position", open.keys().collect::<Vec<_>>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(shards: &[&[&str]]) -> Placement {
        let nodes = |nodes: &&[&str]| nodes.iter().map(|node| (*node).to_owned()).collect();
        Placement((0..).zip(shards.iter().map(nodes)).collect())
    }

    #[test]
    fn what_moved_stands_beside_the_fewest_possible() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let two = placement(&[&["a", "b"], &["a", "b"], &["a", "b"]]);
        let three = placement(&[&["a", "c"], &["b", "c"], &["a", "b"]]);
        let gained: Vec<_> = three.gained(&two).into_iter().collect();
        assert_eq!(gained, [("c".to_owned(), 2)]);
        assert_eq!(two.fewest(&three, &names(&["a", "b", "c"])), 2);
        let dead = three.clone().without("c");
        let healed = placement(&[&["a", "b"], &["a", "b"], &["a", "b"]]);
        assert_eq!(dead.fewest(&healed, &names(&["a", "b"])), 2);
        assert_eq!(healed.gained(&dead).values().sum::<usize>(), 2);
        let swapped = placement(&[&["b", "c"], &["a", "c"], &["a", "b"]]);
        assert_eq!(
            swapped.gained(&three).values().sum::<usize>(),
            2,
            "a swap counts, although sums are as before"
        );
        assert_eq!(three.fewest(&swapped, &names(&["a", "b", "c"])), 0);
    }
}
