//! What `--dry-run` makes of each command.

use super::args::{Command, SystemCommand};

/// What becomes of a command under `--dry-run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// It tells what it would do.
    Told,
    /// It changes nothing anyway.
    Same,
    /// It would change something, and cannot tell what without doing it.
    Refused,
}

/// The rule: no command changes anything.
pub fn dry_run(command: &Command) -> DryRun {
    match command {
        Command::Up(_) | Command::Down(_) | Command::Run(_) | Command::Build(_) => DryRun::Told,
        Command::System(system) => match system.command {
            SystemCommand::Prune(_) => DryRun::Told,
        },
        Command::Ps(_)
        | Command::Logs(_)
        | Command::Stats(_)
        | Command::Top(_)
        | Command::Images(_)
        | Command::Config(_)
        | Command::Version(_) => DryRun::Same,
        Command::Start(_)
        | Command::Stop(_)
        | Command::Restart(_)
        | Command::Scale(_)
        | Command::Watch(_)
        | Command::Exec(_)
        | Command::Cp(_)
        | Command::Pull(_)
        | Command::Push(_)
        | Command::Ui(_)
        | Command::Supervise => DryRun::Refused,
    }
}
