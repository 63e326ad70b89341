//! One view of the cluster after the other, until something is reached.

use super::human;
use super::rates::Rates;
use super::view::Cluster;
use crate::failure::Failure;
use crate::output::line;
use slowdb_client::Client;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Between two views.
const PERIOD: Duration = Duration::from_secs(1);
/// After so many views in which nothing is moved or planned, nothing will be.
const QUIET_VIEWS_MAX: u32 = 5;

/// How views are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// Each in the place of the last.
    Screen,
    /// A few lines if they are others than the last.
    Lines,
    /// One object a line.
    Json,
    /// Not at all.
    Nothing,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Nothing.
    None,
    /// Nothing is moved, and nothing is planned to be.
    Settled,
    /// A node that drains holds no replicas.
    Emptied {
        /// The node.
        node: String,
    },
}

/// What is waited for, and for how long.
#[derive(Debug)]
pub(super) struct Until {
    pub(super) goal: Goal,
    pub(super) deadline: Option<(Instant, Duration)>,
}

/// Watches the cluster.
pub(super) struct Watch<'a> {
    pub(super) client: &'a Client,
    pub(super) until: Until,
    pub(super) show: Show,
}

impl Watch<'_> {
    /// Ends when the goal is reached. A cluster that does not answer for a while is waited for.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let start = Instant::now();
        let deadline = self.until.deadline.filter(|_| self.until.goal != Goal::None);
        let mut rates = Rates::default();
        let mut judge = Judge { goal: self.until.goal, quiet_views: 0 };
        let mut screen = Screen { show: self.show, last: None };
        let mut last = "no view of the cluster was had".to_owned();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looking = async {
            loop {
                ticks.tick().await;
                match self.client.cluster().await.map_err(Failure::from) {
                    Ok(view) => {
                        rates.take(&view, start.elapsed());
                        let view = Cluster::new(&view, &rates);
                        screen.show(&view)?;
                        last = judge.remains(&view);
                        if judge.is_reached(&view)? {
                            return Ok(());
                        }
                    }
                    Err(failure) if failure.may_pass() => {
                        eprintln!("no view of the cluster: {}", failure.message);
                        last = failure.message;
                    }
                    Err(failure) => return Err(failure),
                }
            }
        };
        let Some((at, timeout)) = deadline else { return looking.await };
        match tokio::time::timeout_at(at.into(), looking).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(Failure::too_late(format!("not done within {:.1} s: {last}", timeout.as_secs_f64())))
            }
        }
    }
}

/// Tells when the goal is reached, or never will be.
struct Judge {
    goal: Goal,
    quiet_views: u32,
}

impl Judge {
    /// What is still to be done.
    fn remains(&self, view: &Cluster) -> String {
        match &self.goal {
            Goal::Emptied { node } => format!("node {node} still holds {} replicas", view.held_by(node)),
            Goal::None | Goal::Settled => human::summary(view),
        }
    }

    fn is_reached(&mut self, view: &Cluster) -> Result<bool, Failure> {
        let node = match &self.goal {
            Goal::None => return Ok(false),
            Goal::Settled => return Ok(view.settled),
            Goal::Emptied { node } => node,
        };
        let held = view.held_by(node);
        if held == 0 {
            return Ok(true);
        }
        self.quiet_views = if view.settled { self.quiet_views + 1 } else { 0 };
        let state = view.nodes.iter().find(|it| it.node == *node).map_or("", |it| it.state);
        let why = if state != "draining" {
            format!("it is {state} by now: somebody wants it otherwise")
        } else if self.quiet_views > QUIET_VIEWS_MAX {
            format!("nothing is planned for them; 'slowdb-node explain node {node}' says why")
        } else {
            return Ok(false);
        };
        Err(Failure::refused("refused", format!("node {node} still holds {held} replicas, and {why}")))
    }
}

struct Screen {
    show: Show,
    last: Option<Vec<String>>,
}

impl Screen {
    fn show(&mut self, view: &Cluster) -> Result<(), Failure> {
        match self.show {
            Show::Nothing => Ok(()),
            Show::Json => {
                line(&serde_json::to_string(view).map_err(|error| Failure::internal(error.to_string()))?)
            }
            Show::Lines => {
                let lines = human::lines(view);
                if self.last.as_ref() == Some(&lines) {
                    return Ok(());
                }
                let text = lines.join("\n");
                self.last = Some(lines);
                line(&text)
            }
            Show::Screen => {
                let first = if self.last.is_none() { "\x1b[2J" } else { "" };
                self.last = Some(Vec::new());
                line(&format!("{first}{}", redraw(&human::cluster(view))))
            }
        }
    }
}

/// Draws from the top, and clears what was longer before: nothing flickers.
fn redraw(text: &str) -> String {
    format!("\x1b[H{}\x1b[K\n\x1b[J", text.replace('\n', "\x1b[K\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::tests::{copied, moving};
    use slowdb_proto::{ClusterView, NodeState};

    fn judge(goal: Goal) -> Judge {
        Judge { goal, quiet_views: 0 }
    }

    fn is_reached(judge: &mut Judge, view: &ClusterView) -> Result<bool, String> {
        judge.is_reached(&Cluster::new(view, &Rates::default())).map_err(|failure| failure.message)
    }

    #[test]
    fn settled_is_when_nothing_moves_or_is_planned() {
        let mut settled = judge(Goal::Settled);
        let mut view = moving(vec![copied("n4", 1, 2)]);
        assert_eq!(is_reached(&mut settled, &view), Ok(false));
        view.moves.clear();
        assert_eq!(is_reached(&mut settled, &view), Ok(false), "more is planned");
        view.planned.clear();
        assert_eq!(is_reached(&mut settled, &view), Ok(true));
        assert_eq!(is_reached(&mut judge(Goal::None), &view), Ok(false));
    }

    #[test]
    fn emptied_is_when_the_node_holds_nothing() {
        let goal = || Goal::Emptied { node: "n3".into() };
        let mut view = moving(vec![copied("n4", 1, 2)]);
        view.nodes[2].state = NodeState::Draining;
        assert_eq!(is_reached(&mut judge(goal()), &view), Ok(false));
        let remains = judge(goal()).remains(&Cluster::new(&view, &Rates::default()));
        assert_eq!(remains, "node n3 still holds 4 replicas");
        view.nodes[2].replicas = 0;
        assert_eq!(is_reached(&mut judge(goal()), &view), Ok(true), "whatever else is on its way");
        view.nodes.truncate(2);
        assert_eq!(is_reached(&mut judge(goal()), &view), Ok(true), "removed");
    }

    #[test]
    fn what_is_never_emptied_is_said() {
        let mut emptied = judge(Goal::Emptied { node: "n3".into() });
        let mut view = moving(vec![]);
        view.nodes[2].state = NodeState::Draining;
        (view.moves, view.planned) = (vec![], vec![]);
        for _ in 0..QUIET_VIEWS_MAX {
            assert_eq!(is_reached(&mut emptied, &view), Ok(false), "it may only not be planned yet");
        }
        let said = is_reached(&mut emptied, &view).expect_err("no place for them");
        assert!(said.contains("n3 still holds 4 replicas") && said.contains("explain node n3"), "{said}");

        view.nodes[2].state = NodeState::Active;
        let said = is_reached(&mut judge(Goal::Emptied { node: "n3".into() }), &view).expect_err("undone");
        assert!(said.contains("it is active by now"), "{said}");
    }

    #[test]
    fn a_shorter_screen_leaves_nothing_of_the_longer_one() {
        assert_eq!(redraw("a\nb"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
