//! The ids that clients use, and what a record holds so that it can be told from any other.

use crate::events::{Ask, By, Expected, Key};
use bytes::Bytes;
use slowdb_proto::{Code, Condition, ErrorReply, OpsBuilder};

/// Components of each vector.
pub(crate) const DIMENSION: usize = 4;

/// The ids of a run: the same number in each shard. Half of them are *strict*: never written at `one`.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    names: Vec<String>,
    shard_of: Vec<u32>,
    by_shard: Vec<Vec<Key>>,
}

impl Keys {
    pub(crate) fn new(shards: u32, per_shard: usize) -> Self {
        let mut keys =
            Keys { names: Vec::new(), shard_of: Vec::new(), by_shard: vec![Vec::new(); shards as usize] };
        let mut number = 0;
        while keys.by_shard.iter().any(|shard| shard.len() < per_shard) {
            let name = format!("id-{number}");
            number += 1;
            let shard = slowdb_ring::shard_of(name.as_bytes(), shards);
            let list = &mut keys.by_shard[shard as usize];
            if list.len() < per_shard {
                list.push(Key(keys.names.len() as u16));
                keys.names.push(name);
                keys.shard_of.push(shard);
            }
        }
        keys
    }

    pub(crate) fn name(&self, key: Key) -> &str {
        &self.names[usize::from(key.0)]
    }

    /// The id of this name, if a client uses it.
    pub(crate) fn key(&self, name: &str) -> Option<Key> {
        self.names.iter().position(|known| known == name).map(|at| Key(at as u16))
    }

    /// The shard that something is asked of.
    pub(crate) fn shard_of(&self, ask: &Ask) -> u32 {
        match ask {
            Ask::Write { writes, .. } => self.shard(writes[0].0),
            Ask::Read { keys, .. } => self.shard(keys[0]),
            Ask::Conflicts { shard } => *shard,
            Ask::Resolve { lost: (key, _), .. } => self.shard(*key),
        }
    }

    /// Lays out what is to be written, if anything is.
    pub(crate) fn body(&self, ask: &Ask) -> Bytes {
        match ask {
            Ask::Write { writes, condition, .. } => Bytes::from(self.batch(writes, *condition)),
            Ask::Resolve { entry, lost: (key, _), replays } => {
                let (mut builder, name) = (OpsBuilder::new(), self.name(*key));
                let added =
                    if *replays { builder.replay(name, *entry, true) } else { builder.discard(name, *entry) };
                added.expect("a sound name");
                Bytes::from(builder.finish())
            }
            Ask::Read { by: By::Search, .. } => Keys::query(),
            Ask::Read { .. } | Ask::Conflicts { .. } => Bytes::new(),
        }
    }

    pub(crate) fn shard(&self, key: Key) -> u32 {
        self.shard_of[usize::from(key.0)]
    }

    pub(crate) fn of_shard(&self, shard: u32) -> &[Key] {
        &self.by_shard[shard as usize]
    }

    /// Strict or other ids of a shard.
    pub(crate) fn class(&self, shard: u32, strict: bool) -> &[Key] {
        let (first, second) = self.of_shard(shard).split_at(self.of_shard(shard).len() / 2);
        if strict { first } else { second }
    }

    /// Lays out a batch.
    fn batch(&self, writes: &[(Key, Option<u64>)], expected: Option<Expected>) -> Vec<u8> {
        let condition = expected.map(|expected| match expected {
            Expected::Absent => Condition::IfAbsent,
            Expected::Record(seen) => Condition::IfVersion(seen.position),
        });
        let mut builder = OpsBuilder::new();
        for (key, value) in writes {
            let name = self.name(*key);
            let added = match value {
                Some(value) => builder.put_if(name, &vector_of(*key, *value), &payload_of(*value), condition),
                None => builder.delete_if(name, condition),
            };
            added.expect("a small batch of sound writes");
        }
        builder.finish()
    }

    /// Which of these ids a reply names.
    pub(crate) fn nth_of(&self, keys: &[Key], name: &str) -> Result<usize, Box<ErrorReply>> {
        let found = keys.iter().position(|key| self.name(*key) == name);
        found.ok_or_else(|| Box::new(ErrorReply::new(Code::Corrupt, format!("nobody wrote an id '{name}'"))))
    }

    /// A query whose inner product with a vector is the value that it was written with, exactly: values stay below 2^24.
    fn query() -> Bytes {
        let query: [f32; DIMENSION] = [1.0, 65536.0, 0.0, 0.0];
        query.iter().flat_map(|component| component.to_le_bytes()).collect()
    }

    /// The value of a record, from its bytes: they must be exactly what was once written with that value.
    pub(crate) fn value_of(&self, key: Key, bytes: &[u8]) -> Result<u64, Box<ErrorReply>> {
        let damaged =
            || Box::new(ErrorReply::new(Code::Corrupt, format!("record {}: {bytes:02x?}", self.name(key))));
        let (vector, payload) = bytes.split_at_checked(DIMENSION * 4).ok_or_else(damaged)?;
        let value = payload.first_chunk::<8>().map(|word| u64::from_le_bytes(*word)).ok_or_else(damaged)?;
        let expected: Vec<u8> = vector_of(key, value).iter().flat_map(|x| x.to_le_bytes()).collect();
        if vector == expected && payload == payload_of(value) { Ok(value) } else { Err(damaged()) }
    }
}

fn vector_of(key: Key, value: u64) -> [f32; DIMENSION] {
    [(value & 0xffff) as f32, (value >> 16 & 0xffff) as f32, f32::from(key.0), 1.0]
}

fn payload_of(value: u64) -> Vec<u8> {
    let mut payload = value.to_le_bytes().to_vec();
    payload.resize(8 + (value.wrapping_mul(0x9e37_79b9) >> 7 & 63) as usize, value as u8);
    payload
}
