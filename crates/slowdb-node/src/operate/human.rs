//! What the operator's commands print for people.
//!
//! Pure.

use super::view::{Changed, Cluster, Collections, Move, Planned, Replica};
use crate::output::{bytes, table};
use slowdb_proto::Admin;

/// Most planned moves that are listed.
const PLANNED_MAX: usize = 20;

/// The whole view: nodes, what is moved, what will be.
pub(crate) fn cluster(view: &Cluster) -> String {
    let mut parts =
        vec![format!("cluster {}: {} leads the catalog; {}", view.cluster, view.leader, summary(view))];
    if !view.lost.is_empty() {
        parts.push(list("!", &view.lost));
    }
    parts.push(nodes(view));
    parts.extend(moves(&view.moves));
    if !view.planned.is_empty() {
        parts.push(format!("planned next\n{}", planned(&view.planned)));
    }
    parts.join("\n\n")
}

/// What is on its way, in a few words.
pub(crate) fn summary(view: &Cluster) -> String {
    match (view.moves.len(), view.planned.len()) {
        (0, 0) => "settled".to_owned(),
        (moving, planned) => format!("groups on their way: {moving}, moves planned: {planned}"),
    }
}

/// One line for the whole, and one for each replica on its way.
pub(crate) fn lines(view: &Cluster) -> Vec<String> {
    let mut lines = vec![summary(view)];
    for it in &view.moves {
        for replica in it.replicas.iter().filter(|replica| !replica.is_there) {
            let arrived = match arrived(replica) {
                Some(arrived) => format!(": {arrived}{}{}", comma(rate(replica)), comma(left(replica))),
                None => String::new(),
            };
            let (node, is, wanted) = (&replica.node, replica.standing, replica.wanted);
            lines.push(format!("{} on {node}, {is} to be {wanted}{arrived} ({})", group(it), it.reason));
        }
    }
    lines
}

fn comma(text: Option<String>) -> String {
    text.map(|text| format!(", {text}")).unwrap_or_default()
}

fn list(mark: &str, lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{mark} {line}")).collect();
    lines.join("\n")
}

fn nodes(view: &Cluster) -> String {
    let rows: Vec<Vec<String>> = view
        .nodes
        .iter()
        .map(|node| {
            vec![
                node.node.clone(),
                node.address.clone(),
                node.zone.clone().unwrap_or_else(|| "-".to_owned()),
                node.weight.to_string(),
                format!("{}{}", node.state, if node.down { ", DOWN" } else { "" }),
                node.replicas.to_string(),
                node.should_lead.to_string(),
                node.catalog.to_owned(),
                format!("{:.1} s ago", node.silent_ms as f64 / 1e3),
            ]
        })
        .collect();
    let head = ["NODE", "ADDRESS", "ZONE", "WEIGHT", "STATE", "REPLICAS", "SHOULD LEAD", "CATALOG", "HEARD"];
    table(&head, &[3, 5, 6, 8], &rows)
}

/// Every replica on its way; `None` if there is none.
pub(crate) fn moves(moves: &[Move]) -> Option<String> {
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut rows = Vec::new();
    for it in moves {
        for replica in it.replicas.iter().filter(|replica| !replica.is_there) {
            rows.push(vec![
                group(it),
                replica.node.clone(),
                replica.standing.to_owned(),
                replica.wanted.to_owned(),
                dash(arrived(replica)),
                dash(rate(replica)),
                dash(left(replica)),
                it.reason.clone(),
            ]);
        }
    }
    let head = ["SHARD", "NODE", "IS", "WANTED", "ARRIVED", "RATE", "TIME", "WHY"];
    (!rows.is_empty()).then(|| format!("moving\n{}", table(&head, &[4, 5, 6], &rows)))
}

fn group(it: &Move) -> String {
    match (&it.collection, it.shard) {
        (Some(collection), Some(shard)) => format!("{collection}/{shard}"),
        _ => "catalog".to_owned(),
    }
}

fn arrived(replica: &Replica) -> Option<String> {
    let (some, all) = (bytes(replica.bytes), bytes(replica.of_bytes));
    (replica.of_bytes > 0).then(|| format!("{some} of {all}"))
}

fn rate(replica: &Replica) -> Option<String> {
    replica.bytes_per_second.map(|rate| format!("{}/s", bytes(rate)))
}

fn left(replica: &Replica) -> Option<String> {
    replica.seconds_left.map(|seconds| format!("{} left", time(seconds)))
}

/// Two units at most: `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
fn time(seconds: u64) -> String {
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {big_unit}"),
        _ => format!("{big} {big_unit} {small} {small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn planned(moves: &[Planned]) -> String {
    let dash = |node: &Option<String>| node.clone().unwrap_or_else(|| "-".to_owned());
    let row = |it: &Planned| {
        let shard = format!("{}/{}", it.collection, it.shard);
        vec![shard, dash(&it.from), dash(&it.to), bytes(it.bytes), it.reason.clone()]
    };
    let rows: Vec<Vec<String>> = moves.iter().take(PLANNED_MAX).map(row).collect();
    let table = table(&["SHARD", "FROM", "TO", "BYTES", "WHY"], &[3], &rows);
    match moves.len().saturating_sub(PLANNED_MAX) {
        0 => table,
        more => format!("{table}\n… and {more} more"),
    }
}

/// What came of a change, or would.
pub(crate) fn changed(admin: &Admin, changed: &Changed) -> String {
    let mut lines = vec![sentence(admin, changed)];
    if !changed.notes.is_empty() {
        lines.push(list("-", &changed.notes));
    }
    lines.push(match (changed.moves.len(), changed.moves.iter().map(|it| it.bytes).sum::<u64>()) {
        (0, _) => "nothing is to be moved".to_owned(),
        (count, sum) => format!("moves planned: {count}, {}\n{}", bytes(sum), planned(&changed.moves)),
    });
    lines.join("\n")
}

fn sentence(admin: &Admin, changed: &Changed) -> String {
    let (would, done) = match admin {
        Admin::SetNodeState { node, state } => {
            let state = state.as_str();
            (format!("node {node} would be {state}"), format!("node {node} is {state} now"))
        }
        Admin::RemoveNode { node, .. } => {
            (format!("node {node} would be removed"), format!("node {node} is removed"))
        }
        Admin::Rebalance => {
            ("a better placement would be looked for".to_owned(), "a better placement is made".to_owned())
        }
        Admin::CreateCollection { name, .. } => {
            (format!("collection '{name}' would be made"), format!("collection '{name}' is made"))
        }
        Admin::DropCollection { name } => (
            format!("collection '{name}' would be dropped with all its records"),
            format!("collection '{name}' is dropped"),
        ),
        Admin::AlterCollection { name, .. } => {
            (format!("collection '{name}' would be altered"), format!("collection '{name}' is altered"))
        }
    };
    match (changed.dry_run, changed.changed) {
        (true, _) => format!("dry run: {would}; nothing was changed"),
        (false, true) => done,
        (false, false) if *admin == Admin::Rebalance => "a better placement is looked for".to_owned(),
        (false, false) => "nothing had to be changed".to_owned(),
    }
}

/// All collections.
pub(crate) fn collections(all: &Collections) -> String {
    let rows: Vec<Vec<String>> = all
        .collections
        .iter()
        .map(|it| {
            let (shards, replicas) = (it.num_shards.to_string(), it.replication_factor.to_string());
            let write = format!("{} (from {})", it.write_level, it.write_floor);
            let read = format!("{} (from {})", it.read_level, it.read_floor);
            vec![
                it.name.clone(),
                it.dimension.to_string(),
                it.metric.to_owned(),
                shards,
                replicas,
                write,
                read,
                it.conflicts.to_owned(),
            ]
        })
        .collect();
    let heads = ["NAME", "DIMENSION", "METRIC", "SHARDS", "REPLICAS WANTED", "WRITES", "READS", "CONFLICTS"];
    table(&heads, &[1, 3, 4], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (200, "3 min 20 s"),
            (7_500, "2 h 5 min"),
            (273_600, "3 d 4 h"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
