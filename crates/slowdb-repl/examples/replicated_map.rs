//! A map from words to numbers on three nodes: replicated over QUIC on loopback, logged in three directories. One
//! node is dropped on the way, and the other two go on with everything that was acknowledged.
//!
//! `cargo run -p slowdb-repl --example replicated_map`

use slowdb_disk::RealDisk;
use slowdb_net::{AcceptLimits, Endpoint, Identity, Role};
use slowdb_repl::driver::{Commands, Driver};
use slowdb_repl::embed::{AskError, Change, ReplicatorCore};
use slowdb_repl::transport::{self, Gate, Hello, Transport};
use slowdb_repl::wal::{Wal, WalOptions};
use slowdb_repl::{
    ApplyError, Failure, GroupId, Limits, Member, Membership, NodeId, Part, ProposalView, ReplicaId,
    Replicator, StateMachine,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

const NAMES: [&str; 3] = ["ada", "bob", "cyd"];
const GROUP: GroupId = GroupId(1);
const WITHIN: Duration = Duration::from_secs(2);

/// What is replicated: `word=number` sets a word. Kept in memory only, so a restart replays the whole log.
#[derive(Default)]
struct Map(BTreeMap<String, i64>);

impl StateMachine for Map {
    /// What the word stood for before, or why the proposal was refused.
    type Outcome = Result<Option<i64>, String>;

    fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<Self::Outcome, ApplyError> {
        let text = String::from_utf8_lossy(proposal.body);
        let parsed = text.split_once('=').and_then(|(word, number)| Some((word, number.parse().ok()?)));
        Ok(match parsed {
            Some((word, number)) => Ok(self.0.insert(word.to_owned(), number)),
            None => Err(format!("'{text}' is not WORD=NUMBER")),
        })
    }

    fn held(&self) -> u64 {
        0
    }
}

/// Lets in whoever has a certificate, one of our names, and means this node.
struct ByName(NodeId);

impl Gate for ByName {
    fn hello(&self, to: &NodeId) -> Hello {
        Hello {
            cluster: [1; 16],
            storage: [0; 16],
            instance: 0,
            node: self.0.clone(),
            to: to.clone(),
            note: String::new(),
        }
    }

    fn check(&self, hello: &Hello) -> Result<(), String> {
        let known = NAMES.contains(&hello.node.as_str()) && hello.to == self.0;
        if known { Ok(()) } else { Err(format!("{} does not know {}", self.0, hello.node)) }
    }

    fn admit(&self, hello: &Hello) -> Result<(), String> {
        self.check(hello)
    }
}

struct Node {
    name: &'static str,
    commands: Commands<ReplicatorCore<Map>>,
    _driver: Driver<ReplicatorCore<Map>>,
    accepting: JoinHandle<()>,
}

impl Drop for Node {
    /// As abrupt as it gets inside one process: nobody is told.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn start(
    own: usize,
    dir: &Path,
    endpoint: Endpoint,
    addresses: &[String; 3],
) -> Result<Node, Box<dyn Error>> {
    let node = NodeId::new(NAMES[own]);
    let disk = Arc::new(RealDisk::open(dir.join(NAMES[own]))?);
    let (wal, _) = Wal::open(disk, "wal", WalOptions { log_id: own as u64 + 1, ..WalOptions::default() })?;

    let mut repl = Replicator::new(node.clone(), [1; 16], own as u64, Limits::default(), wal.reader());
    let member = |at: usize| Member {
        replica: ReplicaId(at as u64 + 1),
        node: NodeId::new(NAMES[at]),
        part: Part::Voter,
    };
    let members = (0..3).map(member).collect();
    repl.create(Membership::new(GROUP, ReplicaId(own as u64 + 1), members), Map::default())?;

    let others: Vec<_> =
        (0..3).filter(|at| *at != own).map(|at| (NodeId::new(NAMES[at]), addresses[at].clone())).collect();
    let (events, event_queue) = tokio::sync::mpsc::channel(256);
    let transport = Transport::start(endpoint.connector(), Arc::new(ByName(node)), &others, events);
    let serving = transport.clone();
    let accepting = tokio::spawn(async move {
        while let Some(connection) = endpoint.accept().await {
            let serving = serving.clone();
            tokio::spawn(async move { serving.serve(connection).await });
        }
    });
    let driver = Driver::start(ReplicatorCore::new(repl), wal, transport, event_queue, |_| {})?;
    Ok(Node { name: NAMES[own], commands: driver.commands(), _driver: driver, accepting })
}

/// Sets a word through whichever node leads. To set it twice does no harm, so every failure may be tried again.
async fn set(nodes: &[Node], word: &str, number: i64) -> Result<&'static str, Box<dyn Error>> {
    for _ in 0..500 {
        for node in nodes {
            match node.commands.propose(GROUP, Change::new(format!("{word}={number}")), WITHIN).await {
                Ok(standing) => {
                    println!("{word}={number} through {}, at {}", node.name, standing.first);
                    return Ok(node.name);
                }
                Err(AskError::Failed(Failure::NotLeader | Failure::LeaderChanged | Failure::Timeout)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("nobody leads".into())
}

/// Reads linearizably: only the leader answers, after it asked the others whether it still is.
async fn get(nodes: &[Node], word: &'static str) -> Result<Option<i64>, Box<dyn Error>> {
    for _ in 0..500 {
        for node in nodes {
            let look = move |map: &Map| map.0.get(word).copied();
            match node.commands.read(GROUP, WITHIN, look).await {
                Ok(number) => return Ok(number),
                Err(AskError::Failed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("nobody leads".into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let identity: Identity = slowdb_net::load_or_create(&dir.path().join("certs"), Role::Node)?;
    let mut endpoints = Vec::new();
    for _ in NAMES {
        endpoints.push(
            Endpoint::bind("127.0.0.1:0", &identity, &transport::services(), AcceptLimits::default()).await?,
        );
    }
    let address = |at: usize| endpoints[at].local_addrs()[0].to_string();
    let addresses = [address(0), address(1), address(2)];
    let mut nodes = Vec::new();
    for (own, endpoint) in endpoints.into_iter().enumerate() {
        nodes.push(start(own, dir.path(), endpoint, &addresses)?);
    }

    let leader = set(&nodes, "apples", 3).await?;
    assert_eq!(get(&nodes, "apples").await?, Some(3));

    println!("dropping {leader}, which leads");
    nodes.retain(|node| node.name != leader);

    set(&nodes, "pears", 5).await?;
    assert_eq!(get(&nodes, "apples").await?, Some(3), "acknowledged, so it is there");
    assert_eq!(get(&nodes, "pears").await?, Some(5));
    println!("everything acknowledged is there");
    Ok(())
}
