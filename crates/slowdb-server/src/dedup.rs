//! Exactly once: what became of the latest writes of every client.
//!
//! The window is part of the replicated state: it changes only when entries are applied, so it is the same
//! on every replica, and it is carried by checkpoints. The oldest results by log position leave first.

use crate::unguarded::GUARDED;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_proto::{Position, Unmet};
use std::collections::{BTreeMap, VecDeque};
use xxhash_rust::xxh3::xxh3_128;

/// Results that are remembered, over all clients of a shard.
const RESULTS_MAX: usize = 8192;
/// Writes whose condition did not hold that are remembered, over all results: more than one batch can have.
const UNMET_MAX: usize = 16_384;
const _: () = assert!(UNMET_MAX > slowdb_proto::limits::BATCH_WRITES_MAX);

/// What became of a batch.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriteResult {
    /// Position of its first write.
    pub(crate) first: Position,
    /// Writes that found a record under their id.
    pub(crate) replaced: u32,
    /// Writes whose condition did not hold, or that came late and lost, in order.
    pub(crate) unmet: Vec<Unmet>,
}

/// What the window knows of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was never executed.
    Fresh,
    /// It was executed, with this result.
    Done(WriteResult),
    /// It may have been executed; what became of it is forgotten.
    Forgotten,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
struct Remembered {
    client: [u8; 16],
    sequence: u64,
    result: WriteResult,
}

/// The window as it is kept in a checkpoint.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DedupState {
    results: Vec<Remembered>,
    /// Client → highest sequence that was forgotten, for clients that are still known.
    forgotten: Vec<([u8; 16], u64)>,
    clients_forgotten: bool,
}

#[derive(Default)]
struct Client {
    results: BTreeMap<u64, WriteResult>,
    forgotten_to: u64,
}

/// The window of one shard.
#[derive(Default)]
pub(crate) struct DedupWindow {
    clients: BTreeMap<[u8; 16], Client>,
    /// All remembered tags in the order of the log.
    order: VecDeque<([u8; 16], u64)>,
    /// Writes whose condition did not hold, over all results.
    unmet: usize,
    /// Some client was forgotten altogether.
    clients_forgotten: bool,
    digest: u128,
}

impl DedupWindow {
    /// What is known of a tag. Only a retry can have been executed before.
    pub(crate) fn look_up(&self, client: &[u8; 16], sequence: u64, retry: bool) -> Known {
        if !GUARDED {
            return Known::Fresh;
        }
        match self.clients.get(client) {
            Some(known) => match known.results.get(&sequence) {
                Some(result) => Known::Done(result.clone()),
                None if retry && sequence <= known.forgotten_to => Known::Forgotten,
                None => Known::Fresh,
            },
            None if retry && self.clients_forgotten => Known::Forgotten,
            None => Known::Fresh,
        }
    }

    /// A batch was executed.
    pub(crate) fn remember(&mut self, client: [u8; 16], sequence: u64, result: WriteResult) {
        if !GUARDED {
            return;
        }
        // A client that is seen for the first time may be one that was forgotten: then what it did before this is
        // forgotten too, and must not look new.
        let forgotten_to = if self.clients_forgotten { sequence.saturating_sub(1) } else { 0 };
        let known =
            self.clients.entry(client).or_insert_with(|| Client { forgotten_to, ..Client::default() });
        self.digest = self.digest.wrapping_add(hash(&client, sequence, &result));
        self.unmet += result.unmet.len();
        known.results.insert(sequence, result);
        self.order.push_back((client, sequence));
        while self.order.len() > RESULTS_MAX || self.unmet > UNMET_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((client, sequence)) = self.order.pop_front() else { return };
        let Some(known) = self.clients.get_mut(&client) else { return };
        if let Some(result) = known.results.remove(&sequence) {
            self.digest = self.digest.wrapping_sub(hash(&client, sequence, &result));
            self.unmet -= result.unmet.len();
        }
        known.forgotten_to = known.forgotten_to.max(sequence);
        if known.results.is_empty() {
            self.clients.remove(&client);
            self.clients_forgotten = true;
        }
    }

    /// Set hash of all results.
    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    pub(crate) fn to_state(&self) -> DedupState {
        let result = |(client, sequence): &([u8; 16], u64)| {
            let result = self.clients.get(client)?.results.get(sequence)?.clone();
            Some(Remembered { client: *client, sequence: *sequence, result })
        };
        let forgotten = self.clients.iter().filter(|(_, known)| known.forgotten_to > 0);
        DedupState {
            results: self.order.iter().filter_map(result).collect(),
            forgotten: forgotten.map(|(client, known)| (*client, known.forgotten_to)).collect(),
            clients_forgotten: self.clients_forgotten,
        }
    }

    /// What is wrong is told: a result that is there twice would be counted twice, and never be forgotten.
    pub(crate) fn from_state(state: DedupState) -> Result<Self, String> {
        let mut window = DedupWindow::default();
        for Remembered { client, sequence, result } in state.results {
            if window.clients.get(&client).is_some_and(|known| known.results.contains_key(&sequence)) {
                return Err(format!(
                    "checkpoint mark: the result of write {sequence} of a client is there twice"
                ));
            }
            window.remember(client, sequence, result);
        }
        for (client, forgotten_to) in state.forgotten {
            window.clients.entry(client).or_default().forgotten_to = forgotten_to;
        }
        window.clients_forgotten = state.clients_forgotten;
        Ok(window)
    }
}

fn hash(client: &[u8; 16], sequence: u64, result: &WriteResult) -> u128 {
    let mut bytes = [0; 48];
    bytes[..16].copy_from_slice(client);
    bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
    bytes[24..44].copy_from_slice(&result.first.encode());
    bytes[44..].copy_from_slice(&result.replaced.to_le_bytes());
    if result.unmet.is_empty() {
        return xxh3_128(&bytes);
    }
    let mut bytes = bytes.to_vec();
    for Unmet { write, current } in &result.unmet {
        bytes.extend_from_slice(&write.to_le_bytes());
        // No write is at the start.
        bytes.extend_from_slice(&current.unwrap_or(Position::START).encode());
    }
    xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(index: u64) -> WriteResult {
        WriteResult { first: Position { term: 1, index, offset: 0 }, replaced: 0, unmet: Vec::new() }
    }

    #[test]
    fn a_retry_gets_the_stored_result() {
        let mut window = DedupWindow::default();
        assert_eq!(window.look_up(&[1; 16], 5, false), Known::Fresh);
        window.remember([1; 16], 5, result(9));
        assert_eq!(window.look_up(&[1; 16], 5, true), Known::Done(result(9)));
        assert_eq!(window.look_up(&[1; 16], 6, true), Known::Fresh);
    }

    #[test]
    fn a_retry_older_than_the_window_is_not_executed_again() {
        let mut window = DedupWindow::default();
        for sequence in 1..=RESULTS_MAX as u64 + 10 {
            window.remember([1; 16], sequence, result(sequence));
        }
        assert_eq!(window.look_up(&[1; 16], 10, true), Known::Forgotten);
        assert_eq!(window.look_up(&[1; 16], 11, true), Known::Done(result(11)));
        assert_eq!(window.look_up(&[2; 16], 1, true), Known::Fresh, "no client was forgotten yet");
    }

    #[test]
    fn a_forgotten_client_cannot_retry() {
        let mut window = DedupWindow::default();
        window.remember([1; 16], 1, result(1));
        for sequence in 1..=RESULTS_MAX as u64 {
            window.remember([2; 16], sequence, result(sequence + 1));
        }
        assert_eq!(window.look_up(&[1; 16], 1, true), Known::Forgotten);
        assert_eq!(window.look_up(&[1; 16], 1, false), Known::Fresh);
    }

    #[test]
    fn a_client_that_comes_back_cannot_retry_what_was_forgotten() {
        let mut window = DedupWindow::default();
        window.remember([1; 16], 5, result(1));
        for sequence in 1..=RESULTS_MAX as u64 {
            window.remember([2; 16], sequence, result(sequence + 1));
        }
        window.remember([1; 16], 6, result(RESULTS_MAX as u64 + 2));
        assert_eq!(window.look_up(&[1; 16], 5, true), Known::Forgotten);
        assert_eq!(window.look_up(&[1; 16], 7, true), Known::Fresh);
        let again = DedupWindow::from_state(window.to_state()).expect("as it was kept");
        assert_eq!(again.look_up(&[1; 16], 5, true), Known::Forgotten);
    }

    fn unmet(index: u64, writes: u32) -> WriteResult {
        let current =
            |write: u32| (write.is_multiple_of(2)).then_some(Position { term: 1, index: 3, offset: write });
        let unmet = (0..writes).map(|write| Unmet { write, current: current(write) }).collect();
        WriteResult { unmet, ..result(index) }
    }

    #[test]
    fn results_with_many_unmet_conditions_leave_earlier() {
        let mut window = DedupWindow::default();
        for sequence in 1..=5 {
            window.remember([1; 16], sequence, unmet(sequence, 5_000));
        }
        assert_eq!(window.look_up(&[1; 16], 2, true), Known::Forgotten);
        assert_eq!(window.look_up(&[1; 16], 3, true), Known::Done(unmet(3, 5_000)));
        let mut other = DedupWindow::default();
        other.remember([1; 16], 3, result(3));
        let mut same = DedupWindow::default();
        same.remember([1; 16], 3, unmet(3, 1));
        assert_ne!(other.digest(), same.digest());
    }

    #[test]
    fn a_checkpoint_keeps_everything() {
        let mut window = DedupWindow::default();
        for sequence in 1..=RESULTS_MAX as u64 + 7 {
            window.remember([(sequence % 5) as u8; 16], sequence, unmet(sequence, sequence as u32 % 2));
        }
        let again = DedupWindow::from_state(window.to_state()).expect("as it was kept");
        assert_eq!(again.to_state(), window.to_state());
        assert_eq!(again.digest(), window.digest());
    }

    /// Counted twice and removed once, it could have kept the window over its bound for ever.
    #[test]
    fn a_mark_with_a_result_twice_is_refused() {
        let mut window = DedupWindow::default();
        window.remember([1; 16], 4, unmet(9, 3));
        window.remember([1; 16], 5, unmet(10, 3));
        let mut state = window.to_state();
        state.results[0].sequence = 5;
        let refused = DedupWindow::from_state(state).err().expect("it contradicts itself");
        assert!(refused.contains("write 5 of a client is there twice"), "{refused}");
    }
}
