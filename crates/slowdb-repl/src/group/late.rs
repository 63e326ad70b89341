//! Proposals that were overtaken: kept before they are cut, and proposed again when their holders offer them.

use super::proposals::{Queued, Whom};
use super::{Group, Sink};
use crate::engine::Flushed;
use crate::entry::EntryView;
use crate::ids::ReplicaId;
use crate::machine::StateMachine;
use crate::quarantine::Overtaken;
use bytes::Bytes;

/// Late proposals that may be under way at a time in a group.
const LATE_MAX: usize = 1024;

impl<M: StateMachine> Group<M> {
    /// Hands out what is about to be cut and may be taken for written.
    pub(super) fn keep_overtaken(
        &self,
        flushed: &Flushed,
        sink: &mut Sink<'_, M::Outcome>,
    ) -> Result<(), String> {
        if !self.loses_overtaken(flushed.restored.is_some()) {
            let own = self.membership.own;
            sink.overtaken.extend(Overtaken::of_entries(self.id, own, &flushed.cut, flushed.fork)?);
        }
        Ok(())
    }

    /// What goes with this replica and may be taken for written.
    pub(crate) fn overtaken_by_removal(&self) -> Result<Vec<Overtaken>, String> {
        let (committed, entries) = self.engine.uncommitted()?;
        Overtaken::of_entries(self.id, self.membership.own, &entries, committed)
    }

    /// Somebody offers proposals that were overtaken. They are proposed if this replica leads; else they will be offered
    /// again, to whoever does.
    pub(crate) fn take_late(&mut self, holder: ReplicaId, entry: &Bytes) {
        if !M::TAKES_LATE
            || !self.engine.is_leader()
            || self.engine.is_transferring()
            || self.halted.is_some()
        {
            return;
        }
        let view = match EntryView::parse(self.engine.term(), 0, entry) {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(group = %self.id, %holder, %error, "an offer of overtaken proposals is malformed");
                return;
            }
        };
        for proposal in view.proposals() {
            let Some(late) = proposal.header.late else { continue };
            if let Err(error) = self.check_fits(proposal.body) {
                tracing::warn!(group = %self.id, %holder, %error, "an overtaken proposal that is offered is too large");
                continue;
            }
            if self.late.len() >= LATE_MAX || !self.late.insert((holder, late.was)) {
                continue;
            }
            self.enqueue(Queued {
                header: proposal.header,
                body: entry.slice_ref(proposal.body),
                deadline: u64::MAX,
                whom: Whom::Holder(holder, late.was),
            });
        }
    }

    /// Planted bugs: what is cut, or what a snapshot replaces, is not kept.
    #[cfg(feature = "canary")]
    fn loses_overtaken(&self, by_snapshot: bool) -> bool {
        use crate::Canary;
        match self.canary {
            Some(Canary::CutNotKept) => !by_snapshot,
            Some(Canary::ReplacedNotKept) => by_snapshot,
            _ => false,
        }
    }

    #[cfg(not(feature = "canary"))]
    fn loses_overtaken(&self, _by_snapshot: bool) -> bool {
        false
    }
}
