//! Where replicas are to be: the planner's targets as changes of the catalog.
//!
//! Pure functions of the catalog. The catalog's leader calls them now and then, and proposes what comes out; each change
//! names the epoch that it was decided on, so that a leader that is none any more changes nothing.

use crate::catalog::{CATALOG, Catalog, CatalogChange, Collection, GroupSpec, Replica, voters_of};
use slowdb_proto::{NodeState, PlannedMove, Standing, Wanted};
use slowdb_ring::{Plan, PlanNode, PlanShard};
use std::collections::{BTreeMap, BTreeSet};

/// Groups that are on their way to another placement at a time.
const MOVES_MAX: usize = 8;
/// Replicas that one node takes in at a time.
const INCOMING_MAX: usize = 4;
/// Voters of the catalog.
const CATALOG_VOTERS_MAX: usize = 5;

/// An id for replicas that are only imagined.
const UNUSED_ID: u64 = u64::MAX / 2;

/// Bytes of a replica, by group, as far as they are known.
pub(crate) type Sizes = BTreeMap<u64, u64>;

/// What the planner makes of a catalog.
pub(crate) fn plan(catalog: &Catalog, sizes: &Sizes) -> Result<Plan, String> {
    plan_with(catalog, plan_shards(catalog, sizes))
}

fn plan_with(catalog: &Catalog, shards: Vec<PlanShard>) -> Result<Plan, String> {
    slowdb_ring::plan(&plan_nodes(catalog), &shards, catalog.virtual_nodes.max(1))
        .map_err(|error| error.to_string())
}

fn plan_nodes(catalog: &Catalog) -> Vec<PlanNode> {
    let node = |node: &crate::catalog::CatalogNode| PlanNode {
        id: node.id.clone(),
        weight: node.weight.max(1),
        zone: node.zone.clone(),
        state: match node.state {
            _ if node.down => slowdb_ring::NodeState::Down,
            _ if node.leaving => slowdb_ring::NodeState::Draining,
            NodeState::Active => slowdb_ring::NodeState::Active,
            NodeState::Cordoned => slowdb_ring::NodeState::Cordoned,
            NodeState::Draining => slowdb_ring::NodeState::Draining,
        },
    };
    catalog.nodes.iter().map(node).collect()
}

fn plan_shards(catalog: &Catalog, sizes: &Sizes) -> Vec<PlanShard> {
    let down: BTreeSet<&str> = catalog.nodes.iter().filter(|n| n.down).map(|n| n.id.as_str()).collect();
    catalog.shards().map(|(c, shard)| plan_shard(c, &shard.spec, &down, sizes)).collect()
}

fn plan_shard(collection: &Collection, spec: &GroupSpec, down: &BTreeSet<&str>, sizes: &Sizes) -> PlanShard {
    let lives = |replica: &&Replica| !down.contains(replica.node.as_str());
    let mut replicas: Vec<String> = spec.staying().map(|replica| replica.node.clone()).collect();
    if !spec.staying().any(|replica| lives(&replica)) {
        // Those that were to take over died before they could: what is to be copied is where it was.
        let there = |replica: &&Replica| replica.wanted == Wanted::Gone && replica.standing != Standing::None;
        replicas.extend(spec.replicas.iter().filter(there).filter(lives).map(|replica| replica.node.clone()));
    }
    PlanShard {
        id: spec.group,
        bytes: sizes.get(&spec.group).copied().unwrap_or_default(),
        factor: collection.replication_factor,
        leader: replicas.contains(&spec.leader).then(|| spec.leader.clone()),
        replicas,
    }
}

/// Nodes for the shards of a new collection.
pub(crate) fn first_placement(
    catalog: &Catalog,
    num_shards: u32,
    replication_factor: u32,
) -> Result<Vec<Vec<String>>, String> {
    let mut shards = plan_shards(catalog, &Sizes::new());
    let new = (0..u64::from(num_shards))
        .map(|shard| PlanShard::new(catalog.next_group + shard, replication_factor));
    shards.extend(new);
    let plan = plan_with(catalog, shards)?;
    let nodes = |shard: u64| {
        let target = plan.target(catalog.next_group + shard).filter(|target| !target.replicas.is_empty());
        let target = target.ok_or("no node can take in a replica: all are draining, cordoned or down")?;
        let mut nodes: Vec<String> = target.replicas.iter().map(|node| (*node).to_owned()).collect();
        nodes.sort_by_key(|node| Some(node.as_str()) != target.leader);
        Ok(nodes)
    };
    (0..u64::from(num_shards)).map(nodes).collect()
}

/// The next changes that bring the catalog closer to the plan; empty when all is as it should be, or enough is under way.
pub(crate) fn next_changes(catalog: &Catalog, plan: &Plan) -> Vec<CatalogChange> {
    let mut changes: Vec<CatalogChange> = catalog_change(catalog).into_iter().collect();
    let unsettled = catalog.shards().filter(|(_, shard)| !shard.spec.is_settled());
    let mut moving: BTreeSet<u64> = unsettled.map(|(_, shard)| shard.spec.group).collect();
    let mut incoming: BTreeMap<String, usize> = BTreeMap::new();
    for (_, shard) in catalog.shards() {
        for replica in shard.spec.staying().filter(|replica| replica.standing == Standing::None) {
            *incoming.entry(replica.node.clone()).or_default() += 1;
        }
    }
    let moves = plan.moves().iter().map(|it| (it.shard, it.reason.to_string()));
    let transfers = plan.transfers().iter().map(|it| (it.shard, String::new()));
    let votes = catalog.shards().filter(|(_, shard)| votes_are_lost(catalog, &shard.spec));
    let votes = votes.map(|(_, shard)| (shard.spec.group, "a vote is lost".to_owned()));
    let mut seen = BTreeSet::new();
    for (group, reason) in moves.chain(transfers).chain(votes) {
        if !seen.insert(group) {
            continue;
        }
        let Some((change, comes)) = place_change(catalog, plan, group, reason) else { continue };
        let fits = |node: &String| incoming.get(node).copied().unwrap_or_default() < INCOMING_MAX;
        if !comes.is_empty() {
            if !comes.iter().all(fits) || (moving.len() >= MOVES_MAX && !moving.contains(&group)) {
                continue;
            }
            moving.insert(group);
            comes.into_iter().for_each(|node| *incoming.entry(node).or_default() += 1);
        }
        changes.push(change);
    }
    changes
}

/// The change that a group needs, with the nodes that get a new replica by it.
fn place_change(
    catalog: &Catalog,
    plan: &Plan,
    group: u64,
    reason: String,
) -> Option<(CatalogChange, Vec<String>)> {
    let spec = catalog.spec(slowdb_repl::GroupId(group))?;
    let (collection, _) = catalog.shard_of(slowdb_repl::GroupId(group))?;
    let target = plan.target(group)?;
    // A node whose replica is on its way out gets another one when that one is gone. Until then the others stay.
    let goes = |node: &str| spec.replica_on(node).is_some_and(|replica| replica.wanted == Wanted::Gone);
    let fit = target.replicas.iter().filter(|node| !goes(node));
    let mut nodes: Vec<String> = fit.map(|node| (*node).to_owned()).collect();
    let lives = |node: &str| catalog.node(node).is_some_and(|node| !node.down);
    if nodes.is_empty() && !spec.staying().any(|replica| lives(&replica.node)) {
        nodes.extend(elsewhere(catalog, spec));
    }
    // A replica that is lost keeps its vote until there is another in its place: fewer voters would mean that fewer
    // losses are survived.
    for replica in spec.staying() {
        let short = nodes.len() < collection.replication_factor as usize;
        if short && !nodes.contains(&replica.node) {
            nodes.push(replica.node.clone());
        }
    }
    if nodes.is_empty() {
        return None;
    }
    let leads_best = target.leader.filter(|leader| !goes(leader)).unwrap_or(&spec.leader);
    let nodes = with_votes(catalog, spec, nodes, leads_best);
    // Who is down may have led until now, and have no vote from now on.
    let votes = |(node, wanted): &&(String, Wanted)| node == leads_best && *wanted == Wanted::Voter;
    let leader = nodes.iter().find(votes).or_else(|| nodes.first())?.0.clone();
    let mut next = spec.clone();
    let different = next.want(spec.epoch + 1, &nodes, &leader, "", &mut { UNUSED_ID });
    if !different {
        return None;
    }
    let comes = next.staying().filter(|replica| !spec.replicas.iter().any(|old| old.node == replica.node));
    let comes = comes.map(|replica| replica.node.clone()).collect();
    Some((CatalogChange::Place { group, since: spec.epoch, nodes, leader, reason }, comes))
}

/// A node for a shard whose replicas are all lost but for those that are to go, where it cannot stay: of those without any
/// replica of it the one that holds the least.
fn elsewhere(catalog: &Catalog, spec: &GroupSpec) -> Option<String> {
    let takes = |node: &&crate::catalog::CatalogNode| {
        node.state == NodeState::Active && !node.down && !node.leaving && spec.replica_on(&node.id).is_none()
    };
    let holds = |node: &crate::catalog::CatalogNode| {
        catalog.shards().filter(|(_, shard)| shard.spec.replica_on(&node.id).is_some()).count()
    };
    let least = catalog.nodes.iter().filter(takes).min_by_key(|node| (holds(node), &node.id))?;
    Some(least.id.clone())
}

/// Whether some voter is lost, enough are left to decide on others, and a replica that lives has no vote.
fn votes_are_lost(catalog: &Catalog, spec: &GroupSpec) -> bool {
    let is_down = |replica: &&Replica| catalog.node(&replica.node).is_some_and(|node| node.down);
    let voters = spec.replicas.iter().filter(|replica| replica.standing == Standing::Voter);
    let lost = voters.clone().filter(is_down).count();
    let follows =
        |replica: &Replica| replica.wanted == Wanted::Learner && replica.standing == Standing::Learner;
    lost > 0 && lost * 2 < voters.count() && spec.staying().any(|r| follows(r) && !is_down(&r))
}

/// Who votes among the replicas on these nodes, an odd number: those that do already first, then those that hold the data;
/// but where a vote is lost and somebody can take it, those that live before all others.
fn with_votes(
    catalog: &Catalog,
    spec: &GroupSpec,
    mut nodes: Vec<String>,
    leader: &str,
) -> Vec<(String, Wanted)> {
    let moves_votes = votes_are_lost(catalog, spec);
    let is_down = |node: &str| moves_votes && catalog.node(node).is_some_and(|node| node.down);
    let votes = |node: &str| spec.replica_on(node).is_some_and(|r| r.wanted == Wanted::Voter);
    let follows = |node: &str| spec.replica_on(node).is_some_and(|r| r.standing != Standing::None);
    nodes.sort_by_cached_key(|node| {
        (is_down(node), node != leader, !votes(node), !follows(node), node.clone())
    });
    let voters = voters_of(nodes.len());
    let wanted = |at| if at < voters { Wanted::Voter } else { Wanted::Learner };
    nodes.into_iter().enumerate().map(|(at, node)| (node, wanted(at))).collect()
}

/// The catalog's own group: a replica on every node, and an odd number of votes, at most five.
fn catalog_change(catalog: &Catalog) -> Option<CatalogChange> {
    let spec = &catalog.own;
    let fit =
        |node: &str| catalog.node(node).is_some_and(|node| !node.down && node.state != NodeState::Draining);
    let votes = |replica: &Replica| {
        replica.wanted == Wanted::Voter && matches!(replica.standing, Standing::Voter | Standing::Changing)
    };
    let staying: Vec<&Replica> = spec.staying().collect();
    // A voter that is lost keeps its vote until another is in its place, as in shards.
    let candidates = staying.iter().filter(|r| fit(&r.node) || votes(r)).count();
    let voters = voters_of(candidates.min(CATALOG_VOTERS_MAX));
    let mut order = staying.clone();
    order.sort_by_cached_key(|r| (!fit(&r.node), !votes(r), r.standing == Standing::None, r.node.clone()));
    let wanted = |at| if at < voters { Wanted::Voter } else { Wanted::Learner };
    let nodes: Vec<(String, Wanted)> =
        order.iter().enumerate().map(|(at, replica)| (replica.node.clone(), wanted(at))).collect();
    let is_voter = |node: &str| nodes.iter().any(|(n, w)| n == node && *w == Wanted::Voter);
    let leader = if is_voter(&spec.leader) && fit(&spec.leader) {
        spec.leader.clone()
    } else {
        nodes.iter().find(|(node, wanted)| *wanted == Wanted::Voter && fit(node))?.0.clone()
    };
    let mut next = spec.clone();
    let reason = "votes in the catalog";
    let different = next.want(spec.epoch + 1, &nodes, &leader, reason, &mut { UNUSED_ID });
    let change = CatalogChange::Place {
        group: CATALOG.0,
        since: spec.epoch,
        nodes,
        leader,
        reason: reason.to_owned(),
    };
    different.then_some(change)
}

/// The moves of a plan in the words of operators.
pub(crate) fn planned_moves(catalog: &Catalog, plan: &Plan) -> Vec<PlannedMove> {
    let planned = |it: &slowdb_ring::Move| {
        let (collection, shard) = catalog.shard_of(slowdb_repl::GroupId(it.shard))?;
        Some(PlannedMove {
            collection: collection.name.clone(),
            shard,
            to: it.add.clone(),
            from: it.remove.clone(),
            bytes: it.bytes,
            reason: it.reason.to_string(),
        })
    };
    plan.moves().iter().filter_map(planned).collect()
}

#[cfg(test)]
mod tests;
