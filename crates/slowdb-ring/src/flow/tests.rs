//! Flows against every placement there is.

use proptest::prelude::*;

use super::*;
use crate::ring::{HashRing, RingNode};

/// Nodes with weight and zone; shards with replicas wanted, who has them (as bits), and a zone taken elsewhere.
#[derive(Clone, Debug)]
struct Case {
    nodes: Vec<(u32, Option<u8>)>,
    shards: Vec<(u32, u32, Option<u32>)>,
}

fn case(nodes: usize, shards: usize) -> impl Strategy<Value = Case> {
    let nodes = prop::collection::vec((1_u32..4, prop::option::weighted(0.8, 0_u8..3)), 1..=nodes);
    let shards =
        prop::collection::vec((0_u32..5, 0_u32..1 << 14, prop::option::weighted(0.2, 0_u32..4)), 1..=shards);
    let weights = prop::bool::ANY;
    (nodes, shards, weights).prop_map(|(mut nodes, mut shards, weights)| {
        for (weight, _) in &mut nodes {
            *weight = if weights { *weight } else { 1 };
        }
        for (wanted, has, _) in &mut shards {
            *wanted = (*wanted).min(nodes.len() as u32);
            *has &= (1 << nodes.len()) - 1;
        }
        Case { nodes, shards }
    })
}

/// Units too many, pairs that share, moves.
type Costs = (u32, u32, u32);

struct Setting {
    zones: Zones,
    shares: Shares,
    jobs: Vec<Job>,
    ring: HashRing,
}

impl Setting {
    fn of(case: &Case) -> Self {
        let labels: Vec<Option<String>> =
            case.nodes.iter().map(|(_, zone)| zone.map(|z| z.to_string())).collect();
        let zones = Zones::of(labels.iter().map(|label| label.as_deref()));
        let jobs: Vec<Job> = (0..)
            .zip(&case.shards)
            .map(|(nth, &(wanted, has, fixed))| Job {
                point: crate::murmur::murmur3_x64_128(&[nth], 0).0,
                wanted,
                live: (0..case.nodes.len() as u32).filter(|node| has >> node & 1 == 1).collect(),
                fixed: fixed.into_iter().filter(|&zone| (zone as usize) < zones.count()).collect(),
            })
            .collect();
        let weights: Vec<u32> = case.nodes.iter().map(|(weight, _)| *weight).collect();
        let cap = jobs.iter().filter(|job| job.wanted > 0).count() as u32;
        let total = jobs.iter().map(|job| job.wanted).sum();
        let shares = Shares::by_weight(&weights, &vec![cap; weights.len()], total);
        let ring_nodes = (0..weights.len()).map(|nth| RingNode::new(format!("{nth:03}")));
        Self { zones, shares, jobs, ring: HashRing::new(ring_nodes, 3).unwrap() }
    }

    fn assign(&self) -> Vec<Vec<u32>> {
        let Self { zones, shares, jobs, ring } = self;
        assign(&Problem { points: ring.points(), zones, shares, jobs })
    }

    fn costs(&self, placed: &[Vec<u32>]) -> Costs {
        let triangle = |count: u32| count * (count + 1) / 2;
        let mut beyond: Vec<u32> = self.shares.floor.clone();
        let mut loads = vec![0; beyond.len()];
        for &node in placed.iter().flatten() {
            loads[node as usize] += 1;
        }
        for (beyond, load) in beyond.iter_mut().zip(loads) {
            *beyond = u32::saturating_sub(load, *beyond);
        }
        // Rounding up is of most use where most is too much.
        let mut rounds_up: Vec<usize> =
            (0..beyond.len()).filter(|&node| self.shares.rounds_up[node] && beyond[node] > 0).collect();
        rounds_up.sort_by_key(|&node| std::cmp::Reverse(beyond[node]));
        for node in rounds_up.into_iter().take(self.shares.extras as usize) {
            beyond[node] -= 1;
        }
        let (mut pairs, mut moves) = (0, 0);
        for (job, nodes) in self.jobs.iter().zip(placed) {
            moves += nodes.iter().filter(|node| !job.live.contains(node)).count() as u32;
            let mut zones: Vec<u32> = nodes.iter().map(|&node| self.zones.of_node(node)).collect();
            if self.zones.matter() {
                for (nth, zone) in zones.iter().enumerate() {
                    pairs +=
                        zones[..nth].iter().chain(&job.fixed).filter(|other| *other == zone).count() as u32;
                }
            }
            zones.clear();
        }
        (beyond.into_iter().map(triangle).sum(), pairs, moves)
    }

    fn least(&self, placed: &mut Vec<Vec<u32>>) -> Costs {
        let Some(job) = self.jobs.get(placed.len()) else { return self.costs(placed) };
        let nodes = self.shares.floor.len() as u32;
        let mut best = (u32::MAX, 0, 0);
        for set in (0_u32..1 << nodes).filter(|set| set.count_ones() == job.wanted) {
            placed.push((0..nodes).filter(|node| set >> node & 1 == 1).collect());
            best = best.min(self.least(placed));
            placed.pop();
        }
        best
    }
}

/// Optimality by duality: the bounds are potentials under which no step that is left costs less than nothing, so no
/// exchange along any cycle makes the flow cheaper. This looks at every step of every vertex.
fn assert_cheapest(flow: &Flow<'_>) {
    let nodes = flow.base.len() as u32;
    let mut loads = vec![0; nodes as usize];
    for shard in 0..flow.count.len() {
        let has = flow.nodes_of(shard);
        assert_eq!(has.len() as u32, flow.problem.jobs[shard].wanted);
        for zone in 0..flow.in_zone.len() as u32 {
            let pairs = flow.pair_cost(shard, zone);
            let gate = flow.gate(shard, zone).map(|slot| flow.to_end_slot[slot as usize]);
            if let Some(gate) = gate {
                assert!(flow.to_end_shard[shard] <= pairs + gate, "to a gate");
                assert!(gate <= flow.to_end_shard[shard] - (pairs - flow.pair), "and back");
            }
            for &node in flow.in_zone[zone as usize].iter().filter(|node| !has.contains(node)) {
                let cost = if flow.live(shard).contains(&node) { 0 } else { MOVE };
                let from = gate.unwrap_or(flow.to_end_shard[shard] - pairs);
                assert!(from <= cost + flow.to_end_node[node as usize], "to a node");
            }
        }
        for &node in has {
            loads[node as usize] += 1;
            let cost = if flow.live(shard).contains(&node) { 0 } else { MOVE };
            let gate = flow.gate(shard, flow.zone(node)).unwrap();
            assert!(flow.to_end_node[node as usize] <= flow.to_end_slot[gate as usize] - cost, "and back");
        }
    }
    let shares = flow.problem.shares;
    let extras = flow.extra.iter().filter(|&&extra| extra).count() as u32;
    assert!(extras <= shares.extras);
    for node in 0..nodes {
        let place = node as usize;
        assert_eq!(loads[place], flow.base[place] + u32::from(flow.extra[place]) + flow.over[place]);
        assert!(flow.base[place] <= shares.floor[place]);
        assert!(flow.to_end_node[place] <= OVER * Cost::from(flow.over[place] + 1), "too many");
        if flow.base[place] < shares.floor[place] {
            assert!(flow.to_end_node[place] <= 0, "to the end");
        }
        if flow.may_take_extra(node) {
            assert!(flow.to_end_node[place] <= flow.to_end_extras, "to the extras");
        }
        if flow.extra[place] {
            assert!(flow.to_end_extras <= flow.to_end_node[place], "and back");
        }
        if flow.over[place] > 0 || flow.base[place] > 0 {
            assert!(OVER * Cost::from(flow.over[place]) <= flow.to_end_node[place], "back from the end");
        }
    }
    assert!(extras == shares.extras || flow.to_end_extras <= 0, "from the extras to the end");
    assert!(extras == 0 || flow.to_end_extras >= 0, "back from the end to the extras");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn as_cheap_as_the_cheapest_of_all_placements(case in case(5, 4)) {
        let setting = Setting::of(&case);
        let found = setting.assign();
        for (job, nodes) in setting.jobs.iter().zip(&found) {
            let mut distinct = nodes.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!((distinct.len(), nodes.len()), (job.wanted as usize, job.wanted as usize));
        }
        prop_assert_eq!(setting.costs(&found), setting.least(&mut Vec::new()), "{:?}", found);
    }

    /// What is found is as cheap as it gets: from there nothing moves.
    #[test]
    fn what_was_found_is_kept(case in case(6, 40)) {
        let mut setting = Setting::of(&case);
        let found = setting.assign();
        for (job, nodes) in setting.jobs.iter_mut().zip(found) {
            job.live = nodes;
        }
        let again = setting.assign();
        prop_assert_eq!(setting.costs(&again).2, 0);
    }

    /// The same for clusters with too many placements to try.
    #[test]
    fn no_exchange_is_left_that_pays(case in case(14, 60)) {
        let Setting { zones, shares, jobs, ring } = &Setting::of(&case);
        assert_cheapest(&solve(&Problem { points: ring.points(), zones, shares, jobs }));
    }
}
