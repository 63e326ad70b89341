//! `search`: the nearest records to a vector, a record, or each row of a file.

use crate::args::SearchArgs;
use crate::connect::{collection, read_options};
use crate::failure::Failure;
use crate::output::{Output, table, visible};
use crate::records::parse_vector;
use crate::session::Carried;
use serde::Serialize;
use slowdb_client::vectors::Vectors;
use slowdb_client::{Collection, Hit, Metric, MissingShard, SearchOptions, SearchResults};

/// Queries read from a file at once.
const QUERIES_AT_ONCE: usize = 256;

#[derive(Serialize)]
struct Results<'a> {
    results: Vec<HitView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<MissingView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

#[derive(Serialize)]
struct MissingView<'a> {
    shard: u32,
    reason: &'a str,
}

#[derive(Serialize)]
struct HitView<'a> {
    id: &'a str,
    score: f32,
}

/// `search`
pub(crate) async fn run(args: SearchArgs, output: Output) -> Result<(), Failure> {
    let read = read_options(&args.on)?;
    let options = SearchOptions {
        k: args.k,
        metric: args.metric,
        level: read.level,
        min_coverage: args.min_coverage,
        timeout: None,
    };
    if let Some(text) = &args.query.vector {
        let vector = parse_vector(text)?;
        let (collection, carried) = collection(&args.on).await?;
        return one(&collection, &vector, &options, &carried, output).await;
    }
    if let Some(id) = &args.query.id {
        let (collection, carried) = collection(&args.on).await?;
        let record = collection.get(id, &read).await?.ok_or_else(|| Failure::not_found(&[id]))?;
        return one(&collection, &record.vector, &options, &carried, output).await;
    }
    let Some(path) = &args.query.queries else {
        return Err(Failure::usage("what to search for? Give --vector, --id or --queries"));
    };
    let mut queries = Vectors::open(path)?;
    queries.check()?;
    let (collection, carried) = collection(&args.on).await?;
    let dimension = collection.dimension().await?;
    if dimension != queries.dimension() {
        let got = queries.dimension();
        let message =
            format!("{} has queries of {got} components, the collection of {dimension}", path.display());
        return Err(Failure::bad_input("wrong_dimension", message));
    }
    many(&collection, queries, &options, output).await?;
    carried.save()?;
    Ok(())
}

async fn one(
    collection: &Collection,
    vector: &[f32],
    options: &SearchOptions,
    carried: &Carried,
    output: Output,
) -> Result<(), Failure> {
    // A vector of twice the dimension would pass for two queries.
    let dimension = collection.dimension().await?;
    if vector.len() != dimension {
        let message = format!("the vector has {} components, the collection has {dimension}", vector.len());
        return Err(Failure::bad_input("wrong_dimension", message));
    }
    let found = collection.search(vector, options).await?;
    let hits = found.results.first().map_or(&[][..], Vec::as_slice);
    let results = Results { session: carried.save()?, ..view(hits, &found.missing) };
    output.print(&results, |results| human(results, found.metric))
}

async fn many(
    collection: &Collection,
    mut queries: Vectors,
    options: &SearchOptions,
    output: Output,
) -> Result<(), Failure> {
    let (mut row, mut batch, mut nth) = (Vec::new(), Vec::new(), 0);
    loop {
        batch.clear();
        while batch.len() < QUERIES_AT_ONCE * queries.dimension() && queries.next_row(&mut row)? {
            batch.extend_from_slice(&row);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let SearchResults { metric, results, missing, .. } = collection.search(&batch, options).await?;
        for hits in &results {
            output.print(&view(hits, &missing), |results| {
                format!("query {nth}\n{}\n", human(results, metric))
            })?;
            nth += 1;
        }
    }
}

fn view<'a>(hits: &'a [Hit], missing: &'a [MissingShard]) -> Results<'a> {
    let results = hits.iter().map(|hit| HitView { id: &hit.id, score: hit.score }).collect();
    let view = |missing: &'a MissingShard| MissingView { shard: missing.shard, reason: &missing.reason };
    Results { results, missing: missing.iter().map(view).collect(), session: None }
}

fn human(results: &Results<'_>, metric: Metric) -> String {
    let without = |missing: &MissingView<'_>| format!("without shard {}: {}", missing.shard, missing.reason);
    let mut lines: Vec<String> = results.missing.iter().map(without).collect();
    lines.push(hits(results, metric));
    lines.join("\n")
}

fn hits(results: &Results<'_>, metric: Metric) -> String {
    if results.results.is_empty() {
        return "nothing found: the collection is empty".to_owned();
    }
    let row = |hit: &HitView<'_>| vec![format!("{:.6}", hit.score), visible(hit.id).into_owned()];
    let rows: Vec<Vec<String>> = results.results.iter().map(row).collect();
    table(&[&metric.as_str().to_uppercase(), "ID"], &[0], &rows)
}
