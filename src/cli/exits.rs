//! `up --abort-on-container-exit` and its kin: which end of a service ends all of them, and with which exit code.

use std::collections::{BTreeMap, BTreeSet};

use super::args::Up;
use super::outcome::Failure;
use super::prepare::known_services;
use crate::event::{Event, InstanceState};
use crate::model::{InstanceName, Project, ServiceName};
use crate::session::{Session, Update};

/// What ends an attached `up` beside people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Only an exit code other than 0 does.
    failures_only: bool,
    /// Whose exit code counts; else that of the first that ended.
    code_of: Option<ServiceName>,
}

impl Rule {
    /// What the command line asks for, if it does.
    pub fn of(args: &Up, project: &Project) -> Result<Option<Self>, Failure> {
        let code_of = args.exit_code_from.as_deref().map(ServiceName::from);
        known_services(project, code_of.as_slice())?;
        let at_any = args.abort_on_container_exit || code_of.is_some();
        let asked = at_any || args.abort_on_container_failure;
        Ok(asked.then_some(Self { failures_only: !at_any, code_of }))
    }
}

/// The ends of services, as they come.
pub struct Exits {
    rule: Rule,
    session: Session,
    /// What ran: what was stopped before is no end.
    ran: BTreeSet<InstanceName>,
    /// The first exit code that ends all.
    first: Option<i64>,
    /// The last exit code of each service.
    codes: BTreeMap<ServiceName, i64>,
}

impl Exits {
    /// Looks at a session of its own.
    pub fn new(rule: Rule, session: Session) -> Self {
        Self { rule, session, ran: BTreeSet::new(), first: None, codes: BTreeMap::new() }
    }

    /// Waits for the first end that ends all; for ever, once it was told.
    pub async fn first(&mut self) {
        while self.first.is_none() {
            match self.session.updates.recv().await {
                Some(update) => self.see(&update),
                None => break,
            }
            if self.first.is_some() {
                return;
            }
        }
        std::future::pending().await
    }

    /// The exit code of all, when everything ended. What was said meanwhile is looked at first.
    pub fn code(mut self) -> Option<i64> {
        while let Ok(update) = self.session.updates.try_recv() {
            self.see(&update);
        }
        match &self.rule.code_of {
            Some(service) => self.codes.get(service).copied(),
            None => self.first,
        }
    }

    fn see(&mut self, update: &Update) {
        let Update::Event(stamped) = update else { return };
        let Event::Changed { instance } = &stamped.event else { return };
        match &instance.state {
            InstanceState::Running => drop(self.ran.insert(instance.name.clone())),
            InstanceState::Exited { code, .. } if self.ran.remove(&instance.name) => {
                self.codes.insert(instance.name.service.clone(), *code);
                if self.first.is_none() && (*code != 0 || !self.rule.failures_only) {
                    self.first = Some(*code);
                }
            }
            _ => {}
        }
    }
}
