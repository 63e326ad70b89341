//! What makes a storage path this node's: a small file that says whose it is.
//!
//! `identity` holds `magic "SDBI", version u32, length u64, xxh3-64 of the rest u64`, then an rkyv archive of
//! [`Identity`]. It is replaced by write, sync, rename, sync of the directory.
//!
//! It also remembers the storage id of every other node: a node that comes back with an empty or foreign
//! disk under a known name shows another one and is refused, so that it can never vote away what it forgot.
//!
//! A node that was away for long may not know the nodes that lead by now, and only they can tell it of themselves: who
//! shows a later catalog of the same cluster is believed. A node that was removed has none that is later than its removal.
//! A node that is at another address than the catalog says tells that as well, and is spoken to there at once; the
//! catalog's leader writes it down.

use crate::catalog::{Catalog, CatalogNode};
use crate::config::is_address;
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_disk::Disk;
use slowdb_proto::{ClusterId, Metric};
use slowdb_repl::NodeId;
use slowdb_repl::transport::{Gate, Hello};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sealed;

pub(crate) const FILE: &str = "identity";
const MAGIC: [u8; 4] = *b"SDBI";

/// What a cluster is founded with. Without nodes for one that joined a cluster that others founded.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Founding {
    /// Node id and address of each founding node, sorted by id.
    pub nodes: Vec<(String, String)>,
    /// Zone of this node; it may change from start to start.
    pub zone: Option<String>,
    /// Dimension of the collection `default`.
    pub dimension: u32,
    /// Its metric.
    pub metric: Metric,
    /// Its shards.
    pub num_shards: u32,
    /// Points of each node on the ring.
    pub virtual_nodes: u32,
    /// Replicas wanted for each shard.
    pub replication_factor: u32,
    /// How much a founding node can hold, relative to nodes that join later.
    pub weight: u32,
}

/// Whose storage path it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: String,
    /// Drawn when the path was made.
    pub storage: [u8; 16],
    /// The cluster, once the node is part of one.
    pub cluster: Option<ClusterId>,
    /// What it was started with first.
    pub founding: Founding,
    /// Its replica of the catalog, if it joined a cluster that was there already.
    pub joined: Option<u64>,
    /// Id and address of the other nodes, as they were last known.
    pub known: Vec<(String, String)>,
    /// Node id → storage id of every other node ever spoken to.
    pub peers: BTreeMap<String, [u8; 16]>,
}

/// Why a storage path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error("{FILE}: {0}")]
    Io(#[from] std::io::Error),
    /// It is damaged.
    #[error("{FILE}: {0}")]
    Damaged(String),
}

/// Says what is wrong with the identity of a storage path that is in use, and changes nothing.
pub(crate) fn check(disk: &dyn Disk) -> Result<(), String> {
    match sealed::read(disk, FILE, MAGIC) {
        Ok(None) => Err(format!("{FILE}: it is missing")),
        Ok(Some(content)) => {
            let identity = rkyv::from_bytes::<Identity, RkyvError>(&content);
            identity.map(|_| ()).map_err(|error| format!("{FILE}: {error}"))
        }
        Err(error) => Err(format!("{FILE}: {error}")),
    }
}

impl Identity {
    /// Reads the identity of a storage path, and makes sure that it stays; `None` if it has none.
    pub fn load(disk: &dyn Disk) -> Result<Option<Self>, IdentityError> {
        let Some(bytes) = sealed::recover(disk, FILE, MAGIC).map_err(|error| match error {
            sealed::SealError::Io(error) => IdentityError::Io(error),
            sealed::SealError::Damaged(what) => IdentityError::Damaged(what),
        })?
        else {
            return Ok(None);
        };
        let identity = rkyv::from_bytes::<Identity, RkyvError>(&bytes);
        identity.map(Some).map_err(|error| IdentityError::Damaged(error.to_string()))
    }

    /// Writes it, durably.
    pub fn save(&self, disk: &dyn Disk) -> Result<(), IdentityError> {
        let bytes = rkyv::to_bytes::<RkyvError>(self).map_err(|e| IdentityError::Damaged(e.to_string()))?;
        Ok(sealed::write(disk, FILE, MAGIC, &bytes)?)
    }
}

/// The identity of a running node, shared between its core and its transport.
#[derive(Clone)]
pub struct Own {
    disk: Arc<dyn Disk>,
    instance: u64,
    identity: Arc<Mutex<Identity>>,
    /// Zones of the other nodes that said theirs.
    zones: Arc<Mutex<BTreeMap<String, String>>>,
    /// Addresses of nodes, this one included, that were started at another one than they had.
    moved: Arc<Mutex<BTreeMap<String, String>>>,
    seen: Arc<Mutex<Seen>>,
}

/// How far this node has followed the catalog.
#[derive(Default)]
struct Seen {
    epoch: u64,
    /// Where the catalog says that it is.
    address: String,
    /// It met a node that its catalog does not know.
    met: bool,
}

/// What a node says of itself beside its name: its zone, and then, each in a line, the epoch of its catalog, its address,
/// and [`MOVED`] if the address is what it was started with and not what its catalog says; if it has them and they fit.
struct Said<'a> {
    zone: &'a str,
    epoch: u64,
    address: &'a str,
    moved: bool,
}

const MOVED: &str = "moved";

/// A longer note would not be taken by the other side.
const NOTE_BYTES_MAX: usize = 256;

impl<'a> Said<'a> {
    fn write(&self) -> String {
        let Said { zone, epoch, address, moved } = self;
        let moved = if *moved { format!("\n{MOVED}") } else { String::new() };
        let note = format!("{zone}\n{epoch}\n{address}{moved}");
        if *epoch > 0 && note.len() <= NOTE_BYTES_MAX { note } else { (*zone).to_owned() }
    }

    fn read(note: &'a str) -> Self {
        let mut lines = note.split('\n');
        let zone = lines.next().unwrap_or_default();
        let epoch = lines.next().and_then(|epoch| epoch.parse().ok()).unwrap_or_default();
        let address = lines.next().unwrap_or_default();
        Said { zone, epoch, address, moved: lines.next() == Some(MOVED) && is_address(address) }
    }
}

impl Own {
    /// `instance` is drawn anew for each run.
    pub fn new(disk: Arc<dyn Disk>, identity: Identity, instance: u64) -> Self {
        Own {
            disk,
            instance,
            identity: Arc::new(Mutex::new(identity)),
            zones: Arc::default(),
            moved: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// This node was started at this address: should the catalog say another one, it is to be changed.
    #[must_use]
    pub fn at(self, address: Option<String>) -> Self {
        let node = self.lock().node.clone();
        self.moved().extend(address.map(|address| (node, address)));
        self
    }

    fn moved(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Addresses that nodes were started at, as far as they say so, this one included.
    pub(crate) fn addresses(&self) -> BTreeMap<String, String> {
        self.moved().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other nodes, if one is among them that the catalog does not know yet and that was not asked for before.
    pub(crate) fn take_met(&self) -> Option<Vec<(String, String)>> {
        let met = std::mem::take(&mut self.seen().met);
        met.then(|| self.lock().known.clone())
    }

    /// A copy of the identity.
    pub fn get(&self) -> Identity {
        self.lock().clone()
    }

    /// Zones of the nodes as far as they are known, this one's included.
    pub(crate) fn zones(&self) -> BTreeMap<String, String> {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let identity = self.lock();
        zones.extend(identity.founding.zone.clone().map(|zone| (identity.node.clone(), zone)));
        zones
    }

    fn learn(&self, node: &str, said: &Said<'_>) {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        match slowdb_proto::check_name(said.zone) {
            Ok(()) => zones.insert(node.to_owned(), said.zone.to_owned()),
            Err(_) => zones.remove(node),
        };
        match said.moved {
            true => self.moved().insert(node.to_owned(), said.address.to_owned()),
            false => self.moved().remove(node),
        };
    }

    /// The catalog says who the other nodes are. Should the disk not take it, it is tried with the next change.
    pub(crate) fn know(&self, catalog: &Catalog) {
        let mut identity = self.lock();
        {
            let mut seen = self.seen();
            seen.epoch = catalog.epoch;
            seen.address = catalog.node(&identity.node).map_or_else(String::new, |node| node.address.clone());
        }
        // One that has another storage id than the catalog says was removed, and came back as a new one.
        let is_gone = |id: &str, storage: &[u8; 16]| {
            let node = catalog.node(id);
            node.is_none_or(|node| node.storage.is_some_and(|known| known != *storage))
        };
        let peers = identity.peers.iter();
        let gone: Vec<String> =
            peers.filter(|(id, storage)| is_gone(id, storage)).map(|(id, _)| id.clone()).collect();
        // Where those said that they had moved to says nothing of those who have their names now.
        self.moved().retain(|node, _| !gone.contains(node));
        let known = self.others(catalog, &identity.node);
        if known == identity.known && gone.is_empty() {
            return;
        }
        let mut next = Identity { known, ..identity.clone() };
        next.peers.retain(|id, _| !gone.contains(id));
        match next.save(&*self.disk) {
            Ok(()) => *identity = next,
            Err(error) => tracing::warn!(%error, "cannot write down who the other nodes are"),
        }
    }

    /// Where this node is, as far as the catalog here says.
    pub(crate) fn address(&self) -> String {
        self.seen().address.clone()
    }

    /// The other nodes of a catalog, with the addresses that they say, or else the catalog.
    pub(crate) fn others(&self, catalog: &Catalog, own: &str) -> Vec<(String, String)> {
        let moved = self.moved();
        let others = catalog.nodes.iter().filter(|node| node.id != own);
        let at = |node: &CatalogNode| moved.get(&node.id).unwrap_or(&node.address).clone();
        others.map(|node| (node.id.clone(), at(node))).collect()
    }

    /// Whether the node of this hello may be a peer, and whether it is known as a member; or why it may not.
    fn may_be_peer(&self, identity: &Identity, hello: &Hello, said: &Said<'_>) -> Result<bool, String> {
        let name = hello.node.as_str();
        if hello.to.as_str() != identity.node {
            return Err(format!("this is node {}, not {}: check the addresses", identity.node, hello.to));
        }
        if name == identity.node {
            return Err(format!("there is a node {name} already, and this is it: give each node its own id"));
        }
        let theirs = ClusterId(hello.cluster);
        let knows_more = identity.cluster == Some(theirs) && said.epoch > self.seen().epoch;
        let founds =
            identity.known.is_empty() && identity.founding.nodes.iter().any(|(node, _)| node == name);
        let is_known = founds || identity.known.iter().any(|(node, _)| node == name);
        if !is_known && (!knows_more || said.address.is_empty()) {
            return Err(format!(
                "node {name} is not part of this cluster, or was removed from it: start it with --join and an empty \
                 storage path"
            ));
        }
        if let Some(ours) = identity.cluster
            && theirs != ClusterId::default()
            && theirs != ours
        {
            return Err(format!("node {name} belongs to cluster {theirs}, this is cluster {ours}"));
        }
        if identity.peers.get(name).is_some_and(|known| *known != hello.storage) && !knows_more {
            return Err(format!(
                "node {name} came back with another storage path than the one it had: its disk was wiped or \
                 replaced, and it could vote away what it forgot. Start it with its old storage path"
            ));
        }
        Ok(is_known)
    }

    /// The node became part of a cluster.
    pub fn join(&self, cluster: ClusterId) -> Result<(), IdentityError> {
        let mut identity = self.lock();
        let joined = Identity { cluster: Some(cluster), ..identity.clone() };
        joined.save(&*self.disk)?;
        *identity = joined;
        Ok(())
    }
}

impl Gate for Own {
    fn hello(&self, to: &NodeId) -> Hello {
        let identity = self.lock();
        Hello {
            cluster: identity.cluster.unwrap_or_default().0,
            storage: identity.storage,
            instance: self.instance,
            node: NodeId::new(&identity.node),
            to: to.clone(),
            note: {
                let (seen, moved) = (self.seen(), self.moved());
                let zone = identity.founding.zone.as_deref().unwrap_or_default();
                // Others may know of another address than the catalog here does, which may be behind.
                let own = moved.get(&identity.node);
                let address = own.unwrap_or(&seen.address);
                Said { zone, epoch: seen.epoch, address, moved: own.is_some() }.write()
            },
        }
    }

    fn check(&self, hello: &Hello) -> Result<(), String> {
        self.may_be_peer(&self.lock(), hello, &Said::read(&hello.note)).map(drop)
    }

    fn admit(&self, hello: &Hello) -> Result<(), String> {
        let mut identity = self.lock();
        let name = hello.node.as_str();
        let said = Said::read(&hello.note);
        let is_known = self.may_be_peer(&identity, hello, &said)?;
        let mut met = identity.clone();
        if !is_known {
            if met.known.is_empty() {
                let founders = identity.founding.nodes.iter().filter(|(id, _)| *id != identity.node);
                met.known = founders.cloned().collect();
            }
            met.known.push((name.to_owned(), said.address.to_owned()));
        }
        if let Some((_, address)) = met.known.iter_mut().find(|(node, _)| node == name).filter(|_| said.moved)
        {
            said.address.clone_into(address);
        }
        let is_elsewhere = met.known != identity.known;
        met.peers.insert(name.to_owned(), hello.storage);
        if is_elsewhere || met.peers != identity.peers {
            met.save(&*self.disk).map_err(|error| format!("cannot remember node {name}: {error}"))?;
            *identity = met;
        }
        self.seen().met |= is_elsewhere;
        self.learn(name, &said);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
