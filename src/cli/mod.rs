//! The command line: arguments in, one operation, an exit code out. The composition root: only here do all layers meet.
//!
//! [`args`] is what is typed, [`settings`] what it means, each command has its file, [`host`] is a supervisor in
//! this process, [`outcome`] says how a command ends.

pub mod args;
pub mod build;
pub mod config;
pub mod container;
pub mod cp;
pub mod detach;
pub mod digests;
pub mod down;
pub mod dry;
pub mod errand;
pub mod exec;
pub mod exits;
pub mod host;
pub mod images;
pub mod known;
pub mod load;
pub mod logs;
pub mod make;
pub mod orders;
pub mod outcome;
pub mod output;
pub mod paths;
pub mod pick;
pub mod prepare;
pub mod ps;
pub mod pull;
pub mod registry;
pub mod remote;
pub mod resolve;
pub mod run;
pub mod scale;
pub mod screen;
pub mod settings;
pub mod source;
pub mod stats;
pub mod streams;
pub mod system;
pub mod target;
pub mod terminal;
pub mod top;
pub mod ui;
pub mod up;
pub mod vacancy;
pub mod version;
pub mod watch;

use std::process::ExitCode;

use args::{Command, Parsed};
use outcome::{Failure, Outcome};
use settings::Settings;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match args::parse() {
        Parsed::Run(cli) => cli,
        Parsed::Print(text) => {
            output::print(&text);
            return ExitCode::SUCCESS;
        }
        Parsed::Wrong(text) => {
            output::complain(&text);
            return ExitCode::FAILURE;
        }
    };
    if cli.root.version {
        output::out(&format!("wcompose version {}", version::VERSION));
        return ExitCode::SUCCESS;
    }
    let Some(command) = cli.command else {
        output::print(&args::help());
        return ExitCode::SUCCESS;
    };
    match run(cli.root, command) {
        Ok(code) => code,
        Err(failure) => {
            output::failure(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn run(root: args::Root, command: Command) -> Outcome {
    match &command {
        Command::Version(args) => return version::version(args),
        Command::Supervise => detach::leave_terminal()?,
        _ => {}
    }
    let settings = Settings::new(root)?;
    if settings.dry_run && dry::dry_run(&command) == dry::DryRun::Refused {
        return Err(Failure::new("this command has no dry run, and was not run", ["leave out `--dry-run`".to_owned()]));
    }
    output::choose(settings.ansi);
    let command = match command {
        Command::Config(args) => return config::config(&settings, &args),
        command => command,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match command {
            Command::System(args) => system::system(&settings, args).await,
            Command::Up(args) => up::up(settings, args).await,
            Command::Down(args) => down::down(settings, args).await,
            Command::Ps(args) => ps::ps(settings, args).await,
            Command::Logs(args) => logs::logs(settings, args).await,
            Command::Start(args) => orders::start(settings, args.services).await,
            Command::Stop(args) => orders::stop(settings, args).await,
            Command::Restart(args) => orders::restart(settings, args).await,
            Command::Scale(args) => scale::scale(settings, args).await,
            Command::Watch(args) => watch::watch(settings, args).await,
            Command::Run(args) => run::run(settings, *args).await,
            Command::Cp(args) => cp::cp(settings, args).await,
            Command::Stats(args) => stats::stats(settings, args).await,
            Command::Top(args) => top::top(settings, args).await,
            Command::Exec(args) => exec::exec(settings, args).await,
            Command::Images(args) => images::images(settings, args).await,
            Command::Build(args) => build::build(settings, args).await,
            Command::Pull(args) => pull::pull(settings, args).await,
            Command::Push(args) => pull::push(settings, args).await,
            Command::Ui(args) => ui::ui(settings, args).await,
            Command::Supervise => host::supervise(settings).await,
            Command::Config(_) | Command::Version(_) => unreachable!("handled without a runtime"),
        }
    });
    runtime.shutdown_background();
    outcome
}
