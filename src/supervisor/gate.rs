//! Whether an edge of the plan holds, and if not, what is waited for or why it never will. A gate is asked before a start only:
//! a dependency that turns unhealthy later tears nothing down.

use super::instance::{Instance, Problem, State, Wish, spoken};
use crate::model::InstanceName;
use crate::plan::observed::Health;
use crate::plan::unit::EdgeCondition;

/// What an edge says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds.
    Holds,
    /// Not yet; [`reason`] says what is waited for.
    Waits,
    /// Never; why.
    Broken(Problem),
}

/// What an edge on an instance that does not hold yet waits for; "waits for …".
pub(super) fn reason(name: &InstanceName, replicas: usize, condition: EdgeCondition) -> String {
    let name = spoken(name, replicas);
    match condition {
        EdgeCondition::Done | EdgeCondition::Started => format!("{name} to start"),
        EdgeCondition::Healthy => format!("{name} to become healthy"),
        EdgeCondition::Completed => format!("{name} to complete"),
    }
}

/// The verdict of an edge on an instance; `replicas` tells how many its service has, for people.
pub(super) fn verdict(dependency: &Instance, replicas: impl Fn() -> usize, condition: EdgeCondition) -> Verdict {
    let name = || spoken(&dependency.spec.name, replicas());
    let container = &dependency.spec.container;
    let broken = |why: String| Verdict::Broken(Problem::new(format!("dependency {} failed to start: {why}", name())));
    let incomplete = |code: i64| {
        Verdict::Broken(Problem::new(format!("dependency {} didn't complete successfully: exit {code}", name())))
    };
    match (dependency.wish, &dependency.state) {
        (_, State::Failed { problem, .. }) => Verdict::Broken(Problem {
            message: format!("dependency {} failed to start: {}", name(), problem.message),
            hint: problem.hint.clone(),
            kind: problem.kind,
        }),
        (Wish::Again, _) | (Wish::Run, State::Idle) => Verdict::Waits,
        // A one-shot that did its work satisfies whoever waits for it, even when it is not wished to run any more.
        (_, State::Exited { code: 0, .. }) if condition == EdgeCondition::Completed => Verdict::Holds,
        (Wish::Rest, _) => Verdict::Broken(Problem::new(format!("dependency {} is stopped", name()))),
        (Wish::Run, State::Starting { .. }) => Verdict::Waits,
        (Wish::Run, _) if matches!(condition, EdgeCondition::Done | EdgeCondition::Started) => Verdict::Holds,
        (Wish::Run, State::Stopping { .. } | State::Backoff { .. } | State::Restarting { .. }) => Verdict::Waits,
        (Wish::Run, State::Running { .. }) if condition == EdgeCondition::Completed => Verdict::Waits,
        (Wish::Run, State::Running { .. }) => match (dependency.health, &dependency.check) {
            (Some(Health::Healthy), _) => Verdict::Holds,
            (Some(Health::Starting), _) => Verdict::Waits,
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
