//! `put`, `get`, `delete`: one record.

use crate::args::{DeleteArgs, GetArgs, PutArgs};
use crate::connect::{collection, read_options, write_options};
use crate::failure::Failure;
use crate::output::{Output, visible};
use crate::payload::{self, PayloadView};
use serde::Serialize;
use slowdb_client::{Position, Put, Record, Sibling, Written};
use slowdb_proto::Condition;
use slowdb_proto::limits::DIMENSION_MAX;
use std::io::{IsTerminal, Read};

/// Longest text of a vector on stdin: the largest dimension with room for every digit.
const STDIN_BYTES_MAX: u64 = DIMENSION_MAX as u64 * 64;

/// A position as it is printed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PositionView {
    term: u64,
    index: u64,
    offset: u32,
}

impl From<Position> for PositionView {
    fn from(position: Position) -> Self {
        PositionView { term: position.term, index: position.index, offset: position.offset }
    }
}

impl std::fmt::Display for PositionView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.term, self.index, self.offset)
    }
}

#[derive(Serialize)]
struct WrittenView<'a> {
    id: &'a str,
    position: PositionView,
    /// The position as `--if-version` takes it.
    version: String,
    shard: u32,
    durable_on: u32,
    replicas: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

#[derive(Serialize)]
struct RecordView<'a> {
    id: &'a str,
    vector: &'a [f32],
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<PayloadView>,
    position: PositionView,
    /// The position as `--if-version` takes it.
    version: String,
    shard: u32,
    /// What lost against it and was kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    siblings: Vec<SiblingView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

#[derive(Serialize)]
struct SiblingView<'a> {
    version: String,
    vector: &'a [f32],
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<PayloadView>,
}

fn written_view<'a>(id: &'a str, written: &Written, session: Option<String>) -> WrittenView<'a> {
    WrittenView {
        id,
        position: written.position.into(),
        version: written.position.to_string(),
        shard: written.shard,
        durable_on: written.durable_on,
        replicas: written.replicas,
        session,
    }
}

/// `put ID`
pub(crate) async fn put(args: PutArgs, output: Output) -> Result<(), Failure> {
    let vector = match &args.vector {
        Some(text) => parse_vector(text)?,
        None => vector_from_stdin()?,
    };
    let payload = args.payload.as_deref().map(payload::parse).transpose()?.unwrap_or_default();
    let options = write_options(&args.on)?;
    let (collection, carried) = collection(&args.on).await?;
    let put = Put { id: &args.id, vector: &vector, payload: &payload };
    let written = match args.only.condition() {
        Some(condition) => collection.put_if(put, condition, &options).await?,
        None => collection.put_record(put, &options).await?,
    };
    let verb = match written.existed {
        Some(true) => "replaced",
        Some(false) => "made",
        None => "wrote",
    };
    output.print(&written_view(&args.id, &written, carried.save()?), |w| {
        format!("{verb} '{}' ({})", visible(w.id), place(w))
    })
}

fn place(written: &WrittenView<'_>) -> String {
    format!(
        "shard {}, version {}, durable on {} of {} replicas",
        written.shard, written.version, written.durable_on, written.replicas
    )
}

/// `get ID…`
pub(crate) async fn get(args: GetArgs, output: Output) -> Result<(), Failure> {
    let options = read_options(&args.on)?;
    let (collection, carried) = collection(&args.on).await?;
    let ids: Vec<&str> = args.ids.iter().map(String::as_str).collect();
    let found = collection.get_many(&ids, &options).await?.records;
    let session = carried.save()?;
    for record in found.iter().flatten() {
        output.print(&record_view(record, session.clone()), human_record)?;
    }
    let missing: Vec<&str> =
        ids.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(id, _)| *id).collect();
    if missing.is_empty() { Ok(()) } else { Err(Failure::not_found(&missing)) }
}

fn record_view(record: &Record, session: Option<String>) -> RecordView<'_> {
    RecordView {
        id: &record.id,
        vector: &record.vector,
        payload: PayloadView::of(&record.payload),
        position: record.position.into(),
        version: record.position.to_string(),
        shard: record.shard,
        siblings: record.siblings.iter().map(sibling_view).collect(),
        session,
    }
}

fn sibling_view(sibling: &Sibling) -> SiblingView<'_> {
    SiblingView {
        version: sibling.position.to_string(),
        vector: &sibling.vector,
        payload: PayloadView::of(&sibling.payload),
    }
}

fn components(vector: &[f32]) -> String {
    vector.iter().map(f32::to_string).collect::<Vec<_>>().join(",")
}

fn human_record(view: &RecordView<'_>) -> String {
    let payload = |payload: &Option<PayloadView>| {
        payload.as_ref().map(|payload| format!("\npayload {payload}")).unwrap_or_default()
    };
    let vector = components(view.vector);
    let mut text = format!(
        "'{}' (shard {}, version {}), {} components\n{vector}{}",
        visible(view.id),
        view.shard,
        view.version,
        view.vector.len(),
        payload(&view.payload)
    );
    for sibling in &view.siblings {
        let vector = components(sibling.vector);
        let payload = payload(&sibling.payload);
        text.push_str(&format!(
            "\nlost against it, and kept: version {}\n{vector}{payload}",
            sibling.version
        ));
    }
    text
}

/// `delete ID`
pub(crate) async fn delete(args: DeleteArgs, output: Output) -> Result<(), Failure> {
    let options = write_options(&args.on)?;
    let (collection, carried) = collection(&args.on).await?;
    let written = match args.if_version.map(Condition::IfVersion) {
        Some(condition) => collection.delete_if(&args.id, condition, &options).await?,
        None => collection.delete(&args.id, &options).await?,
    };
    let session = carried.save()?;
    // At level one nobody knows yet whether there was a record.
    if written.existed == Some(false) {
        return Err(Failure::not_found(&[&args.id]));
    }
    output.print(&written_view(&args.id, &written, session), |w| {
        format!("removed '{}' ({})", visible(w.id), place(w))
    })
}

/// Reads `0.1,0.2,…`.
pub(crate) fn parse_vector(text: &str) -> Result<Vec<f32>, Failure> {
    let parse = |(at, part): (usize, &str)| {
        let part = part.trim();
        let shown: String = part.chars().take(40).collect();
        let number: f32 = part.parse().map_err(|_| {
            let message = format!("component {at} of the vector is no number: '{shown}'");
            Failure::bad_input("bad_request", message)
        })?;
        // An infinity that was not written as one.
        if number.is_infinite() && part.contains(|c: char| c.is_ascii_digit()) {
            let what =
                format!("component {at} is {shown}, which is too large for 32 bits: at most {:e}", f32::MAX);
            return Err(Failure::bad_input("not_finite", what));
        }
        Ok(number)
    };
    text.split(',').enumerate().map(parse).collect()
}

fn vector_from_stdin() -> Result<Vec<f32>, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage("no vector: give --vector 0.1,0.2,… or a JSON array on stdin"));
    }
    let mut text = String::new();
    stdin
        .lock()
        .take(STDIN_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::bad_file(format!("cannot read a vector from stdin: {error}")))?;
    if text.trim().is_empty() {
        return Err(Failure::usage("no vector: give --vector 0.1,0.2,… or a JSON array on stdin"));
    }
    serde_json::from_str(&text).map_err(|error| {
        Failure::bad_input("bad_request", format!("stdin holds no JSON array of numbers: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_read() {
        assert_eq!(parse_vector("1, -2.5,3e-2").expect("good"), [1.0, -2.5, 0.03]);
        let large = parse_vector("1,-1e39").expect_err("too large");
        assert!(
            large.code == "not_finite" && large.message.contains("-1e39, which is too large"),
            "{large:?}"
        );
        assert!(parse_vector("inf").expect("for others to refuse")[0].is_infinite());
        for text in ["", "1,", "1;2", "a,b"] {
            assert_eq!(parse_vector(text).expect_err(text).exit, 2);
        }
    }

    #[test]
    fn floats_are_printed_so_that_they_are_read_back_bit_for_bit() {
        let vector = [0.1f32, f32::MIN_POSITIVE, -0.0, 16_777_217.0, f32::MAX, 1.0 / 3.0];
        let position = Position { term: 1, index: 2, offset: 3 };
        let payload = b"{\"k\": 1}".to_vec().into();
        let siblings = Vec::new();
        let record =
            Record { id: "a".into(), vector: vector.to_vec(), payload, shard: 4, position, siblings };
        let view = record_view(&record, None);
        let text = serde_json::to_string(&view).expect("JSON");
        assert!(text.starts_with(r#"{"id":"a","vector":[0.1,"#), "{text}");
        assert!(
            text.ends_with(
                r#""payload":{"k": 1},"position":{"term":1,"index":2,"offset":3},"version":"1.2.3","shard":4}"#
            ),
            "{text}"
        );
        let back: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let back: Vec<f32> = serde_json::from_value(back["vector"].clone()).expect("numbers");
        assert_eq!(back.map_bits(), vector.to_vec().map_bits());
    }

    #[test]
    fn siblings_are_shown_below_their_record() {
        let position = Position { term: 4, index: 9, offset: 0 };
        let sibling = Sibling {
            position: Position { term: 3, index: 7, offset: 1 },
            vector: vec![0.5, 1.0],
            payload: Vec::new().into(),
        };
        let siblings = vec![sibling];
        let payload = Vec::new().into();
        let record = Record { id: "a".into(), vector: vec![1.0, 2.0], payload, shard: 4, position, siblings };
        let view = record_view(&record, None);
        let text = serde_json::to_string(&view).expect("JSON");
        assert!(
            text.ends_with(r#""shard":4,"siblings":[{"version":"3.7.1","vector":[0.5,1.0]}]}"#),
            "{text}"
        );
        let text = human_record(&view);
        assert!(text.ends_with("\n1,2\nlost against it, and kept: version 3.7.1\n0.5,1"), "{text}");
    }

    trait Bits {
        fn map_bits(self) -> Vec<u32>;
    }

    impl Bits for Vec<f32> {
        fn map_bits(self) -> Vec<u32> {
            self.into_iter().map(f32::to_bits).collect()
        }
    }
}
