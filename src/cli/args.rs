//! The command line as it is typed, in docker compose's words (conformance/cli.md). The only file that names clap.

mod building;
mod running;

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub use building::Build;
pub use running::{Cp, Exec, Run, Stats, Top};

use crate::compose::print::List;

/// Run compose files whose services are Linux containers, WebAssembly, or both.
#[derive(Debug, Parser)]
#[command(name = "wcompose", disable_version_flag = true, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// Options before the command.
    #[command(flatten)]
    pub root: Root,
    /// The command; none prints the help.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options before the command.
#[derive(Debug, Args)]
pub struct Root {
    /// Compose file; several are merged from left to right, `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<String>,
    /// Project name
    #[arg(short = 'p', long, value_name = "NAME")]
    pub project_name: Option<String>,
    /// Base for relative paths; default: the directory of the first compose file
    #[arg(long, alias = "workdir", value_name = "DIR")]
    pub project_directory: Option<PathBuf>,
    /// Instead of `.env`; later files win
    #[arg(long = "env-file", value_name = "FILE")]
    pub env_files: Vec<String>,
    /// Enable a profile; `*` means all
    #[arg(long = "profile", value_name = "PROFILE")]
    pub profiles: Vec<String>,
    /// When to use control characters
    #[arg(long, value_enum, value_name = "WHEN")]
    pub ansi: Option<Ansi>,
    /// How progress is shown
    #[arg(long, value_enum, value_name = "HOW")]
    pub progress: Option<Progress>,
    /// Keep networks, volumes and the like that no service uses
    #[arg(long)]
    pub all_resources: bool,
    /// Names with `_` in place of `-`, as docker-compose 1 gave them
    #[arg(long)]
    pub compatibility: bool,
    /// For docker compose's sake; has no effect
    #[arg(long, value_name = "N", allow_hyphen_values = true, hide = true)]
    pub parallel: Option<i64>,
    /// For docker compose's sake; there is no more to show
    #[arg(long, hide = true)]
    pub verbose: bool,
    /// Old form of `--ansi never`
    #[arg(long, hide = true)]
    pub no_ansi: bool,
    /// Print what would be done, and do nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Print the version
    #[arg(short = 'v', long = "version", action = ArgAction::SetTrue)]
    pub version: bool,
}

/// `--ansi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ansi {
    /// No control characters.
    Never,
    /// Even without a terminal.
    Always,
    /// On a terminal.
    Auto,
}

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// `tty` on a terminal, else `plain`.
    Auto,
    /// Rows redrawn in place.
    Tty,
    /// A line a change.
    Plain,
    /// A JSON object a change.
    Json,
    /// Nothing.
    Quiet,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create and start services
    Up(Up),
    /// Stop and remove services and networks
    Down(Down),
    /// List services' containers and guests
    Ps(Ps),
    /// Show logs, of containers and guests in one order of time
    Logs(Logs),
    /// Start services that exist stopped
    Start(Services),
    /// Stop services
    Stop(Stop),
    /// Restart services
    Restart(Stop),
    /// Change how many replicas services have
    Scale(Scale),
    /// Watch files, and rebuild, reload or refresh services when they change
    Watch(Watch),
    /// Run something once: in a service's place, or one Wasm image or file without a compose file
    Run(Box<Run>),
    /// Run something beside a running service
    Exec(Exec),
    /// Copy files into and out of services
    Cp(Cp),
    /// Show what services use, live
    Stats(Stats),
    /// Show processes and guests
    Top(Top),
    /// Build images, of containers and of Wasm services, and modules
    Build(Build),
    /// Pull images, of containers and of Wasm services
    Pull(Pull),
    /// Push what is built here
    Push(Push),
    /// List the images of what exists
    Images(Images),
    /// Check and print the project as it is understood
    Config(Config),
    /// Live view of the services
    Ui(Ui),
    /// Manage what wcompose keeps on this machine
    System(System),
    /// Print the version
    Version(Version),
    /// Hold a project's guests; started by `up -d`
    #[command(hide = true)]
    Supervise,
}

/// `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Services; default: all
    pub services: Vec<String>,
    /// Start and return
    #[arg(short, long)]
    pub detach: bool,
    /// Build images first
    #[arg(long, conflicts_with = "no_build")]
    pub build: bool,
    /// Never build
    #[arg(long)]
    pub no_build: bool,
    /// Pull before running
    #[arg(long, value_enum, default_value = "policy", value_name = "WHEN")]
    pub pull: PullWhen,
    /// Do not show what builds write
    #[arg(long)]
    pub quiet_build: bool,
    /// Do not show how far pulls are
    #[arg(long)]
    pub quiet_pull: bool,
    /// Recreate even what did not change
    #[arg(long, conflicts_with = "no_recreate")]
    pub force_recreate: bool,
    /// Never recreate
    #[arg(long)]
    pub no_recreate: bool,
    /// Leave dependencies alone
    #[arg(long)]
    pub no_deps: bool,
    /// Create only
    #[arg(long)]
    pub no_start: bool,
    /// Remove what the file no longer declares
    #[arg(long)]
    pub remove_orphans: bool,
    /// Replicas of a service
    #[arg(long, value_name = "SERVICE=N")]
    pub scale: Vec<String>,
    /// Seconds to wait for services to stop; default: their own grace periods
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Return once services are running or healthy, or did their work (implies -d)
    #[arg(long)]
    pub wait: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS")]
    pub wait_timeout: Option<u64>,
    /// Stop everything when a service ends
    #[arg(long, conflicts_with_all = ["detach", "wait", "abort_on_container_failure"])]
    pub abort_on_container_exit: bool,
    /// Stop everything when a service ends with an exit code other than 0
    #[arg(long, conflicts_with_all = ["detach", "wait"])]
    pub abort_on_container_failure: bool,
    /// End with the exit code of a service (implies --abort-on-container-exit)
    #[arg(long, value_name = "SERVICE", conflicts_with_all = ["detach", "wait", "abort_on_container_failure"])]
    pub exit_code_from: Option<String>,
    /// Show the output of these services alone
    #[arg(long, value_name = "SERVICE", conflicts_with = "attach_dependencies")]
    pub attach: Vec<String>,
    /// Leave out the output of a service
    #[arg(long, value_name = "SERVICE")]
    pub no_attach: Vec<String>,
    /// Also show the output of what the named services depend on
    #[arg(long)]
    pub attach_dependencies: bool,
    /// No colours
    #[arg(long)]
    pub no_color: bool,
    /// No names before log lines
    #[arg(long)]
    pub no_log_prefix: bool,
    /// Time stamps before log lines
    #[arg(long)]
    pub timestamps: bool,
    /// Watch files, and rebuild, reload or refresh services when they change
    #[arg(short, long, conflicts_with_all = ["detach", "wait", "no_start"])]
    pub watch: bool,
    /// Let a Wasm service reach a target outside its networks, for this run
    #[arg(long, value_name = "SERVICE=TARGET")]
    pub allow_egress: Vec<String>,
}

/// `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullWhen {
    /// Each service's own policy.
    Policy,
    /// Always.
    Always,
    /// When an image is missing.
    Missing,
    /// Never.
    Never,
}

/// `down`.
#[derive(Debug, Args)]
pub struct Down {
    /// Services; default: all
    pub services: Vec<String>,
    /// Also the file's named volumes, and anonymous ones
    #[arg(short, long)]
    pub volumes: bool,
    /// Also what the file no longer declares, and one-off containers
    #[arg(long)]
    pub remove_orphans: bool,
    /// Seconds to wait for services to stop; default: their own grace periods
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// `ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Services; default: all
    pub services: Vec<String>,
    /// Also stopped ones
    #[arg(short, long)]
    pub all: bool,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Only names of services
    #[arg(long = "services")]
    pub service_names: bool,
    /// Only these states
    #[arg(long, value_name = "STATE")]
    pub status: Vec<String>,
    /// `table` or `json`
    #[arg(long, default_value = "table")]
    pub format: String,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Services; default: all
    pub services: Vec<String>,
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
    /// At most so many lines of each
    #[arg(short = 'n', long, default_value = "all", value_name = "N")]
    pub tail: String,
    /// Not older than a time (RFC 3339) or an age (`42m`)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Not younger than a time or an age
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Time stamps before lines
    #[arg(short, long)]
    pub timestamps: bool,
    /// No colours
    #[arg(long)]
    pub no_color: bool,
    /// No names before lines
    #[arg(long)]
    pub no_log_prefix: bool,
}

/// A list of services.
#[derive(Debug, Args)]
pub struct Services {
    /// Services; default: all
    pub services: Vec<String>,
}

/// `stop` and `restart`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Services; default: all
    pub services: Vec<String>,
    /// Seconds to wait for services to stop; default: their own grace periods
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// `scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// Services and their numbers of replicas
    #[arg(required = true, value_name = "SERVICE=N")]
    pub replicas: Vec<String>,
    /// Leave dependencies alone
    #[arg(long)]
    pub no_deps: bool,
}

/// `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// Services; default: all
    pub services: Vec<String>,
    /// Do not start services first
    #[arg(long)]
    pub no_up: bool,
    /// Remove images that builds replaced
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub prune: bool,
    /// Hide the output of builds
    #[arg(long)]
    pub quiet: bool,
}

/// `pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// Services; default: all
    pub services: Vec<String>,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Also what the services depend on
    #[arg(long)]
    pub include_deps: bool,
    /// Not what can be built
    #[arg(long)]
    pub ignore_buildable: bool,
    /// Go on where an image cannot be pulled
    #[arg(long)]
    pub ignore_pull_failures: bool,
    /// `missing` or `always`; default: each service's own, else always
    #[arg(long, value_name = "WHEN")]
    pub policy: Option<String>,
    /// For docker compose's sake; has no effect
    #[arg(long, hide = true)]
    pub parallel: bool,
    /// For docker compose's sake; has no effect
    #[arg(long, hide = true)]
    pub no_parallel: bool,
}

/// `push`.
#[derive(Debug, Args)]
pub struct Push {
    /// Services; default: all
    pub services: Vec<String>,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Also what the services depend on
    #[arg(long)]
    pub include_deps: bool,
    /// Go on where an image cannot be pushed
    #[arg(long)]
    pub ignore_push_failures: bool,
}

/// `images`.
#[derive(Debug, Args)]
pub struct Images {
    /// Services; default: all
    pub services: Vec<String>,
    /// `table` or `json`
    #[arg(long, default_value = "table")]
    pub format: String,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// `config`.
#[derive(Debug, Args)]
pub struct Config {
    /// Services; default: all
    pub services: Vec<String>,
    /// Only check
    #[arg(short, long)]
    pub quiet: bool,
    /// `yaml` or `json`
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Write to a file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Names of services, dependencies first
    #[arg(long = "services")]
    pub service_names: bool,
    /// Names of volumes
    #[arg(long)]
    pub volumes: bool,
    /// Names of networks
    #[arg(long)]
    pub networks: bool,
    /// Names of profiles
    #[arg(long)]
    pub profiles: bool,
    /// Names of images
    #[arg(long)]
    pub images: bool,
    /// Names of models
    #[arg(long)]
    pub models: bool,
    /// Config hashes of services: `*` or a comma-separated list
    #[arg(long, value_name = "SERVICES")]
    pub hash: Option<String>,
    /// Variables used, with their defaults
    #[arg(long)]
    pub variables: bool,
    /// Environment used for interpolation
    #[arg(long)]
    pub environment: bool,
    /// Leave variables as written
    #[arg(long)]
    pub no_interpolate: bool,
    /// Leave out normalisation
    #[arg(long)]
    pub no_normalize: bool,
    /// Leave paths as written
    #[arg(long)]
    pub no_path_resolution: bool,
    /// Leave out env files
    #[arg(long)]
    pub no_env_resolution: bool,
    /// Leave out consistency checks
    #[arg(long)]
    pub no_consistency: bool,
    /// Put digests to the images' tags, as their registries have them now
    #[arg(long)]
    pub resolve_image_digests: bool,
    /// Print an override file that holds the images by their digests
    #[arg(long)]
    pub lock_image_digests: bool,
}

impl Config {
    /// The list that is asked for; of several, the one compose prints.
    pub fn list(&self) -> Option<List> {
        let lists = [
            (self.service_names, List::Services),
            (self.volumes, List::Volumes),
            (self.networks, List::Networks),
            (self.models, List::Models),
            (self.profiles, List::Profiles),
            (self.images, List::Images),
        ];
        lists.into_iter().find(|(asked, _)| *asked).map(|(_, list)| list)
    }

    /// The services whose hashes are asked for.
    pub fn hash(&self) -> Option<&str> {
        self.hash.as_deref().filter(|services| !services.is_empty())
    }
}

/// `ui`.
#[derive(Debug, Args)]
pub struct Ui {
    /// Start the project first if it does not run
    #[arg(long)]
    pub up: bool,
}

/// `system`.
#[derive(Debug, Args)]
pub struct System {
    /// What is to be done.
    #[command(subcommand)]
    pub command: SystemCommand,
}

/// The commands of `system`.
#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// Remove compiled modules that no running service uses
    Prune(Prune),
}

/// `system prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Images of Wasm that no running service uses as well, not only what is left of others
    #[arg(short, long)]
    pub all: bool,
    /// Only what was last used before a time: `until=24h`
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// `version`.
#[derive(Debug, Args)]
pub struct Version {
    /// `pretty` or `json`
    #[arg(short, long, default_value = "pretty")]
    pub format: String,
    /// Only the version
    #[arg(long)]
    pub short: bool,
}

/// What the arguments turned out to be.
pub enum Parsed {
    /// A command to run.
    Run(Box<Cli>),
    /// Text for standard output, exit 0: help.
    Print(String),
    /// A wrong command line: text for standard error, exit 1 as compose does (clap's own is 2).
    Wrong(String),
}

/// Reads the process's arguments.
pub fn parse() -> Parsed {
    match Cli::try_parse() {
        Ok(cli) => Parsed::Run(Box::new(cli)),
        Err(error) if error.use_stderr() => Parsed::Wrong(error.render().ansi().to_string()),
        Err(error) => Parsed::Print(error.render().ansi().to_string()),
    }
}

/// The help of the program as a whole.
pub fn help() -> String {
    Cli::command().render_help().ansi().to_string()
}

/// A word of an enumerated option, as an environment variable gives it.
pub fn word<T: ValueEnum>(text: &str) -> Option<T> {
    T::from_str(text, true).ok()
}
