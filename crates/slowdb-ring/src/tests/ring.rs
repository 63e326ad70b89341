//! Placements against the promises of [`HashRing::place`].

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn names(count: usize) -> Vec<RingNode> {
    (0..count).map(|nth| RingNode::new(format!("node-{nth}"))).collect()
}

fn held(placement: &Placement) -> BTreeMap<&str, usize> {
    placement.nodes().iter().map(|node| (node.as_str(), placement.shards_on(node).count())).collect()
}

fn led(placement: &Placement) -> BTreeMap<&str, usize> {
    let mut led: BTreeMap<&str, usize> = placement.nodes().iter().map(|node| (node.as_str(), 0)).collect();
    for shard in 0..placement.shard_count() as u32 {
        *led.get_mut(placement.preferred_leader(shard).unwrap()).unwrap() += 1;
    }
    led
}

fn spread(counts: &BTreeMap<&str, usize>) -> usize {
    counts.values().max().unwrap() - counts.values().min().unwrap()
}

fn assert_distinct(placement: &Placement, factor: usize) {
    for shard in 0..placement.shard_count() as u32 {
        let nodes: BTreeSet<&str> = placement.replicas(shard).collect();
        assert_eq!(nodes.len(), factor, "shard {shard} has {factor} different nodes");
        assert_eq!(placement.replicas(shard).count(), factor);
    }
}

proptest! {
    #[test]
    fn equal_nodes_are_within_one(
        count in 1_usize..12, virtual_nodes in 1_u32..5, shards in 1_u32..80, factor in 1_usize..6,
    ) {
        let factor = factor.min(count);
        let placement = HashRing::new(names(count), virtual_nodes).unwrap().place(shards, factor).unwrap();
        assert_distinct(&placement, factor);
        prop_assert!(spread(&held(&placement)) <= 1, "{:?}", held(&placement));
        prop_assert!(spread(&led(&placement)) <= 1, "{:?}", led(&placement));
    }

    #[test]
    fn weights_and_zones_are_respected(
        given in prop::collection::vec((1_u32..6, prop::option::of(0_u8..4)), 1..10),
        shards in 1_u32..60, factor in 1_usize..5,
    ) {
        let factor = factor.min(given.len());
        let nodes: Vec<RingNode> = names(given.len()).into_iter().zip(&given).map(|(node, (weight, zone))| {
            RingNode { weight: *weight, zone: zone.map(|zone| zone.to_string()), ..node }
        }).collect();
        let placement = HashRing::new(nodes.clone(), 3).unwrap().place(shards, factor).unwrap();
        assert_distinct(&placement, factor);
        let (held, led) = (held(&placement), led(&placement));
        let leaders: usize = led.values().sum();
        prop_assert_eq!(leaders, shards as usize);
        for (name, &leads) in &led {
            prop_assert!(leads <= held[name]);
        }
        // Nodes that are not full of every shard share what those cannot take by weight, within one.
        let open: Vec<&RingNode> = nodes.iter().filter(|node| held[node.name.as_str()] < shards as usize).collect();
        let left: usize = open.iter().map(|node| held[node.name.as_str()]).sum();
        let weight: u32 = open.iter().map(|node| node.weight).sum();
        for node in &open {
            let share = left as f64 * f64::from(node.weight) / f64::from(weight);
            let has = held[node.name.as_str()] as f64;
            // A node that rounding filled up leaves the open ones a share that is off by less than one each.
            prop_assert!((has - share).abs() < 2.0, "{} has {} of {}", node.name, has, share);
        }
    }

    #[test]
    fn even_zones_never_share(zones in 1_usize..5, per_zone in 1_usize..4, shards in 1_u32..70, factor in 1_usize..6) {
        let factor = factor.min(zones * per_zone);
        let nodes = names(zones * per_zone).into_iter().enumerate()
            .map(|(nth, node)| node.with_zone((nth % zones).to_string()));
        let zone_of: BTreeMap<String, String> =
            nodes.clone().map(|node| (node.name, node.zone.unwrap())).collect();
        let placement = HashRing::new(nodes, 3).unwrap().place(shards, factor).unwrap();
        prop_assert!(spread(&held(&placement)) <= 1);
        for shard in 0..shards {
            let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
            for node in placement.replicas(shard) {
                *uses.entry(&zone_of[node]).or_default() += 1;
            }
            prop_assert_eq!(uses.len(), factor.min(zones), "all zones that can be are used");
            prop_assert!(*uses.values().max().unwrap() <= factor.div_ceil(zones));
        }
    }

    #[test]
    fn the_order_of_nodes_does_not_matter(count in 1_usize..9, shards in 1_u32..40, seed: u64) {
        let mut shuffled = names(count);
        let len = shuffled.len();
        for nth in 0..len {
            shuffled.swap(nth, (seed.rotate_left(nth as u32) % len as u64) as usize);
        }
        let factor = count.min(3);
        let [a, b] = [names(count), shuffled].map(|nodes| HashRing::new(nodes, 3).unwrap().place(shards, factor));
        prop_assert_eq!(a, b);
    }
}

#[test]
fn golden_placement_of_three_nodes() {
    let placement = HashRing::new(names(3), 3).unwrap().place(16, 3).unwrap();
    let leaders: Vec<&str> = (0..16).map(|shard| placement.preferred_leader(shard).unwrap()).collect();
    assert_eq!(leaders.join(" ").replace("node-", ""), "0 0 1 1 1 1 1 0 0 0 2 2 2 2 2 2");
}

/// The nodes of each shard, the preferred leader first.
const GOLDEN_FIVE: &str = "421 421 412 143 143 140 041 014 014 340 321 320 230 230 230 230";

#[test]
fn golden_placement_of_five_nodes() {
    let placement = HashRing::new(names(5), 3).unwrap().place(16, 3).unwrap();
    let rows: Vec<String> =
        (0..16).map(|shard| placement.replicas(shard).collect::<String>().replace("node-", "")).collect();
    assert_eq!(rows.join(" "), GOLDEN_FIVE);
}

/// Adding one node to n must move 1/(n+1) of all replicas; keeping the balance exact costs somewhat more.
#[test]
fn a_new_node_moves_little() {
    let (shards, factor) = (1024, 3);
    for (virtual_nodes, most) in [(3, 2.5), (64, 1.5)] {
        for count in [3, 5, 8, 12, 20] {
            let [before, after] = [count, count + 1].map(|count| {
                HashRing::new(names(count), virtual_nodes).unwrap().place(shards, factor).unwrap()
            });
            let least = shards as usize * factor / (count + 1);
            let moved = after.moves_from(&before);
            println!(
                "{virtual_nodes} virtual nodes, {count} nodes and one more: {moved} moves, least {least}"
            );
            assert!(moved >= least);
            assert!(moved as f64 <= least as f64 * most, "{count} nodes: {moved} moved, {least} needed");
        }
    }
}

#[test]
fn mistakes_are_named() {
    let ring =
        |nodes: Vec<RingNode>, virtual_nodes| HashRing::new(nodes, virtual_nodes).map(|_| ()).unwrap_err();
    assert_eq!(ring(vec![], 3), RingError::NoNodes);
    assert_eq!(ring(names(1), 0), RingError::NoVirtualNodes);
    assert_eq!(ring(vec![RingNode::new("")], 3), RingError::EmptyName);
    let twice = vec![RingNode::new("a"), RingNode::new("b"), RingNode::new("a")];
    assert_eq!(ring(twice, 3), RingError::DuplicateName { name: "a".into() });
    assert_eq!(ring(vec![RingNode::new("a").with_weight(0)], 3), RingError::ZeroWeight { name: "a".into() });
    let heavy = ring(vec![RingNode::new("a").with_weight(u32::MAX)], u32::MAX);
    assert!(matches!(heavy, RingError::TooManyPoints { .. }));

    let ring = HashRing::new(names(2), 3).unwrap();
    assert_eq!(ring.place(0, 1), Err(RingError::NoShards));
    assert_eq!(ring.place(1, 0), Err(RingError::NoReplicas));
    assert_eq!(ring.place(1, 3), Err(RingError::TooFewNodes { factor: 3, nodes: 2 }));
    assert!(matches!(ring.place(u32::MAX, 2), Err(RingError::TooManyReplicas { .. })));
    let placement = ring.place(4, 2).unwrap();
    assert_eq!((placement.replicas(4).count(), placement.preferred_leader(4)), (0, None));
    assert_eq!(placement.shards_on("nobody").count(), 0);
}

#[test]
fn a_walk_meets_every_node_once_and_starts_at_the_hash() {
    let ring = HashRing::new(names(7), 3).unwrap();
    let (point, place) = ring.points.all[4];
    for hash in [0, point, u64::MAX] {
        let met: BTreeSet<&str> = ring.walk(hash).collect();
        assert_eq!((met.len(), ring.walk(hash).count()), (7, 7));
    }
    assert_eq!(ring.walk(point).next(), Some(ring.nodes()[place as usize].name.as_str()));
    assert_eq!(ring.walk(u64::MAX).next(), ring.walk(0).next(), "past the last point the walk begins anew");
}
