//! `status` for people: first whether all is well, then the tables.

use super::view::{
    CollectionView, Digests, GroupView, LateView, NodeView, ReplicaView, ScrubView, StatusView,
};
use crate::operate::human_moves;
use crate::output::{bytes, table};

pub(crate) fn render(view: &StatusView) -> String {
    let mut parts = vec![summary(view)];
    if !view.problems.is_empty() {
        parts.push(list("!", &view.problems));
    }
    if !view.notes.is_empty() {
        parts.push(list("-", &view.notes));
    }
    parts.push(nodes(&view.nodes));
    parts.extend(view.moves.as_ref().and_then(|moves| human_moves(moves)));
    parts.push(format!("catalog\n{}", groups(&[&view.catalog])));
    parts.extend(view.collections.iter().map(collection));
    parts.join("\n\n")
}

fn list(mark: &str, lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{mark} {line}")).collect();
    lines.join("\n")
}

fn summary(view: &StatusView) -> String {
    let shards: Vec<&GroupView> = view.collections.iter().flat_map(|c| &c.shards).collect();
    let reached = view.nodes.iter().filter(|node| node.reachable).count();
    let led = shards.iter().filter(|shard| shard.leader.is_some()).count();
    let equal = shards.iter().filter(|shard| shard.digests == Digests::Equal).count();
    let state = if view.healthy { "healthy" } else { "NOT healthy" };
    format!(
        "cluster {} is {state}: {reached} of {} nodes answer, {led} of {all} shards have a leader, \
         replicas are equal in {equal} of {all}",
        view.cluster,
        view.nodes.len(),
        all = shards.len()
    )
}

fn nodes(nodes: &[NodeView]) -> String {
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let mut row = vec![
                node.node.clone(),
                node.address.clone(),
                node.zone.clone().unwrap_or_else(|| "-".to_owned()),
                state(node),
            ];
            if let Some(said) = &node.said {
                let lost: Vec<&str> =
                    said.peers.iter().filter(|p| !p.connected).map(|p| p.node.as_str()).collect();
                row.extend([
                    said.leads.to_string(),
                    said.shards.to_string(),
                    bytes(said.log.bytes),
                    bytes(said.log.pinned_bytes),
                    said.space.free_bytes.map_or_else(|| "?".to_owned(), bytes),
                    scrubbed(&said.scrub),
                    duration(said.uptime_ms),
                    if lost.is_empty() { "all".to_owned() } else { format!("not {}", lost.join(", ")) },
                ]);
            }
            row
        })
        .collect();
    let head = [
        "NODE",
        "ADDRESS",
        "ZONE",
        "STATE",
        "LEADS",
        "SHARDS",
        "LOG",
        "FOR FOLLOWERS",
        "FREE",
        "SCRUBBED",
        "UP",
        "REACHES",
    ];
    table(&head, &[4, 5, 6, 7, 8, 9, 10], &rows)
}

/// Whether it answers, and what else is to be known of it.
fn state(node: &NodeView) -> String {
    let mut words = vec![if node.reachable { "up" } else { "NO ANSWER" }];
    words.extend(node.said.as_ref().filter(|said| said.space.refuses_writes).map(|_| "LOW SPACE"));
    words.extend(node.down.filter(|is_down| *is_down).map(|_| "DOWN"));
    words.extend(node.state.filter(|state| *state != "active"));
    words.join(", ")
}

/// When all its shards were last read and checked, or how far that is.
fn scrubbed(scrub: &ScrubView) -> String {
    let damaged = if scrub.damaged > 0 { format!(", {} DAMAGED", scrub.damaged) } else { String::new() };
    let when = match scrub.finished_ms_ago {
        _ if scrub.bytes_per_second == 0 => "off".to_owned(),
        Some(ms) => format!("{} ago", duration(ms)),
        None => format!("{} so far", bytes(scrub.bytes_this_round)),
    };
    let mended = if scrub.mended > 0 { format!(", {} mended", scrub.mended) } else { String::new() };
    format!("{when}{damaged}{mended}")
}

fn duration(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3_600 => format!("{} min", s / 60),
        s @ 3_600..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

fn collection(collection: &CollectionView) -> String {
    let records = collection.records.map_or_else(|| "unknown".to_owned(), |records| records.to_string());
    format!(
        "collection '{}': {records} records of {} components, {}, {} replicas wanted\n{}",
        collection.name,
        collection.dimension,
        collection.metric,
        collection.replication_factor,
        groups(&collection.shards.iter().collect::<Vec<_>>())
    )
}

fn groups(groups: &[&GroupView]) -> String {
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|group| {
            let digests = match group.digests {
                Digests::Equal => "equal",
                Digests::Differ => "DIFFER",
                Digests::Unsettled => "unsettled",
            };
            let replicas: Vec<String> = group.replicas.iter().map(replica).collect();
            vec![
                group.shard.map_or_else(|| "-".to_owned(), |shard| shard.to_string()),
                group.leader.clone().unwrap_or_else(|| "NONE".to_owned()),
                group.term.to_string(),
                group.records.map_or_else(|| "?".to_owned(), |records| records.to_string()),
                digests.to_owned(),
                group.late.as_ref().map_or_else(|| "-".to_owned(), late),
                replicas.join("  "),
            ]
        })
        .collect();
    table(
        &["SHARD", "LEADER", "TERM", "RECORDS", "DIGESTS", "LATE", "REPLICAS (POSITION, LAG)"],
        &[0, 2, 3],
        &rows,
    )
}

/// What is kept for writes that a failover overtook, as far as there is any.
fn late(late: &LateView) -> String {
    let parts = [
        (late.conflicts, "conflicts"),
        (late.losers, "losers"),
        (late.tombstones, "tombstones"),
        (late.quarantined, "waiting"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

fn replica(replica: &ReplicaView) -> String {
    let learner = if replica.voter { "" } else { " learner" };
    match &replica.said {
        None => format!("{}{learner} (no answer)", replica.node),
        Some(said) if said.lag == 0 => format!("{}{learner} ({})", replica.node, said.applied),
        Some(said) => format!("{}{learner} ({}, {} behind)", replica.node, said.applied, said.lag),
    }
}
