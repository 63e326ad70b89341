//! The course of one request that only a shard's leader can answer: what was tried, what to do next.
//!
//! Pure: the shell in [`crate::leader`] sends, waits and feeds the outcomes in. Invariants:
//! - at most one attempt is pending at each node;
//! - an attempt that is pending is never overruled by another one's final error, and never keeps another
//!   node from being asked;
//! - `maybe_done` never goes back to false;
//! - a node that is hopeless is only that: the request is, when all replicas are.

use crate::error::ClientError;
use crate::pool::Failure;
use crate::routes::Lead;
use slowdb_proto::{Code, ErrorReply};
use std::collections::BTreeMap;
use std::time::Duration;

/// What to do after an outcome.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing more is to be sent: a final error is known, but attempts are pending.
    Wait,
    /// Send again, not before this wait and the backoff are over.
    SendAfter(Duration),
    /// It is over.
    Fail(ClientError),
}

/// The state of one request.
#[derive(Debug, Default)]
pub(crate) struct Course {
    attempts: usize,
    pending: Vec<String>,
    /// Highest term whose leader was asked.
    term_asked: u64,
    /// An attempt may have been executed.
    maybe_done: bool,
    last: Option<String>,
    /// Nodes that were last seen to be none of this cluster, or to speak otherwise.
    hopeless: BTreeMap<String, ClientError>,
    refused: Option<ClientError>,
}

impl Course {
    /// Whom to ask next: the leader, or if there is none known, or no hope in it, one replica after the other.
    /// `None`: whoever could be asked is being asked.
    pub(crate) fn target(&self, lead: &Lead, replicas: &[String]) -> Option<String> {
        let is_free = |node: &&String| !self.pending.contains(node);
        if let Some(leader) = &lead.node
            && !self.hopeless.contains_key(leader)
        {
            return Some(leader).filter(is_free).cloned();
        }
        let from = self.attempts.checked_rem(replicas.len())?;
        let (before, after) = replicas.split_at(from);
        after.iter().chain(before).find(is_free).cloned()
    }

    /// Whether an attempt now could meet the traces of an earlier one.
    pub(crate) fn is_retry(&self) -> bool {
        self.maybe_done || !self.pending.is_empty()
    }

    pub(crate) fn sent(&mut self, node: &str, lead: &Lead) {
        self.attempts += 1;
        self.pending.push(node.to_owned());
        if lead.node.as_deref() == Some(node) {
            self.term_asked = self.term_asked.max(lead.term);
        }
    }

    /// Whether a leader is known that is newer than all that were asked.
    pub(crate) fn is_news(&self, lead: &Lead) -> bool {
        let Some(node) = &lead.node else { return false };
        lead.term > self.term_asked && !self.pending.contains(node) && !self.hopeless.contains_key(node)
    }

    /// A node answered with an error.
    pub(crate) fn refused(&mut self, node: &str, error: ErrorReply) -> Next {
        self.over(node, format!("{node}: {error}"));
        let nothing_changed =
            matches!(error.code, Code::NotLeader | Code::StaleRoute | Code::Overloaded | Code::LowSpace);
        // Room does not come by itself while a request waits: whoever asked has to hear of it.
        if error.code.is_retryable() && error.code != Code::LowSpace {
            self.maybe_done |= !nothing_changed;
            if error.code == Code::Corrupt {
                // It leads, but cannot answer; the others can.
                self.hopeless.insert(node.to_owned(), ClientError::Refused(error.clone()));
            }
            return self.again(Duration::from_millis(u64::from(error.retry_after_ms)));
        }
        self.refused = Some(ClientError::Refused(error));
        self.again(Duration::ZERO)
    }

    /// A node, one of these replicas, gave no answer, or one that makes no sense.
    pub(crate) fn failed(&mut self, node: &str, failure: Failure, replicas: &[String]) -> Next {
        match failure {
            Failure::NotSent(reason) => self.over(node, reason),
            Failure::Unanswered(reason) => {
                self.maybe_done = true;
                self.over(node, reason);
            }
            Failure::Hopeless(error) => {
                self.over(node, error.to_string());
                self.maybe_done |= matches!(error, ClientError::BadReply { .. });
                self.hopeless.insert(node.to_owned(), error.clone());
                if replicas.iter().all(|replica| self.hopeless.contains_key(replica)) {
                    self.refused.get_or_insert(error);
                }
            }
        }
        self.again(Duration::ZERO)
    }

    /// There is nobody to ask any more: nothing is sent from now on, and what is pending may yet be answered.
    pub(crate) fn end(&mut self, error: ClientError) -> Next {
        self.refused.get_or_insert(error);
        self.again(Duration::ZERO)
    }

    fn over(&mut self, node: &str, reason: String) {
        self.pending.retain(|pending| pending != node);
        self.hopeless.remove(node);
        self.last = Some(reason);
    }

    fn again(&mut self, wait: Duration) -> Next {
        match self.refused.take_if(|_| self.pending.is_empty()) {
            Some(error) => Next::Fail(error),
            None if self.is_refused() => Next::Wait,
            None => Next::SendAfter(wait),
        }
    }

    /// Whether a final error is known, so that nothing more is to be sent.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// The time is up: whether the request may have been executed, and what went wrong: last, or with a node
    /// that somebody has to look after.
    pub(crate) fn give_up(self) -> (bool, Option<String>) {
        let hopeless = self.hopeless.into_values().next().map(|error| error.to_string());
        (self.maybe_done || !self.pending.is_empty(), hopeless.or(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lead(node: &str, term: u64) -> Lead {
        Lead { node: Some(node.into()), term }
    }

    fn replicas() -> Vec<String> {
        ["n1", "n2", "n3"].map(str::to_owned).to_vec()
    }

    fn error(code: Code) -> ErrorReply {
        ErrorReply::new(code, "because")
    }

    #[test]
    fn without_a_leader_replicas_are_asked_in_turn() {
        let mut course = Course::default();
        let mut asked = Vec::new();
        for _ in 0..4 {
            let node = course.target(&Lead::default(), &replicas()).expect("one is free");
            course.sent(&node, &Lead::default());
            let next = course.refused(&node, error(Code::NotLeader));
            assert!(matches!(next, Next::SendAfter(Duration::ZERO)));
            asked.push(node);
        }
        assert_eq!(asked, ["n1", "n2", "n3", "n1"]);
        assert!(!course.is_retry(), "nothing can have been executed");
        assert!(Course::default().target(&Lead::default(), &[]).is_none());
    }

    #[test]
    fn an_error_does_not_overrule_a_pending_attempt() {
        let mut course = Course::default();
        course.sent("n1", &lead("n1", 1));
        assert!(!course.is_news(&lead("n2", 1)), "not a newer term");
        assert!(course.is_news(&lead("n2", 2)));
        assert!(course.is_retry());
        course.sent("n2", &lead("n2", 2));
        assert!(matches!(course.refused("n1", error(Code::BadRequest)), Next::Wait));
        // The other one ends without an answer: then the error stands.
        let next = course.failed("n2", Failure::Unanswered("gone".into()), &replicas());
        let Next::Fail(ClientError::Refused(error)) = next else { panic!("{next:?}") };
        assert_eq!(error.code, Code::BadRequest);
    }

    #[test]
    fn when_there_is_nobody_to_ask_what_is_pending_may_yet_be_answered() {
        let gone = || ClientError::Replaced { name: "c".into() };
        assert!(matches!(Course::default().end(gone()), Next::Fail(ClientError::Replaced { .. })));
        for (code, maybe_done) in [(Code::StaleRoute, false), (Code::LeaderChanged, true)] {
            let mut course = Course::default();
            course.sent("n1", &lead("n1", 1));
            assert!(matches!(course.end(gone()), Next::Wait));
            let next = course.refused("n1", error(code));
            assert!(matches!(next, Next::Fail(ClientError::Replaced { .. })), "{next:?}");
            assert_eq!(course.is_retry(), maybe_done, "{code:?}");
        }
    }

    #[test]
    fn a_leader_that_is_being_asked_is_not_asked_twice() {
        let mut course = Course::default();
        course.sent("n1", &lead("n1", 1));
        assert_eq!(course.target(&lead("n1", 1), &replicas()), None);
        assert!(!course.is_news(&lead("n1", 2)), "the attempt is still under way there");
    }

    #[test]
    fn a_pending_attempt_does_not_keep_the_next_leader_from_being_asked_again() {
        let mut course = Course::default();
        course.sent("n1", &lead("n1", 1));
        course.sent("n2", &lead("n2", 2));
        let overloaded = ErrorReply { retry_after_ms: 70, ..error(Code::Overloaded) };
        let next = course.refused("n2", overloaded);
        assert!(matches!(next, Next::SendAfter(wait) if wait == Duration::from_millis(70)), "{next:?}");
        assert_eq!(course.target(&lead("n2", 2), &replicas()).as_deref(), Some("n2"));
        // Without a leader whoever is not being asked has a turn.
        course.refused("n2", error(Code::NotLeader));
        assert_eq!(course.target(&Lead { node: None, term: 2 }, &replicas()).as_deref(), Some("n3"));
    }

    #[test]
    fn what_is_damaged_on_the_leader_is_read_from_another_replica() {
        let (mut course, lead) = (Course::default(), lead("n1", 3));
        course.sent("n1", &lead);
        assert!(matches!(course.refused("n1", error(Code::Corrupt)), Next::SendAfter(_)));
        assert_eq!(course.target(&lead, &replicas()).as_deref(), Some("n2"));
    }

    #[test]
    fn a_node_without_hope_is_passed_over_and_all_of_them_are_the_end() {
        let stranger = |node: &str| {
            let reason = "not of this cluster".to_owned();
            Failure::Hopeless(ClientError::CertificateRefused { address: node.into(), reason })
        };
        let mut course = Course::default();
        let lead = lead("n1", 3);
        course.sent("n1", &lead);
        assert!(matches!(course.failed("n1", stranger("n1"), &replicas()), Next::SendAfter(_)));
        for node in ["n2", "n3"] {
            assert_eq!(course.target(&lead, &replicas()).as_deref(), Some(node));
            course.sent(node, &lead);
            course.refused(node, error(Code::NotLeader));
        }
        assert_eq!(course.target(&lead, &replicas()).as_deref(), Some("n1"), "it may be mended");
        for node in ["n1", "n2"] {
            course.sent(node, &lead);
            assert!(matches!(course.failed(node, stranger(node), &replicas()), Next::SendAfter(_)));
        }
        course.sent("n3", &lead);
        let next = course.failed("n3", stranger("n3"), &replicas());
        assert!(matches!(next, Next::Fail(ClientError::CertificateRefused { .. })), "{next:?}");
        assert!(!course.is_retry(), "nothing was sent");
    }

    #[test]
    fn overload_is_waited_out_and_changes_nothing() {
        let mut course = Course::default();
        course.sent("n1", &lead("n1", 1));
        let overloaded = ErrorReply { retry_after_ms: 70, ..error(Code::Overloaded) };
        let next = course.refused("n1", overloaded);
        assert!(matches!(next, Next::SendAfter(wait) if wait == Duration::from_millis(70)));
        assert!(!course.give_up().0);
    }

    #[test]
    fn what_may_have_been_executed_is_never_called_unchanged() {
        for code in [Code::Timeout, Code::LeaderChanged, Code::Unavailable, Code::ShuttingDown] {
            let mut course = Course::default();
            course.sent("n1", &lead("n1", 1));
            course.refused("n1", error(code));
            course.sent("n2", &lead("n2", 2));
            course.refused("n2", error(Code::NotLeader));
            assert!(course.is_retry(), "{code:?}");
            assert!(course.give_up().0, "{code:?}");
        }
        let mut course = Course::default();
        course.sent("n1", &lead("n1", 1));
        assert!(course.give_up().0, "still under way");
    }

    proptest! {
        /// Whatever happens: no node is asked twice at once, and no final error comes while one is pending.
        #[test]
        fn at_most_one_attempt_for_each_node(steps in prop::collection::vec((0u8..4, 0usize..3, 0u64..6), 1..60)) {
            let mut course = Course::default();
            let mut pending: Vec<String> = Vec::new();
            let mut known = Lead::default();
            let mut is_refused = false;
            for (what, which, term) in steps {
                if what == 0 {
                    if term > known.term {
                        known = Lead { node: Some(replicas()[which].clone()), term };
                    }
                    if let Some(node) = course.target(&known, &replicas()) {
                        prop_assert!(!pending.contains(&node));
                        course.sent(&node, &known);
                        pending.push(node);
                    }
                    continue;
                }
                if pending.is_empty() {
                    continue;
                }
                let node = pending.swap_remove(which % pending.len());
                let next = match what {
                    1 => course.refused(&node, error(Code::NotLeader)),
                    2 => course.refused(&node, error(Code::BadRequest)),
                    _ => course.failed(&node, Failure::Unanswered("gone".into()), &replicas()),
                };
                is_refused |= what == 2;
                match next {
                    Next::SendAfter(_) => prop_assert!(!is_refused),
                    Next::Wait => prop_assert!(is_refused && !pending.is_empty()),
                    Next::Fail(_) => {
                        prop_assert!(is_refused && pending.is_empty());
                        return Ok(());
                    }
                }
            }
        }
    }
}
