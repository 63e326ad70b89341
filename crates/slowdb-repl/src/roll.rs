//! Rolls: heartbeats of all groups that rest, in one message between two nodes.
//!
//! A node sends another the list of groups that it leads, in which nothing happens, and of which the other has a replica:
//! the roll. From then on a call, which names the roll by its checksum, stands for a heartbeat of every group on it, and
//! its answer for the answer of every replica. Words about rolls are laid out like a consensus message (see
//! [`crate::engine::wire`]) of group 0 between replicas 0, with types of their own and these meanings of its fields:
//!
//! ```text
//! type  what       log term     index                commit            reject hint         body
//! 44    call       stamp: tick  xxh3-64 of the roll  stamp: quickest   -                   -
//! 45    roll       stamp: tick  xxh3-64 of the body  stamp: quickest   -                   the roll
//! 46    answer     the tick     that of the roll     stamp's quickest  1: it is not known  -
//! ```
//!
//! A roll is, for each group in ascending order, `group u64, from (replica) u64, to (replica) u64, term u64, commit u64`.

use crate::engine::wire::NUMBER_MAX;
use crate::ids::{GroupId, ReplicaId};
use crate::links::Stamp;
use crate::note::Fields;
use bytes::Bytes;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

const ENTRY_BYTES: usize = 40;

/// What one node tells another about the groups that rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// All groups on the roll with this checksum are as the roll says.
    Call { sum: u64, stamp: Stamp },
    /// The roll is this from now on, and a call with it.
    Roll { roll: Roll, stamp: Stamp },
    /// The call, or roll, is heard by all replicas on it; or the roll is not known, or not agreed with.
    Answer { sum: u64, is_known: bool, stamp: Stamp },
}

/// Groups with what a heartbeat of each says, as bytes, and what these are named by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roll {
    pub(crate) entries: BTreeMap<GroupId, Entry>,
    pub(crate) sum: u64,
    bytes: Bytes,
}

impl Roll {
    pub(crate) fn of(entries: BTreeMap<GroupId, Entry>) -> Self {
        let bytes = Bytes::from(encode(&entries));
        Roll { entries, sum: xxh3_64(&bytes), bytes }
    }

    /// The roll with these bytes, if they are named so; `Err` says what is wrong.
    fn parse(bytes: &Bytes, sum: u64) -> Result<Self, &'static str> {
        if xxh3_64(bytes) != sum {
            return Err("a roll does not fit its checksum");
        }
        Ok(Roll { entries: decode(bytes)?, sum, bytes: bytes.clone() })
    }
}

/// What a heartbeat of a group that rests says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) term: u64,
    pub(crate) commit: u64,
}

/// Whether a message of this type is about rolls.
pub(crate) fn is_word(kind: u8) -> bool {
    (44..=46).contains(&kind)
}

fn encode(entries: &BTreeMap<GroupId, Entry>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for (group, entry) in entries {
        for word in [group.0, entry.from.0, entry.to.0, entry.term, entry.commit] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<GroupId, Entry>, &'static str> {
    let (chunks, rest) = bytes.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err("a roll ends inside a group");
    }
    let mut entries = BTreeMap::new();
    for chunk in chunks {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| chunk[at * 8 + byte]));
        let (group, term, commit) = (GroupId(word(0)), word(3), word(4));
        if entries.last_key_value().is_some_and(|(last, _)| *last >= group) {
            return Err("the groups of a roll are out of order");
        }
        if !(1..=NUMBER_MAX).contains(&term) || commit > NUMBER_MAX {
            return Err("a term or commit of a roll is out of range");
        }
        let (from, to) = (ReplicaId(word(1)), ReplicaId(word(2)));
        entries.insert(group, Entry { from, to, term, commit });
    }
    Ok(entries)
}

impl Word {
    pub(crate) fn to_fields(&self) -> Fields {
        let fields = |kind, stamp: &Stamp, sum| Fields {
            kind,
            log_term: stamp.tick,
            index: sum,
            commit: u64::from(stamp.quickest),
            ..Fields::default()
        };
        match self {
            Word::Call { sum, stamp } => fields(44, stamp, *sum),
            Word::Roll { roll, stamp } => Fields { body: roll.bytes.clone(), ..fields(45, stamp, roll.sum) },
            Word::Answer { sum, is_known, stamp } => {
                Fields { reject_hint: u64::from(!is_known), ..fields(46, stamp, *sum) }
            }
        }
    }

    /// The reverse; `Err` says what is wrong.
    pub(crate) fn from_fields(fields: &Fields) -> Result<Self, &'static str> {
        let Fields { kind, log_term, index: sum, commit, reject_hint, ref body, .. } = *fields;
        let quickest = u16::try_from(commit).map_err(|_| "the stamp of a roll is out of range")?;
        let stamp = Stamp { tick: log_term, quickest };
        if kind != 45 && !body.is_empty() {
            return Err("only a roll has a body");
        }
        match kind {
            44 => Ok(Word::Call { sum, stamp }),
            45 => Ok(Word::Roll { roll: Roll::parse(body, sum)?, stamp }),
            46 if reject_hint > 1 => Err("a roll is known, or it is not"),
            46 => Ok(Word::Answer { sum, is_known: reject_hint == 0, stamp }),
            _ => Err("a word about rolls that is not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wire::{self, FrameBuilder, Payload};

    fn roll(groups: &[u64]) -> Word {
        let entry =
            |group: u64| Entry { from: ReplicaId(group + 1), to: ReplicaId(9), term: 3, commit: group };
        let entries = groups.iter().map(|group| (GroupId(*group), entry(*group))).collect();
        Word::Roll { roll: Roll::of(entries), stamp: Stamp { tick: 5, quickest: 7 } }
    }

    #[test]
    fn words_are_read_as_they_were_written() {
        let stamp = Stamp { tick: 1 << 40, quickest: u16::MAX };
        let mut words = vec![roll(&[]), roll(&[1]), roll(&[1, 4, 1 << 50]), Word::Call { sum: 8, stamp }];
        words.extend([true, false].map(|is_known| Word::Answer { sum: u64::MAX, is_known, stamp }));
        for word in words {
            assert_eq!(Word::from_fields(&word.to_fields()), Ok(word));
        }
    }

    /// The block of the document of what goes over the wire that begins with this line.
    fn block(head: &str) -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/wire.md");
        let text = std::fs::read_to_string(path).expect("the document is there");
        let (_, rest) = text.split_once(&format!("```{head}\n")).unwrap_or_else(|| panic!("no block {head}"));
        rest.split_once("\n```").unwrap_or_else(|| panic!("block {head} does not end")).0.to_owned()
    }

    #[test]
    fn words_are_laid_out_as_documented() {
        let hex = |bytes: &[u8]| {
            let line =
                |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
        };
        let entry = |commit| Entry { from: ReplicaId(1), to: ReplicaId(2), term: 3, commit };
        let roll = Roll::of([(GroupId(9), entry(4)), (GroupId(10), entry(5))].into());
        let sum = roll.sum;
        let stamp = Stamp { tick: 500, quickest: 32 };
        let words = [
            ("roll", Word::Roll { roll, stamp }),
            ("answer", Word::Answer { sum, is_known: true, stamp }),
            ("call", Word::Call { sum, stamp: Stamp { tick: 505, ..stamp } }),
        ];
        for (name, word) in words {
            let mut frame = FrameBuilder::new([1; 16]);
            frame.push(GroupId(0), Payload::Roll(word.clone()));
            let (meta, body, _) = frame.finish();
            let body = Bytes::from(body.concat());
            assert_eq!(hex(&meta), block(&format!("hex {name}")), "{name}");
            assert_eq!(hex(&body), if name == "roll" { block("hex roll body") } else { String::new() });
            let read = wire::decode([1; 16], &meta, &body).expect("it is as documented");
            assert!(
                matches!(&read[..], [message] if matches!(&message.message, Payload::Roll(read) if *read == word))
            );
        }
    }

    #[test]
    fn what_is_no_word_is_refused() {
        let good = roll(&[1, 4]).to_fields();
        let with_body = |body: Vec<u8>| Fields { index: xxh3_64(&body), body: body.into(), ..good.clone() };
        let changed = |at: usize, word: u64| {
            let mut body = good.body.to_vec();
            body[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
            with_body(body)
        };
        let call = Fields { kind: 44, ..good.clone() };
        let bad = [
            (Fields { index: 1, ..good.clone() }, "a roll does not fit its checksum"),
            (with_body(good.body[..79].to_vec()), "a roll ends inside a group"),
            (changed(5, 1), "the groups of a roll are out of order"),
            (changed(3, 0), "a term or commit of a roll is out of range"),
            (changed(3, NUMBER_MAX + 1), "a term or commit of a roll is out of range"),
            (changed(4, NUMBER_MAX + 1), "a term or commit of a roll is out of range"),
            (call.clone(), "only a roll has a body"),
            (
                Fields { kind: 46, reject_hint: 2, body: Bytes::new(), ..call.clone() },
                "a roll is known, or it is not",
            ),
            (Fields { commit: 65_536, ..good.clone() }, "the stamp of a roll is out of range"),
            (Fields { kind: 47, body: Bytes::new(), ..call }, "a word about rolls that is not known"),
        ];
        for (fields, why) in bad {
            assert_eq!(Word::from_fields(&fields), Err(why));
        }
        assert!(Word::from_fields(&changed(4, NUMBER_MAX)).is_ok());
    }
}
