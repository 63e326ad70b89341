//! The cluster's state put together from what its nodes say: the object that `status --json` prints.
//!
//! Pure. Nothing is made up: what a node that did not answer would have said is absent, not zero.

use super::health;
use crate::operate::{Cluster, Move};
use crate::records::PositionView;
use serde::Serialize;
use slowdb_client::{ClientError, ClusterStatus, NodeReport};
use slowdb_proto::{CollectionInfo, GroupKind, GroupStatus, LateStatus, NodeStatus, Role, ScrubStatus};
use std::collections::BTreeMap;

/// The whole cluster.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    /// Every node answers and reaches the others, none is down, every group has a leader, no replicas differ, no node
    /// warns.
    pub(crate) healthy: bool,
    /// What is wrong, in words. Empty if healthy.
    pub(crate) problems: Vec<String>,
    /// What is not wrong, but should be known.
    pub(crate) notes: Vec<String>,
    pub(crate) cluster: String,
    pub(crate) epoch: u64,
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) catalog: GroupView,
    pub(crate) collections: Vec<CollectionView>,
    /// Every group that is not yet as it is wanted; absent if the catalog's leader did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) moves: Option<Vec<Move>>,
}

/// A node.
#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) zone: Option<String>,
    /// What is wanted of it, and whether its replicas are rebuilt elsewhere; absent if the catalog's leader
    /// did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) down: Option<bool>,
    pub(crate) reachable: bool,
    /// Why it is not reachable.
    pub(crate) error: Option<String>,
    /// What it says of itself, if it was reached.
    #[serde(flatten)]
    pub(crate) said: Option<NodeSaid>,
}

/// What a node says of itself.
#[derive(Debug, Serialize)]
pub(crate) struct NodeSaid {
    pub(crate) version: String,
    pub(crate) uptime_ms: u64,
    /// Shards it leads.
    pub(crate) leads: usize,
    /// Shards it has replicas of.
    pub(crate) shards: usize,
    pub(crate) log: LogView,
    pub(crate) space: SpaceView,
    pub(crate) scrub: ScrubView,
    pub(crate) peers: Vec<PeerView>,
    pub(crate) warnings: Vec<String>,
}

/// A node's write-ahead log.
#[derive(Debug, Serialize)]
pub(crate) struct LogView {
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
    /// Kept only because a follower still needs them.
    pub(crate) pinned_bytes: u64,
}

/// The room on a node's disk.
#[derive(Debug, Serialize)]
pub(crate) struct SpaceView {
    /// Absent if it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) free_bytes: Option<u64>,
    /// Below this writes to the node's shards are refused; 0 for never.
    pub(crate) low_bytes: u64,
    /// From this on they are taken again.
    pub(crate) enough_bytes: u64,
    pub(crate) refuses_writes: bool,
}

/// How far a node has come with reading its shards again.
#[derive(Debug, Serialize)]
pub(crate) struct ScrubView {
    /// 0: it does not.
    pub(crate) bytes_per_second: u64,
    /// How often it came through since it started.
    pub(crate) rounds: u64,
    /// Absent before the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finished_ms_ago: Option<u64>,
    /// Good records, bytes and damaged places of the last time.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) bad: u64,
    pub(crate) bytes_this_round: u64,
    /// Damaged places, by the last look at each shard, that were not mended since.
    pub(crate) damaged: u64,
    /// Records written anew from another replica since the node started.
    pub(crate) mended: u64,
}

impl ScrubView {
    fn of(status: &ScrubStatus) -> Self {
        let ScrubStatus {
            bytes_per_second,
            rounds,
            finished_ms_ago,
            records,
            bytes,
            bad,
            bytes_this_round,
            damaged,
            mended,
        } = *status;
        ScrubView {
            bytes_per_second,
            rounds,
            finished_ms_ago,
            records,
            bytes,
            bad,
            bytes_this_round,
            damaged,
            mended,
        }
    }
}

/// Another node as seen from one.
#[derive(Debug, Serialize)]
pub(crate) struct PeerView {
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) connected: bool,
}

/// A collection.
#[derive(Debug, Serialize)]
pub(crate) struct CollectionView {
    pub(crate) name: String,
    pub(crate) dimension: u32,
    pub(crate) metric: &'static str,
    pub(crate) replication_factor: u32,
    /// Records in all shards; absent if a shard has no replica that was reached.
    pub(crate) records: Option<u64>,
    pub(crate) shards: Vec<GroupView>,
}

/// Whether the replicas of a group hold the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Digests {
    /// All were reached, are at one position and have one digest.
    Equal,
    /// Two at the same position have different digests.
    Differ,
    /// Not all are at one position or were reached; none of those that can be compared differ.
    Unsettled,
}

/// A shard, or the catalog.
#[derive(Debug, Serialize)]
pub(crate) struct GroupView {
    /// Its number; absent for the catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shard: Option<u32>,
    pub(crate) group: u64,
    /// The node that says it leads, if one was reached.
    pub(crate) leader: Option<String>,
    pub(crate) term: u64,
    pub(crate) voters: usize,
    /// Whether a majority of the voters was reached.
    pub(crate) has_majority: bool,
    pub(crate) records: Option<u64>,
    pub(crate) digests: Digests,
    /// What is kept for writes that a failover overtook; absent if there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) late: Option<LateView>,
    pub(crate) replicas: Vec<ReplicaView>,
}

/// What a shard keeps for writes that a failover overtook.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LateView {
    /// Entries of its conflict log, as its leader has it.
    pub(crate) conflicts: u64,
    /// Those in which a value lost: they stay until they are resolved.
    pub(crate) losers: u64,
    pub(crate) loser_bytes: u64,
    pub(crate) tombstones: u64,
    /// Batches that wait on their nodes to be decided, over all replicas.
    pub(crate) quarantined: u64,
}

/// A replica.
#[derive(Debug, Serialize)]
pub(crate) struct ReplicaView {
    pub(crate) node: String,
    pub(crate) replica: u64,
    pub(crate) voter: bool,
    pub(crate) reachable: bool,
    /// What its node says of it, if it was reached.
    #[serde(flatten)]
    pub(crate) said: Option<ReplicaSaid>,
}

/// What a node says of its replica.
#[derive(Debug, Serialize)]
pub(crate) struct ReplicaSaid {
    pub(crate) role: &'static str,
    pub(crate) term: u64,
    pub(crate) applied: PositionView,
    /// Entries committed somewhere that it has not applied.
    pub(crate) lag: u64,
    pub(crate) digest: String,
    pub(crate) records: u64,
    pub(crate) first_index: u64,
    pub(crate) last_index: u64,
    pub(crate) committed: u64,
    pub(crate) checkpointed: u64,
    /// Bytes of log that the leader keeps because this replica still needs them.
    pub(crate) pinned_bytes: u64,
}

/// Where a replica is placed, and what its node says of it.
pub(crate) struct Placed<'a> {
    pub(crate) node: &'a str,
    pub(crate) replica: u64,
    pub(crate) voter: bool,
    pub(crate) said: Option<&'a GroupStatus>,
}

impl StatusView {
    pub(crate) fn new(status: &ClusterStatus) -> StatusView {
        let map = &status.map;
        let nodes: Vec<NodeView> = status
            .nodes
            .iter()
            .map(|report| {
                let info = map.nodes.iter().find(|node| node.id == report.node);
                node_view(report, info.and_then(|node| node.zone.clone()))
            })
            .collect();
        let collections: Vec<CollectionView> =
            map.collections.iter().map(|collection| collection_view(collection, status)).collect();
        let catalog = catalog_view(status);
        let problems = health::problems(&nodes, &catalog, &collections);
        StatusView {
            healthy: problems.is_empty(),
            problems,
            notes: health::notes(&nodes, &collections),
            cluster: map.cluster.to_string(),
            epoch: map.epoch,
            nodes,
            catalog,
            collections,
            moves: None,
        }
    }

    /// Adds what the catalog's leader says.
    pub(crate) fn with_cluster(mut self, cluster: Result<Cluster, ClientError>) -> StatusView {
        let cluster = match cluster {
            Ok(cluster) => cluster,
            Err(error) => {
                self.notes.push(format!("what is being moved is not known: {error}"));
                return self;
            }
        };
        for node in &mut self.nodes {
            if let Some(said) = cluster.nodes.iter().find(|said| said.node == node.node) {
                (node.state, node.down) = (Some(said.state), Some(said.down));
            }
        }
        self.problems.extend(self.nodes.iter().filter_map(health::down));
        self.healthy = self.problems.is_empty();
        self.moves = Some(cluster.moves);
        self
    }
}

fn node_view(report: &NodeReport, zone: Option<String>) -> NodeView {
    let said = report.status.as_ref().ok().map(|status| node_said(status));
    NodeView {
        node: report.node.clone(),
        address: report.address.clone(),
        zone,
        state: None,
        down: None,
        reachable: report.status.is_ok(),
        error: report.status.as_ref().err().map(ToString::to_string),
        said,
    }
}

fn node_said(status: &NodeStatus) -> NodeSaid {
    let shards = || status.groups.iter().filter(|group| matches!(group.kind, GroupKind::Shard { .. }));
    let peer = |peer: &slowdb_proto::PeerStatus| PeerView {
        node: peer.node.clone(),
        address: peer.address.clone(),
        connected: peer.connected,
    };
    NodeSaid {
        version: status.version.clone(),
        uptime_ms: status.uptime_ms,
        leads: shards().filter(|group| group.role == Role::Leader).count(),
        shards: shards().count(),
        log: LogView {
            bytes: status.log.bytes,
            segments: status.log.segments,
            pinned_bytes: status.log.pinned_bytes,
        },
        space: SpaceView {
            free_bytes: status.space.free_bytes,
            low_bytes: status.space.low_bytes,
            enough_bytes: status.space.enough_bytes,
            refuses_writes: status.space.refuses_writes,
        },
        scrub: ScrubView::of(&status.scrub),
        peers: status.peers.iter().map(peer).collect(),
        warnings: status.warnings.clone(),
    }
}

fn collection_view(info: &CollectionInfo, status: &ClusterStatus) -> CollectionView {
    let by_group = groups_by_node(status);
    let shards: Vec<GroupView> = info
        .shards
        .iter()
        .map(|shard| {
            let placed = shard.replicas.iter().map(|replica| Placed {
                node: &replica.node,
                replica: replica.replica,
                voter: replica.voter,
                said: by_group.get(&(shard.group, replica.node.as_str())).copied(),
            });
            group_view(Some(shard.shard), shard.group, &placed.collect::<Vec<_>>())
        })
        .collect();
    CollectionView {
        name: info.name.clone(),
        dimension: info.dimension,
        metric: info.metric.as_str(),
        replication_factor: info.replication_factor,
        records: shards.iter().map(|shard| shard.records).sum(),
        shards,
    }
}

/// The catalog is in no map: its replicas are those that nodes say they have.
fn catalog_view(status: &ClusterStatus) -> GroupView {
    let mut group = 0;
    let mut placed: Vec<Placed<'_>> = Vec::new();
    for report in &status.nodes {
        let groups = report.status.as_ref().map(|status| &status.groups[..]).unwrap_or_default();
        let said = groups.iter().find(|group| group.kind == GroupKind::Catalog);
        // A node that was not reached is taken for a voter: with few nodes all are.
        let voter = said.is_none_or(|said| said.role != Role::Learner);
        if said.is_some() || report.status.is_err() {
            group = said.map_or(group, |said| said.group);
            placed.push(Placed {
                node: &report.node,
                replica: said.map_or(0, |said| said.replica),
                voter,
                said,
            });
        }
    }
    group_view(None, group, &placed)
}

fn groups_by_node(status: &ClusterStatus) -> BTreeMap<(u64, &str), &GroupStatus> {
    let mut all = BTreeMap::new();
    for report in &status.nodes {
        if let Ok(status) = &report.status {
            all.extend(status.groups.iter().map(|group| ((group.group, report.node.as_str()), group)));
        }
    }
    all
}

fn late_view(late: Option<LateStatus>, placed: &[Placed<'_>]) -> Option<LateView> {
    let LateStatus { conflicts, losers, loser_bytes, tombstones, .. } = late?;
    let quarantined = placed.iter().filter_map(|p| p.said).map(|said| said.late.quarantined).sum();
    let late = LateView { conflicts, losers, loser_bytes, tombstones, quarantined };
    (conflicts + tombstones + quarantined > 0).then_some(late)
}

/// One group from what was said of its replicas.
pub(crate) fn group_view(shard: Option<u32>, group: u64, placed: &[Placed<'_>]) -> GroupView {
    let said = || placed.iter().filter_map(|p| p.said.map(|said| (p.node, said)));
    let leader = said().filter(|(_, said)| said.role == Role::Leader).max_by_key(|(_, said)| said.term);
    let committed = said().map(|(_, said)| said.committed).max().unwrap_or_default();
    let voters = placed.iter().filter(|p| p.voter).count();
    let reached = placed.iter().filter(|p| p.voter && p.said.is_some()).count();
    let most_applied = said().max_by_key(|(_, said)| said.applied);
    let pinned = |node: &str| {
        let followers = leader.iter().flat_map(|(_, leader)| &leader.followers);
        followers.filter(|f| f.node == node).map(|f| f.pinned_bytes).sum()
    };
    let replica = |p: &Placed<'_>| ReplicaView {
        node: p.node.to_owned(),
        replica: p.replica,
        voter: p.voter,
        reachable: p.said.is_some(),
        said: p.said.map(|said| ReplicaSaid {
            role: said.role.as_str(),
            term: said.term,
            applied: said.applied.into(),
            lag: committed.saturating_sub(said.applied.index),
            digest: hex(&said.digest),
            records: said.records,
            first_index: said.first_index,
            last_index: said.last_index,
            committed: said.committed,
            checkpointed: said.checkpointed,
            pinned_bytes: pinned(p.node),
        }),
    };
    GroupView {
        shard,
        group,
        leader: leader.map(|(node, _)| node.to_owned()),
        term: said().map(|(_, said)| said.term).max().unwrap_or_default(),
        voters,
        has_majority: reached > voters / 2,
        records: leader.or(most_applied).map(|(_, said)| said.records),
        digests: compare(placed),
        late: late_view(leader.or(most_applied).map(|(_, said)| said.late), placed),
        replicas: placed.iter().map(replica).collect(),
    }
}

/// Digests can be compared at equal positions only.
fn compare(placed: &[Placed<'_>]) -> Digests {
    let said: Vec<&GroupStatus> = placed.iter().filter_map(|p| p.said).collect();
    let mut pairs = said.iter().enumerate().flat_map(|(i, a)| said[..i].iter().map(move |b| (*a, *b)));
    if pairs.clone().any(|(a, b)| a.applied == b.applied && a.digest != b.digest) {
        Digests::Differ
    } else if said.len() == placed.len() && pairs.all(|(a, b)| a.applied == b.applied) {
        Digests::Equal
    } else {
        Digests::Unsettled
    }
}

fn hex(digest: &[u8; 16]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
