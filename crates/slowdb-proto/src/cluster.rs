//! Joining a cluster, looking at it, and changing it.

use crate::map::NodeInfo;
use crate::request::{ClusterId, Metric};
use crate::settings::{CollectionSettings, SettingsChange};
use rkyv::{Archive, Deserialize, Serialize};

/// A node that wants to be part of the cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Its id.
    pub node: String,
    /// Drawn when its storage path was made: tells a node that comes back from one that only has its name.
    pub storage: [u8; 16],
    /// Where it is to be found, `host:port`.
    pub address: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// How much it can hold, relative to the others; at least 1.
    pub weight: u32,
}

/// To [`JoinRequest`]: it is part of the cluster now.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct JoinReply {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its replica of the catalog.
    pub replica: u64,
    /// All nodes.
    pub nodes: Vec<NodeInfo>,
}

/// What is wanted of a node.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum NodeState {
    /// Holds its share.
    #[default]
    Active,
    /// Keeps what it holds, and gets nothing new.
    Cordoned,
    /// Is to be emptied.
    Draining,
}

impl NodeState {
    /// As it is spelt in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Active => "active",
            NodeState::Cordoned => "cordoned",
            NodeState::Draining => "draining",
        }
    }
}

/// What is wanted of a replica.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// It has a vote.
    Voter,
    /// It follows without a vote.
    Learner,
    /// It is to go.
    Gone,
}

impl Wanted {
    /// As it is spelt in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Wanted::Voter => "voter",
            Wanted::Learner => "learner",
            Wanted::Gone => "gone",
        }
    }
}

/// What a replica is in the committed configuration of its group, as it was last reported.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// No member, yet or any more.
    None,
    /// Follows without a vote.
    Learner,
    /// Votes.
    Voter,
    /// In the middle of a joint configuration.
    Changing,
}

impl Standing {
    /// As it is spelt in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::None => "none",
            Standing::Learner => "learner",
            Standing::Voter => "voter",
            Standing::Changing => "changing",
        }
    }
}

/// The catalog, as its leader sees it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: ClusterId,
    /// Grows with every change of the catalog.
    pub epoch: u64,
    /// The node that answered: it leads the catalog.
    pub leader: String,
    /// All nodes, sorted by id.
    pub nodes: Vec<NodeView>,
    /// Every group that is not yet as it is wanted, most endangered first.
    pub moves: Vec<MoveView>,
    /// What will be moved after that, as things stand.
    pub planned: Vec<PlannedMove>,
    /// Shards that have lost so many replicas that they cannot be written.
    pub lost: Vec<String>,
}

/// A node, as the catalog's leader sees it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its id.
    pub id: String,
    /// Where it listens, `host:port`.
    pub address: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// How much it can hold, relative to the others.
    pub weight: u32,
    /// What is wanted of it.
    pub state: NodeState,
    /// It has been silent for too long: its replicas are rebuilt elsewhere.
    pub down: bool,
    /// Milliseconds since it was heard.
    pub silent_ms: u64,
    /// Replicas of shards that it holds.
    pub replicas: u32,
    /// Shards that it is preferred to lead.
    pub leads: u32,
    /// What it is in the catalog's own group.
    pub catalog: Standing,
    /// Id of its storage path; not known of a founding node until it was heard.
    pub storage: Option<[u8; 16]>,
}

/// A group on its way from what it is to what is wanted.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct MoveView {
    /// The group.
    pub group: u64,
    /// Collection and number of the shard; `None` for the catalog.
    pub shard: Option<(String, u32)>,
    /// Its replicas.
    pub replicas: Vec<ReplicaView>,
    /// Why it changes.
    pub reason: String,
}

/// A replica on its way.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ReplicaView {
    /// Never used again once it is gone.
    pub replica: u64,
    /// The node it is on.
    pub node: String,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// What it is.
    pub standing: Standing,
    /// Bytes of it that have arrived, if it is being copied.
    pub bytes: u64,
    /// About how many there are in all.
    pub of_bytes: u64,
}

/// A replica that is to be made, or to go.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PlannedMove {
    /// The collection.
    pub collection: String,
    /// The shard.
    pub shard: u32,
    /// The node that gets a replica.
    pub to: Option<String>,
    /// The node that loses one.
    pub from: Option<String>,
    /// About how many bytes have to be copied.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

/// A change that an operator asks for.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// What is wanted of a node.
    SetNodeState {
        /// The node.
        node: String,
        /// From now on.
        state: NodeState,
    },
    /// A node is part of the cluster no more. It has to be without replicas.
    RemoveNode {
        /// The node.
        node: String,
        /// It is down and will not come back, and what only it kept is given up. A node that is up is removed once it has
        /// said that it keeps nothing.
        lost: bool,
    },
    /// Look for a better placement now.
    Rebalance,
    /// A new collection.
    CreateCollection {
        /// Its name.
        name: String,
        /// Components of each vector.
        dimension: u32,
        /// How similarity is measured.
        metric: Metric,
        /// Its shards.
        num_shards: u32,
        /// Replicas of each shard.
        replication_factor: u32,
        /// Levels of requests that name none, and the lowest that are taken.
        settings: CollectionSettings,
    },
    /// A collection and all its records are gone.
    DropCollection {
        /// Its name.
        name: String,
    },
    /// A collection is to be otherwise; what is not given stays.
    AlterCollection {
        /// Its name.
        name: String,
        /// Replicas of each shard.
        replication_factor: Option<u32>,
        /// Levels of requests that name none, and the lowest that are taken.
        settings: SettingsChange,
    },
}

/// Which of those that have a name one after the other.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// The collection whose first shard has this group.
    Collection(u64),
    /// The node whose storage path has this id.
    Node([u8; 16]),
}

/// An operator's request.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct AdminRequest {
    /// What to do.
    pub admin: Admin,
    /// Which collection or node it is about, so that a request that is sent again cannot meet a successor; `None`: whichever
    /// has the name.
    pub meant: Option<Meant>,
    /// Only say what would come of it.
    pub dry_run: bool,
}

/// To [`AdminRequest`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct AdminReply {
    /// Whether anything is different now.
    pub changed: bool,
    /// What will be moved because of it, and otherwise, as things stand.
    pub moves: Vec<PlannedMove>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What is to be explained.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Explain {
    /// Why are its replicas where they are, and what happens next?
    Shard {
        /// The collection.
        collection: String,
        /// The shard.
        shard: u32,
    },
    /// Why does it hold what it holds, and what happens next?
    Node {
        /// The node.
        node: String,
    },
}
