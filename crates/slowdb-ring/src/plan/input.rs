//! What is: nodes and shards as given, checked, sorted and numbered.

use std::collections::HashMap;
use std::fmt;

use crate::plan::error::PlanError;

/// Replicas in one plan at most.
const REPLICAS_MAX: u64 = 1 << 24;

/// What may be done with a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// Holds its share.
    #[default]
    Active,
    /// Keeps the replicas and leads it has and gets no new ones. Only what a lowered factor makes surplus may go.
    Cordoned,
    /// Is to be emptied. What it holds is alive until it is held elsewhere.
    Draining,
    /// Is gone. What it held counts as lost and is rebuilt elsewhere.
    Down,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Down => "down",
        })
    }
}

/// A node as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanNode {
    /// Its id, unique. Decides where it stands on the ring.
    pub id: String,
    /// Its capacity relative to the others', at least 1.
    pub weight: u32,
    /// What it may fail together with: replicas of a shard avoid sharing one. Without it the node is alone in its.
    pub zone: Option<String>,
    /// What may be done with it.
    pub state: NodeState,
}

impl PlanNode {
    /// An active node of weight 1 in no zone.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), weight: 1, zone: None, state: NodeState::Active }
    }

    /// The same node with this weight.
    #[must_use]
    pub fn with_weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// The same node in this zone.
    #[must_use]
    pub fn with_zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// The same node in this state.
    #[must_use]
    pub fn with_state(self, state: NodeState) -> Self {
        Self { state, ..self }
    }
}

/// A shard and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanShard {
    /// Its id, unique. Decides where its walk on the ring starts.
    pub id: u64,
    /// Size of one replica in bytes. Told with the moves; decides nothing.
    pub bytes: u64,
    /// Replicas wanted, at least 1.
    pub factor: u32,
    /// Ids of the nodes that hold it, in any order. None: it is new, and its first placement is planned.
    pub replicas: Vec<String>,
    /// The one of them that leads, if any does.
    pub leader: Option<String>,
}

impl PlanShard {
    /// A new shard: empty, and not placed yet.
    #[must_use]
    pub fn new(id: u64, factor: u32) -> Self {
        Self { id, bytes: 0, factor, replicas: Vec::new(), leader: None }
    }

    /// The same shard with replicas of this size.
    #[must_use]
    pub fn with_bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    /// The same shard on these nodes, led by the first.
    #[must_use]
    pub fn on<S: Into<String>>(self, nodes: impl IntoIterator<Item = S>) -> Self {
        let replicas: Vec<String> = nodes.into_iter().map(Into::into).collect();
        Self { leader: replicas.first().cloned(), replicas, ..self }
    }
}

/// A shard with numbers for nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) id: u64,
    pub(crate) bytes: u64,
    pub(crate) factor: u32,
    /// Ascending.
    pub(crate) replicas: Vec<u32>,
    pub(crate) leader: Option<u32>,
}

/// Nodes by id and shards by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<PlanNode>,
    pub(crate) shards: Vec<Shard>,
}

impl Cluster {
    pub(crate) fn check(nodes: &[PlanNode], shards: &[PlanShard]) -> Result<Self, PlanError> {
        let nodes = check_nodes(nodes)?;
        let numbers: HashMap<&str, u32> = nodes.iter().map(|node| node.id.as_str()).zip(0..).collect();
        let wanted: u64 = shards.iter().map(|shard| u64::from(shard.factor).min(nodes.len() as u64)).sum();
        let present: u64 = shards.iter().map(|shard| shard.replicas.len() as u64).sum();
        if wanted.max(present).max(shards.len() as u64) > REPLICAS_MAX {
            return Err(PlanError::TooManyReplicas { replicas: wanted.max(present), max: REPLICAS_MAX });
        }
        let mut order: Vec<&PlanShard> = shards.iter().collect();
        order.sort_by_key(|shard| shard.id);
        if let Some(pair) = order.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(PlanError::DuplicateShard { shard: pair[0].id });
        }
        let shards = order.into_iter().map(|shard| check_shard(shard, &numbers)).collect::<Result<_, _>>()?;
        Ok(Self { nodes, shards })
    }

    pub(crate) fn state(&self, node: u32) -> NodeState {
        self.nodes[node as usize].state
    }

    pub(crate) fn id(&self, node: u32) -> &str {
        &self.nodes[node as usize].id
    }

    /// The shard's replicas on nodes in one of these states.
    pub(crate) fn on<'a>(
        &'a self,
        shard: &'a Shard,
        states: &'a [NodeState],
    ) -> impl Iterator<Item = u32> + 'a {
        shard.replicas.iter().copied().filter(|&node| states.contains(&self.state(node)))
    }

    /// Replicas that can be read.
    pub(crate) fn live(&self, shard: &Shard) -> usize {
        shard.replicas.iter().filter(|&&node| self.state(node) != NodeState::Down).count()
    }

    /// Whether there was data and no replica of it can be read.
    pub(crate) fn is_stranded(&self, shard: &Shard) -> bool {
        !shard.replicas.is_empty() && self.live(shard) == 0
    }
}

fn check_nodes(nodes: &[PlanNode]) -> Result<Vec<PlanNode>, PlanError> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    if nodes.is_empty() {
        return Err(PlanError::NoNodes);
    }
    if nodes[0].id.is_empty() {
        return Err(PlanError::EmptyNodeId);
    }
    if let Some(pair) = nodes.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(PlanError::DuplicateNode { node: pair[0].id.clone() });
    }
    if let Some(node) = nodes.iter().find(|node| node.weight == 0) {
        return Err(PlanError::ZeroWeight { node: node.id.clone() });
    }
    Ok(nodes)
}

fn check_shard(shard: &PlanShard, numbers: &HashMap<&str, u32>) -> Result<Shard, PlanError> {
    if shard.factor == 0 {
        return Err(PlanError::ZeroFactor { shard: shard.id });
    }
    let number = |node: &String| {
        let unknown = || PlanError::UnknownNode { shard: shard.id, node: node.clone() };
        numbers.get(node.as_str()).copied().ok_or_else(unknown)
    };
    let mut replicas = shard.replicas.iter().map(number).collect::<Result<Vec<u32>, _>>()?;
    replicas.sort_unstable();
    if let Some(pair) = replicas.windows(2).find(|pair| pair[0] == pair[1]) {
        let twice = shard.replicas.iter().find(|node| numbers.get(node.as_str()) == Some(&pair[0]));
        return Err(PlanError::DuplicateReplica {
            shard: shard.id,
            node: twice.cloned().unwrap_or_default(),
        });
    }
    let leader = shard.leader.as_ref().map(|leader| {
        let found = numbers.get(leader.as_str()).copied().filter(|leader| replicas.contains(leader));
        found.ok_or_else(|| PlanError::LeaderWithoutReplica { shard: shard.id, leader: leader.clone() })
    });
    let leader = leader.transpose()?;
    Ok(Shard { id: shard.id, bytes: shard.bytes, factor: shard.factor, replicas, leader })
}
