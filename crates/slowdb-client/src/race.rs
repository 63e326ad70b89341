//! Several futures at once, one outcome at a time. Those that are not awaited to their end are cancelled.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Futures that run while [`Race::next`] is awaited.
pub(crate) struct Race<'a, T> {
    running: Vec<(u64, Running<'a, T>)>,
    next_key: u64,
}

impl<'a, T> Race<'a, T> {
    pub(crate) fn new() -> Self {
        Race { running: Vec::new(), next_key: 0 }
    }

    /// Gives a key by which it can be cancelled.
    pub(crate) fn push(&mut self, future: impl Future<Output = T> + Send + 'a) -> u64 {
        self.next_key += 1;
        self.running.push((self.next_key, Box::pin(future)));
        self.next_key
    }

    pub(crate) fn cancel(&mut self, key: u64) {
        self.running.retain(|(k, _)| *k != key);
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The next outcome; pending for ever when nothing runs. Cancel safe.
    pub(crate) async fn next(&mut self) -> T {
        std::future::poll_fn(|cx| {
            for at in 0..self.running.len() {
                if let Poll::Ready(outcome) = self.running[at].1.as_mut().poll(cx) {
                    drop(self.running.swap_remove(at));
                    return Poll::Ready(outcome);
                }
            }
            Poll::Pending
        })
        .await
    }
}
