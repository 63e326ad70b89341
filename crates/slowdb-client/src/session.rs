//! What a caller has seen, and what it may ask of any replica for that.

use crate::error::ClientError;
use crate::routes::Routes;
use slowdb_proto::{ClusterId, Code, GroupPosition, Position, ShardPosition, VersionVector, WriteReply};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a caller has seen of a cluster: of each shard the last position that it wrote or read.
///
/// Reads at [`ReadLevel::Session`](crate::ReadLevel::Session) in a session see at least that, on whatever replica: one's
/// own writes, nothing older than what was read before, and what led to it. Every write and every read in it adds to it,
/// at any level. Clones are the same session.
///
/// Its text ([`fmt::Display`]) can be handed on to another process, which goes on from there ([`FromStr`]): letters,
/// digits, `-`, `_` and a dot; it carries a version and a checksum.
#[derive(Clone, Debug, Default)]
pub struct Session(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    /// The cluster that it is of, once it is used.
    cluster: Option<ClusterId>,
    seen: VersionVector,
}

/// A text is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no session: {why}")]
pub struct ParseSessionError {
    /// The text, shortened if it was long.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl Session {
    /// A session that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Session::default()
    }

    /// Has seen from now on what another one has.
    ///
    /// # Errors
    /// [`ClientError::BadInput`] if they are of different clusters; nothing changed.
    pub fn merge(&self, other: &Session) -> Result<(), ClientError> {
        // One after the other: a session may be merged with itself.
        let other = other.lock().clone();
        if let Some(cluster) = other.cluster {
            self.bind(cluster)?;
        }
        self.lock().seen.merge(&other.seen);
        Ok(())
    }

    /// Forgets what was seen of a group, which [`ClientError::code`] `overtaken` names. Reads of that shard may then go
    /// back once.
    pub fn forget(&self, group: u64) {
        self.lock().seen.remove(group);
    }

    /// Whether nothing has been seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().seen.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while the lock is held")
    }

    /// From now on it is of this cluster.
    pub(crate) fn bind(&self, cluster: ClusterId) -> Result<(), ClientError> {
        let mut state = self.lock();
        match state.cluster {
            Some(own) if own != cluster => {
                let message = format!("the session is of cluster {own}, and not of {cluster}");
                Err(ClientError::BadInput { code: Code::WrongCluster, message })
            }
            _ => {
                state.cluster = Some(cluster);
                Ok(())
            }
        }
    }

    pub(crate) fn wrote(&self, reply: &WriteReply) {
        let last = Position { offset: reply.first.offset + reply.writes.saturating_sub(1), ..reply.first };
        self.lock().seen.observe(reply.group, last);
    }

    pub(crate) fn read(&self, at: &ShardPosition) {
        self.lock().seen.observe(at.group, at.latest);
    }

    /// What a node has to know of that is asked for these shards: what was seen of them, and what was seen of groups that
    /// are in no map yet. Those that are in no map any more are gone, since groups are numbered upwards.
    pub(crate) fn seen_of(&self, routes: &Routes, collection: &str, shards: &[u32]) -> Vec<GroupPosition> {
        let groups: Vec<u64> = shards
            .iter()
            .filter_map(|shard| routes.shard(collection, *shard))
            .map(|info| info.group)
            .collect();
        let newest = routes.newest_group();
        let state = self.lock();
        let wanted = state.seen.iter().filter(|(group, _)| *group > newest || groups.contains(group));
        wanted.map(|(group, position)| GroupPosition { group, position }).collect()
    }
}

/// `new` if it is of no cluster yet, else the cluster's id, a dot and the version vector.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        match state.cluster {
            None => f.write_str(NEW),
            Some(cluster) => write!(f, "{cluster}.{}", state.seen),
        }
    }
}

const NEW: &str = "new";

impl FromStr for Session {
    type Err = ParseSessionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == NEW {
            return Ok(Session::new());
        }
        let wrong = |why: String| ParseSessionError { text: text.chars().take(64).collect(), why };
        let (cluster, seen) =
            text.split_once('.').ok_or_else(|| wrong("it has no dot after the cluster's id".to_owned()))?;
        let cluster = cluster_of(cluster)
            .ok_or_else(|| wrong("it does not begin with a cluster's id, 32 of 0-9 a-f".to_owned()))?;
        let seen: VersionVector = seen.parse().map_err(|error| wrong(format!("{error}")))?;
        Ok(Session(Arc::new(Mutex::new(State { cluster: Some(cluster), seen }))))
    }
}

fn cluster_of(text: &str) -> Option<ClusterId> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let pairs: &[[u8; 2]; 16] = pairs.try_into().ok().filter(|_| rest.is_empty())?;
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut id = [0; 16];
    for (byte, [high, low]) in id.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(ClusterId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::tests::map_of_three;

    fn wrote(group: u64, index: u64) -> WriteReply {
        let first = Position { term: 1, index, offset: 2 };
        WriteReply { first, writes: 3, replaced: None, unmet: Vec::new(), durable_on: 1, replicas: 3, group }
    }

    #[test]
    fn a_text_hands_on_what_was_seen() {
        let session = Session::new();
        assert_eq!(session.to_string(), "new");
        session.bind(ClusterId([0xab; 16])).expect("it is of none yet");
        session.wrote(&wrote(3, 7));
        let text = session.to_string();
        assert!(text.starts_with(&format!("{}.", "ab".repeat(16))), "{text}");
        let other: Session = text.parse().expect("it was just written");
        assert_eq!(other.to_string(), text);
        other.wrote(&wrote(3, 8));
        assert_eq!(session.to_string(), text, "it is another session");
        session.merge(&other).expect("the same cluster");
        assert_eq!(session.to_string(), other.to_string());
        session.merge(&session.clone()).expect("itself");
        other.forget(3);
        assert!(other.is_empty());
        session.bind(ClusterId([1; 16])).expect_err("another cluster");
    }

    #[test]
    fn damaged_texts_are_refused() {
        let session = Session::new();
        session.bind(ClusterId([0xab; 16])).expect("it is of none yet");
        session.wrote(&wrote(3, 7));
        let text = session.to_string();
        for at in 0..text.len() {
            text[..at].parse::<Session>().expect_err("cut short");
        }
        for at in 33..text.len() {
            let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
            let damaged = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            damaged.parse::<Session>().expect_err(&damaged);
        }
        for bad in ["", ".", "new ", "file.txt", &text.to_uppercase()] {
            bad.parse::<Session>().expect_err(bad);
        }
    }

    #[test]
    fn shards_asked_for_and_groups_to_come_are_named_and_others_are_not() {
        let routes = Routes::new(map_of_three(1, 4));
        let session = Session::new();
        for group in [1, 2, 4, 9] {
            session.wrote(&wrote(group, 5));
        }
        let seen = session.seen_of(&routes, "default", &[0, 2, 3]);
        let position = Position { term: 1, index: 5, offset: 4 };
        assert_eq!(seen, [1, 4, 9].map(|group| GroupPosition { group, position }));
    }
}
