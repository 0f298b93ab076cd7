//! `wcompose watch`, and the watching that `up --watch` does: changed files become commands, one after the other.
//!
//! The files are watched by the command that people run; the supervisor, where there is one, gets commands as from any
//! other shell. What is done for a service is in `acts.rs`; here is who asks, and where it is told.

mod acts;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::acts::Acts;
pub use self::acts::Replaced;
use super::args::Watch as Args;
use super::host::{Host, Use};
use super::known::Stopped;
use super::outcome::{Failure, Outcome};
use super::paths::ProjectPaths;
use super::screen::Screen;
use super::settings::Settings;
use super::target::Target;
use super::up;
use crate::control::client;
use crate::image::kind::wasm_sign;
use crate::model::{Project, ServiceName};
use crate::session::{LogInterest, Request, Session, UpOptions, UpRequest};
use crate::supervisor::signals::Signals;
use crate::view::console::Lines;
use crate::view::{Followed, follow};
use crate::watch::{self, Batch, Rule, Watch, WatchError};

/// Batches that wait while something is done about the one before.
const BATCHES: usize = 64;
/// Messages that wait to be shown.
const MESSAGES: usize = 64;

/// Runs `watch`.
pub async fn watch(settings: Settings, args: Args) -> Outcome {
    let target = Target::find(&settings).await?;
    let services = target.services(&args.services)?;
    let project = target.project.clone().ok_or_else(|| {
        Failure::new(format!("project `{}`: no compose file", target.name), ["name it with `-f`".to_owned()])
    })?;
    let paths = settings.paths.project(&target.name);
    // Before `up`: what changes while it works is not missed.
    let watching = begin(&project, &services)?;
    let request = UpRequest {
        load: settings.load.clone(),
        options: UpOptions { services: services.clone(), ..UpOptions::default() },
    };
    if !args.no_up {
        up::detached(&settings, &project, None, &paths, request.clone()).await?;
    }
    let mut signals = Signals::listen()?;
    let mut shown = settings.clone();
    if args.quiet {
        shown.progress = super::args::Progress::Quiet;
    }
    let (host, mut session) = reach(&settings, &target, &project, &paths, &watching.rules).await?;
    let mut screen = Screen::new(&shown, Lines::Kept);
    let mut console = screen.console(&session)?;
    let replaced = if args.prune { Replaced::Pruned } else { Replaced::Kept };
    let mut watching = watching.commanding(&settings, &project, session.commands.clone(), request, replaced);
    let outcome = loop {
        let happened = async {
            tokio::select! {
                said = watching.said() => Some(said),
                _ = signals.next() => None,
            }
        };
        match follow(&mut session, &mut console, happened).await? {
            Followed::Until(Some(Said::Message(text))) => console.tell(&text, jiff::Timestamp::now())?,
            Followed::Until(Some(Said::Failed(error))) => break Err(failure(&error)),
            Followed::Until(None) => break Err(Failure::Interrupted),
            Followed::Ended => break Err(Failure::new("the project is down: there is nothing left to watch for", [])),
        }
    };
    drop((watching, session));
    if let Some(host) = host {
        host.leave().await;
    }
    outcome
}

/// A session to command by: the supervisor's; without one, containers are commanded from here.
async fn reach(
    settings: &Settings,
    target: &Target,
    project: &Project,
    paths: &ProjectPaths,
    rules: &[Rule],
) -> Result<(Option<Host>, Session), Failure> {
    if let Some(session) = client::connect(&paths.socket, LogInterest::default()).await? {
        return Ok((None, session));
    }
    let guest =
        rules.iter().find(|rule| project.services.get(&rule.service).is_some_and(|one| wasm_sign(one).is_some()));
    if let Some(rule) = guest {
        return Err(Failure::new(
            format!("`{}` does not run, and nobody is there to run it", rule.service),
            ["leave out `--no-up`, or start it with `wcompose up -d`".to_owned()],
        ));
    }
    let host = Host::start(settings, &target.name, paths, None, Use::Once)?;
    let road = host.road();
    target.connect(&road, paths).await?;
    road.know(project, &road.observe().await?, &Stopped::Left).await?;
    let session = host.session(LogInterest::default()).await?;
    Ok((Some(host), session))
}

/// Files under watch, of which nobody was told yet.
pub struct Begun {
    rules: Arc<[Rule]>,
    files: Watch,
}

/// Begins to watch what these services (none: all) want watched.
pub fn begin(project: &Project, services: &[ServiceName]) -> Result<Begun, Failure> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let rules: Arc<[Rule]> = watch::rules(project, services, read).into();
    if rules.is_empty() {
        return Err(Failure::new(
            "none of the selected services is configured for watch",
            ["a service says what is watched in `develop.watch`; a Wasm service of a local module needs nothing"
                .to_owned()],
        ));
    }
    let files = Watch::begin(rules.clone()).map_err(|error| failure(&error))?;
    Ok(Begun { rules, files })
}

/// Why watching cannot go on, with advice.
pub fn failure(error: &WatchError) -> Failure {
    let hint = match error {
        WatchError::TooMany(_) | WatchError::Folder { .. } => {
            Some("leave out what need not be watched (`ignore`), or raise fs.inotify.max_user_watches".to_owned())
        }
        WatchError::System(_) => None,
    };
    Failure::new(error.to_string(), hint)
}

impl Begun {
    /// Lets what changes be acted on, through `commands`. `request` is the `up` the project was started with.
    pub fn commanding(
        self,
        settings: &Settings,
        project: &Project,
        commands: mpsc::Sender<Request>,
        request: UpRequest,
        replaced: Replaced,
    ) -> Watching {
        let Self { rules, mut files } = self;
        let (say, said) = mpsc::channel(MESSAGES);
        let (batches, changed) = mpsc::channel(BATCHES);
        let mut tasks = JoinSet::new();
        let failed = say.clone();
        tasks.spawn(async move {
            loop {
                match files.next().await {
                    Ok(batch) => {
                        if batches.send(batch).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => return drop(failed.send(Said::Failed(error)).await),
                }
            }
        });
        let acts = Acts::new(settings, project, commands, request, say, replaced);
        tasks.spawn(act(acts, rules, changed));
        Watching { said, _tasks: tasks }
    }
}

async fn act(mut acts: Acts, rules: Arc<[Rule]>, mut changed: mpsc::Receiver<Batch>) {
    acts.say("Watch enabled".to_owned()).await;
    acts.begin(&rules).await;
    while let Some(mut batch) = changed.recv().await {
        // What came while something was done is one batch more, not many.
        while let Ok(next) = changed.try_recv() {
            batch.absorb(next);
        }
        acts.act(&rules, &batch).await;
    }
}

/// Watching, with its messages. Dropped, it ends.
pub struct Watching {
    said: mpsc::Receiver<Said>,
    _tasks: JoinSet<()>,
}

/// What watching says.
pub enum Said {
    /// Something for people.
    Message(String),
    /// It cannot go on.
    Failed(WatchError),
}

impl Watching {
    /// The next word; never, once there is nobody left to say one.
    pub async fn said(&mut self) -> Said {
        match self.said.recv().await {
            Some(said) => said,
            None => std::future::pending().await,
        }
    }
}
