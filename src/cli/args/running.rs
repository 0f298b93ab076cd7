//! Arguments of the commands that work on what runs, or run something once.

use clap::{ArgAction, Args};

use super::PullWhen;

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Service and command; with `--image` the arguments alone
    #[arg(value_name = "SERVICE [COMMAND]", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
    /// Run a Wasm image or `.wasm` file instead of a service, without a compose file
    #[arg(long, value_name = "IMAGE|FILE.wasm")]
    pub image: Option<String>,
    /// Remove the container when it exits
    #[arg(long)]
    pub rm: bool,
    /// Start and return; prints the container's id
    #[arg(short, long)]
    pub detach: bool,
    /// Set a variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_from_file: Vec<String>,
    /// Instead of the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// User name or id
    #[arg(short, long)]
    pub user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Mount a volume or a folder
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET")]
    pub volumes: Vec<String>,
    /// Add a label
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Name of the container
    #[arg(long)]
    pub name: Option<String>,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// Publish a port
    #[arg(short, long, value_name = "HOST:PORT")]
    pub publish: Vec<String>,
    /// Publish the service's own ports
    #[arg(short = 'P', long)]
    pub service_ports: bool,
    /// Join the networks under the service's names as well
    #[arg(long)]
    pub use_aliases: bool,
    /// Leave dependencies alone
    #[arg(long)]
    pub no_deps: bool,
    /// Keep standard input open
    #[arg(short, long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub interactive: bool,
    /// No pseudo terminal
    #[arg(short = 'T', long = "no-TTY", alias = "no-tty")]
    pub no_tty: bool,
    /// For docker compose's sake; a terminal is the default
    #[arg(short = 't', long, hide = true)]
    pub tty: bool,
    /// Build the image first
    #[arg(long)]
    pub build: bool,
    /// Pull before running
    #[arg(long, value_enum, default_value = "policy", value_name = "WHEN")]
    pub pull: PullWhen,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Do not show what builds write
    #[arg(long)]
    pub quiet_build: bool,
    /// Do not show how far pulls are
    #[arg(long)]
    pub quiet_pull: bool,
    /// Remove what the file no longer declares
    #[arg(long)]
    pub remove_orphans: bool,
    /// Let a Wasm guest reach a target outside its networks
    #[arg(long, value_name = "TARGET")]
    pub allow_egress: Vec<String>,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// Service and command; of a Wasm service, an export of its module or a `.wasm` file in it
    #[arg(value_name = "SERVICE COMMAND", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
    /// Start and return
    #[arg(short, long)]
    pub detach: bool,
    /// Set a variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Which replica; default: the lowest number
    #[arg(long, value_name = "N")]
    pub index: Option<u32>,
    /// No pseudo terminal
    #[arg(short = 'T', long = "no-tty", alias = "no-TTY")]
    pub no_tty: bool,
    /// Extra rights
    #[arg(long)]
    pub privileged: bool,
    /// User name or id
    #[arg(short, long)]
    pub user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// For docker compose's sake; input is open by default
    #[arg(short, long, hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub interactive: bool,
    /// For docker compose's sake; a terminal is the default
    #[arg(short, long, hide = true)]
    pub tty: bool,
}

/// `cp`.
#[derive(Debug, Args)]
pub struct Cp {
    /// `SERVICE:PATH`, a path of this machine, or `-` for a tar archive on standard input
    pub source: String,
    /// A path of this machine, `-` for a tar archive on standard output, or `SERVICE:PATH`
    pub destination: String,
    /// Keep owners
    #[arg(short, long)]
    pub archive: bool,
    /// Copy what a symbolic link in the source leads to
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Which replica
    #[arg(long, value_name = "N")]
    pub index: Option<u32>,
    /// Also containers of `run`
    #[arg(long)]
    pub all: bool,
}

/// `stats`.
#[derive(Debug, Args)]
pub struct Stats {
    /// Services; default: all
    pub services: Vec<String>,
    /// Also what does not run
    #[arg(short, long)]
    pub all: bool,
    /// One look, then the end
    #[arg(long)]
    pub no_stream: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    /// `table` or `json`
    #[arg(long, default_value = "table")]
    pub format: String,
}

/// `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Services; default: all
    pub services: Vec<String>,
}
