//! Which node is to answer for which shards of a search.
//!
//! Pure.

use crate::routes::Routes;
use slowdb_proto::{ReadLevel, ReplicaInfo};
use std::collections::{BTreeMap, BTreeSet};

/// What a plan is made from.
pub(crate) struct Places<'a> {
    pub(crate) routes: &'a Routes,
    pub(crate) collection: &'a str,
    /// Nodes that were asked for a shard in vain, since all had their turn.
    pub(crate) tried: &'a BTreeSet<(u32, String)>,
}

/// Which node is to answer for which shards; `None` if the collection or a shard is not in the map.
///
/// At `quorum` each shard's leader answers, as long as it was not asked in vain: that is one hop less than through any
/// other replica, which answers else. At `one` and `session` the nearest nodes, as few as possible: each takes all that it
/// holds of what is left.
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
        let is_tried = |node: &str| places.tried.contains(&(shard, node.to_owned()));
        let leader = match level {
            ReadLevel::Quorum => places.routes.lead(info.group).node,
            ReadLevel::One | ReadLevel::Session => None,
        };
        let node = match leader.filter(|leader| !is_tried(leader)) {
            Some(leader) => leader,
            None => {
                // The order is the same for all shards, so a node that is near takes all it holds. Without a leader
                // the preferred one is the first to ask.
                let by_rank = |(at, replica): &(usize, &ReplicaInfo)| {
                    let nearness = match level {
                        ReadLevel::Quorum => *at,
                        _ => rank.get(replica.node.as_str()).copied().unwrap_or(usize::MAX),
                    };
                    (is_tried(&replica.node), nearness)
                };
                replicas.iter().enumerate().min_by_key(by_rank)?.1.node.clone()
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
        let at = |tried: &[(u32, &str)]| {
            let tried = tried.iter().map(|(shard, node)| (*shard, (*node).to_owned())).collect();
            let places = Places { routes: &routes, collection: "default", tried: &tried };
            plan(&places, ReadLevel::Quorum, &[0, 1, 2, 3], &nodes(["n1", "n2", "n3"])).expect("all known")
        };
        assert_eq!(at(&[])["n3"], [0, 2]);
        // Shard 3 prefers n1, then n2.
        assert_eq!(at(&[])["n1"], [1, 3]);
        let next = at(&[(3, "n1"), (0, "n3")]);
        assert_eq!((&next["n1"][..], &next["n2"][..], &next["n3"][..]), (&[0, 1][..], &[3][..], &[2][..]));
    }

    #[test]
    fn at_one_the_nearest_node_takes_all_it_holds() {
        let routes = Routes::new(map_of_three(1, 4));
        let tried = BTreeSet::new();
        let places = Places { routes: &routes, collection: "default", tried: &tried };
        let plan = plan(&places, ReadLevel::One, &[0, 1, 3], &nodes(["n2", "n1", "n3"])).expect("all known");
        assert_eq!(plan.into_iter().collect::<Vec<_>>(), [("n2".to_owned(), vec![0, 1, 3])]);
    }

    #[test]
    fn a_plan_for_what_is_not_there_is_none() {
        let routes = Routes::new(map_of_three(1, 4));
        for (collection, shard) in [("default", 9), ("other", 0)] {
            let places = Places { routes: &routes, collection, tried: &BTreeSet::new() };
            assert!(plan(&places, ReadLevel::One, &[shard], &nodes(["n1", "n2", "n3"])).is_none());
        }
    }
}
