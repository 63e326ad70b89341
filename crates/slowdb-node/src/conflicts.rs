//! `conflicts`: what became of writes that were acknowledged at `one` and overtaken by a failover.

use crate::args::{ConflictsArgs, ConflictsCommand, OneConflictArgs, ReplayArgs, name};
use crate::connect::client;
use crate::failure::Failure;
use crate::output::{Output, visible};
use crate::payload::PayloadView;
use crate::records::PositionView;
use clap::Args;
use serde::Serialize;
use slowdb_client::{Collection, Conflict, ConflictName, Loser, WriteOptions};

/// The collection that is meant.
#[derive(Debug, Args)]
pub(crate) struct OnArgs {
    #[command(flatten)]
    pub(crate) connect: crate::args::ConnectArgs,
    /// Collection to use
    #[arg(long, default_value = "default", value_parser = name)]
    pub(crate) collection: String,
}

impl OnArgs {
    pub(crate) async fn open(&self) -> Result<Collection, Failure> {
        Ok(client(&self.connect).await?.collection(&self.collection))
    }
}

#[derive(Serialize)]
struct ConflictView<'a> {
    conflict: String,
    shard: u32,
    id: &'a str,
    /// What became of the late write.
    became: &'static str,
    decided: PositionView,
    /// What was there.
    met: Option<PositionView>,
    /// Milliseconds since 1970 at the leader that acknowledged the late write.
    time_ms: u64,
    /// What lost: `record`, `delete` or nothing.
    lost: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<PayloadView>,
}

#[derive(Serialize)]
struct ReplayedView {
    replayed: String,
    position: PositionView,
    shard: u32,
    durable_on: u32,
    replicas: u32,
}

#[derive(Serialize)]
struct DiscardedView {
    discarded: usize,
}

fn view(conflict: &Conflict) -> ConflictView<'_> {
    let entry = &conflict.entry;
    let (lost, payload_bytes) = match entry.loser {
        None => (None, None),
        Some(Loser::Delete) => (Some("delete"), None),
        Some(Loser::Put { payload_bytes }) => (Some("record"), Some(payload_bytes)),
    };
    let record = conflict.lost.as_ref();
    ConflictView {
        conflict: conflict.name().to_string(),
        shard: conflict.shard,
        id: &entry.id,
        became: entry.became.as_str(),
        decided: entry.decided.into(),
        met: entry.met.map(PositionView::from),
        time_ms: entry.hlc >> 16,
        lost,
        payload_bytes,
        vector: record.map(|record| &record.vector[..]),
        payload: record.and_then(|record| PayloadView::of(&record.payload)),
    }
}

fn human(view: &ConflictView<'_>) -> String {
    let met = view.met.map(|met| format!(", met {met}")).unwrap_or_default();
    let lost = match (view.lost, view.payload_bytes) {
        (Some(what), Some(bytes)) => format!("; lost: a {what} with a payload of {bytes} bytes"),
        (Some(what), None) => format!("; lost: a {what}"),
        (None, _) => String::new(),
    };
    let vector = view.vector.map(|vector| {
        let components: Vec<String> = vector.iter().map(f32::to_string).collect();
        format!("\n{}", components.join(","))
    });
    format!(
        "{}  {}  '{}'  decided at {}{met}{lost}{}{}",
        view.conflict,
        view.became,
        visible(view.id),
        view.decided,
        vector.unwrap_or_default(),
        view.payload.as_ref().map(|payload| format!("\npayload {payload}")).unwrap_or_default()
    )
}

/// `conflicts …`
pub(crate) async fn run(args: ConflictsArgs, output: Output) -> Result<(), Failure> {
    match args.command {
        ConflictsCommand::List(args) => list(&args.on.open().await?, output).await,
        ConflictsCommand::Show(OneConflictArgs { conflict, on }) => {
            let found = on.open().await?.conflict(conflict, None).await?;
            output.print(&view(&found), human)
        }
        ConflictsCommand::Replay(ReplayArgs { one: OneConflictArgs { conflict, on }, force }) => {
            let options = WriteOptions::default();
            let written = on.open().await?.replay_conflict(conflict, force, &options).await?;
            let view = ReplayedView {
                replayed: conflict.to_string(),
                position: written.position.into(),
                shard: written.shard,
                durable_on: written.durable_on,
                replicas: written.replicas,
            };
            output.print(&view, |view| {
                format!(
                    "wrote what lost in {} (position {}, durable on {} of {} replicas)",
                    view.replayed, view.position, view.durable_on, view.replicas
                )
            })
        }
        ConflictsCommand::Discard(args) => {
            let collection = args.on.open().await?;
            let discarded = match args.conflict {
                Some(conflict) => discard(&collection, conflict).await?,
                None => discard_all(&collection).await?,
            };
            output.print(&DiscardedView { discarded }, |view| format!("discarded {}", view.discarded))
        }
    }
}

async fn list(collection: &Collection, output: Output) -> Result<(), Failure> {
    let mut conflicts = collection.conflicts(None).await?;
    while let Some(page) = conflicts.next_page().await? {
        for conflict in &page {
            output.print(&view(conflict), human)?;
        }
    }
    Ok(())
}

async fn discard(collection: &Collection, conflict: ConflictName) -> Result<usize, Failure> {
    collection.discard_conflict(conflict, &WriteOptions::default()).await?;
    Ok(1)
}

async fn discard_all(collection: &Collection) -> Result<usize, Failure> {
    let mut discarded = 0;
    let mut conflicts = collection.conflicts(None).await?;
    while let Some(page) = conflicts.next_page().await? {
        discarded += collection.discard_conflicts(&page, &WriteOptions::default()).await?;
    }
    Ok(discarded)
}
