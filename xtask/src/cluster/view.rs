//! What a cluster says of itself, asked through the client, and waiting for it to say something.

use super::Cluster;
use anyhow::{Context, Result, bail};
use slowdb_client::{Client, ClientOptions};
use slowdb_net::{Identity, Role as CertRole};
use slowdb_proto::{GroupKind, GroupStatus, NodeStatus, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// For one round of asking all nodes.
const STATUS_WITHIN: Duration = Duration::from_secs(2);
/// For one attempt to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// What every node that answered says of itself.
#[derive(Clone, Debug)]
pub struct View {
    /// By node.
    pub nodes: BTreeMap<String, NodeStatus>,
}

/// A shard's replicas as they stand to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// All have applied the same position and have the same digest there.
    Equal,
    /// They have not applied the same position yet, or not all of them answered.
    Behind(String),
    /// They have applied the same position and differ: something is very wrong.
    Different(String),
}

/// Connects as a client of the cluster, trying again while it forms.
pub async fn connect(cluster: &Cluster, deadline: Duration) -> Result<Client> {
    let identity = Identity::load(&cluster.certs(), CertRole::Client)?;
    let start = Instant::now();
    loop {
        cluster.check_alive()?;
        let mut options = ClientOptions::new(cluster.addresses(), identity.clone());
        options.timeout = CONNECT_WITHIN;
        match Client::connect(options).await {
            Ok(_) => {
                // The short time-out was for finding it; from here on the default holds.
                return Ok(Client::connect(ClientOptions::new(cluster.addresses(), identity)).await?);
            }
            Err(error) if start.elapsed() > deadline => {
                return Err(error).context("the cluster does not answer");
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Waits until every node answers and every shard has a leader that all its replicas follow.
pub async fn wait_ready(cluster: &Cluster, deadline: Duration) -> Result<Client> {
    let start = Instant::now();
    let client = connect(cluster, deadline).await?;
    wait(&client, "every shard has a leader", deadline.saturating_sub(start.elapsed()), |view| {
        cluster.check_alive()?;
        Ok(view.is_complete(cluster))
    })
    .await?;
    Ok(client)
}

/// Looks until a condition holds.
pub async fn wait(
    client: &Client,
    what: &str,
    deadline: Duration,
    mut holds: impl FnMut(&View) -> Result<bool>,
) -> Result<View> {
    let start = Instant::now();
    loop {
        let view = View::of(client).await;
        if holds(&view)? {
            return Ok(view);
        }
        if start.elapsed() > deadline {
            bail!("{what}: not so after {:.0} s; {}", deadline.as_secs_f64(), view.describe());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until every group has all its replicas at one position with one digest. Replicas that differ at one
/// position are an error at once.
pub async fn wait_equal(client: &Client, cluster: &Cluster, deadline: Duration) -> Result<View> {
    let replicas = (cluster.shape().replication_factor as usize).min(cluster.shape().nodes);
    wait(client, "all replicas are equal", deadline, |view| {
        cluster.check_alive()?;
        for (group, agreement) in view.agreements(replicas) {
            match agreement {
                Agreement::Equal => {}
                Agreement::Behind(_) => return Ok(false),
                Agreement::Different(how) => bail!("the replicas of {group} differ: {how}"),
            }
        }
        Ok(view.is_complete(cluster))
    })
    .await
}

impl View {
    /// Asks every node; those that do not answer are left out.
    pub async fn of(client: &Client) -> View {
        let status = client.status(STATUS_WITHIN).await;
        let nodes = status.nodes.into_iter().filter_map(|report| Some((report.node, *report.status.ok()?)));
        View { nodes: nodes.collect() }
    }

    fn groups(&self) -> impl Iterator<Item = (&str, &GroupStatus)> {
        self.nodes
            .iter()
            .flat_map(|(node, status)| status.groups.iter().map(move |group| (node.as_str(), group)))
    }

    fn shards(&self) -> impl Iterator<Item = (&str, &GroupStatus)> {
        self.groups().filter(|(_, group)| matches!(group.kind, GroupKind::Shard { .. }))
    }

    /// The leader of each shard: the node that leads it in the highest term.
    pub fn leaders(&self) -> BTreeMap<u32, String> {
        let mut leaders: BTreeMap<u32, (u64, String)> = BTreeMap::new();
        for (node, group) in self.groups() {
            let GroupKind::Shard { shard, .. } = group.kind else { continue };
            if group.role == Role::Leader && leaders.get(&shard).is_none_or(|(term, _)| *term < group.term) {
                leaders.insert(shard, (group.term, node.to_owned()));
            }
        }
        leaders.into_iter().map(|(shard, (_, node))| (shard, node)).collect()
    }

    /// The node that leads most shards (the first of them if several do), and those shards.
    pub fn busiest_leader(&self) -> Option<(String, Vec<u32>)> {
        let mut led: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (shard, node) in self.leaders() {
            led.entry(node).or_default().push(shard);
        }
        led.into_iter().rev().max_by_key(|(_, shards)| shards.len())
    }

    /// Whether all nodes answered, all shards have a leader, and all replicas agree who it is.
    pub fn is_complete(&self, cluster: &Cluster) -> bool {
        let shape = cluster.shape();
        let leaders = self.leaders();
        let agree = |(_, group): (&str, &GroupStatus)| match group.kind {
            GroupKind::Shard { shard, .. } => {
                group.leader.is_some() && group.leader.as_ref() == leaders.get(&shard)
            }
            GroupKind::Catalog => group.leader.is_some(),
        };
        self.nodes.len() == cluster.ids().len()
            && leaders.len() == shape.num_shards as usize
            && self.groups().all(agree)
    }

    /// How the replicas of each group stand to each other, by the group's name.
    pub fn agreements(&self, replicas: usize) -> BTreeMap<String, Agreement> {
        let mut groups: BTreeMap<String, Vec<(&str, &GroupStatus)>> = BTreeMap::new();
        for (node, group) in self.groups() {
            groups.entry(name(&group.kind)).or_default().push((node, group));
        }
        groups.into_iter().map(|(name, members)| (name, agreement(&members, replicas))).collect()
    }

    /// Records in all shards, counted on their leaders.
    pub fn records(&self) -> u64 {
        self.shards().filter(|(_, group)| group.role == Role::Leader).map(|(_, group)| group.records).sum()
    }

    fn describe(&self) -> String {
        let leaderless: BTreeSet<String> = self
            .groups()
            .filter(|(_, group)| group.leader.is_none())
            .map(|(_, group)| name(&group.kind))
            .collect();
        let answered: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
        let unequal = self.agreements(0).into_iter().filter_map(|(name, agreement)| match agreement {
            Agreement::Equal => None,
            Agreement::Behind(how) | Agreement::Different(how) => Some(format!("{name}: {how}")),
        });
        let unequal: Vec<String> = unequal.take(4).collect();
        format!("answered: {answered:?}; without leader: {leaderless:?}; not equal: {unequal:?}")
    }
}

fn name(kind: &GroupKind) -> String {
    match kind {
        GroupKind::Catalog => "the catalog".into(),
        GroupKind::Shard { collection, shard } => format!("{collection}/{shard}"),
    }
}

fn agreement(members: &[(&str, &GroupStatus)], replicas: usize) -> Agreement {
    let states = || {
        let state = |(node, group): &(&str, &GroupStatus)| {
            let digest: String = group.digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{node} {digest}… at {}", group.applied)
        };
        members.iter().map(state).collect::<Vec<_>>().join(", ")
    };
    if members.len() < replicas {
        return Agreement::Behind(format!("only {} of {replicas} replicas: {}", members.len(), states()));
    }
    let Some(((_, first), rest)) = members.split_first() else { return Agreement::Equal };
    if rest.iter().any(|(_, group)| group.applied != first.applied) {
        return Agreement::Behind(states());
    }
    if rest.iter().any(|(_, group)| group.digest != first.digest) {
        return Agreement::Different(states());
    }
    Agreement::Equal
}
