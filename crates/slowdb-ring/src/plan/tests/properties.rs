//! What holds for all clusters.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Given {
    nodes: Vec<PlanNode>,
    shards: Vec<PlanShard>,
}

fn state() -> impl Strategy<Value = NodeState> {
    prop_oneof![
        6 => Just(NodeState::Active),
        1 => Just(NodeState::Cordoned),
        1 => Just(NodeState::Draining),
        1 => Just(NodeState::Down),
    ]
}

/// Any cluster: shards are anywhere, in any number, led by anyone or no one.
fn any_cluster() -> impl Strategy<Value = Given> {
    let node = (1_u32..4, prop::option::of(0_u8..3), state());
    let shard = (1_u32..5, any::<u16>(), prop::option::of(any::<prop::sample::Index>()));
    let weighted = prop::bool::ANY;
    (prop::collection::vec(node, 1..9), prop::collection::vec(shard, 0..40), weighted).prop_map(
        |(nodes, shards, weighted)| {
            let nodes: Vec<PlanNode> = (0..)
                .zip(nodes)
                .map(|(nth, (weight, zone, state))| PlanNode {
                    id: format!("n{nth:02}"),
                    weight: if weighted { weight } else { 1 },
                    zone: zone.map(|zone| zone.to_string()),
                    state,
                })
                .collect();
            let shards = (0..).zip(shards).map(|(id, (factor, bits, leader))| {
                let has =
                    nodes.iter().enumerate().filter(|(nth, _)| bits >> nth & bits >> (nth + 7) & 1 == 1);
                let replicas: Vec<String> = has.map(|(_, node)| node.id.clone()).collect();
                let leader = leader.filter(|_| !replicas.is_empty()).map(|at| at.get(&replicas).clone());
                PlanShard { id, bytes: id, factor, replicas, leader }
            });
            let shards = shards.collect();
            Given { nodes, shards }
        },
    )
}

/// A balanced cluster of `from` nodes that then has others: some gone, some more.
fn changed_cluster() -> impl Strategy<Value = (Given, usize)> {
    (3_usize..10, 1_u64..60, 1_u32..4, 0_usize..4, prop::collection::vec(0_usize..10, 0..3)).prop_map(
        |(from, shards, factor, more, drained)| {
            let shards = new_shards(shards, factor);
            let first = plan(&nodes(from), &shards, 3).unwrap();
            let mut nodes = nodes(from + more);
            for nth in drained {
                if nth < from && nodes.iter().filter(|node| node.state == NodeState::Active).count() > 3 {
                    nodes[nth].state = NodeState::Draining;
                }
            }
            (Given { nodes, shards: carried_out(&first, &shards) }, from)
        },
    )
}

fn states(given: &Given) -> BTreeMap<&str, NodeState> {
    given.nodes.iter().map(|node| (node.id.as_str(), node.state)).collect()
}

fn turned<T: Clone>(items: &[T], by: usize) -> Vec<T> {
    let mut items = items.to_vec();
    if !items.is_empty() {
        let len = items.len();
        items.rotate_left(by % len);
        items.reverse();
        items.swap(0, by / 7 % len);
    }
    items
}

/// No plan can copy less than this: what is missing, and what nodes lack to the least that any balance gives them.
fn copies_at_least(given: &Given, targets: &[(u32, u32)]) -> usize {
    let states = states(given);
    let live = |shard: &PlanShard| {
        shard.replicas.iter().filter(|id| states[id.as_str()] == NodeState::Active).count()
    };
    let active = given.nodes.iter().filter(|node| node.state == NodeState::Active).count();
    let missing: usize = given
        .shards
        .iter()
        .map(|shard| (shard.factor as usize).min(active).saturating_sub(live(shard)))
        .sum();
    let holds =
        |node: &PlanNode| given.shards.iter().filter(|shard| shard.replicas.contains(&node.id)).count();
    let total: u32 = targets.iter().map(|(held, _)| held).sum();
    let floor = total as usize / active.max(1);
    let lacking: usize = given
        .nodes
        .iter()
        .filter(|node| node.state == NodeState::Active)
        .map(|node| floor.saturating_sub(holds(node)))
        .sum();
    // Nodes that must give: what they hold above the share rounded up.
    let ceiling = (total as usize).div_ceil(active.max(1));
    let extra: usize = given
        .nodes
        .iter()
        .map(|node| match node.state {
            NodeState::Active => holds(node).saturating_sub(ceiling),
            _ => holds(node),
        })
        .sum();
    missing.max(lacking).max(extra)
}

proptest! {
    #[test]
    fn targets_are_whole_and_apart(given in any_cluster()) {
        let plan = plan(&given.nodes, &given.shards, 3).unwrap();
        let states = states(&given);
        let active = states.values().filter(|&&state| state == NodeState::Active).count();
        let stranded: BTreeSet<u64> = plan.stranded().collect();
        let short: BTreeMap<u64, Shortfall> = plan.shortfalls().map(|short| (short.shard, short)).collect();
        for (shard, target) in given.shards.iter().zip(plan.targets()) {
            prop_assert_eq!(shard.id, target.shard);
            prop_assert!(target.replicas.windows(2).all(|pair| pair[0] < pair[1]), "different nodes");
            if stranded.contains(&shard.id) {
                prop_assert_eq!(&shard.replicas, &target.replicas);
                continue;
            }
            let is = |id: &str, state| states[id] == state;
            let cordoned = shard.replicas.iter().filter(|id| is(id, NodeState::Cordoned)).count();
            let lasting = target.replicas.iter()
                .filter(|id| is(id, NodeState::Active) || is(id, NodeState::Cordoned)).count();
            let wanted = shard.factor as usize;
            prop_assert_eq!(lasting, wanted.min(active + cordoned.min(wanted)));
            prop_assert_eq!(short.get(&shard.id).map(|short| short.placed as usize), (lasting < wanted).then_some(lasting));
            prop_assert!(target.replicas.len() <= wanted);
            for id in &target.replicas {
                let had = shard.replicas.iter().any(|held| held == id);
                prop_assert!(had || is(id, NodeState::Active), "only active nodes get anything");
            }
            for id in shard.replicas.iter().filter(|id| is(id, NodeState::Cordoned)) {
                prop_assert!(target.replicas.contains(&id.as_str()) || cordoned > wanted);
            }
            match target.leader {
                Some(leader) => prop_assert!(target.replicas.contains(&leader) && !is(leader, NodeState::Down)),
                None => prop_assert!(target.replicas.iter().all(|id| is(id, NodeState::Down))),
            }
        }
    }

    #[test]
    fn planning_again_moves_nothing(given in any_cluster()) {
        let first = plan(&given.nodes, &given.shards, 3).unwrap();
        let shards = carried_out(&first, &given.shards);
        let again = plan(&given.nodes, &shards, 3).unwrap();
        prop_assert!(again.is_empty(), "{}\n{}", first, again);
    }

    #[test]
    fn the_order_of_the_lists_does_not_matter(given in any_cluster(), by in 0_usize..1000) {
        let mut shards = turned(&given.shards, by);
        for shard in &mut shards {
            shard.replicas = turned(&shard.replicas, by / 3);
        }
        let one = plan(&given.nodes, &given.shards, 3).unwrap();
        let other = plan(&turned(&given.nodes, by), &shards, 3).unwrap();
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.to_string(), other.to_string());
    }

    /// Step by step: no shard has fewer live replicas than before unless it still has enough; leaders are replicas;
    /// nothing is added twice; and what comes out is the target.
    #[test]
    fn steps_lead_to_the_target_and_never_below_the_factor(given in any_cluster()) {
        let plan = plan(&given.nodes, &given.shards, 3).unwrap();
        let states = states(&given);
        let live = |replicas: &BTreeSet<String>| {
            replicas.iter().filter(|id| states[id.as_str()] != NodeState::Down).count()
        };
        let mut now: BTreeMap<u64, (BTreeSet<String>, Option<String>)> = given.shards.iter()
            .map(|shard| (shard.id, (shard.replicas.iter().cloned().collect(), shard.leader.clone()))).collect();
        let factors: BTreeMap<u64, usize> =
            given.shards.iter().map(|shard| (shard.id, shard.factor as usize)).collect();
        for step in plan.steps() {
            let (replicas, leader) = now.get_mut(&step.shard()).unwrap();
            let before = live(replicas);
            match step {
                Step::Add { node, .. } => prop_assert!(replicas.insert(node)),
                Step::Lead(transfer) => {
                    prop_assert_eq!(&transfer.from, &*leader);
                    prop_assert!(replicas.contains(&transfer.to) && states[transfer.to.as_str()] != NodeState::Down);
                    *leader = Some(transfer.to);
                }
                Step::Remove { node, shard, .. } => {
                    prop_assert!(replicas.remove(&node));
                    let goes = leader.as_ref() == Some(&node);
                    prop_assert!(!goes || states[node.as_str()] == NodeState::Down, "shard {} is led", shard);
                    let enough = live(replicas) >= factors[&shard];
                    prop_assert!(enough || live(replicas) == before, "shard {} fell short", shard);
                }
            }
        }
        for target in plan.targets() {
            let (replicas, leader) = &now[&target.shard];
            prop_assert!(replicas.iter().map(String::as_str).eq(target.replicas.iter().copied()));
            prop_assert!(target.leader.is_none() || leader.as_deref() == target.leader);
        }
    }

    #[test]
    fn growing_and_shrinking_is_even_and_moves_the_least((given, from) in changed_cluster()) {
        let plan = plan(&given.nodes, &given.shards, 3).unwrap();
        let counts = counts(&plan);
        let active = || given.nodes.iter().zip(&counts).filter(|(node, _)| node.state == NodeState::Active);
        for nth in 0..2 {
            let each: Vec<u32> = active().map(|(_, count)| [count.0, count.1][nth]).collect();
            prop_assert!(each.iter().max().unwrap() - each.iter().min().unwrap() <= 1, "{each:?}");
        }
        let least = copies_at_least(&given, &counts);
        prop_assert!(plan.copies() >= least);
        // Into a node that comes alone, anything may move: the bound is met.
        let came = given.nodes.len() - from;
        if came == 1 && active().count() == given.nodes.len() {
            prop_assert_eq!(plan.copies(), least);
        }
    }

    #[test]
    fn everything_can_be_explained(given in any_cluster()) {
        let plan = plan(&given.nodes, &given.shards, 3).unwrap();
        for (shard, target) in given.shards.iter().zip(plan.targets()) {
            for node in &given.nodes {
                let explanation = plan.explain(shard.id, &node.id).unwrap();
                let (holds, will) = (shard.replicas.contains(&node.id), target.replicas.contains(&node.id.as_str()));
                prop_assert_eq!(explanation.holds, holds);
                prop_assert_eq!(explanation.leads, shard.leader.as_ref() == Some(&node.id));
                let fits = match explanation.why {
                    Why::Stays { holds: count, least, most } => holds && will && count > 0 && least <= most,
                    Why::Cordoned | Why::HeldBack { .. } | Why::Stranded => holds && will,
                    Why::Leaves { .. } => holds && !will,
                    Why::Arrives { .. } => !holds && will,
                    Why::TakesNothing { .. } | Why::ZoneTaken { .. } | Why::HeldElsewhere { .. } => !holds && !will,
                };
                prop_assert!(fits, "{}", explanation);
                let text = explanation.to_string();
                prop_assert!(text.contains(&node.id), "{}", text);
            }
        }
    }
}
