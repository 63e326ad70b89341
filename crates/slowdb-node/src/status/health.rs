//! What is wrong with a cluster, in words for its operator.

use super::view::{CollectionView, Digests, GroupView, NodeView};
use slowdb_proto::limits::CONFLICT_BYTES_MAX;

/// What is wrong.
pub(crate) fn problems(
    nodes: &[NodeView],
    catalog: &GroupView,
    collections: &[CollectionView],
) -> Vec<String> {
    let mut problems = Vec::new();
    // Nodes warn of few replicas or voters, too: that is noted once, and is what was asked for.
    let noted: Vec<String> =
        collections.iter().filter(|c| is_thin(c)).map(|c| format!("collection '{}'", c.name)).collect();
    for node in nodes {
        if let Some(error) = &node.error {
            problems.push(format!("node {} does not answer: {error}", node.node));
        }
        let warnings = node.said.iter().flat_map(|said| &said.warnings);
        for warning in warnings.filter(|warning| !noted.iter().any(|noted| warning.starts_with(noted))) {
            problems.push(format!("node {}: {warning}", node.node));
        }
    }
    problems.extend(nodes.iter().filter_map(|node| unreached(node, nodes)));
    group_problems("the catalog", &[catalog], &mut problems);
    for collection in collections {
        let name = format!("collection '{}'", collection.name);
        group_problems(&name, &collection.shards.iter().collect::<Vec<_>>(), &mut problems);
        conflicts(collection, &mut problems);
    }
    problems
}

/// A node that answers here, and not those that it should work with. One that answers nobody is named once already.
fn unreached(node: &NodeView, nodes: &[NodeView]) -> Option<String> {
    let misses = |other: &&NodeView| {
        let peers = other.said.iter().flat_map(|said| &said.peers);
        peers.into_iter().any(|peer| peer.node == node.node && !peer.connected)
    };
    let missing: Vec<&str> = nodes.iter().filter(misses).map(|other| other.node.as_str()).collect();
    (node.reachable && !missing.is_empty())
        .then(|| format!("node {} answers here, but {} cannot reach it", node.node, missing.join(", ")))
}

/// A node that the catalog's leader takes for lost. One that does not answer here either is named already.
pub(crate) fn down(node: &NodeView) -> Option<String> {
    (node.reachable && node.down == Some(true)).then(|| {
        format!(
            "node {} answers here, but is DOWN for the catalog's leader, which has not heard of it for too long: its \
             replicas are rebuilt on others",
            node.node
        )
    })
}

fn fewest_voters(collection: &CollectionView) -> usize {
    collection.shards.iter().map(|shard| shard.voters).min().unwrap_or_default()
}

fn fewest_replicas(collection: &CollectionView) -> usize {
    collection.shards.iter().map(|shard| shard.replicas.len()).min().unwrap_or_default()
}

fn is_thin(collection: &CollectionView) -> bool {
    fewest_voters(collection) == 1 || fewest_replicas(collection) < collection.replication_factor as usize
}

/// Groups with the same trouble are named together, so that a dead node does not fill the screen.
fn group_problems(of: &str, groups: &[&GroupView], problems: &mut Vec<String>) {
    let lost = |group: &&&GroupView| !group.has_majority;
    let headless = |group: &&&GroupView| group.has_majority && group.leader.is_none();
    let differing = |group: &&&GroupView| group.digests == Digests::Differ;
    let mut report = |found: Vec<&&GroupView>, what: &str| {
        if !found.is_empty() {
            problems.push(format!("{of}: {}{what}", numbers(&found)));
        }
    };
    report(
        groups.iter().filter(lost).collect(),
        "most voters do not answer: no writes and no quorum reads, reads at 'one' go on",
    );
    report(groups.iter().filter(headless).collect(), "no leader: an election may be under way");
    for group in groups.iter().filter(differing) {
        let nodes: Vec<String> = group
            .replicas
            .iter()
            .filter_map(|r| r.said.as_ref().map(|said| format!("{} {}", r.node, &said.digest[..8])))
            .collect();
        report(vec![group], &format!("replicas differ at the same position ({})", nodes.join(", ")));
    }
}

fn numbers(groups: &[&&GroupView]) -> String {
    let numbers: Vec<String> = groups.iter().filter_map(|g| g.shard.map(|shard| shard.to_string())).collect();
    match numbers.len() {
        0 => String::new(),
        1 => format!("shard {}: ", numbers[0]),
        _ => format!("shards {}: ", numbers.join(", ")),
    }
}

/// Share of the room for losers, in percent, above which a conflict log is nearly full.
const NEARLY_FULL_PERCENT: u64 = 80;

/// Conflicts that somebody has to resolve, the log of a shard that has hardly any room for more.
fn conflicts(collection: &CollectionView, problems: &mut Vec<String>) {
    let name = &collection.name;
    for shard in &collection.shards {
        let (Some(late), Some(number)) = (&shard.late, shard.shard) else { continue };
        let percent = late.loser_bytes * 100 / CONFLICT_BYTES_MAX as u64;
        if percent >= NEARLY_FULL_PERCENT {
            problems.push(format!(
                "collection '{name}': the conflict log of shard {number} is {percent} % full; once it is full, writes that \
                 a failover overtook wait on their nodes. See: conflicts list"
            ));
        }
    }
}

/// Conflicts of a collection in which a value lost.
fn unresolved(collection: &CollectionView) -> Option<String> {
    let losers: u64 =
        collection.shards.iter().filter_map(|shard| shard.late.as_ref()).map(|late| late.losers).sum();
    (losers > 0).then(|| {
        format!(
            "collection '{}': {losers} values lost in conflicts of writes at 'one' and are kept until they are replayed or \
             discarded. See: conflicts list",
            collection.name
        )
    })
}

/// What is as it should be, and has consequences all the same.
pub(crate) fn notes(nodes: &[NodeView], collections: &[CollectionView]) -> Vec<String> {
    let mut notes = Vec::new();
    for collection in collections {
        notes.extend(unresolved(collection));
        let name = &collection.name;
        let (voters, replicas) = (fewest_voters(collection), fewest_replicas(collection));
        if voters == 1 && replicas == 1 {
            notes.push(format!(
                "collection '{name}': one replica of each shard, so 'quorum' means one disk: \
                 what is on a lost disk is lost"
            ));
        } else if voters == 1 {
            notes.push(format!(
                "collection '{name}': one voter for each shard, so 'quorum' means one disk, and no other node \
                 takes over; the other replicas are copies that follow"
            ));
        }
        let (wanted, possible) = (collection.replication_factor as usize, nodes.len());
        if replicas < wanted {
            notes.push(format!(
                "collection '{name}': {wanted} replicas are wanted, {replicas} are placed on {possible} node(s)"
            ));
        }
    }
    notes
}
