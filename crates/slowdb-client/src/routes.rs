//! Where each shard's leader and replicas are, as far as this client knows.
//!
//! Pure. The map's structure follows its epoch; leaders follow terms. Invariants:
//! - the structure is never replaced by one of an older epoch;
//! - the term known for a shard never falls, and a hint of a lower term never replaces a leader of a newer
//!   one; within one term a leader is learnt once, unless it said itself that it does not lead;
//! - maps name the catalog's leader without a term: who says so of itself is believed, and who is named by
//!   others only as long as nobody is known.

use slowdb_proto::{ClusterMap, CollectionInfo, ShardInfo};
use std::collections::HashMap;
use std::sync::Arc;

/// Who leads a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lead {
    /// `None`: the last one known denied it.
    pub(crate) node: Option<String>,
    /// 0: none was ever known.
    pub(crate) term: u64,
}

/// The routing table of a client.
#[derive(Debug)]
pub(crate) struct Routes {
    map: Arc<ClusterMap>,
    leads: HashMap<u64, Lead>,
    catalog_leader: Option<String>,
}

impl Routes {
    pub(crate) fn new(map: ClusterMap) -> Self {
        let mut routes = Routes { leads: HashMap::new(), catalog_leader: None, map: Arc::new(map.clone()) };
        routes.learn_map(map);
        routes
    }

    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map)
    }

    pub(crate) fn collection(&self, name: &str) -> Option<&CollectionInfo> {
        let at = self.map.collections.binary_search_by(|c| c.name.as_str().cmp(name)).ok()?;
        Some(&self.map.collections[at])
    }

    pub(crate) fn shard(&self, collection: &str, shard: u32) -> Option<&ShardInfo> {
        self.collection(collection)?.shards.get(shard as usize)
    }

    pub(crate) fn address(&self, node: &str) -> Option<&str> {
        let at = self.map.nodes.binary_search_by(|n| n.id.as_str().cmp(node)).ok()?;
        Some(&self.map.nodes[at].address)
    }

    /// The highest number of a group in the map.
    pub(crate) fn newest_group(&self) -> u64 {
        let shards = self.map.collections.iter().flat_map(|collection| &collection.shards);
        shards.map(|shard| shard.group).max().unwrap_or_default()
    }

    /// The zone that a node says it is in.
    pub(crate) fn zone(&self, node: &str) -> Option<&str> {
        let at = self.map.nodes.binary_search_by(|n| n.id.as_str().cmp(node)).ok()?;
        self.map.nodes[at].zone.as_deref()
    }

    pub(crate) fn lead(&self, group: u64) -> Lead {
        self.leads.get(&group).cloned().unwrap_or_default()
    }

    /// The node that leads the catalog, if one is known.
    pub(crate) fn catalog_leader(&self) -> Option<&str> {
        self.catalog_leader.as_deref()
    }

    /// Takes in what a node says. Tells whether anything is new.
    pub(crate) fn learn_map(&mut self, map: ClusterMap) -> bool {
        let mut is_news = false;
        if map.catalog_leader.as_deref() != Some(&map.answered_by) {
            self.deny_catalog_leader(&map.answered_by);
        }
        if let Some(leader) = &map.catalog_leader {
            is_news |= self.learn_catalog_leader(leader, *leader == map.answered_by);
        }
        for shard in map.collections.iter().flat_map(|c| &c.shards) {
            if let Some(leader) = &shard.leader {
                is_news |= self.learn_lead(shard.group, leader, shard.term);
            }
        }
        if map.epoch > self.map.epoch {
            let groups: std::collections::HashSet<u64> =
                map.collections.iter().flat_map(|c| &c.shards).map(|s| s.group).collect();
            self.leads.retain(|group, _| groups.contains(group));
            self.map = Arc::new(map);
            is_news = true;
        }
        is_news
    }

    /// Takes in a hint. Tells whether it is new.
    pub(crate) fn learn_lead(&mut self, group: u64, node: &str, term: u64) -> bool {
        let lead = self.leads.entry(group).or_default();
        let is_news = term > lead.term || (term == lead.term && lead.node.is_none());
        if is_news {
            *lead = Lead { node: Some(node.to_owned()), term };
        }
        is_news
    }

    /// Takes in a hint, which is sure if the node says so of itself. Tells whether it is new.
    pub(crate) fn learn_catalog_leader(&mut self, node: &str, is_sure: bool) -> bool {
        let known = self.catalog_leader.as_deref();
        let is_news = known.is_none_or(|known| is_sure && known != node);
        if is_news {
            self.catalog_leader = Some(node.to_owned());
        }
        is_news
    }

    /// A node says that it does not lead the catalog.
    pub(crate) fn deny_catalog_leader(&mut self, node: &str) {
        self.catalog_leader.take_if(|known| known == node);
    }

    /// A node that was asked as the leader of `term` says that it does not lead.
    pub(crate) fn deny(&mut self, group: u64, node: &str, term: u64) {
        if let Some(lead) = self.leads.get_mut(&group)
            && lead.term == term
            && lead.node.as_deref() == Some(node)
        {
            lead.node = None;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use slowdb_proto::{ClusterId, Metric, NodeInfo, ReplicaInfo};

    /// Three nodes, `n1` to `n3`, and `shards` shards whose preferred leader goes round.
    pub(crate) fn map_of_three(epoch: u64, shards: u32) -> ClusterMap {
        let node = |i: u32| NodeInfo { id: format!("n{i}"), address: format!("127.0.0.1:{i}"), zone: None };
        let shard = |shard: u32| ShardInfo {
            shard,
            group: u64::from(shard) + 1,
            replicas: (0..3)
                .map(|i| ReplicaInfo {
                    replica: u64::from(shard * 3 + i + 1),
                    node: format!("n{}", (shard + i) % 3 + 1),
                    voter: true,
                })
                .collect(),
            leader: None,
            term: 0,
        };
        ClusterMap {
            cluster: ClusterId([7; 16]),
            epoch,
            answered_by: "n1".into(),
            catalog_leader: None,
            nodes: (1..=3).map(node).collect(),
            collections: vec![CollectionInfo {
                name: "default".into(),
                dimension: 2,
                metric: Metric::Cosine,
                replication_factor: 3,
                settings: slowdb_proto::CollectionSettings::default(),
                shards: (0..shards).map(shard).collect(),
            }],
        }
    }

    fn lead(node: &str, term: u64) -> Lead {
        Lead { node: Some(node.into()), term }
    }

    #[test]
    fn an_older_term_never_overrides_a_newer_one() {
        let mut routes = Routes::new(map_of_three(1, 1));
        assert!(routes.learn_lead(1, "n1", 5));
        assert!(!routes.learn_lead(1, "n2", 4));
        assert!(!routes.learn_lead(1, "n2", 5), "one leader a term");
        assert_eq!(routes.lead(1), lead("n1", 5));
        // A new epoch does not bring an old leader back either.
        let mut map = map_of_three(2, 1);
        map.collections[0].shards[0].leader = Some("n3".into());
        map.collections[0].shards[0].term = 3;
        assert!(routes.learn_map(map), "the epoch is news");
        assert_eq!(routes.lead(1), lead("n1", 5));
    }

    #[test]
    fn a_leader_that_denies_is_forgotten_but_its_term_is_not() {
        let mut routes = Routes::new(map_of_three(1, 1));
        routes.learn_lead(1, "n1", 5);
        routes.deny(1, "n1", 4);
        assert_eq!(routes.lead(1), lead("n1", 5), "a denial of an older term says nothing");
        routes.deny(1, "n1", 5);
        assert_eq!(routes.lead(1), Lead { node: None, term: 5 });
        assert!(!routes.learn_lead(1, "n2", 4));
        assert!(routes.learn_lead(1, "n2", 6));
    }

    #[test]
    fn the_catalogs_leader_is_who_says_so_itself() {
        let map = |answered_by: &str, leader: Option<&str>| {
            let (answered_by, catalog_leader) = (answered_by.to_owned(), leader.map(str::to_owned));
            ClusterMap { answered_by, catalog_leader, ..map_of_three(1, 1) }
        };
        let mut routes = Routes::new(map("n2", Some("n1")));
        assert_eq!(routes.catalog_leader(), Some("n1"), "named by another, and better than nobody");
        assert!(routes.learn_map(map("n3", Some("n3"))));
        assert!(!routes.learn_map(map("n2", Some("n1"))), "n2 has not heard of it yet");
        assert_eq!(routes.catalog_leader(), Some("n3"));
        routes.learn_map(map("n1", Some("n3")));
        routes.deny_catalog_leader("n1");
        assert_eq!(routes.catalog_leader(), Some("n3"), "only its own denial counts");
        assert!(!routes.learn_map(map("n3", None)));
        assert_eq!(routes.catalog_leader(), None);
    }

    #[test]
    fn a_map_of_an_older_epoch_keeps_the_structure_but_its_leaders_count() {
        let mut routes = Routes::new(map_of_three(4, 2));
        let mut old = map_of_three(3, 2);
        old.nodes.clear();
        old.collections[0].shards[1].leader = Some("n2".into());
        old.collections[0].shards[1].term = 9;
        assert!(routes.learn_map(old));
        assert_eq!(routes.map().epoch, 4);
        assert_eq!(routes.address("n2"), Some("127.0.0.1:2"));
        assert_eq!(routes.lead(2), lead("n2", 9));
    }

    proptest! {
        /// Whatever arrives in whatever order: terms never fall.
        #[test]
        fn terms_never_fall(steps in prop::collection::vec((any::<bool>(), 1u32..4, 0u64..10), 0..100)) {
            let mut routes = Routes::new(map_of_three(1, 1));
            let mut highest = 0;
            for (is_hint, node, term) in steps {
                let node = format!("n{node}");
                if is_hint {
                    routes.learn_lead(1, &node, term);
                    highest = highest.max(term);
                } else {
                    routes.deny(1, &node, term);
                }
                prop_assert_eq!(routes.lead(1).term, highest);
            }
        }
    }
}
