//! Arguments of `build`.

use clap::Args;

/// `build`.
#[derive(Debug, Args)]
pub struct Build {
    /// Services; default: all
    pub services: Vec<String>,
    /// Set a build argument; without a value, the environment's
    #[arg(long = "build-arg", value_name = "KEY=VALUE")]
    pub arguments: Vec<String>,
    /// Build every step anew
    #[arg(long)]
    pub no_cache: bool,
    /// Pull the images that builds begin with, even where they are there
    #[arg(long)]
    pub pull: bool,
    /// Push what was built
    #[arg(long)]
    pub push: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Also what the services depend on
    #[arg(long)]
    pub with_dependencies: bool,
    /// Builder of buildx: only the engine's own is there, `default`
    #[arg(long, value_name = "NAME", hide = true)]
    pub builder: Option<String>,
    /// Only check the build's configuration: not done
    #[arg(long, hide = true)]
    pub check: bool,
    /// Print a file for bake: not done
    #[arg(long, hide = true)]
    pub print: bool,
    /// Hand an SSH agent to builds: not done
    #[arg(long, value_name = "ID", hide = true)]
    pub ssh: Option<String>,
    /// Attest where the image comes from: not done
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    pub provenance: Option<String>,
    /// Attest what is in the image: not done
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    pub sbom: Option<String>,
    /// For docker compose's sake; has no effect, as there
    #[arg(short, long, value_name = "BYTES", hide = true)]
    pub memory: Option<String>,
    /// For docker compose's sake; has no effect
    #[arg(long, hide = true)]
    pub compress: bool,
    /// For docker compose's sake; has no effect
    #[arg(long, hide = true)]
    pub force_rm: bool,
    /// For docker compose's sake; has no effect
    #[arg(long, hide = true)]
    pub no_rm: bool,
    /// For docker compose's sake; has no effect
    #[arg(long, hide = true)]
    pub parallel: bool,
    /// For docker compose's sake; it belongs before the command
    #[arg(long, value_name = "HOW", hide = true)]
    pub progress: Option<String>,
}
