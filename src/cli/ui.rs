//! `wcompose ui`: the live view of a running project.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use super::args::Ui;
use super::outcome::{Failure, Outcome};
use super::screen;
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
use crate::session::LogInterest;
use crate::view::tui;

/// Runs `ui`.
pub async fn ui(settings: Settings, args: Ui) -> Outcome {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            "`ui` needs a terminal",
            ["`ps` prints the services once, also into a file".to_owned()],
        ));
    }
    let target = Target::find(&settings).await?;
    let paths = settings.paths.project(&target.name);
    let mut session = client::connect(&paths.socket, LogInterest::default()).await?;
    if session.is_none() && args.up {
        super::up::start(&settings).await?;
        session = client::connect(&paths.socket, LogInterest::default()).await?;
    }
    let (palette, _) = screen::palettes(&settings, settings.ansi);
    let session = session.ok_or_else(|| {
        Failure::new(
            format!("project `{}` has no supervisor to look at", target.name),
            ["start it with `wcompose up -d`, or use `wcompose ui --up`".to_owned()],
        )
    })?;
    tui::run(session, palette).await?;
    Ok(ExitCode::SUCCESS)
}
