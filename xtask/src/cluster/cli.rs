//! `cargo xtask cluster`: a cluster that goes on when the command has ended.

use super::{Cluster, Lifetime, Shape, view};
use crate::process::wait_until;
use crate::workspace::{self, NodeProgram};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

const UP_DEADLINE: Duration = Duration::from_secs(60);

/// A cluster of real processes on this machine.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Directory of the cluster's state, data and logs [default: .slowdb/cluster in the checkout].
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Builds slowdb-node and starts the nodes; a cluster that was taken down goes on with its data.
    Up(UpArgs),
    /// Shows the processes, and what the nodes say of themselves.
    Status {
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// kill -9 of one node.
    Kill {
        /// The node, such as n1.
        id: String,
    },
    /// Starts a node that does not run, or stops one that does and starts it again; same storage, same port.
    Restart {
        /// The node, such as n1.
        id: String,
    },
    /// Asks all nodes to stop and waits until they did. Data and logs stay.
    Down,
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Components of each vector.
    #[arg(long, default_value_t = 384)]
    dimension: u32,
    /// Replicas of each shard.
    #[arg(long, default_value_t = 3)]
    replication_factor: u32,
    /// Shards of the collection.
    #[arg(long, default_value_t = 16)]
    num_shards: u32,
    /// Throws away what an earlier cluster in that directory held.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    program: NodeProgram,
}

/// Runs the command.
pub fn run(args: ClusterArgs) -> Result<()> {
    let dir = args.dir.unwrap_or_else(|| workspace::state_dir().join("cluster"));
    match args.command {
        ClusterCommand::Up(up) => self::up(dir, &up),
        ClusterCommand::Status { json } => status(&Cluster::open(&dir)?, json),
        ClusterCommand::Kill { id } => {
            Cluster::open(&dir)?.kill(&id)?;
            println!("{id} was killed");
            Ok(())
        }
        ClusterCommand::Restart { id } => restart(&mut Cluster::open(&dir)?, &id),
        ClusterCommand::Down => {
            let mut cluster = Cluster::open(&dir)?;
            let running = cluster.running()?.len();
            cluster.down()?;
            println!("{running} nodes stopped; data and logs stay in {}", cluster.dir().display());
            Ok(())
        }
    }
}

fn up(dir: PathBuf, args: &UpArgs) -> Result<()> {
    let program = args.program.get()?;
    let earlier = earlier(&dir, args.fresh)?;
    if let Some(earlier) = &earlier
        && !earlier.running()?.is_empty()
    {
        bail!("a cluster runs in {} already: 'cargo xtask cluster down' stops it", dir.display());
    }
    let mut cluster = match earlier {
        Some(earlier) if !args.fresh => earlier,
        _ => {
            remove(&dir)?;
            let shape = Shape {
                nodes: args.nodes,
                dimension: args.dimension,
                replication_factor: args.replication_factor,
                num_shards: args.num_shards,
                node_down_after: None,
                snapshot_rate: None,
                min_free: None,
                relayed: false,
            };
            Cluster::create(&dir, &program, shape, Lifetime::Detached)?
        }
    };
    if let Err(error) = cluster.start_all().and_then(|()| wait_ready(&cluster)) {
        cluster.down()?;
        return Err(error);
    }
    show_processes(&cluster)?;
    println!("\nAsk it, for example:");
    println!(
        "  {} status --connect {} --certs {}",
        cluster.program().display(),
        cluster.addresses().join(","),
        cluster.certs().display()
    );
    Ok(())
}

/// The cluster that is there already. One that cannot be read is as good as none only if it is to be thrown
/// away.
fn earlier(dir: &Path, is_fresh: bool) -> Result<Option<Cluster>> {
    match Cluster::find(dir) {
        Err(error) if is_fresh => {
            eprintln!("what is thrown away cannot be read: {error:#}");
            Ok(None)
        }
        found => found.context("what is there stays as it is; --fresh throws it away"),
    }
}

/// Removes an earlier cluster's directory, but nothing that is not one.
pub fn remove(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let is_empty = fs::read_dir(dir)?.next().is_none();
    if !is_empty && !dir.join("state.json").is_file() {
        bail!("{} holds something that is not a cluster of this program", dir.display());
    }
    Ok(fs::remove_dir_all(dir)?)
}

fn wait_ready(cluster: &Cluster) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(view::wait_ready(cluster, UP_DEADLINE)).map(drop)
}

fn restart(cluster: &mut Cluster, id: &str) -> Result<()> {
    if cluster.process(id)?.is_some() {
        cluster.terminate(id)?;
    }
    let process = cluster.start(id)?;
    wait_until(&format!("{id} listens"), UP_DEADLINE, || {
        cluster.check_alive()?;
        Ok(answers(cluster, id)?.success())
    })?;
    println!("{id} runs as process {} on {}", process.pid, cluster.address(id)?);
    Ok(())
}

fn answers(cluster: &Cluster, id: &str) -> Result<ExitStatus> {
    let output = Command::new(cluster.program())
        .args(["status", "--json", "--timeout", "1s", "--connect", &cluster.address(id)?, "--certs"])
        .arg(cluster.certs())
        .output()?;
    Ok(output.status)
}

fn show_processes(cluster: &Cluster) -> Result<()> {
    println!("{:<6} {:<18} {:<10} log", "node", "address", "process");
    for id in cluster.ids() {
        let process = cluster.process(&id)?.map_or("stopped".into(), |process| process.pid.to_string());
        println!("{id:<6} {:<18} {process:<10} {}", cluster.address(&id)?, cluster.log(&id).display());
    }
    Ok(())
}

fn status(cluster: &Cluster, json: bool) -> Result<()> {
    if json {
        let mut nodes = Vec::new();
        for id in cluster.ids() {
            nodes.push(serde_json::json!({
                "id": id,
                "address": cluster.address(&id)?,
                "process": cluster.process(&id)?.map(|process| process.pid),
                "log": cluster.log(&id),
            }));
        }
        println!("{}", serde_json::json!({ "dir": cluster.dir(), "nodes": nodes }));
        return Ok(());
    }
    show_processes(cluster)?;
    if cluster.running()?.is_empty() {
        println!("\nno node runs");
        return Ok(());
    }
    println!();
    let status = Command::new(cluster.program())
        .args(["status", "--connect", &cluster.addresses().join(","), "--certs"])
        .arg(cluster.certs())
        .status()?;
    if !status.success() {
        bail!("the cluster does not answer ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_state_means_no_cluster() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(earlier(dir.path(), false).expect("nothing is there").is_none());
        assert!(earlier(&dir.path().join("missing"), false).expect("nothing is there").is_none());
        assert!(Cluster::open(dir.path()).is_err());
        let state = dir.path().join("state.json");
        for bad in ["", "{}", r#"{"format":99,"program":"p","nodes":[]}"#] {
            fs::write(&state, bad).expect("written");
            let error = earlier(dir.path(), false).expect_err(bad);
            assert!(format!("{error:#}").contains("--fresh"), "{error:#}");
            assert!(earlier(dir.path(), true).expect("to be thrown away").is_none());
        }
        fs::remove_file(&state).expect("removed");
        fs::create_dir(&state).expect("made");
        assert!(earlier(dir.path(), false).is_err(), "it is there, and cannot be read");
    }
}
