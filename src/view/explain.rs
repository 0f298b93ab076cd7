//! What did not work, told at the end: the service that ended first with its last lines, then who waited for it.
//!
//! Written for someone who has not seen compose before; the order is that of starting, so the cause stands first.

use std::collections::{BTreeMap, HashSet};
use std::io;

use indexmap::IndexMap;

use super::style::{Palette, Role};
use super::{Out, text};
use crate::event::{Failure, Health, InstanceState, InstanceView, Snapshot};
use crate::model::InstanceName;

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What, without `error: `.
    pub message: String,
    /// Output that may say why.
    pub output: Vec<String>,
    /// What to do about it, each on a line.
    pub hints: Vec<String>,
}

/// The last lines instances wrote.
pub type Tails = BTreeMap<InstanceName, Vec<String>>;

/// Where the output of instances is.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// Before the reader's eyes.
    OnScreen,
    /// Here, as far as it was seen.
    Kept(&'a Tails),
}

/// Makes problems of what failed, causes before consequences, one for all replicas that share it. No hint comes twice.
pub fn explain(snapshot: Option<&Snapshot>, failures: &[Failure], output: Output<'_>) -> Vec<Problem> {
    if failures.is_empty() {
        return Vec::new();
    }
    let mut problems: IndexMap<String, Problem> = IndexMap::new();
    let mut told: Vec<&Failure> = Vec::new();
    for instance in snapshot.into_iter().flat_map(|snapshot| snapshot.instances.values()) {
        let mine: Vec<&Failure> =
            failures.iter().filter(|failure| failure.service.as_ref() == Some(&instance.name.service)).collect();
        let Some(message) = message(instance, &mine) else { continue };
        let problem = problems.entry(message.clone()).or_insert_with(|| Problem {
            message,
            output: Vec::new(),
            hints: Vec::new(),
        });
        for failure in mine {
            add_hint(problem, failure);
            told.push(failure);
        }
        if let Output::Kept(tails) = output
            && problem.output.is_empty()
            && ran(instance)
        {
            match tails.get(&instance.name).filter(|tail| !tail.is_empty()) {
                Some(tail) => problem.output = tail.clone(),
                None => problem.hints.push(format!("`wcompose logs {}` shows what it wrote", instance.name.service)),
            }
        }
    }
    for failure in failures.iter().filter(|failure| !told.contains(failure)) {
        let message = match &failure.service {
            Some(service) if !failure.message.contains(&format!("`{service}`")) => {
                format!("service `{service}`: {}", failure.message)
            }
            _ => failure.message.clone(),
        };
        let problem = problems.entry(message.clone()).or_insert_with(|| Problem {
            message,
            output: Vec::new(),
            hints: Vec::new(),
        });
        add_hint(problem, failure);
    }
    let mut problems: Vec<Problem> = problems.into_values().collect();
    let mut given = HashSet::new();
    problems.iter_mut().for_each(|problem| problem.hints.retain(|hint| given.insert(hint.clone())));
    problems
}

/// Writes problems: `error: …`, output indented below, `hint: …`.
pub fn write(problems: &[Problem], palette: Palette, err: Out<'_>) -> io::Result<()> {
    for problem in problems {
        writeln!(err, "{} {}", palette.paint(Role::Error, "error:"), problem.message)?;
        if !problem.output.is_empty() {
            writeln!(err, "  its last output:")?;
        }
        for line in &problem.output {
            writeln!(err, "    {}", text::harmless(line))?;
        }
        for hint in &problem.hints {
            writeln!(err, "{} {hint}", palette.paint(Role::Hint, "hint:"))?;
        }
    }
    Ok(())
}

/// What is wrong with an instance: how it ended, or why it was not started.
fn message(instance: &InstanceView, failures: &[&Failure]) -> Option<String> {
    let service = &instance.name.service;
    match &instance.state {
        InstanceState::Running if instance.health == Some(Health::Unhealthy) => {
            Some(format!("service `{service}` runs but is unhealthy: its health check fails"))
        }
        InstanceState::Exited { code: 0, .. } if failures.is_empty() => None,
        InstanceState::Exited { code, reason } | InstanceState::Restarting { code, reason } => {
            let again = matches!(instance.state, InstanceState::Restarting { .. });
            let mut message = format!("service `{service}` exited with code {code}");
            if again {
                message.push_str(", and is started again and again");
            }
            if let Some(reason) = reason {
                message.push_str(&format!(": {reason}"));
            }
            Some(message)
        }
        InstanceState::Failed { reason } => Some(format!("service `{service}` was not started: {reason}")),
        InstanceState::Waiting { .. }
        | InstanceState::Starting
        | InstanceState::Running
        | InstanceState::Paused
        | InstanceState::Stopping
        | InstanceState::Created => None,
    }
}

/// Whether its output may say what is wrong with it.
fn ran(instance: &InstanceView) -> bool {
    !matches!(instance.state, InstanceState::Failed { .. })
}

fn add_hint(problem: &mut Problem, failure: &Failure) {
    if let Some(hint) = failure.hint.as_ref().filter(|hint| !problem.hints.contains(hint)) {
        problem.hints.push(hint.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::event::Kind;

    fn failure(service: Option<&str>, message: &str, hint: Option<&str>) -> Failure {
        Failure { service: service.map(Into::into), message: message.into(), hint: hint.map(str::to_owned) }
    }

    fn told(snapshot: Option<&Snapshot>, failures: &[Failure], tails: &Tails) -> String {
        let mut out = Vec::new();
        write(&explain(snapshot, failures, Output::Kept(tails)), Palette::PLAIN, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_database_without_its_password_is_the_cause_and_its_dependents_follow() {
        let mut snapshot = sample::snapshot();
        snapshot.instances[0].state = InstanceState::Exited { code: 1, reason: None };
        let reason = "dependency `db` failed to start: container `shop-db-1` exited (1)";
        for number in [1, 2] {
            let mut api = sample::instance("api", Kind::Linux, InstanceState::Failed { reason: reason.into() });
            api.name.number = number;
            snapshot.instances.insert(api.name.clone(), api);
        }
        let tails = Tails::from([(
            InstanceName::new("db".into(), 1),
            vec!["Error: superuser password is not specified.".into(), "\x1b[2JYou must specify it.".into()],
        )]);
        let failures = [
            failure(Some("api"), reason, Some("set POSTGRES_PASSWORD")),
            failure(Some("db"), "exited (1)", Some("set POSTGRES_PASSWORD")),
        ];
        insta::assert_snapshot!(told(Some(&snapshot), &failures, &tails), @r"
        error: service `db` exited with code 1
          its last output:
            Error: superuser password is not specified.
             [2JYou must specify it.
        hint: set POSTGRES_PASSWORD
        error: service `api` was not started: dependency `db` failed to start: container `shop-db-1` exited (1)
        ");
        assert_eq!(told(Some(&snapshot), &[], &tails), "", "nothing failed that was asked for");
        insta::assert_snapshot!(told(Some(&snapshot), &failures[..1], &Tails::new()), @r"
        error: service `db` exited with code 1
        hint: `wcompose logs db` shows what it wrote
        error: service `api` was not started: dependency `db` failed to start: container `shop-db-1` exited (1)
        hint: set POSTGRES_PASSWORD
        ");
    }

    #[test]
    fn what_is_about_no_instance_is_told_as_it_is() {
        let failures = [
            failure(None, "network `shop_default`: in use", Some("stop what uses it")),
            failure(Some("web"), "port 8080 is taken by `nginx` (pid 7)", None),
            failure(Some("web"), "image of `web` is missing", None),
        ];
        insta::assert_snapshot!(told(Some(&sample::snapshot()), &failures, &Tails::new()), @r"
        error: network `shop_default`: in use
        hint: stop what uses it
        error: service `web`: port 8080 is taken by `nginx` (pid 7)
        error: image of `web` is missing
        ");
        assert!(told(None, &failures, &Tails::new()).contains("port 8080"), "also without a snapshot");
    }

    #[test]
    fn a_trap_that_comes_again_is_said_so() {
        let mut snapshot = sample::snapshot();
        snapshot.instances[2].state =
            InstanceState::Restarting { code: 134, reason: Some("wasm trap: unreachable".into()) };
        insta::assert_snapshot!(told(Some(&snapshot), &[failure(Some("gateway"), "x", None)], &Tails::new()), @r"
        error: service `gateway` exited with code 134, and is started again and again: wasm trap: unreachable
        hint: `wcompose logs gateway` shows what it wrote
        ");
    }
}
