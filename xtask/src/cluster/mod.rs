//! Clusters of real `slowdb-node` processes on this machine, for people, the demo, the bench and the tests.
//!
//! All that belongs to a cluster lies in one directory:
//!
//! ```text
//! state.json    shape, ports, processes
//! certs/        the cluster's authority and certificates
//! data/ID/      a node's files
//! logs/ID.log   what it printed, over all its starts
//! ```
//!
//! Only processes that were started here are ever signalled. What a cluster *says* is asked through the
//! client, in [`view`]; nothing here reads the nodes' files.

pub mod cli;
mod state;
pub mod view;

pub use state::Shape;

use crate::ports::{self, Reserved};
use crate::process::{ProcessId, wait_until};
use crate::relay::Relays;
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use state::{NodeState, State};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a node may take to stop when it is asked to.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How long a killed process may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Who looks after the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// They end with this value, however that ends.
    Owned,
    /// They go on when this program ends, until somebody takes the cluster down.
    Detached,
}

/// A cluster in a directory.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    state: State,
    lifetime: Lifetime,
    children: BTreeMap<String, Child>,
    relays: Option<Relays>,
    _ports: Vec<Reserved>,
}

impl Cluster {
    /// Lays out a cluster in an empty or missing directory. No node is started yet.
    pub fn create(dir: &Path, program: &Path, shape: Shape, lifetime: Lifetime) -> Result<Cluster> {
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} is not empty", dir.display());
        }
        for part in ["data", "logs"] {
            fs::create_dir_all(dir.join(part))
                .with_context(|| format!("{} cannot be created", dir.join(part).display()))?;
        }
        let dir = dir.canonicalize()?;
        if shape.relayed && lifetime == Lifetime::Detached {
            bail!("the nodes' relays end with this program: a cluster that goes on cannot have them");
        }
        let ports = ports::reserve(shape.nodes * if shape.relayed { 2 } else { 1 })?;
        let node = |n: usize| NodeState {
            id: format!("n{}", n + 1),
            port: ports[n].port,
            relay_port: ports.get(shape.nodes + n).map(|port| port.port),
            moved: false,
            process: None,
            joins: false,
        };
        let nodes: Vec<NodeState> = (0..shape.nodes).map(node).collect();
        let mut relays = shape.relayed.then(Relays::new);
        for node in &nodes {
            if let (Some(relays), Some(port)) = (&mut relays, node.relay_port) {
                relays.add(&node.id, port, node.port)?;
            }
        }
        let state = State::new(program.to_path_buf(), shape, nodes);
        let cluster = Cluster { dir, state, lifetime, children: BTreeMap::new(), relays, _ports: ports };
        cluster.create_certs()?;
        cluster.state.save(&cluster.dir)?;
        Ok(cluster)
    }

    /// A cluster that an earlier run created.
    pub fn open(dir: &Path) -> Result<Cluster> {
        let none = || format!("no cluster here: there is no {}", State::path(dir).display());
        Cluster::find(dir)?.with_context(none)
    }

    /// As [`Cluster::open`]; `None` if there is none. One whose state cannot be read is an error.
    pub fn find(dir: &Path) -> Result<Option<Cluster>> {
        let Some(state) = State::load(dir)? else { return Ok(None) };
        let dir = dir.canonicalize()?;
        Ok(Some(Cluster {
            dir,
            state,
            lifetime: Lifetime::Detached,
            children: BTreeMap::new(),
            relays: None,
            _ports: Vec::new(),
        }))
    }

    fn create_certs(&self) -> Result<()> {
        let output = Command::new(&self.state.program)
            .args(["certs", "create"])
            .arg(self.certs())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{} cannot be run", self.state.program.display()))?;
        if !output.status.success() {
            bail!("certs create failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// One more node, which joins the others when it is started. Gives its id.
    pub fn add(&mut self) -> Result<String> {
        let mut ports = ports::reserve(if self.relays.is_some() { 2 } else { 1 })?;
        self.state.added += 1;
        let id = format!("n{}", self.state.shape.nodes + self.state.added);
        let port = ports[0].port;
        let relay_port = ports.get(1).map(|port| port.port);
        if let (Some(relays), Some(relay_port)) = (&mut self.relays, relay_port) {
            relays.add(&id, relay_port, port)?;
        }
        self.state.nodes.push(NodeState {
            id: id.clone(),
            port,
            relay_port,
            moved: false,
            process: None,
            joins: true,
        });
        self._ports.append(&mut ports);
        self.state.save(&self.dir)?;
        Ok(id)
    }

    /// From its next start on a node is at another port, and says so. Gives its address.
    pub fn move_node(&mut self, id: &str) -> Result<String> {
        let mut ports = ports::reserve(1)?;
        let node = self.state.nodes.iter_mut().find(|node| node.id == id);
        let node = node.with_context(|| format!("there is no node {id}"))?;
        (node.port, node.moved) = (ports[0].port, true);
        let address = format!("127.0.0.1:{}", node.port);
        self._ports.append(&mut ports);
        self.state.save(&self.dir)?;
        Ok(address)
    }

    /// A node that was stopped for good is part of this no more. Its files stay.
    pub fn forget(&mut self, id: &str) -> Result<()> {
        self.forget_child(id);
        self.state.nodes.retain(|node| node.id != id);
        self.state.save(&self.dir)
    }

    /// The cluster's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of its certificates.
    pub fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    /// The storage path that all nodes are given; each keeps its files in a directory of its own there.
    pub fn storage(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What it was founded with.
    pub fn shape(&self) -> &Shape {
        &self.state.shape
    }

    /// The program that its nodes run.
    pub fn program(&self) -> &Path {
        &self.state.program
    }

    /// The links between its nodes, if it was created with [`Shape::relayed`].
    pub fn relays(&self) -> Option<&Relays> {
        self.relays.as_ref()
    }

    /// The nodes' ids.
    pub fn ids(&self) -> Vec<String> {
        self.state.nodes.iter().map(|node| node.id.clone()).collect()
    }

    /// Where all nodes listen, `host:port`.
    pub fn addresses(&self) -> Vec<String> {
        self.state.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect()
    }

    /// Where one node listens.
    pub fn address(&self, id: &str) -> Result<String> {
        Ok(format!("127.0.0.1:{}", self.node(id)?.port))
    }

    /// The value of `--initial-nodes`: the founders, also those that are gone.
    pub fn initial_nodes(&self) -> String {
        self.state.initial_nodes.clone()
    }

    /// The file that a node's output goes to.
    pub fn log(&self, id: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{id}.log"))
    }

    /// The end of a node's log, for an error message.
    pub fn log_tail(&self, id: &str) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.log(id))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(3_000)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|e| format!("(its log cannot be read: {e})"))
    }

    fn node(&self, id: &str) -> Result<&NodeState> {
        let known = || format!("no node is called '{id}': there are {}", self.ids().join(", "));
        self.state.nodes.iter().find(|node| node.id == id).with_context(known)
    }

    /// A node's process, if it runs.
    pub fn process(&self, id: &str) -> Result<Option<ProcessId>> {
        Ok(self.node(id)?.process.filter(|process| process.is_running()))
    }

    /// The arguments that a node is started with.
    pub fn start_args(&self, id: &str) -> Result<Vec<String>> {
        let node = self.node(id)?;
        let shape = &self.state.shape;
        let mut args = vec!["start".to_owned()];
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        flag("--node-id", node.id.clone());
        flag("--storage-path", self.storage().display().to_string());
        flag("--host", "127.0.0.1".to_owned());
        flag("--port", node.port.to_string());
        if let Some(port) = node.relay_port.or(node.moved.then_some(node.port)) {
            flag("--advertise", format!("127.0.0.1:{port}"));
        }
        if let Some(rate) = &shape.snapshot_rate {
            flag("--snapshot-rate", rate.clone());
        }
        if let Some(bytes) = &shape.min_free {
            flag("--min-free", bytes.clone());
        }
        if let Some(after) = &shape.node_down_after {
            flag("--node-down-after", after.clone());
        }
        if node.joins {
            let others = self.state.nodes.iter().filter(|other| other.id != node.id);
            let others: Vec<String> = others.map(|other| format!("127.0.0.1:{}", other.port)).collect();
            flag("--join", others.join(","));
        } else {
            flag("--initial-nodes", self.initial_nodes());
            flag("--dimension", shape.dimension.to_string());
            flag("--num-shards", shape.num_shards.to_string());
            flag("--replication-factor", shape.replication_factor.to_string());
        }
        flag("--certs", self.certs().display().to_string());
        Ok(args)
    }

    /// Starts a node on the storage and port it has always had.
    pub fn start(&mut self, id: &str) -> Result<ProcessId> {
        if let Some(running) = self.process(id)? {
            bail!("{id} runs already, as process {}", running.pid);
        }
        self.forget_child(id);
        let log = File::options().create(true).append(true).open(self.log(id))?;
        let mut command = Command::new(&self.state.program);
        command.args(self.start_args(id)?).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if self.lifetime == Lifetime::Detached {
            // Out of this terminal's foreground group: Ctrl-C here is not meant for them.
            command.process_group(0);
        }
        let child = command.spawn().with_context(|| format!("{id} cannot be started"))?;
        let process = ProcessId::of(child.id());
        self.children.insert(id.to_owned(), child);
        let process = process.with_context(|| format!("{id}: {}", self.log_tail(id)))?;
        if let Some(relays) = &self.relays {
            relays.knows(id, process);
        }
        self.remember(id, process)?;
        Ok(process)
    }

    /// Starts every node.
    pub fn start_all(&mut self) -> Result<()> {
        self.ids().iter().try_for_each(|id| self.start(id).map(drop))
    }

    fn remember(&mut self, id: &str, process: ProcessId) -> Result<()> {
        if let Some(node) = self.state.nodes.iter_mut().find(|node| node.id == id) {
            node.process = Some(process);
        }
        self.state.save(&self.dir)
    }

    /// kill -9, and waits until the process is gone. Says how it ended, if it was started by this value.
    pub fn kill(&mut self, id: &str) -> Result<Option<ExitStatus>> {
        let Some(process) = self.process(id)? else { bail!("{id} is not running") };
        process.signal(Signal::KILL)?;
        self.wait_gone(id, process, KILL_DEADLINE)
    }

    /// Asks a node to stop and waits until it did. Says how it ended, if it was started by this value.
    pub fn terminate(&mut self, id: &str) -> Result<Option<ExitStatus>> {
        let Some(process) = self.process(id)? else { bail!("{id} is not running") };
        process.signal(Signal::TERM)?;
        self.wait_gone(id, process, STOP_DEADLINE)
    }

    /// Stops a node's clock, so to speak: SIGSTOP. It does nothing until it is resumed, and does not notice.
    pub fn pause(&self, id: &str) -> Result<()> {
        let process = self.process(id)?.with_context(|| format!("{id} is not running"))?;
        process.signal(Signal::STOP)?;
        wait_until(&format!("{id} is paused"), KILL_DEADLINE, || Ok(process.is_paused())).map(drop)
    }

    /// Lets a paused node go on.
    pub fn resume(&self, id: &str) -> Result<()> {
        self.process(id)?.with_context(|| format!("{id} is not running"))?.signal(Signal::CONT)
    }

    fn wait_gone(&mut self, id: &str, process: ProcessId, deadline: Duration) -> Result<Option<ExitStatus>> {
        if !process.wait_ended(deadline) {
            bail!(
                "{id} (process {}) still runs {} s after it was told to stop",
                process.pid,
                deadline.as_secs()
            );
        }
        self.children.remove(id).map(|mut child| child.wait()).transpose().context("its status is unknown")
    }

    /// Waits until a node has ended by itself. Says how, if it was started by this value.
    pub fn wait_exit(&mut self, id: &str, deadline: Duration) -> Result<Option<ExitStatus>> {
        match self.node(id)?.process {
            Some(process) => self.wait_gone(id, process, deadline),
            None => bail!("{id} was never started"),
        }
    }

    /// Stops all nodes that run, all at once. Those that do not stop in time are killed, and named.
    pub fn down(&mut self) -> Result<()> {
        let running: Vec<(String, ProcessId)> = self.running()?;
        for (_, process) in &running {
            process.signal(Signal::TERM)?;
        }
        let mut late = Vec::new();
        for (id, process) in running {
            if !process.wait_ended(STOP_DEADLINE) {
                process.signal(Signal::KILL)?;
                late.push(id.clone());
            }
            self.wait_gone(&id, process, KILL_DEADLINE)?;
        }
        if !late.is_empty() {
            bail!(
                "{} did not stop within {} s and had to be killed",
                late.join(", "),
                STOP_DEADLINE.as_secs()
            );
        }
        Ok(())
    }

    /// The nodes that run.
    pub fn running(&self) -> Result<Vec<(String, ProcessId)>> {
        let mut running = Vec::new();
        for id in self.ids() {
            running.extend(self.process(&id)?.map(|process| (id, process)));
        }
        Ok(running)
    }

    /// Fails, with the end of its log, if a node that was started does not run any more.
    pub fn check_alive(&self) -> Result<()> {
        for node in &self.state.nodes {
            if node.process.is_some_and(|process| !process.is_running()) {
                bail!("{} ended; the end of its log:\n{}", node.id, self.log_tail(&node.id));
            }
        }
        Ok(())
    }

    fn forget_child(&mut self, id: &str) {
        if let Some(mut ended) = self.children.remove(id) {
            // It ended by itself; its status is taken so that no zombie stays.
            drop(ended.wait());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Owned {
            for child in self.children.values_mut() {
                // Either call fails only if the process has ended already.
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}
