//! What a caller has seen, and what it may ask of any replica for that.

use crate::error::ClientError;
use crate::routes::Routes;
use slowdb_proto::{ClusterId, Code, GroupPosition, Position, ShardPosition, VersionVector, WriteReply};
use std::collections::BTreeMap;
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
    /// Own writes at `one` that no read has shown to be in the shard's history, by group: the last of each term. A later
    /// position in `seen` does not cover them, since the history that it is of may have overtaken them.
    alone: BTreeMap<u64, Vec<Position>>,
}

/// Own writes at `one` as they were at some moment, by group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alone(BTreeMap<u64, Vec<Position>>);

/// Terms of a shard from which writes at `one` are remembered.
const ALONE_MAX: usize = 15;

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
        let mut state = self.lock();
        state.seen.merge(&other.seen);
        for (group, positions) in other.alone {
            positions.into_iter().for_each(|position| state.wrote_alone(group, position));
        }
        Ok(())
    }

    /// Forgets what was seen of a group, which [`ClientError::code`] `overtaken` names. Reads of that shard may then go
    /// back once.
    pub fn forget(&self, group: u64) {
        let mut state = self.lock();
        state.seen.remove(group);
        state.alone.remove(&group);
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
        let mut state = self.lock();
        state.seen.observe(reply.group, last);
        // What was acknowledged at `one` was not applied yet.
        if reply.replaced.is_none() {
            state.wrote_alone(reply.group, last);
        }
    }

    pub(crate) fn read(&self, at: &ShardPosition) {
        self.lock().seen.observe(at.group, at.latest);
    }

    /// Own writes at `one` that a read at `session` will name.
    pub(crate) fn alone(&self) -> Alone {
        Alone(self.lock().alone.clone())
    }

    /// A read at `session` of this group was answered that had named these: they are in the shard's history.
    pub(crate) fn confirm(&self, group: u64, named: &Alone) {
        let Some(named) = named.0.get(&group) else { return };
        let mut state = self.lock();
        if let Some(alone) = state.alone.get_mut(&group) {
            alone.retain(|position| !named.contains(position));
            if alone.is_empty() {
                state.alone.remove(&group);
            }
        }
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
        let mut named: Vec<GroupPosition> =
            wanted.map(|(group, position)| GroupPosition { group, position }).collect();
        for group in groups {
            let alone = state.alone.get(&group).into_iter().flatten();
            let alone = alone.map(|position| GroupPosition { group, position: *position });
            named.extend(alone.filter(|it| state.seen.get(group) != Some(it.position)));
        }
        named
    }
}

impl State {
    fn wrote_alone(&mut self, group: u64, position: Position) {
        let alone = self.alone.entry(group).or_default();
        match alone.iter_mut().find(|known| known.term == position.term) {
            Some(known) => *known = (*known).max(position),
            None => alone.push(position),
        }
        if alone.len() > ALONE_MAX {
            alone.remove(0);
        }
    }
}

/// `new` if it is of no cluster yet, else the cluster's id, a dot and the version vector; and if there are own writes at
/// `one` that may have been overtaken, another dot and a vector of these.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        match state.cluster {
            None => f.write_str(NEW),
            Some(cluster) if state.alone.is_empty() => write!(f, "{cluster}.{}", state.seen),
            Some(cluster) => {
                // The same layout, for a log number of 16 × group + which.
                let mut alone = VersionVector::default();
                for (group, positions) in &state.alone {
                    (group * 16..).zip(positions).for_each(|(log, position)| alone.observe(log, *position));
                }
                write!(f, "{cluster}.{}.{alone}", state.seen)
            }
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
        let (seen, own) = seen.split_once('.').map_or((seen, None), |(seen, own)| (seen, Some(own)));
        let vector = |text: &str| text.parse::<VersionVector>().map_err(|error| wrong(format!("{error}")));
        let mut state = State { cluster: Some(cluster), seen: vector(seen)?, alone: BTreeMap::new() };
        for (log, position) in own.map(vector).transpose()?.iter().flat_map(VersionVector::iter) {
            state.wrote_alone(log / 16, position);
        }
        Ok(Session(Arc::new(Mutex::new(state))))
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
    use slowdb_proto::WriteLevel;

    fn wrote(group: u64, index: u64) -> WriteReply {
        let first = Position { term: 1, index, offset: 2 };
        WriteReply {
            first,
            writes: 3,
            replaced: Some(0),
            unmet: Vec::new(),
            durable_on: 1,
            replicas: 3,
            group,
        }
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

    /// A later position that was seen says nothing of them: it may be of the history that overtook them.
    #[test]
    fn own_writes_at_one_are_named_until_a_read_has_shown_them() {
        let routes = Routes::new(map_of_three(1, 4));
        let session = Session::new();
        session.bind(ClusterId([0xab; 16])).expect("it is of none yet");
        let wrote = |term: u64, index: u64, level: WriteLevel| {
            let first = Position { term, index, offset: 0 };
            let replaced = (level != WriteLevel::One).then_some(0);
            let reply = WriteReply { first, writes: 1, replaced, ..wrote(1, 1) };
            session.wrote(&reply);
            GroupPosition { group: 1, position: first }
        };
        wrote(4, 9, WriteLevel::One);
        let alone = wrote(4, 10, WriteLevel::One);
        let later = wrote(5, 9, WriteLevel::Quorum);
        assert_eq!(session.seen_of(&routes, "default", &[0]), [later, alone]);
        let handed_on: Session = session.to_string().parse().expect("it was just written");
        assert_eq!(handed_on.seen_of(&routes, "default", &[0]), [later, alone]);
        let named = session.alone();
        let since = wrote(6, 12, WriteLevel::One);
        session.confirm(1, &named);
        wrote(7, 13, WriteLevel::Quorum);
        let seen = session.seen_of(&routes, "default", &[0]);
        assert!(seen.contains(&since) && !seen.contains(&alone), "{seen:?}");
        session.forget(1);
        assert!(session.is_empty() && session.alone().0.is_empty());
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

    #[test]
    fn fuzz_session_text() {
        let session = Session::new();
        let mut corpus = vec![session.to_string()];
        session.bind(ClusterId([0xab; 16])).expect("it is of none yet");
        for index in 1..5 {
            session.wrote(&wrote(index * 3, 7));
            session.lock().wrote_alone(index, Position { term: index, index, offset: 0 });
            corpus.push(session.to_string());
        }
        let corpus = corpus.into_iter().map(String::into_bytes);
        // Checksums are in the text: behind them is what is drawn as vectors, and written out.
        slowdb_fuzz::Target::new("fuzz_session_text", corpus).run(|bytes| {
            let Ok(text) = str::from_utf8(bytes) else { return false };
            let Ok(session) = text.parse::<Session>() else { return false };
            let again: Session = session.to_string().parse().expect("it was just written");
            assert_eq!(again.to_string(), session.to_string());
            true
        });
    }

    /// What a session says of writes at level one may come from anybody, and is written out as well.
    #[test]
    fn fuzz_session_own_writes() {
        let numbers =
            |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        let corpus = [numbers(&[]), numbers(&[16, 1, 2]), numbers(&[16, 1, 2, 17, 2, 2, 33, 1, 9])];
        slowdb_fuzz::Target::new("fuzz_session_own_writes", corpus).run(|bytes| {
            let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
            let words: Vec<u64> = words.collect();
            let own = words.as_chunks::<3>().0.iter();
            let own: VersionVector =
                own.map(|[log, term, index]| (*log, Position::new(*term, *index, 0))).collect();
            let text = format!("{}.{}.{own}", "ab".repeat(16), VersionVector::default());
            let session: Session = text.parse().expect("it is laid out well");
            let again: Session = session.to_string().parse().expect("it was just written");
            assert_eq!(again.to_string(), session.to_string());
            true
        });
    }
}
