//! The operator's commands: looking at the cluster, changing it, and asking why it is as it is.
//!
//! All of them ask the catalog's leader, which decides; here things are only printed and waited for.

pub(crate) mod args;
mod human;
mod rates;
#[cfg(test)]
pub(crate) mod tests;
mod view;
mod watch;

use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, line};
use args::{
    ChangeArgs, CollectionsArgs, CollectionsCommand, DrainArgs, ExplainArgs, ExplainCommand, ListArgs,
    NodesArgs, NodesCommand, RebalanceArgs, WaitArgs, WatchArgs,
};
pub(crate) use human::moves as human_moves;
use slowdb_client::{Admin, Client, ClientError, Explain, NodeState, SettingsChange};
use slowdb_proto::CollectionSettings;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use view::{Changed, Collections, Explanation};
pub(crate) use view::{Cluster, Move};
use watch::{Goal, Show, Until, Watch};

/// How long a request may take, unless it is said.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Between two views of which only the rates are of interest.
const GLANCE: Duration = Duration::from_millis(500);

/// `nodes …`
pub(crate) async fn nodes(args: NodesArgs, output: Output) -> Result<(), Failure> {
    let set = |node, state| Admin::SetNodeState { node, state };
    match args.command {
        NodesCommand::List(args) => list(args, output).await,
        NodesCommand::Watch(args) => watch(args, output).await,
        NodesCommand::Drain(args) => drain(args, output).await,
        NodesCommand::Cordon(args) => change(args.change, set(args.node, NodeState::Cordoned), output).await,
        NodesCommand::Uncordon(args) => change(args.change, set(args.node, NodeState::Active), output).await,
        NodesCommand::Remove(args) => {
            change(args.change, Admin::RemoveNode { node: args.node, lost: args.lost }, output).await
        }
    }
}

/// `rebalance`
pub(crate) async fn rebalance(args: RebalanceArgs, output: Output) -> Result<(), Failure> {
    change(args.change, Admin::Rebalance, output).await
}

/// `collections …`
pub(crate) async fn collections(args: CollectionsArgs, output: Output) -> Result<(), Failure> {
    match args.command {
        CollectionsCommand::List(args) => {
            let map = connect::client(&args.connect).await?.newest_map().await?;
            output.print(&Collections::from(&map), human::collections)
        }
        CollectionsCommand::Create(args) => {
            let admin = Admin::CreateCollection {
                name: args.name,
                dimension: args.dimension,
                metric: args.metric,
                num_shards: args.num_shards,
                replication_factor: args.replication_factor,
                settings: args.settings.change().of(CollectionSettings::default()),
            };
            change(args.change, admin, output).await
        }
        CollectionsCommand::Drop(args) => {
            change(args.change, Admin::DropCollection { name: args.name }, output).await
        }
        CollectionsCommand::Alter(args) => {
            let (replication_factor, settings) = (args.replication_factor, args.settings.change());
            if replication_factor.is_none() && settings == SettingsChange::default() {
                return Err(Failure::usage(
                    "nothing to alter: give --replication-factor, a level or --conflicts",
                ));
            }
            let admin = Admin::AlterCollection { name: args.name, replication_factor, settings };
            change(args.change, admin, output).await
        }
    }
}

/// `explain …`
pub(crate) async fn explain(args: ExplainArgs, output: Output) -> Result<(), Failure> {
    let (explain, connect) = match args.command {
        ExplainCommand::Shard { shard, collection, connect } => {
            (Explain::Shard { collection, shard }, connect)
        }
        ExplainCommand::Node { node, connect } => (Explain::Node { node }, connect),
    };
    let explanation = connect::client(&connect).await?.explain(explain).await?;
    output.print(&Explanation { explanation }, |it| it.explanation.join("\n"))
}

/// The cluster with what is on its way; how fast, too, if anything is being copied.
pub(crate) async fn glance(client: &Client) -> Result<Cluster, ClientError> {
    let start = Instant::now();
    let mut rates = rates::Rates::default();
    let view = client.cluster().await?;
    rates.take(&view, start.elapsed());
    let first = Cluster::new(&view, &rates);
    if !first.is_copying() {
        return Ok(first);
    }
    tokio::time::sleep(GLANCE).await;
    let view = client.cluster().await?;
    rates.take(&view, start.elapsed());
    Ok(Cluster::new(&view, &rates))
}

async fn list(args: ListArgs, output: Output) -> Result<(), Failure> {
    let client = connect::client(&args.connect).await?;
    output.print(&glance(&client).await?, human::cluster)
}

async fn change(args: ChangeArgs, admin: Admin, output: Output) -> Result<(), Failure> {
    let client = connect::client(&args.connect).await?;
    let reply = client.admin(admin.clone(), args.dry_run).await?;
    output.print(&Changed::new(&reply, args.dry_run), |changed| human::changed(&admin, changed))
}

async fn watch(args: WatchArgs, output: Output) -> Result<(), Failure> {
    let goal = if args.until_settled { Goal::Settled } else { Goal::None };
    let until = until(goal, &args.connect);
    let client = client(&args.connect, args.until_settled).await?;
    let show = match (output.is_json, std::io::stdout().is_terminal()) {
        (true, _) => Show::Json,
        (false, true) => Show::Screen,
        (false, false) => Show::Lines,
    };
    Watch { client: &client, until, show }.run().await
}

async fn drain(args: DrainArgs, output: Output) -> Result<(), Failure> {
    let until = until(Goal::Emptied { node: args.node.clone() }, &args.connect);
    let client = client(&args.connect, args.wait).await?;
    let admin = Admin::SetNodeState { node: args.node.clone(), state: NodeState::Draining };
    let reply = client.admin(admin.clone(), args.dry_run).await?;
    let mut changed = Changed::new(&reply, args.dry_run);
    if !args.wait {
        return output.print(&changed, |changed| human::changed(&admin, changed));
    }
    let show = if output.is_json { Show::Nothing } else { Show::Lines };
    if !output.is_json {
        line(&human::changed(&admin, &changed))?;
    }
    Watch { client: &client, until, show }.run().await?;
    changed.emptied = Some(true);
    output.print(&changed, |_| format!("node {} holds no replicas", args.node))
}

/// The time for what is waited for runs from here, connecting included.
fn until(goal: Goal, args: &WaitArgs) -> Until {
    Until { goal, deadline: args.timeout.map(|timeout| (Instant::now() + timeout, timeout)) }
}

/// A client for a command that may wait for long: then each of its requests is as short as any.
async fn client(args: &WaitArgs, waits: bool) -> Result<Client, Failure> {
    let time = args.timeout.unwrap_or(REQUEST_TIME);
    connect::client_within(&args.seeds, if waits { time.min(REQUEST_TIME) } else { time }).await
}
