//! Every planted bug is caught. A checker that cannot fail proves nothing.

use slowdb_sim::{Bug, Options, hunt, run};

fn caught(bug: Bug) {
    let hunted = hunt(bug, 1);
    let Some((seed, tries, checker)) = hunted.caught else { panic!("not caught: {}", bug.name()) };
    println!("{}: caught in seed {seed}, try {tries}, by {checker}: {}", bug.name(), hunted.what);
    // It is the bug that was caught: without it the same run passes.
    if let Err(failure) = run(Options::draw(seed, bug.profile()), false) {
        panic!("{failure}");
    }
}

#[test]
fn an_acknowledgement_before_the_sync_is_caught() {
    caught(Bug::AckBeforeSync);
}

#[test]
fn a_vote_that_is_not_persisted_is_caught() {
    caught(Bug::VoteNotPersisted);
}

#[test]
fn a_read_that_asks_no_majority_is_caught() {
    caught(Bug::ReadWithoutMajority);
}

#[test]
fn a_log_that_is_not_chained_is_caught() {
    caught(Bug::ChainNotChecked);
}

#[test]
fn a_slot_reused_early_is_caught() {
    caught(Bug::SlotReusedEarly);
}

#[test]
fn an_append_of_a_stale_term_is_caught() {
    caught(Bug::TermNotChecked);
}
