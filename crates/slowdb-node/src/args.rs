//! The command line.

use crate::conflicts::OnArgs;
use crate::operate::args::{CollectionsArgs, ExplainArgs, NodesArgs, RebalanceArgs};
use clap::{Args, Parser, Subcommand};
use slowdb_client::ConflictName;
use slowdb_proto::{Condition, Consistency, Metric, Position, check_name};
use std::path::PathBuf;
use std::time::Duration;

/// SlowDB, a sharded and replicated vector store: run a node, or work with a cluster.
#[derive(Debug, Parser)]
#[command(name = "slowdb-node", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Print one JSON object on stdout, errors included
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 refused or failed; 2 wrong arguments or input, nothing was sent;
            3 no node answered, or not in time; 4 no such record, collection, shard, node or conflict.

Example, in two terminals:
  slowdb-node start --node-id n1 --storage-path ./data --dimension 3
  slowdb-node put cat --vector 0.9,0.1,0";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node until it is told to stop (SIGTERM or SIGINT)
    Start(StartArgs),
    /// Make or replace a record
    Put(PutArgs),
    /// Print records
    Get(GetArgs),
    /// Remove a record
    Delete(DeleteArgs),
    /// Write all records of a file (.jsonl, .npy or .fvecs)
    Import(ImportArgs),
    /// Read all records into a file (.jsonl or .npy)
    Export(ExportArgs),
    /// Find the nearest records
    Search(SearchArgs),
    /// Print all records, shard after shard
    Scan(ScanArgs),
    /// Say how many records there are
    Count(CountArgs),
    /// Say whether all replicas hold the same records, and which they do not
    Compare(CompareArgs),
    /// Show what became of writes at 'one' that a failover overtook, and resolve what lost
    Conflicts(ConflictsArgs),
    /// Show nodes, shards, leaders, positions and digests, and what is being moved
    Status(StatusArgs),
    /// Show the nodes of a cluster, empty them, take them out
    Nodes(NodesArgs),
    /// Look for a better placement of shards and leaders now
    Rebalance(RebalanceArgs),
    /// Make, show, drop and change collections
    Collections(CollectionsArgs),
    /// Say why a shard or node is as it is, and what happens next
    Explain(ExplainArgs),
    /// Make certificates
    Certs(CertsArgs),
    /// Read all files of a node that does not run, and say what is damaged
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  slowdb-node verify ./data/n1

Nothing is changed. Exit code 0: all is good; 1: damage was found, or the node runs.")]
pub(crate) struct VerifyArgs {
    /// The node's directory: STORAGE_PATH/NODE_ID
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  A cluster of one:
    slowdb-node start --node-id n1 --storage-path ./data --dimension 384
  The first of three:
    slowdb-node start --node-id n1 --storage-path ./data --dimension 384 --port 8001 \\
      --initial-nodes n1=localhost:8001,n2=localhost:8002,n3=localhost:8003
  One more, for a cluster that is there:
    slowdb-node start --node-id n4 --storage-path ./data --port 8004 --join localhost:8001
  From a file (the same names: node-id = \"n1\", port = 8001, ...):
    slowdb-node start --config n1.toml

Log messages go to stderr; the environment variable SLOWDB_LOG filters them (default: info).")]
pub(crate) struct StartArgs {
    /// Name of this node: 1 to 64 of a-z A-Z 0-9 - _ and dots, not starting with a dot or '-'
    #[arg(long, value_name = "ID", value_parser = name)]
    pub(crate) node_id: Option<String>,
    /// Directory for data; this node's files are in DIR/ID/
    #[arg(long, value_name = "DIR")]
    pub(crate) storage_path: Option<PathBuf>,
    /// Components of each vector: a new cluster starts with the collection 'default'
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) dimension: Option<u32>,
    /// How the collection 'default' of a new cluster measures similarity: l2, l1, inner_product or cosine
    /// [default: cosine]
    #[arg(long, value_parser = metric)]
    pub(crate) metric: Option<Metric>,
    /// Name or address to listen on [default: localhost]
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// UDP port to listen on; 0 chooses a free one. The address is printed on stdout [default: 8000]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// All nodes of a new cluster, this one included; without it, a cluster of one
    #[arg(long, value_name = "ID=HOST:PORT,…", value_delimiter = ',', value_parser = initial_node)]
    pub(crate) initial_nodes: Option<Vec<(String, String)>>,
    /// Nodes of a cluster that is there already, to become part of it; a node that joins never founds one
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = address)]
    pub(crate) join: Option<Vec<String>>,
    /// Where others find this node, if that is not where it listens; another one than before moves the node
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// How much this node can hold, relative to the others [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) weight: Option<u32>,
    /// Silence after which a node's replicas are rebuilt on others [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) node_down_after: Option<Duration>,
    /// Bytes a second of other nodes' replicas that this node takes in, all together: 500KB, 64MiB, 1GiB or
    /// unlimited [default: 64MiB]
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    pub(crate) snapshot_rate: Option<u64>,
    /// Free space of the storage path below which writes to this node's shards are refused: 512MiB, 2GiB, or 0 for never
    /// [default: a twentieth of the disk, at least 256MiB and at most 2GiB]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) min_free: Option<u64>,
    /// Bytes a second of this node's shards that are read again and checked in the background: 500KB, 64MiB, unlimited or
    /// off [default: 8MiB]
    #[arg(long, value_name = "BYTES", value_parser = scrub_rate)]
    pub(crate) scrub_rate: Option<u64>,
    /// Shards of the collection 'default' of a new cluster [default: 16]
    #[arg(long, value_name = "N")]
    pub(crate) num_shards: Option<u32>,
    /// Points of each node on the hash ring that places shards [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) virtual_nodes: Option<u32>,
    /// Replicas of each shard, as far as there are nodes [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) replication_factor: Option<u32>,
    /// Where this node is: replicas of one shard are put in different zones
    #[arg(long, value_parser = name)]
    pub(crate) zone: Option<String>,
    /// Certificates [default: a directory of this user, made on the first start]
    #[arg(long, value_name = "DIR")]
    pub(crate) certs: Option<PathBuf>,
    /// TOML file with the same names as these flags; flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Where a cluster is found.
#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    /// Nodes to ask, tried in turn
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', default_value = "localhost:8000", value_parser = address)]
    pub(crate) connect: Vec<String>,
    /// Certificates [default: those that the first start on this machine made]
    #[arg(long, value_name = "DIR")]
    pub(crate) certs: Option<PathBuf>,
}

/// What every command that talks to a cluster takes.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    pub(crate) seeds: SeedArgs,
    /// How long a request may take, retries included: 500ms, 5s, 2m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// What every command on records takes besides.
#[derive(Debug, Args)]
pub(crate) struct CollectionArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// Where this is: reads at one and session prefer nodes of this zone
    #[arg(long, value_parser = name)]
    pub(crate) zone: Option<String>,
    /// Collection to use
    #[arg(long, default_value = "default", value_parser = name)]
    pub(crate) collection: String,
    /// Level: one or quorum; for writes also all, for reads also session [default: as the collection says;
    /// for reads with --session: session]
    #[arg(long, value_name = "LEVEL", value_parser = consistency)]
    pub(crate) consistency: Option<Consistency>,
    /// Go on from what earlier commands wrote and read: what an earlier command printed; 'new'; or a file, which is
    /// then brought up to date. A file that is not there yet is made, and has to be written as a path, with a '/'
    #[arg(long, value_name = "FILE|SESSION")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slowdb-node put cat --vector 0.9,0.1,0
  echo '[0.9, 0.1, 0]' | slowdb-node put cat --consistency all
  slowdb-node put cat --vector 0.8,0.2,0 --payload '{\"legs\": 4}'
  slowdb-node put cat --vector 0.8,0.2,0 --if-version 3.1204.0")]
pub(crate) struct PutArgs {
    /// The record's id, 1 to 512 bytes
    pub(crate) id: String,
    /// Components separated by commas; without it, a JSON array on stdin
    #[arg(long, value_name = "0.1,0.2,…", allow_hyphen_values = true)]
    pub(crate) vector: Option<String>,
    /// What goes with it, up to 64 KiB; it is kept as it is written here [default: nothing]
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) payload: Option<String>,
    #[command(flatten)]
    pub(crate) only: ConditionArgs,
    #[command(flatten)]
    pub(crate) on: CollectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each shard is read page by page, so records that are written or removed meanwhile may be there or not; every
other is there once. The file appears under its name when it is whole. What .jsonl holds can be imported.

Examples:
  slowdb-node export records.jsonl
  slowdb-node export vectors.npy                (and vectors.ids.txt; payloads are left out)
  slowdb-node export cats.jsonl --prefix cat-")]
pub(crate) struct ExportArgs {
    /// .jsonl or .npy
    pub(crate) file: PathBuf,
    /// Of .npy: where the ids go, one a line [default: FILE with .ids.txt instead of .npy]
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,
    /// Only records whose ids begin with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Replace files that are there already
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) on: CollectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CountArgs {
    /// Only records whose ids begin with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Share of the shards, 0 to 1, that is enough; those that did not answer are named on stderr
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) min_coverage: f64,
    #[command(flatten)]
    pub(crate) on: CollectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Replicas compare their digests all the time; 'status' warns when they differ. This looks for the records: it asks every
replica for digests of 4,096 ranges of ids, and of those that differ for the hashes of the records. What it reports is
proven: writes that one replica has applied and another has not yet are told apart, and ids that are written to all
the time are named as undecided. If all records are equal and 'status' warns all the same, the difference is in what a
shard keeps beside them: what it remembers of writes, deletes and conflicts.

Ends with 1 if anything differs, or is not known since a replica did not answer.")]
pub(crate) struct CompareArgs {
    /// Only this shard [default: all]
    #[arg(long)]
    pub(crate) shard: Option<u32>,
    /// Records to name for each shard at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) on: crate::conflicts::OnArgs,
}

/// What must hold for a write to change anything.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct ConditionArgs {
    /// Only if the record has this version, as 'get' prints it
    #[arg(long, value_name = "TERM.INDEX.OFFSET")]
    pub(crate) if_version: Option<Position>,
    /// Only if there is no record
    #[arg(long)]
    pub(crate) if_absent: bool,
}

impl ConditionArgs {
    pub(crate) fn condition(&self) -> Option<Condition> {
        let absent = self.if_absent.then_some(Condition::IfAbsent);
        self.if_version.map(Condition::IfVersion).or(absent)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
With --json one object a line, in the order asked for. If some are not there the others are printed all the
same, and the exit code is 4.")]
pub(crate) struct GetArgs {
    /// The records' ids
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) on: CollectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The record's id
    pub(crate) id: String,
    /// Only if the record has this version, as 'get' prints it
    #[arg(long, value_name = "TERM.INDEX.OFFSET")]
    pub(crate) if_version: Option<Position>,
    #[command(flatten)]
    pub(crate) on: CollectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The whole file is checked before anything is written: element type, shape, length, every component,
every id. A record whose id exists already is replaced. Of .jsonl each line is one record; its payload, which
may be left out as other keys may be there, is any JSON up to 64 KiB:
  {\"id\": \"cat\", \"vector\": [0.9, 0.1, 0], \"payload\": {\"legs\": 4}}

Examples:
  slowdb-node import records.jsonl --progress records.progress   (again, if it was interrupted)
  slowdb-node import vectors.npy
  slowdb-node import vectors.npy --ids names.txt --connect localhost:8001,localhost:8002")]
pub(crate) struct ImportArgs {
    /// .jsonl, .npy ('<f4', C order, 2-D) or .fvecs
    pub(crate) file: PathBuf,
    /// Keeps how far it got in this file, and goes on from there if it is there and of the same files (--ids
    /// included); it is removed in the end
    #[arg(long, value_name = "FILE")]
    pub(crate) progress: Option<PathBuf>,
    /// Of .npy and .fvecs: one id a line; without it, ids are row numbers from 0
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,
    /// Most records in a batch
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = count, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// Batches under way at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count, allow_negative_numbers = true)]
    pub(crate) in_flight: usize,
    #[command(flatten)]
    pub(crate) on: CollectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Results are exact, nearest first, equal scores by id. For l2 the score is the squared distance (smaller is
nearer), else the product or similarity (greater is nearer).

Examples:
  slowdb-node search -k 3 --vector 0.9,0.1,0
  slowdb-node search --id cat
  slowdb-node search --queries queries.npy --json   (one object a line)")]
pub(crate) struct SearchArgs {
    /// How many records for each query
    #[arg(short, default_value_t = 10, value_parser = count, allow_negative_numbers = true)]
    pub(crate) k: usize,
    #[command(flatten)]
    pub(crate) query: Query,
    /// l2, l1, inner_product or cosine [default: the collection's own]
    #[arg(long, value_parser = metric)]
    pub(crate) metric: Option<Metric>,
    /// Share of the shards, 0 to 1, that is enough; those that did not answer are named
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) min_coverage: f64,
    #[command(flatten)]
    pub(crate) on: CollectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
One record a line, with --json one object a line; in a shard by id. A record that is written or removed
meanwhile may be there or not, every other is there once.

Examples:
  slowdb-node scan --limit 10
  slowdb-node scan --vectors --json > records.jsonl")]
pub(crate) struct ScanArgs {
    /// Stop after so many records
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) limit: Option<usize>,
    /// Only records whose ids begin with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Print vectors, too
    #[arg(long)]
    pub(crate) vectors: bool,
    /// Print payloads, too
    #[arg(long)]
    pub(crate) payloads: bool,
    /// Share of the shards, 0 to 1, that is enough; those that did not answer are named on stderr
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) min_coverage: f64,
    #[command(flatten)]
    pub(crate) on: CollectionArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Query {
    /// Components separated by commas
    #[arg(long, value_name = "0.1,0.2,…", allow_hyphen_values = true)]
    pub(crate) vector: Option<String>,
    /// The vector of this record (which is then the nearest to itself)
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Each row of a file (.npy or .fvecs)
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ConflictsArgs {
    #[command(subcommand)]
    pub(crate) command: ConflictsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    /// Print all conflicts, one a line, with --json one object a line
    #[command(after_help = CONFLICTS_HELP)]
    List(ListConflictsArgs),
    /// Print one conflict, and what lost in it
    Show(OneConflictArgs),
    /// Write what lost in a conflict after all, and remove the conflict
    Replay(ReplayArgs),
    /// Remove a conflict, or all of them, and what lost in them: that is then gone
    Discard(DiscardArgs),
}

const CONFLICTS_HELP: &str = "\
A conflict is named by its shard and the position that the late write had first: 3:2.17.0. What became of it:
  applied        nothing had touched the record: the write was applied late
  already_there  the record was what it had written
  superseded     a later write of the same overtaken leader is there
  lost           it lost to what was there, and is kept
  replaced       it won, and what it replaced is kept
Of lost and replaced the loser is kept until it is replayed or discarded; the oldest of the others go by themselves.";

#[derive(Debug, Args)]
pub(crate) struct ListConflictsArgs {
    #[command(flatten)]
    pub(crate) on: OnArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OneConflictArgs {
    /// Name of the conflict, as list prints it
    #[arg(value_name = "SHARD:POSITION")]
    pub(crate) conflict: ConflictName,
    #[command(flatten)]
    pub(crate) on: OnArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) one: OneConflictArgs,
    /// Also replace what was written to the record since the conflict was decided
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false, args = ["conflict", "all"])]
pub(crate) struct DiscardArgs {
    /// Name of the conflict, as list prints it
    #[arg(value_name = "SHARD:POSITION")]
    pub(crate) conflict: Option<ConflictName>,
    /// All conflicts of the collection
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) on: OnArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0: the cluster was asked; whether it is healthy is the first line, and 'healthy' of --json. A script that
wants an exit code for it:
  slowdb-node status --json | jq --exit-status .healthy")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    pub(crate) command: CertsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make an authority, and certificates of it for nodes and clients
    #[command(after_help = "\
The directory must not exist yet, or be empty. Copy it to every node of the cluster; clients need only
ca.pem, client.pem and client.key.")]
    Create {
        /// Directory to make
        dir: PathBuf,
    },
}

pub(crate) fn name(text: &str) -> Result<String, String> {
    check_name(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

pub(crate) fn metric(text: &str) -> Result<Metric, String> {
    text.parse()
}

pub(crate) fn consistency(text: &str) -> Result<Consistency, String> {
    text.parse()
}

/// Reads `ID=HOST:PORT`.
pub(crate) fn initial_node(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("'{text}' is not ID=HOST:PORT");
    let (id, address) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name(id)?, self::address(address).map_err(|_| wrong())?))
}

/// Reads `HOST:PORT`.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && is_port(port) => Ok(text.to_owned()),
        _ => Err(format!("'{text}' is not HOST:PORT")),
    }
}

/// Reads how many of something; what is too many is for others to say.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("'{text}' is no whole number from 0 on"))
}

/// Reads the time-out of a request.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_millis(u64::from(slowdb_proto::limits::TIMEOUT_MS_MAX)))
}

/// Reads `500ms`, `5s`, `2m`, `1h`, or a number of seconds.
pub(crate) fn time(text: &str, max: Duration) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time: write it like 500ms, 5s or 2m");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    if seconds < 0.001 || seconds > max.as_secs_f64() {
        return Err(format!("'{text}' is out of range: from 1ms to {}s", max.as_secs()));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Reads `500KB`, `64MiB`, `1GiB`, a number of bytes, or `unlimited`, which is `u64::MAX`.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    if text == "unlimited" {
        return Ok(u64::MAX);
    }
    match size(text) {
        Err(why) => Err(format!("{why}, or unlimited")),
        Ok(0) => Err("0 bytes a second: no replica would ever arrive; say unlimited for no limit".to_owned()),
        Ok(bytes) => Ok(bytes),
    }
}

/// Reads what [`rate`] does, or `off`, which is 0.
pub(crate) fn scrub_rate(text: &str) -> Result<u64, String> {
    match text {
        "off" | "0" => Ok(0),
        "unlimited" => Ok(u64::MAX),
        text => size(text).map_err(|why| format!("{why}, or unlimited or off")),
    }
}

/// Reads `500KB`, `64MiB`, `1GiB` or a number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no number of bytes: write it like 500KB, 64MiB or 1GiB");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit: u64 = match unit {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(|| format!("'{text}' is more bytes than can be counted: write fewer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rates_are_read() {
        for (text, bytes) in [
            ("1", 1),
            ("7B", 7),
            ("500KB", 500_000),
            ("2KiB", 2_048),
            ("3MB", 3_000_000),
            ("64MiB", 67_108_864),
            ("2GB", 2_000_000_000),
            ("1GiB", 1_073_741_824),
            ("unlimited", u64::MAX),
        ] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "0", "0MiB", "-1", "1.5MiB", "MiB", "64 MiB", "64mib", "64M", "1TB", "99999999999GiB"]
        {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read() {
        for (text, ms) in [("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("1.5s", 1_500), ("3", 3_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "5h", "5d", "-1s", "0s", "99999s", "nan", "infs"] {
            duration(text).expect_err(text);
        }
    }

    #[test]
    fn initial_nodes_are_read() {
        assert_eq!(initial_node("n1=localhost:80"), Ok(("n1".into(), "localhost:80".into())));
        assert_eq!(initial_node("n1=[::1]:80"), Ok(("n1".into(), "[::1]:80".into())));
        for text in
            ["n1", "n1=", "n1=host", "n1=:80", "n1=host:0", "n1=host:99999", "=host:80", "a/b=host:80"]
        {
            initial_node(text).expect_err(text);
        }
    }

    #[test]
    fn a_write_has_one_condition_at_most() {
        let put = |more: &[&str]| {
            let args = ["slowdb-node", "put", "a", "--vector", "1"].iter().chain(more);
            Cli::try_parse_from(args).map(|cli| match cli.command {
                Command::Put(args) => args.only.condition(),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(put(&[]).expect("good"), None);
        assert_eq!(put(&["--if-absent"]).expect("good"), Some(Condition::IfAbsent));
        let version = Condition::IfVersion(Position { term: 3, index: 12, offset: 1 });
        assert_eq!(put(&["--if-version", "3.12.1"]).expect("good"), Some(version));
        put(&["--if-version", "3.12"]).expect_err("that is no version");
        put(&["--if-version", "3.12.1", "--if-absent"]).expect_err("one of them");
    }

    #[test]
    fn what_is_out_of_range_is_told_so_and_not_taken_for_a_flag() {
        let refused = |line: &str| {
            let words = std::iter::once("slowdb-node").chain(line.split_whitespace());
            Cli::try_parse_from(words).expect_err(line).to_string()
        };
        for line in [
            "search --id a -k -1",
            "scan --limit -1",
            "start --dimension -3",
            "collections create c --dimension -3",
            "collections create c --dimension 0",
            "collections create c --dimension 3 --num-shards 0",
            "import a.npy --batch -1",
        ] {
            let text = refused(line);
            assert!(text.contains("invalid value") && !text.contains("unexpected"), "{line}: {text}");
        }
        for line in ["status --connect localhost", "status --connect=", "start --join there:99999"] {
            assert!(refused(line).contains("is not HOST:PORT"), "{line}");
        }
        assert!(refused("delete a --if-absent").contains("unexpected"));
        // What is no share is said by the client, with the range.
        Cli::try_parse_from(["slowdb-node", "count", "--min-coverage", "-1"]).expect("a number");
    }

    #[test]
    fn vectors_may_start_with_a_minus() {
        let cli = Cli::try_parse_from(["slowdb-node", "put", "a", "--vector", "-1,2"]).expect("good");
        let Command::Put(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!(args.vector.as_deref(), Some("-1,2"));
        Cli::try_parse_from(["slowdb-node", "search", "--vector=1", "--id", "a"]).expect_err("one of them");
        Cli::try_parse_from(["slowdb-node", "search", "-k", "3"]).expect_err("what for?");
    }
}
