//! Starts the chain's processes and sends them work.

use super::{ALPN, CALL_WITHIN, KIND_ECHO, KIND_PEER_ECHO, KIND_WRITE, frame, limits};
use crate::ports;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use slowdb_net::{Connection, Connector, Identity, Profile, Role};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const START_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach a process that is starting.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What the leader is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// It answers at once.
    Leader,
    /// It asks its peers first and answers with the first of them.
    LeaderAndPeer,
}

/// A running chain and a client's connection to its leader.
#[derive(Debug)]
pub struct Chain {
    processes: Vec<Child>,
    leader: Connection,
    _connector: Connector,
}

impl Chain {
    /// Starts leader and two peers, processes of this `program`, with their files in `dir`.
    pub async fn start(program: &Path, dir: &Path) -> Result<Chain> {
        fs::create_dir_all(dir)?;
        let certs = dir.join("certs");
        slowdb_net::create(&certs)?;
        let connector = Connector::new(&Identity::load(&certs, Role::Client)?)?;
        let reserved = ports::reserve(3)?;
        let addresses: Vec<String> = reserved.iter().map(|r| format!("127.0.0.1:{}", r.port)).collect();
        let mut processes = Vec::new();
        let mut connections = Vec::new();
        // The leader is last: it connects to its peers when it starts.
        for (n, reserved) in reserved.iter().enumerate().rev() {
            let mut command = Command::new(program);
            command.arg("chain-node").args(["--port", &reserved.port.to_string()]);
            command.arg("--file").arg(dir.join(format!("chain-{n}"))).arg("--certs").arg(&certs);
            if n == 0 {
                command.args(["--peer", &addresses[1], "--peer", &addresses[2]]);
            }
            let child = command.stdin(Stdio::piped()).spawn().context("a chain process cannot be started")?;
            processes.push(child);
            connections.push(connect(&connector, &addresses[n]).await?);
        }
        let leader = connections.pop().context("there is a leader")?;
        Ok(Chain { processes, leader, _connector: connector })
    }

    /// Sends every body, `window` at a time, and says how long each took, and all of them.
    pub async fn write_all(&self, bodies: &[Bytes], window: usize) -> Result<(Vec<Duration>, Duration)> {
        let bodies: Arc<[Bytes]> = bodies.into();
        let next = Arc::new(AtomicUsize::new(0));
        let mut lanes = JoinSet::new();
        let start = Instant::now();
        for _ in 0..window {
            let (bodies, next, leader) = (Arc::clone(&bodies), Arc::clone(&next), self.leader.clone());
            lanes.spawn(async move {
                let mut took = Vec::new();
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let sent = Instant::now();
                    leader.call(frame(KIND_WRITE, Some(body.clone())), &limits(), CALL_WITHIN).await?;
                    took.push(sent.elapsed());
                }
                anyhow::Ok(took)
            });
        }
        let mut took = Vec::with_capacity(bodies.len());
        while let Some(lane) = lanes.join_next().await {
            took.extend(lane??);
        }
        Ok((took, start.elapsed()))
    }

    /// One write, and how long it took.
    pub async fn write(&self, body: &Bytes) -> Result<Duration> {
        self.timed(KIND_WRITE, Some(body.clone())).await
    }

    /// One echo, and how long it took.
    pub async fn echo(&self, echo: Echo) -> Result<Duration> {
        let kind = match echo {
            Echo::Leader => KIND_ECHO,
            Echo::LeaderAndPeer => KIND_PEER_ECHO,
        };
        self.timed(kind, None).await
    }

    async fn timed(&self, kind: u16, body: Option<Bytes>) -> Result<Duration> {
        let start = Instant::now();
        self.leader.call(frame(kind, body), &limits(), CALL_WITHIN).await?;
        Ok(start.elapsed())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Either call fails only if the process has ended already.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

async fn connect(connector: &Connector, address: &str) -> Result<Connection> {
    let start = Instant::now();
    loop {
        match connector.connect(address, ALPN, Profile::Client, Duration::from_secs(1)).await {
            Ok(connection) => return Ok(connection),
            Err(error) if start.elapsed() > START_DEADLINE => {
                bail!("a chain process does not answer on {address}: {error}")
            }
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}
