//! A project's life as text: progress, log lines, exits, refusals, and at the end what did not work.
//!
//! One console owns both streams, because a block of progress that is redrawn in place has to step aside for every line
//! that goes past it. Time is an argument. It learns of things only through [`Update`]s and [`LogLine`]s.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::io;

use jiff::{SignedDuration, Timestamp};

use super::explain::{self, Output, Tails};
use super::log::{LogFormat, LogPrinter};
use super::progress::{Progress, Stage};
use super::style::{Palette, Role};
use super::tty::{self, Block, Extent, Size};
use super::{Streams, json, text};
use crate::event::{Event, Failure, InstanceState, InstanceView, Phase, Snapshot, Stamped};
use crate::model::{InstanceName, ServiceName};
use crate::session::{LogLine, LogStream, Update};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Rows redrawn in place.
    Tty,
    /// A line a change.
    Plain,
    /// A JSON object a change.
    Json,
    /// Nothing; warnings and errors still are.
    Quiet,
}

/// Whether the output of services is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lines {
    /// No; the last lines are kept to explain a failure with.
    Kept,
    /// As it comes, with exits.
    Shown {
        /// How lines look.
        format: LogFormat,
        /// Of these services; empty means all.
        services: Vec<ServiceName>,
    },
}

/// How a console looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Progress.
    pub progress: Shown,
    /// Output of services.
    pub lines: Lines,
    /// Colours on standard output.
    pub out: Palette,
    /// Colours on standard error.
    pub err: Palette,
}

/// Lines kept of each instance, to explain a failure with.
const TAIL: usize = 8;

/// Lines that go past the block bring it back at most so often.
const FRAME: SignedDuration = SignedDuration::from_millis(33);

/// Draws what it is told.
pub struct Console<'w> {
    streams: Streams<'w>,
    options: Options,
    size: Box<dyn Fn() -> Size + Send + 'w>,
    snapshot: Option<Snapshot>,
    printer: LogPrinter,
    progress: Progress,
    block: Block,
    /// When it was last drawn, and whether a line took it off the screen since.
    last_draw: Option<Timestamp>,
    hidden: bool,
    tails: BTreeMap<InstanceName, VecDeque<String>>,
    refusals: Vec<Refusal>,
    step_failures: Vec<(String, Failure)>,
    warned: HashSet<String>,
    announced: bool,
}

/// A refusal, kept for the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    service: ServiceName,
    what: String,
    grant: Option<String>,
}

impl fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("options", &self.options)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl<'w> Console<'w> {
    /// A console on these streams; standard error is the terminal that progress is drawn on.
    pub fn new(streams: Streams<'w>, options: Options) -> Self {
        Self::sized(streams, options, Size::of_stderr)
    }

    /// A console on a terminal whose size `size` tells.
    pub fn sized(streams: Streams<'w>, options: Options, size: impl Fn() -> Size + Send + 'w) -> Self {
        let format = match &options.lines {
            Lines::Kept => LogFormat::default(),
            Lines::Shown { format, .. } => *format,
        };
        Self {
            printer: LogPrinter::new(format, options.out, options.err),
            streams,
            options,
            size: Box::new(size),
            snapshot: None,
            progress: Progress::default(),
            block: Block::default(),
            last_draw: None,
            hidden: false,
            tails: BTreeMap::new(),
            refusals: Vec::new(),
            step_failures: Vec::new(),
            warned: HashSet::new(),
            announced: false,
        }
    }

    /// What is known now, if anything is.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Whether something on the screen moves with time.
    pub fn is_moving(&self) -> bool {
        self.options.progress == Shown::Tty && (self.hidden || !self.progress.is_settled())
    }

    /// Takes over a state: at the beginning, and after having been too slow.
    pub fn begin(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.printer.learn_snapshot(snapshot);
        self.snapshot = Some(snapshot.clone());
        self.announce()
    }

    /// Takes a change in.
    pub fn update(&mut self, update: &Update, now: Timestamp) -> io::Result<()> {
        match update {
            Update::Event(stamped) => self.event(stamped, now),
            Update::Resync(snapshot) => self.begin(snapshot),
            Update::Lost(why) => {
                self.step_aside()?;
                writeln!(
                    self.streams.err,
                    "{} the project's supervisor is gone: {why}",
                    self.options.err.paint(Role::Warning, "warning:")
                )
            }
        }
    }

    /// Takes a line of a service's output in.
    pub fn line(&mut self, line: &LogLine, now: Timestamp) -> io::Result<()> {
        let tail = self.tails.entry(line.instance.clone()).or_default();
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.text.clone());
        if !self.shows(&line.instance.service) {
            return Ok(());
        }
        self.step_aside()?;
        self.printer.line(line, &mut self.streams)?;
        // A flood of lines is not slowed by the block: the next tick brings it back.
        let rested = self.last_draw.is_none_or(|last| now.duration_since(last) >= FRAME);
        if rested { self.redraw(now) } else { Ok(()) }
    }

    /// Writes a line for people past whatever is drawn.
    pub fn say(&mut self, line: &str, now: Timestamp) -> io::Result<()> {
        self.step_aside()?;
        writeln!(self.streams.err, "{line}")?;
        self.redraw(now)
    }

    /// A message of `watch`, beside the services' lines.
    pub fn tell(&mut self, text: &str, now: Timestamp) -> io::Result<()> {
        self.step_aside()?;
        let mark = self.options.out.paint(Role::Watch, "⦿");
        writeln!(self.streams.out, "{mark} {}", self.options.out.paint(Role::Watch, text))?;
        self.streams.out.flush()?;
        self.redraw(now)
    }

    /// Draws what moves with time.
    pub fn tick(&mut self, now: Timestamp) -> io::Result<()> {
        if self.is_moving() { self.redraw(now) } else { Ok(()) }
    }

    /// A piece of work is over: its rows stay, and below them what did not work and what was refused.
    pub fn settle(&mut self, failures: &[Failure], now: Timestamp) -> io::Result<()> {
        self.release(now)?;
        let failures = self.with_steps(failures);
        let tails: Tails =
            self.tails.iter().map(|(name, tail)| (name.clone(), tail.iter().cloned().collect())).collect();
        let output = match self.options.lines {
            Lines::Kept => Output::Kept(&tails),
            Lines::Shown { .. } => Output::OnScreen,
        };
        let problems = explain::explain(self.snapshot.as_ref(), &failures, output);
        explain::write(&problems, self.options.err, self.streams.err)?;
        self.sum_up_refusals()?;
        self.streams.err.flush()?;
        self.streams.out.flush()
    }

    fn event(&mut self, stamped: &Stamped, now: Timestamp) -> io::Result<()> {
        if self.options.progress == Shown::Json {
            json::progress(stamped, self.streams.err)?;
        }
        match &stamped.event {
            Event::StepStarted { .. } | Event::StepFinished { .. } => self.step(stamped, now)?,
            Event::StepFailed { id, error, hint } => {
                self.step(stamped, now)?;
                let failure = Failure { service: None, message: format!("{id}: {error}"), hint: hint.clone() };
                self.step_failures.push((error.clone(), failure));
            }
            Event::Planned { instances } => {
                let project = self.snapshot.as_ref().map(|snapshot| snapshot.project.clone());
                self.printer.learn(project.as_ref().map_or("", |project| project.as_str()), instances);
            }
            Event::Changed { instance } => self.changed(instance, now)?,
            Event::PhaseChanged { phase } => self.phase(*phase, now)?,
            Event::Refused { instance, what, why, grant } => {
                self.refused(instance, what, why, grant.as_deref(), now)?
            }
            Event::Warned { message } => {
                if self.warned.insert(message.clone()) {
                    let warning = self.options.err.paint(Role::Warning, "warning:");
                    self.say(&format!("{warning} {message}"), now)?;
                }
            }
            Event::Removed { .. } | Event::Reloaded { .. } | Event::Settled { .. } => {}
        }
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.apply(stamped);
        }
        match &stamped.event {
            Event::Planned { .. } => self.announce(),
            _ => Ok(()),
        }
    }

    fn step(&mut self, stamped: &Stamped, now: Timestamp) -> io::Result<()> {
        let Some(row) = self.progress.take(stamped) else { return Ok(()) };
        match self.options.progress {
            Shown::Tty => self.redraw(now),
            Shown::Plain => {
                let error = match &row.stage {
                    Stage::Failed { error } => format!(": {}", error.lines().next().unwrap_or_default()),
                    Stage::Busy | Stage::Done => String::new(),
                };
                writeln!(self.streams.err, " {}  {}{}", row.id, row.status, text::harmless(&error))
            }
            Shown::Json | Shown::Quiet => Ok(()),
        }
    }

    /// Says that an instance ended, where its output is shown.
    fn changed(&mut self, instance: &InstanceView, now: Timestamp) -> io::Result<()> {
        let before = self.snapshot.as_ref().and_then(|snapshot| snapshot.instances.get(&instance.name));
        let known = before.is_some_and(|before| before.state == instance.state && before.restarts == instance.restarts);
        let how = match &instance.state {
            InstanceState::Exited { code, reason } => exit(*code, reason.as_deref(), ""),
            InstanceState::Restarting { code, reason } => exit(*code, reason.as_deref(), " (restarting)"),
            InstanceState::Waiting { .. }
            | InstanceState::Starting
            | InstanceState::Running
            | InstanceState::Paused
            | InstanceState::Stopping
            | InstanceState::Failed { .. }
            | InstanceState::Created => return Ok(()),
        };
        // An instance that has not run under our eyes ended before we came.
        let ran = before.is_some_and(|before| !matches!(before.state, InstanceState::Exited { .. }));
        if known || !ran || !self.shows(&instance.name.service) {
            return Ok(());
        }
        self.step_aside()?;
        self.printer.exited(&instance.name, &how, self.streams.out)?;
        self.redraw(now)
    }

    fn phase(&mut self, phase: Phase, now: Timestamp) -> io::Result<()> {
        match phase {
            // What follows is another piece of work, with rows of its own.
            Phase::Stopping | Phase::Starting => self.release(now),
            Phase::Running | Phase::Stopped => Ok(()),
        }
    }

    fn refused(
        &mut self,
        instance: &InstanceName,
        what: &str,
        why: &str,
        grant: Option<&str>,
        now: Timestamp,
    ) -> io::Result<()> {
        self.refusals.push(Refusal {
            service: instance.service.clone(),
            what: what.to_owned(),
            grant: grant.map(str::to_owned),
        });
        if !self.shows(&instance.service) {
            return Ok(());
        }
        self.step_aside()?;
        let grant = grant.map(|grant| format!("\nto allow it: {grant}")).unwrap_or_default();
        let line = format!("refused to {what}: {why}{grant}");
        self.printer.prefixed(instance, LogStream::Stderr, &line, self.streams.err)?;
        self.redraw(now)
    }

    fn sum_up_refusals(&mut self) -> io::Result<()> {
        let refusals = std::mem::take(&mut self.refusals);
        if refusals.is_empty() || matches!(self.options.lines, Lines::Shown { .. }) {
            return Ok(());
        }
        let (warning, hint) =
            (self.options.err.paint(Role::Warning, "warning:"), self.options.err.paint(Role::Hint, "hint:"));
        for refusal in &refusals {
            writeln!(self.streams.err, "{warning} service `{}` was refused to {}", refusal.service, refusal.what)?;
            if let Some(grant) = &refusal.grant {
                writeln!(self.streams.err, "{hint} to allow it: {grant}")?;
            }
        }
        Ok(())
    }

    /// `Attaching to api-1, db-1`, once, as soon as there are instances.
    fn announce(&mut self) -> io::Result<()> {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        if self.announced || !matches!(self.options.lines, Lines::Shown { .. }) {
            return Ok(());
        }
        let attached = snapshot.instances.keys().filter(|name| self.shows(&name.service));
        let mut labels: Vec<String> = attached.map(|name| self.printer.label(name)).collect();
        labels.sort_unstable();
        if labels.is_empty() {
            return Ok(());
        }
        self.announced = true;
        self.step_aside()?;
        writeln!(self.streams.out, "Attaching to {}", labels.join(", "))
    }

    fn shows(&self, service: &ServiceName) -> bool {
        match &self.options.lines {
            Lines::Kept => false,
            Lines::Shown { services, .. } => services.is_empty() || services.contains(service),
        }
    }

    /// Failed steps that no failure tells of.
    fn with_steps(&mut self, failures: &[Failure]) -> Vec<Failure> {
        let mut all = failures.to_vec();
        for (error, failure) in std::mem::take(&mut self.step_failures) {
            if !failures.iter().any(|told| told.message.contains(&error)) {
                all.push(failure);
            }
        }
        all
    }

    fn redraw(&mut self, now: Timestamp) -> io::Result<()> {
        self.draw(now, Extent::Live)
    }

    fn draw(&mut self, now: Timestamp, extent: Extent) -> io::Result<()> {
        if self.options.progress != Shown::Tty || self.progress.rows().len() == 0 {
            return Ok(());
        }
        let title = match self.snapshot.as_ref().map(|snapshot| snapshot.phase) {
            Some(Phase::Stopping | Phase::Stopped) => "Stopping",
            Some(Phase::Starting | Phase::Running) | None => "Running",
        };
        let size = (self.size)();
        let lines = tty::lines(title, &self.progress, now, size, extent);
        (self.last_draw, self.hidden) = (Some(now), false);
        self.block.draw(lines, size, self.options.err, self.streams.err)
    }

    /// Clears the way for a line. The block comes back with the next redraw.
    fn step_aside(&mut self) -> io::Result<()> {
        self.hidden |= self.block.is_drawn();
        self.block.erase((self.size)(), self.streams.err)
    }

    /// Leaves all rows on the screen and forgets them.
    fn release(&mut self, now: Timestamp) -> io::Result<()> {
        self.draw(now, Extent::Whole)?;
        self.block.release();
        self.hidden = false;
        self.progress.clear();
        Ok(())
    }
}

fn exit(code: i64, reason: Option<&str>, suffix: &str) -> String {
    let reason = reason.map(|reason| format!(": {}", text::harmless(reason))).unwrap_or_default();
    format!("exited with code {code}{suffix}{reason}")
}

#[cfg(test)]
mod tests;
