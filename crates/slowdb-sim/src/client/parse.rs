//! What replies say, in the words of the checkers. Bytes that nobody wrote are an error.

use crate::events::{Conflict, Key, Seen};
use crate::keys::{DIMENSION, Keys};
use slowdb_proto::{Code, ConflictPage, ErrorReply, Loser, PageRecord, Position, RecordInfo, SiblingInfo};

/// Records, one for each id asked for, and what is readable beside them.
type Records = (Vec<Option<Seen>>, Vec<(Key, Seen)>);

/// The records of a reply, and what is readable beside them.
pub(super) fn parse_records(
    asked: &[Key],
    records: &[Option<RecordInfo>],
    siblings: &[SiblingInfo],
    body: &[u8],
    keys: &Keys,
) -> Result<Records, Box<ErrorReply>> {
    let mut rest = body;
    let mut next = |key: Key, position: Position, payload_bytes: u32| {
        let value = keys.value_of(key, split(&mut rest, DIMENSION * 4 + payload_bytes as usize))?;
        Ok::<_, Box<ErrorReply>>(Seen { value, position })
    };
    let mut seen = Vec::new();
    for (key, record) in asked.iter().zip(records) {
        let record = record.as_ref().map(|it| next(*key, it.position, it.payload_bytes));
        seen.push(record.transpose()?);
    }
    let mut beside = Vec::new();
    for sibling in siblings {
        let odd = || Box::new(ErrorReply::new(Code::BadRequest, format!("{sibling:?} of {asked:?}")));
        let key = *asked.get(sibling.record as usize).ok_or_else(odd)?;
        beside.push((key, next(key, sibling.position, sibling.payload_bytes)?));
    }
    Ok((seen, beside))
}

/// The records of a page of a scan, one for each id asked for.
pub(super) fn parse_page(
    asked: &[Key],
    records: &[PageRecord],
    body: &[u8],
    keys: &Keys,
) -> Result<Vec<Option<Seen>>, Box<ErrorReply>> {
    let mut seen = vec![None; asked.len()];
    let mut rest = body;
    for record in records {
        let nth = keys.nth_of(asked, &record.id)?;
        let bytes = split(&mut rest, DIMENSION * 4 + record.payload_bytes as usize);
        seen[nth] = Some(Seen { value: keys.value_of(asked[nth], bytes)?, position: record.position });
    }
    Ok(seen)
}

/// Adds the entries of a page of a log of conflicts.
pub(super) fn parse_conflicts(
    page: &ConflictPage,
    body: &[u8],
    keys: &Keys,
    listed: &mut Vec<Conflict>,
) -> Result<(), Box<ErrorReply>> {
    let mut rest = body;
    for entry in &page.entries {
        let odd = || Box::new(ErrorReply::new(Code::BadRequest, format!("{entry:?} is of no client's id")));
        let key = keys.key(&entry.id).ok_or_else(odd)?;
        let loser = match entry.loser {
            None => None,
            Some(Loser::Delete) => Some(None),
            Some(Loser::Put { payload_bytes }) => {
                Some(Some(keys.value_of(key, split(&mut rest, DIMENSION * 4 + payload_bytes as usize))?))
            }
        };
        let (was, became, decided, met, hlc) = (entry.was, entry.became, entry.decided, entry.met, entry.hlc);
        listed.push(Conflict { was, key, became, decided, met, hlc, loser });
    }
    Ok(())
}

/// The next bytes of a body, or what is left of it.
fn split<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (bytes, tail) = rest.split_at(len.min(rest.len()));
    *rest = tail;
    bytes
}
