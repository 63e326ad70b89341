//! `cargo xtask demo --grow`: one node becomes three and five, one is killed and replaced, one is drained, and the rest are
//! restarted one after another, while records are written and read all the time. After each step everything is checked.

use super::{Input, records};
use crate::cluster::{Cluster, view};
use crate::load::{Load, LoadOptions};
use crate::movement::{self, Placement};
use crate::rolling;
use crate::truth::Truth;
use crate::ui::{Said, detail, seconds, step, step_now, thousands};
use anyhow::{Context, Result, bail, ensure};
use slowdb_client::{Client, Collection, ReadOptions};
use slowdb_proto::{Admin, NodeState, NodeView, Standing};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const START_DEADLINE: Duration = Duration::from_secs(60);
/// For one step of growing, moving or healing.
const SETTLE_DEADLINE: Duration = Duration::from_secs(180);
/// How long a request of the load may take, retries included.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
const LANES_PER_SHARD: u32 = 1;
const READERS: usize = 4;

/// Runs it on a cluster of one node that is laid out and not started.
pub(super) async fn run(cluster: &mut Cluster, input: &Input) -> Result<()> {
    let start = Instant::now();
    let client = step("start one node", async {
        cluster.start_all()?;
        let client = view::connect(cluster, START_DEADLINE).await?;
        Ok((client, cluster.addresses().join(", ")))
    })
    .await?;
    let collection = client.collection("default");
    step("import", records::import(&collection, &input.data)).await?;
    let truth = step_now("exact answers", || {
        Ok((Truth::compute(&input.data, &input.queries, input.k), "every query with every vector".into()))
    })?;
    let load = Load::start(
        &collection,
        LoadOptions {
            num_shards: cluster.shape().num_shards,
            dimension: input.data.dimension,
            lanes_per_shard: LANES_PER_SHARD,
            prefix: "grow-load".into(),
            timeout: REQUEST_WITHIN,
        },
    );
    let readers = Readers::start(&collection, input);
    println!("    from here on records are written and read all the time");

    let checks = Checks { client: &client, collection: &collection, input, truth: &truth };
    for (count, name) in [(3, "one node becomes three"), (5, "three become five")] {
        let before = Placement::of(&client).await?;
        step(name, grow(cluster, &client, count)).await?;
        commentary(&client, &before).await?;
        checks.run().await?;
    }
    let victim = leader_of_most(&client).await?;
    let before = Placement::of(&client).await?.without(&victim);
    step("kill -9, and heal", heal(cluster, &client, &victim)).await?;
    commentary(&client, &before).await?;
    checks.run().await?;
    let before = Placement::of(&client).await?;
    step("the dead node returns", async {
        cluster.start(&victim)?;
        let view =
            movement::settled(&client, SETTLE_DEADLINE, |view| view.nodes.iter().all(|node| !node.down))
                .await?;
        Ok(((), format!("{victim} holds {} replicas again", movement::held(&view, &victim))))
    })
    .await?;
    commentary(&client, &before).await?;
    checks.run().await?;
    let drained = leader_of_most(&client).await?;
    let before = Placement::of(&client).await?.without(&drained);
    step("drain a node", drain(&client, &drained)).await?;
    commentary(&client, &before).await?;
    checks.run().await?;
    step("remove it", remove(cluster, &client, &drained)).await?;
    step("rolling restart", async {
        let took = rolling::restart_all(cluster, &client).await?;
        let slowest = took.iter().max().copied().unwrap_or_default();
        Ok((
            (),
            format!("{} nodes, each caught up before the next; {} at most", took.len(), seconds(slowest)),
        ))
    })
    .await?;
    checks.run().await?;

    let read = readers.stop().await?;
    let written = load.stop().await?;
    step("acknowledged writes", async {
        let verified = written.verify(&collection).await?;
        let said = format!(
            "{} acknowledged, none lost; {} ids read",
            thousands(verified.acked),
            thousands(verified.ids)
        );
        Ok(((), said))
    })
    .await?;
    ensure!(
        written.failed() == 0,
        "{} writes failed though each had {} to be retried: {:?}",
        written.failed(),
        seconds(REQUEST_WITHIN),
        written.errors()
    );
    step("clean up", records::remove(&collection, &written.ids())).await?;
    checks.run().await?;
    println!("\nSummary");
    let row = |what: &str, value: String| println!("  {what:<36} {value}");
    row("nodes", "1, 3, 5, one killed and back, one drained: 4, all restarted".into());
    row("writes acknowledged, none lost", thousands(written.acked()));
    row("reads, all as written", thousands(read));
    row("requests that failed", "0".into());
    row("took", seconds(start.elapsed()));
    Ok(())
}

/// What is checked after each step.
struct Checks<'a> {
    client: &'a Client,
    collection: &'a Collection,
    input: &'a Input,
    truth: &'a Truth<'a>,
}

impl Checks<'_> {
    async fn run(&self) -> Result<()> {
        step("  read back", records::read_back(self.collection, &self.input.data)).await?;
        step("  search", records::search(self.collection, self.input, self.truth)).await?;
        step("  placement and digests", self.placement()).await
    }

    /// Every shard has its replicas, on nodes that hold about equally many, and their digests are equal at one position.
    async fn placement(&self) -> Said<()> {
        let end = Instant::now() + SETTLE_DEADLINE;
        let view = movement::settled(self.client, SETTLE_DEADLINE, |_| true).await?;
        let live: Vec<_> =
            view.nodes.iter().filter(|node| !node.down && node.state == NodeState::Active).collect();
        let held: Vec<u32> = live.iter().map(|node| node.replicas).collect();
        let (least, most) =
            (held.iter().min().copied().unwrap_or_default(), held.iter().max().copied().unwrap_or_default());
        ensure!(most - least <= 1, "nodes hold {held:?} replicas: that is no balance");
        loop {
            match movement::equal_replicas(self.client).await? {
                Ok(replicas) => {
                    let said = format!(
                        "{replicas} replicas, digests equal; {} hold {least} to {most} each",
                        live.len()
                    );
                    return Ok(((), said));
                }
                Err(why) if Instant::now() > end => bail!("digests could not be compared: {why}"),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// Says what moved, beside the fewest replicas that could have moved.
async fn commentary(client: &Client, before: &Placement) -> Result<()> {
    let view = client.cluster().await?;
    let takes = |node: &&NodeView| !node.down && node.state == NodeState::Active;
    let nodes: Vec<String> = view.nodes.iter().filter(takes).map(|node| node.id.clone()).collect();
    let after = Placement::of(client).await?;
    let gained = after.gained(before);
    let moved: usize = gained.values().sum();
    let each: Vec<String> = gained.iter().map(|(node, count)| format!("{node} {count}")).collect();
    let fewest = before.fewest(&after, &nodes);
    detail(format!("{moved} replicas were made anew, {fewest} at least had to be: {}", each.join(", ")));
    Ok(())
}

async fn grow(cluster: &mut Cluster, client: &Client, count: usize) -> Said<()> {
    while cluster.ids().len() < count {
        let id = cluster.add()?;
        cluster.start(&id)?;
    }
    let view =
        movement::settled(client, SETTLE_DEADLINE, |view| view.nodes.len() == count).await.with_context(
            || cluster.ids().iter().map(|id| cluster.log_tail(id)).collect::<Vec<_>>().join("\n"),
        )?;
    let voters = view.nodes.iter().filter(|node| node.catalog == Standing::Voter).count();
    Ok(((), format!("{count} nodes, {voters} of them vote in the catalog")))
}

async fn heal(cluster: &mut Cluster, client: &Client, victim: &str) -> Said<()> {
    let before = client.cluster().await?;
    let lost = movement::held(&before, victim);
    cluster.kill(victim)?;
    let killed = Instant::now();
    let view =
        movement::settled(client, SETTLE_DEADLINE, |view| view.nodes.iter().any(|node| node.down)).await?;
    let said =
        format!("{victim} is dead; its {lost} replicas were rebuilt {} later", seconds(killed.elapsed()));
    ensure!(
        movement::held(&view, victim) == 0,
        "{victim} is still said to hold {} replicas",
        movement::held(&view, victim)
    );
    Ok(((), said))
}

async fn drain(client: &Client, node: &str) -> Said<()> {
    let drain = Admin::SetNodeState { node: node.to_owned(), state: NodeState::Draining };
    let planned = client.admin(drain.clone(), true).await?.moves.len();
    client.admin(drain, false).await?;
    movement::settled(client, SETTLE_DEADLINE, |view| movement::held(view, node) == 0).await?;
    Ok(((), format!("{node} is empty; {planned} moves were planned")))
}

async fn remove(cluster: &mut Cluster, client: &Client, node: &str) -> Said<()> {
    client.admin(Admin::RemoveNode { node: node.to_owned(), lost: false }, false).await?;
    let view =
        movement::settled(client, SETTLE_DEADLINE, |view| view.nodes.iter().all(|info| info.id != node))
            .await?;
    cluster.terminate(node)?;
    cluster.forget(node)?;
    Ok(((), format!("{} nodes are left", view.nodes.len())))
}

async fn leader_of_most(client: &Client) -> Result<String> {
    let view = client.cluster().await?;
    let most = view
        .nodes
        .iter()
        .filter(|node| !node.down)
        .max_by_key(|node| (node.leads, std::cmp::Reverse(node.id.clone())));
    Ok(most.context("there are no nodes")?.id.clone())
}

/// Reads imported records all the time, and compares them.
struct Readers {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Readers {
    fn start(collection: &Collection, input: &Input) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let read = Arc::new(AtomicU64::new(0));
        let records: Vec<(String, Vec<f32>)> =
            input.data.ids.iter().cloned().zip(input.data.vectors().map(<[f32]>::to_vec)).collect();
        let records = Arc::new(records);
        let task = |lane: usize| {
            let (stop, read, records, collection) =
                (Arc::clone(&stop), Arc::clone(&read), Arc::clone(&records), collection.clone());
            tokio::spawn(async move {
                let options = ReadOptions { timeout: Some(REQUEST_WITHIN), ..ReadOptions::default() };
                for at in (lane..).step_by(7919) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (id, vector) = &records[at % records.len()];
                    let found = collection
                        .get(id, &options)
                        .await
                        .with_context(|| format!("a read of '{id}' failed"))?;
                    ensure!(
                        found.is_some_and(|found| found.vector == *vector),
                        "'{id}' is not what was written"
                    );
                    read.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        Readers { tasks: (0..READERS).map(task).collect(), stop, read }
    }

    async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(self.read.load(Ordering::Relaxed))
    }
}
