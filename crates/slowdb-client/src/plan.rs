//! Which node is to answer for which shards of a search.
//!
//! Pure.

use crate::routes::Routes;
use slowdb_proto::{ReadLevel, ReplicaInfo};
use std::collections::BTreeMap;

/// What a plan is made from.
pub(crate) struct Places<'a> {
    pub(crate) routes: &'a Routes,
    pub(crate) collection: &'a str,
    /// Rounds so far: where no leader is known, another replica is tried in each.
    pub(crate) rounds: usize,
}

/// Which node is to answer for which shards; `None` if the collection or a shard is not in the map.
///
/// At `quorum` each shard's leader answers. At `one` the nearest nodes, as few as possible: each takes all
/// that it holds of what is left.
pub(crate) fn plan(
    places: &Places<'_>,
    level: ReadLevel,
    wanted: &[u32],
    nearest: &[String],
) -> Option<BTreeMap<String, Vec<u32>>> {
    let mut groups: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut rank: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, node) in nearest.iter().enumerate() {
        rank.insert(node, at);
    }
    for &shard in wanted {
        let info = places.routes.shard(places.collection, shard)?;
        let replicas = &info.replicas;
        let node = match level {
            ReadLevel::Quorum => match places.routes.lead(info.group).node {
                Some(leader) => leader,
                None => replicas.get(places.rounds.checked_rem(replicas.len())?)?.node.clone(),
            },
            // The nearest that holds it: since the order is the same for all shards, a node that is near
            // takes all it holds.
            ReadLevel::One => {
                let by_rank = |r: &&ReplicaInfo| rank.get(r.node.as_str()).copied();
                replicas.iter().min_by_key(|r| by_rank(r).unwrap_or(usize::MAX))?.node.clone()
            }
        };
        groups.entry(node).or_default().push(shard);
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::tests::map_of_three;

    fn nodes(order: [&str; 3]) -> Vec<String> {
        order.map(str::to_owned).to_vec()
    }

    #[test]
    fn at_quorum_leaders_answer_and_without_one_replicas_take_turns() {
        let mut routes = Routes::new(map_of_three(1, 4));
        for (group, node) in [(1, "n3"), (2, "n1"), (3, "n3")] {
            routes.learn_lead(group, node, 2);
        }
        let at = |rounds| {
            let places = Places { routes: &routes, collection: "default", rounds };
            plan(&places, ReadLevel::Quorum, &[0, 1, 2, 3], &nodes(["n1", "n2", "n3"])).expect("all known")
        };
        assert_eq!(at(0)["n3"], [0, 2]);
        // Shard 3 prefers n1, then n2.
        assert_eq!(at(0)["n1"], [1, 3]);
        assert_eq!((&at(1)["n1"][..], &at(1)["n2"][..]), (&[1][..], &[3][..]));
    }

    #[test]
    fn at_one_the_nearest_node_takes_all_it_holds() {
        let routes = Routes::new(map_of_three(1, 4));
        let places = Places { routes: &routes, collection: "default", rounds: 0 };
        let plan = plan(&places, ReadLevel::One, &[0, 1, 3], &nodes(["n2", "n1", "n3"])).expect("all known");
        assert_eq!(plan.into_iter().collect::<Vec<_>>(), [("n2".to_owned(), vec![0, 1, 3])]);
    }

    #[test]
    fn a_plan_for_what_is_not_there_is_none() {
        let routes = Routes::new(map_of_three(1, 4));
        for (collection, shard) in [("default", 9), ("other", 0)] {
            let places = Places { routes: &routes, collection, rounds: 0 };
            assert!(plan(&places, ReadLevel::One, &[shard], &nodes(["n1", "n2", "n3"])).is_none());
        }
    }
}
