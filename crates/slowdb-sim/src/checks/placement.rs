//! Where replicas are, by the catalog: copied no more often than needed, and in the end in balance.
//!
//! The bound on copies: whenever something is different that decides where replicas belong (nodes, their states, weights
//! and zones, collections and their factors, what a shard can be copied from whose replicas are down), be it by an operator or by a fault, the planner says how many replicas have
//! to be copied at least from what is wanted then. Until the next such difference no more than that may be added. What
//! is added by the very changes among which the difference is, is not counted.

use crate::events::Event;
use slowdb_proto::{NodeState, Standing, Wanted};
use slowdb_ring::{PlanNode, PlanShard};
use slowdb_server::{CatalogProbe, NodeProbe, SpecProbe, SpecReplica};
use std::collections::BTreeSet;

/// What decides where replicas belong.
#[derive(PartialEq)]
struct Grounds {
    nodes: Vec<NodeProbe>,
    groups: Vec<(u64, u32)>,
    sources: Vec<u64>,
}

impl Grounds {
    fn of(catalog: &CatalogProbe) -> Self {
        let groups = shards(catalog).iter().map(|spec| (spec.group, spec.replication_factor)).collect();
        Grounds { nodes: catalog.nodes.clone(), groups, sources: sources(catalog) }
    }
}

/// Replicas that are to go, of shards whose others are all down: for the planner a shard is where it can be copied from,
/// until they are gone.
fn sources(catalog: &CatalogProbe) -> Vec<u64> {
    let lives = |it: &&SpecReplica| catalog.nodes.iter().any(|node| node.id == it.node && !node.down);
    let is_lost =
        |spec: &&SpecProbe| !spec.replicas.iter().filter(|it| it.wanted != Wanted::Gone).any(|it| lives(&it));
    let left = shards(catalog).iter().filter(is_lost).flat_map(|spec| &spec.replicas).filter(lives);
    left.filter(|it| it.standing != Standing::None).map(|it| it.replica).collect()
}

fn shards(catalog: &CatalogProbe) -> &[SpecProbe] {
    catalog.groups.get(1..).unwrap_or_default()
}

/// Counts replicas of shards that were added after their collection was created.
#[derive(Default)]
struct Added {
    groups: BTreeSet<u64>,
    replicas: BTreeSet<u64>,
}

impl Added {
    fn count(&mut self, catalog: &CatalogProbe) -> usize {
        let mut count = 0;
        for spec in shards(catalog) {
            let is_new = self.groups.insert(spec.group);
            let added = spec.replicas.iter().filter(|replica| self.replicas.insert(replica.replica)).count();
            count += if is_new { 0 } else { added };
        }
        count
    }
}

/// Replicas that were placed where none was before.
pub(crate) fn moves(events: &[(u64, Event)]) -> u64 {
    let mut added = Added::default();
    let catalogs = events.iter().filter_map(|(_, event)| match event {
        Event::Catalog { catalog, .. } => Some(catalog),
        _ => None,
    });
    catalogs.map(|catalog| added.count(catalog) as u64).sum()
}

pub(super) fn check(events: &[(u64, Event)]) -> Result<(), String> {
    let mut added = Added::default();
    let mut grounds: Option<Grounds> = None;
    let (mut left, mut since) = (0, 0);
    let mut last = None;
    for (now, event) in events {
        match event {
            Event::Catalog { catalog, copies, .. } => {
                let count = added.count(catalog);
                let present = Grounds::of(catalog);
                if grounds.as_ref() == Some(&present) {
                    left = usize::checked_sub(left, count).ok_or_else(|| {
                        let epoch = catalog.epoch;
                        format!("more replicas were added up to epoch {epoch} than epoch {since} needed ({now} us)")
                    })?;
                } else {
                    (left, since) = (*copies, catalog.epoch);
                    grounds = Some(present);
                }
                last = Some(catalog);
            }
            Event::Quiet => last.map_or(Ok(()), |catalog| balance(catalog))?,
            _ => {}
        }
    }
    Ok(())
}

/// What has to hold when nothing is under way. Cordoned nodes are a reason for imbalance.
fn balance(catalog: &CatalogProbe) -> Result<(), String> {
    let active: Vec<&NodeProbe> =
        catalog.nodes.iter().filter(|node| node.state == NodeState::Active).collect();
    if active.is_empty() || catalog.nodes.iter().any(|node| node.state == NodeState::Cordoned) {
        return Ok(());
    }
    for spec in shards(catalog) {
        let on_active =
            spec.replicas.iter().filter(|it| active.iter().any(|node| node.id == it.node)).count();
        let factor = spec.replication_factor as usize;
        if on_active != factor.min(active.len()) || spec.replicas.len() > factor {
            return Err(format!("group {} is to have {factor} replicas: {:?}", spec.group, spec.replicas));
        }
    }
    let holds = |node: &str| {
        shards(catalog).iter().filter(|spec| spec.replicas.iter().any(|it| it.node == node)).count()
    };
    let factors: Vec<usize> = shards(catalog).iter().map(|spec| spec.replication_factor as usize).collect();
    even(&active, &factors, &holds)?;
    leaders(catalog, &active)?;
    zones(catalog, &active)
}

/// No handing over, from one to the next, makes leaders more even: as even as replicas allow. Of equal nodes only.
fn leaders(catalog: &CatalogProbe, active: &[&NodeProbe]) -> Result<(), String> {
    if active.iter().any(|node| node.weight != active[0].weight) {
        return Ok(());
    }
    let leads = |node: &str| shards(catalog).iter().filter(|spec| spec.leader == node).count();
    for node in active {
        let mut reached = vec![node.id.as_str()];
        let mut at = 0;
        while let Some(from) = reached.get(at).copied() {
            if leads(from) + 2 <= leads(&node.id) {
                return Err(format!(
                    "{} leads {} shards, and could let {from} with {} lead",
                    node.id,
                    leads(&node.id),
                    leads(from)
                ));
            }
            let led = shards(catalog).iter().filter(|spec| spec.leader == from);
            for replica in led.flat_map(|spec| &spec.replicas) {
                let is_active = active.iter().any(|node| node.id == replica.node);
                if is_active && !reached.contains(&replica.node.as_str()) {
                    reached.push(&replica.node);
                }
            }
            at += 1;
        }
    }
    Ok(())
}

/// Every node has its share by weight, rounded down or up, if all can have theirs at once: the first k nodes by weight hold
/// at most k replicas of each shard (the theorem of Gale and Ryser; so the others have what these cannot).
fn even(active: &[&NodeProbe], factors: &[usize], count: &dyn Fn(&str) -> usize) -> Result<(), String> {
    let mut counts: Vec<(&str, u32, usize)> =
        active.iter().map(|node| (node.id.as_str(), node.weight, count(&node.id))).collect();
    counts.sort_by_key(|(_, weight, _)| std::cmp::Reverse(*weight));
    let weights: usize = counts.iter().map(|(_, weight, _)| *weight as usize).sum();
    let total: usize = counts.iter().map(|(.., count)| count).sum();
    let mut first = 0;
    for (k, (_, weight, _)) in (1..).zip(&counts) {
        first += *weight as usize;
        if total * first > weights * factors.iter().map(|factor| k.min(*factor)).sum::<usize>() {
            return Ok(());
        }
    }
    let fits = |(_, weight, count): &(&str, u32, usize)| {
        let share = total * *weight as usize;
        (share / weights..=share.div_ceil(weights)).contains(count)
    };
    if counts.iter().all(fits) { Ok(()) } else { Err(format!("replicas are not in balance: {counts:?}")) }
}

/// No more pairs of replicas of one shard share a zone than if all were placed anew.
fn zones(catalog: &CatalogProbe, active: &[&NodeProbe]) -> Result<(), String> {
    let zone =
        |node: &str| catalog.nodes.iter().find(|known| known.id == node).and_then(|node| node.zone.clone());
    let pairs = |nodes: &[&str]| {
        let zones: Vec<_> = nodes.iter().filter_map(|node| zone(node)).collect();
        zones
            .iter()
            .enumerate()
            .map(|(at, zone)| zones[..at].iter().filter(|other| *other == zone).count())
            .sum::<usize>()
    };
    let nodes: Vec<PlanNode> = active
        .iter()
        .map(|node| PlanNode {
            zone: node.zone.clone(),
            ..PlanNode::new(node.id.clone()).with_weight(node.weight)
        })
        .collect();
    let anew: Vec<PlanShard> =
        shards(catalog).iter().map(|spec| PlanShard::new(spec.group, spec.replication_factor)).collect();
    let plan =
        slowdb_ring::plan(&nodes, &anew, catalog.virtual_nodes.max(1)).map_err(|error| error.to_string())?;
    let best: usize = plan.targets().map(|target| pairs(&target.replicas)).sum();
    let wanted = |spec: &SpecProbe| -> usize {
        // What stays on nodes that cannot be emptied is not where it belongs in any case.
        let stays = spec.replicas.iter().filter(|it| it.wanted != Wanted::Gone);
        let stays =
            stays.map(|it| it.node.as_str()).filter(|node| nodes.iter().any(|active| active.id == *node));
        pairs(&stays.collect::<Vec<_>>())
    };
    let here: usize = shards(catalog).iter().map(wanted).sum();
    if here > best {
        Err(format!("{here} pairs of replicas share a zone, {best} would have to"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(epoch: u64, groups: &[&[(u64, &str)]]) -> CatalogProbe {
        let node = |id: &str| NodeProbe {
            id: id.to_owned(),
            zone: None,
            weight: 1,
            state: NodeState::Active,
            down: false,
            leaving: false,
        };
        let spec = |(group, replicas): (u64, &[(u64, &str)])| {
            let replica = |(replica, node): &(u64, &str)| SpecReplica {
                replica: *replica,
                node: (*node).to_owned(),
                wanted: Wanted::Voter,
                standing: Standing::Voter,
            };
            SpecProbe {
                group,
                epoch: 1,
                collection: Some("c".to_owned()),
                replication_factor: replicas.len() as u32,
                leader: replicas.first().map_or_else(String::new, |(_, node)| (*node).to_owned()),
                replicas: replicas.iter().map(replica).collect(),
            }
        };
        let own: &[(u64, &str)] = &[];
        CatalogProbe {
            epoch,
            virtual_nodes: 3,
            nodes: ["a", "b"].map(node).to_vec(),
            groups: (0..).zip(std::iter::once(own).chain(groups.iter().copied())).map(spec).collect(),
            next_replica: 9,
        }
    }

    fn event(catalog: CatalogProbe, copies: usize) -> (u64, Event) {
        (0, Event::Catalog { node: 0, catalog: Box::new(catalog), copies, planned: String::new() })
    }

    #[test]
    fn no_more_is_copied_than_planned() {
        let first = catalog(1, &[&[(1, "a")], &[(2, "a")]]);
        let moved = catalog(2, &[&[(1, "a")], &[(3, "b")]]);
        let again = catalog(3, &[&[(4, "b")], &[(3, "b")]]);
        let run =
            |copies| check(&[event(first.clone(), copies), event(moved.clone(), 0), event(again.clone(), 0)]);
        assert_eq!(run(2), Ok(()));
        assert!(run(1).is_err());
        assert_eq!(moves(&[event(first, 0), event(moved, 0), event(again, 0)]), 2);
    }

    #[test]
    fn what_is_left_of_a_lost_shard_is_a_ground() {
        let mut lost = catalog(1, &[&[(1, "a"), (2, "b")]]);
        lost.nodes[0].down = true;
        lost.groups[1].replicas[1].wanted = Wanted::Gone;
        let mut less = lost.clone();
        less.groups[1].replicas.pop();
        assert!(Grounds::of(&lost) != Grounds::of(&less));
        lost.nodes[0].down = false;
        less.nodes[0].down = false;
        assert!(Grounds::of(&lost) == Grounds::of(&less), "what lives is copied from");
    }

    #[test]
    fn imbalance_in_the_end_is_found() {
        let check = |groups: &[&[(u64, &str)]]| check(&[event(catalog(1, groups), 0), (0, Event::Quiet)]);
        assert_eq!(check(&[&[(1, "a")], &[(2, "b")]]), Ok(()));
        assert!(check(&[&[(1, "a")], &[(2, "a")]]).is_err());
    }

    #[test]
    fn a_share_that_no_node_can_have_is_no_measure() {
        // One node is to have twice as much as the other, and both have to have the first two shards.
        let mut weighted = catalog(1, &[&[(1, "a"), (2, "b")], &[(3, "a"), (4, "b")], &[(5, "a")]]);
        weighted.nodes[0].weight = 2;
        assert_eq!(check(&[event(weighted.clone(), 0), (0, Event::Quiet)]), Ok(()));
        // Without those it is: one of three is not its share.
        let few: &[&[(u64, &str)]] = &[&[(1, "a")], &[(2, "b")], &[(3, "b")]];
        let few = CatalogProbe { nodes: weighted.nodes, ..catalog(1, few) };
        assert!(check(&[event(few, 0), (0, Event::Quiet)]).is_err());
    }

    #[test]
    fn shares_that_two_nodes_cannot_both_have_are_no_measure() {
        // Of weights 2, 2, 1, 1, 1, 1 the first two are to have 4 of 16 replicas each, one of every shard. The last shard
        // has only one.
        let groups: &[&[(u64, &str)]] = &[
            &[(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")],
            &[(6, "a"), (7, "b"), (8, "d"), (9, "e"), (10, "f")],
            &[(11, "a"), (12, "b"), (13, "c"), (14, "e"), (15, "f")],
            &[(16, "a")],
        ];
        let mut catalog = catalog(1, groups);
        let other = |id: &str| NodeProbe { id: id.to_owned(), ..catalog.nodes[0].clone() };
        catalog.nodes.extend(["c", "d", "e", "f"].map(other));
        catalog.nodes[0].weight = 2;
        catalog.nodes[1].weight = 2;
        assert_eq!(check(&[event(catalog, 0), (0, Event::Quiet)]), Ok(()));
    }
}
