//! The command line: arguments in, an operation, an exit code out. The composition root: it alone knows every layer.

pub mod detach;
pub mod paths;
