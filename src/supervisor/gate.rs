//! Whether an edge of the plan holds, and if not, what is waited for or why it never will. A gate is asked before a start only:
//! a dependency that turns unhealthy later tears nothing down.

use super::instance::{Instance, Problem, State, Wish, spoken};
use crate::plan::observed::Health;
use crate::plan::unit::EdgeCondition;

/// What an edge says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds.
    Holds,
    /// Not yet; "waits for …".
    Waits(String),
    /// Never; why.
    Broken(Problem),
}

/// The verdict of an edge on an instance.
pub(super) fn verdict(dependency: &Instance, replicas: usize, condition: EdgeCondition) -> Verdict {
    let name = spoken(&dependency.spec.name, replicas);
    let container = &dependency.spec.container;
    let broken = |why: String| Verdict::Broken(Problem::new(format!("dependency {name} failed to start: {why}")));
    let waits = || {
        Verdict::Waits(match condition {
            EdgeCondition::Done | EdgeCondition::Started => format!("{name} to start"),
            EdgeCondition::Healthy => format!("{name} to become healthy"),
            EdgeCondition::Completed => format!("{name} to complete"),
        })
    };
    let incomplete = |code: i64| {
        Verdict::Broken(Problem::new(format!("dependency {name} didn't complete successfully: exit {code}")))
    };
    match (dependency.wish, &dependency.state) {
        (_, State::Failed { problem, .. }) => Verdict::Broken(Problem {
            message: format!("dependency {name} failed to start: {}", problem.message),
            hint: problem.hint.clone(),
            kind: problem.kind,
        }),
        (Wish::Again, _) | (Wish::Run, State::Idle) => waits(),
        // A one-shot that did its work satisfies whoever waits for it, even when it is not wished to run any more.
        (_, State::Exited { code: 0, .. }) if condition == EdgeCondition::Completed => Verdict::Holds,
        (Wish::Rest, _) => Verdict::Broken(Problem::new(format!("dependency {name} is stopped"))),
        (Wish::Run, State::Starting { .. }) => waits(),
        (Wish::Run, _) if matches!(condition, EdgeCondition::Done | EdgeCondition::Started) => Verdict::Holds,
        (Wish::Run, State::Stopping { .. } | State::Backoff { .. } | State::Restarting { .. }) => waits(),
        (Wish::Run, State::Running { .. }) if condition == EdgeCondition::Completed => waits(),
        (Wish::Run, State::Running { .. }) => match (dependency.health, &dependency.check) {
            (Some(Health::Healthy), _) => Verdict::Holds,
            (Some(Health::Starting), _) => waits(),
            (Some(Health::Unhealthy), _) => broken(match &dependency.last_probe {
                Some(probe) => format!("container `{container}` is unhealthy: {probe}"),
                None => format!("container `{container}` is unhealthy"),
            }),
            (None, Err(unrecognised)) => broken(unrecognised.0.clone()),
            (None, Ok(_)) => broken(format!("container `{container}` has no healthcheck configured")),
        },
        (Wish::Run, State::Exited { code, .. }) if condition == EdgeCondition::Completed => incomplete(*code),
        (Wish::Run, State::Exited { code, reason }) => broken(match reason {
            Some(reason) => format!("container `{container}` exited ({code}): {reason}"),
            None => format!("container `{container}` exited ({code})"),
        }),
    }
}
