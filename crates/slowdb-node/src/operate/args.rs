//! The command line of the operator's commands.

use crate::args::{ConnectArgs, SeedArgs, consistency, metric, name, time};
use clap::builder::RangedI64ValueParser;
use clap::{Args, Subcommand, value_parser};
use slowdb_proto::limits::{DIMENSION_MAX, REPLICATION_FACTOR_MAX, SHARDS_MAX};
use slowdb_proto::{ConflictPolicy, Metric, ReadLevel, SettingsChange, WriteLevel};
use std::time::Duration;

/// Longest time to wait for a cluster to settle.
const WAIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    #[command(subcommand)]
    pub(crate) command: NodesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// Show all nodes, what is being moved, and what will be
    #[command(after_help = VIEW_HELP)]
    List(ListArgs),
    /// Show the same again every second, with rates and times left
    #[command(after_help = WATCH_HELP)]
    Watch(WatchArgs),
    /// Empty a node: its replicas are moved to others, one after the other
    #[command(after_help = DRAIN_HELP)]
    Drain(DrainArgs),
    /// Let a node keep what it holds, and get nothing new
    #[command(after_help = CHANGE_HELP)]
    Cordon(NodeChangeArgs),
    /// Let a node hold its share again, whether it is cordoned or draining
    #[command(after_help = CHANGE_HELP)]
    Uncordon(NodeChangeArgs),
    /// Take a node out of the cluster for good: it has to be empty (see drain), or down and its replicas elsewhere
    #[command(after_help = REMOVE_HELP)]
    Remove(RemoveArgs),
}

const VIEW_HELP: &str = "\
With --json, one object:
  {\"cluster\",\"epoch\",\"leader\",\"settled\",\"nodes\":[…],\"moves\":[…],\"planned\":[…],\"lost\":[…]}
  nodes:   {\"node\",\"address\",\"zone\",\"weight\",\"state\",\"down\",\"silent_ms\",\"replicas\",\"should_lead\",
            \"catalog\"}
           state: active, cordoned or draining
  moves:   {\"group\",\"collection\",\"shard\",\"reason\",\"replicas\":[…]}; no collection: the catalog
  replicas of a move:
           {\"node\",\"replica\",\"wanted\",\"standing\",\"bytes\",\"of_bytes\",\"bytes_per_second\",\"seconds_left\"}
           wanted: voter, learner or gone; standing: none, learner, voter or changing
  planned: {\"collection\",\"shard\",\"from\",\"to\",\"bytes\",\"reason\"}
  lost:    sentences about shards that cannot be written any more
'settled' says that moves and planned are empty.";

const WATCH_HELP: &str = "\
On a terminal the screen is redrawn; elsewhere lines are printed when something is different. With --json one
object a line, as nodes list prints it, with bytes_per_second and seconds_left where they are known.

Examples:
  slowdb-node nodes watch
  slowdb-node nodes watch --until-settled --timeout 10m   (exit 3 if it takes longer)";

const DRAIN_HELP: &str = "\
With --json, one object: {\"dry_run\",\"changed\",\"moves\":[…],\"notes\":[…]}
  moves: {\"collection\",\"shard\",\"from\",\"to\",\"bytes\",\"reason\"}
With --wait it is printed at the end, and has \"emptied\":true.

Examples:
  slowdb-node nodes drain n3 --dry-run
  slowdb-node nodes drain n3 --wait --timeout 1h && slowdb-node nodes remove n3";

const REMOVE_HELP: &str = "\
A node that is up is removed once it has said that it keeps no write that only it has. One that is down cannot say so,
and is removed only with --lost.

With --json, one object: {\"dry_run\",\"changed\",\"moves\":[…],\"notes\":[…]}

Examples:
  slowdb-node nodes remove n3
  slowdb-node nodes remove n3 --lost   (its disk is gone)";

const CHANGE_HELP: &str = "\
With --json, one object: {\"dry_run\",\"changed\",\"moves\":[…],\"notes\":[…]}
  moves: {\"collection\",\"shard\",\"from\",\"to\",\"bytes\",\"reason\"}";

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// End when nothing is moved and nothing is planned to be
    #[arg(long)]
    pub(crate) until_settled: bool,
    #[command(flatten)]
    pub(crate) connect: WaitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The node's id
    #[arg(value_name = "ID", value_parser = name)]
    pub(crate) node: String,
    /// Wait until it holds no replicas
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) wait: bool,
    /// Change nothing, only print what would be moved
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) connect: WaitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodeChangeArgs {
    /// The node's id
    #[arg(value_name = "ID", value_parser = name)]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The node's id
    #[arg(value_name = "ID", value_parser = name)]
    pub(crate) node: String,
    /// It is down and will not come back: give up what only it keeps, which are writes that were
    /// acknowledged at 'one' and that a failover overtook
    #[arg(long)]
    pub(crate) lost: bool,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// What every command that changes something takes.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Change nothing, only print what would be moved
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// What every command takes that may wait for the cluster.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) seeds: SeedArgs,
    /// When it waits for something, how long that may take in all: 90s, 10m, 2h [default: as long as it
    /// takes]. Else how long a request may take [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = wait)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(after_help = CHANGE_HELP)]
pub(crate) struct RebalanceArgs {
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CollectionsArgs {
    #[command(subcommand)]
    pub(crate) command: CollectionsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CollectionsCommand {
    /// Make a collection
    #[command(after_help = CHANGE_HELP)]
    Create(CreateArgs),
    /// Show all collections
    #[command(after_help = "\
With --json, one object:
  {\"collections\":[{\"name\",\"dimension\",\"metric\",\"num_shards\",\"replication_factor\",
   \"write_level\",\"read_level\",\"write_floor\",\"read_floor\",\"conflicts\"}]}")]
    List(ListArgs),
    /// Drop a collection and all its records
    #[command(after_help = CHANGE_HELP)]
    Drop(DropArgs),
    /// Change how many replicas a collection's shards have, or the levels of requests to it
    #[command(after_help = CHANGE_HELP)]
    Alter(AlterArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name: 1 to 64 of a-z A-Z 0-9 - _ and dots, not starting with a dot or '-'
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// Components of each vector
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = up_to(DIMENSION_MAX))]
    pub(crate) dimension: u32,
    /// How it measures similarity: l2, l1, inner_product or cosine
    #[arg(long, default_value = "cosine", value_parser = metric)]
    pub(crate) metric: Metric,
    /// Its shards
    #[arg(long, value_name = "N", default_value_t = 16, allow_negative_numbers = true, value_parser = up_to(SHARDS_MAX))]
    pub(crate) num_shards: u32,
    /// Replicas of each shard, as far as there are nodes
    #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true, value_parser = up_to(REPLICATION_FACTOR_MAX))]
    pub(crate) replication_factor: u32,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// What a collection says of the requests to it.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Level of writes that name none: one, quorum or all [quorum in a new collection]
    #[arg(long, value_name = "LEVEL", value_parser = write_level)]
    pub(crate) write_level: Option<WriteLevel>,
    /// Level of reads that name none: one, session or quorum [quorum in a new collection]
    #[arg(long, value_name = "LEVEL", value_parser = read_level)]
    pub(crate) read_level: Option<ReadLevel>,
    /// Lowest level at which writes are taken [one in a new collection]
    #[arg(long, value_name = "LEVEL", value_parser = write_level)]
    pub(crate) write_floor: Option<WriteLevel>,
    /// Lowest level at which reads are taken [one in a new collection]
    #[arg(long, value_name = "LEVEL", value_parser = read_level)]
    pub(crate) read_floor: Option<ReadLevel>,
    /// What becomes of a write at one that a failover overtook, and of another to the same record: newest,
    /// keep_current or keep_both [newest in a new collection]
    #[arg(long, value_name = "POLICY", value_parser = conflicts)]
    pub(crate) conflicts: Option<ConflictPolicy>,
}

impl SettingsArgs {
    pub(crate) fn change(&self) -> SettingsChange {
        SettingsChange {
            write_level: self.write_level,
            read_level: self.read_level,
            write_floor: self.write_floor,
            read_floor: self.read_floor,
            conflicts: self.conflicts,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    /// Its name
    #[arg(value_parser = name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    /// Its name
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// Replicas of each shard, as far as there are nodes
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = up_to(REPLICATION_FACTOR_MAX))]
    pub(crate) replication_factor: Option<u32>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    pub(crate) command: ExplainCommand,
}

const EXPLAIN_HELP: &str = "With --json, one object: {\"explanation\":[…]}, sentences.";

#[derive(Debug, Subcommand)]
pub(crate) enum ExplainCommand {
    /// Why are a shard's replicas where they are, and what happens next?
    #[command(after_help = EXPLAIN_HELP)]
    Shard {
        /// The shard's number
        shard: u32,
        /// Its collection
        #[arg(long, default_value = "default", value_parser = name)]
        collection: String,
        #[command(flatten)]
        connect: ConnectArgs,
    },
    /// Why does a node hold what it holds, and what happens next?
    #[command(after_help = EXPLAIN_HELP)]
    Node {
        /// The node's id
        #[arg(value_name = "ID", value_parser = name)]
        node: String,
        #[command(flatten)]
        connect: ConnectArgs,
    },
}

/// Reads a number from 1 on.
fn up_to(max: u32) -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=i64::from(max))
}

/// Reads the level of a write.
fn write_level(text: &str) -> Result<WriteLevel, String> {
    consistency(text)?.for_write()
}

/// Reads a conflict policy.
fn conflicts(text: &str) -> Result<ConflictPolicy, String> {
    text.parse()
}

/// Reads the level of a read.
fn read_level(text: &str) -> Result<ReadLevel, String> {
    consistency(text)?.for_read()
}

/// Reads a time that may be long.
fn wait(text: &str) -> Result<Duration, String> {
    time(text, WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("slowdb-node").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command)
    }

    #[test]
    fn waits_are_read() {
        for (text, ms) in [("500ms", 500), ("5s", 5_000), ("20m", 1_200_000), ("2h", 7_200_000)] {
            assert_eq!(wait(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "h", "5d", "-1s", "0s", "721h", "nan", "infs"] {
            wait(text).expect_err(text);
        }
    }

    #[test]
    fn every_verb_is_read() {
        for line in [
            "nodes list",
            "nodes list --json --connect a:1,b:2 --certs c --timeout 1s",
            "nodes watch --until-settled --timeout 2h",
            "nodes drain n3 --dry-run",
            "nodes drain n3 --wait --timeout 10m",
            "nodes cordon n3 --dry-run",
            "nodes uncordon n3",
            "nodes remove n3 --dry-run",
            "rebalance --dry-run",
            "collections create c --dimension 3 --metric l2 --num-shards 4 --replication-factor 1 --dry-run",
            "collections list",
            "collections drop c --dry-run",
            "collections alter c --replication-factor 5 --dry-run",
            "collections alter c --write-level all --read-level session --write-floor quorum --read-floor one",
            "collections create c --dimension 3 --write-level one --read-level one",
            "collections alter c --conflicts keep_current",
            "explain shard 3 --collection c",
            "explain node n3 --json",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "nodes",
            "nodes drain",
            "nodes drain a/b",
            "nodes drain n3 --wait --dry-run",
            "nodes list --dry-run",
            "collections create c",
            "collections create c --dimension 3 --metric round",
            "collections alter c --write-level session",
            "collections alter c --read-floor all",
            "collections alter c --conflicts latest",
            "explain shard three",
            "explain",
        ] {
            parse(line).expect_err(line);
        }
    }

    #[test]
    fn a_collection_has_the_defaults_that_the_first_one_has() {
        let command = parse("collections create c --dimension 3").expect("good");
        let Command::Collections(CollectionsArgs { command: CollectionsCommand::Create(args) }) = command
        else {
            panic!("{command:?}")
        };
        assert_eq!((args.num_shards, args.replication_factor), (16, 3));
        assert_eq!((args.metric, args.change.dry_run), (Metric::Cosine, false));
    }
}
